"""The multibox loss with focal loss for the classes (arXiv:1708.02002)."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_loss_function.class_values import checked_class_values, value_of_class
from keras_loss_function.keras_ssd_loss import MultiboxLoss, check_not_negative, matched_anchors

_ACTIVATIONS = ("softmax", "sigmoid")
# A power below 1 has no finite slope at 0.
_LEAST_DOUBT = 1e-7


@keras.saving.register_keras_serializable(package="ssd_keras")
class SSDFocalLoss(MultiboxLoss):
    """Focal loss for the classes plus a loss of the boxes, without hard negative mining.

    All anchors count, but each the less the more certain the network is of it already:

        focal loss of an anchor = a * (1 - p)^gamma * -log(p)

    where p is the probability of its true class. At gamma 2 an anchor with p = 0.9 counts a
    hundredth of what it would in a cross-entropy, and so the thousands of easy background anchors
    do not drown the objects. With gamma 0 and no `focal_alpha` this is the cross-entropy of all
    anchors. Neutral anchors never count.

        loss = (class loss + alpha * localisation loss) / max(1, number of positives)

    The network should start with the belief that objects are rare (`misc_utils.prior_bias`); else
    the background makes the first steps very large.

    `SSDLoss` is the loss of the paper. Focal loss is not known to be better for SSD: measure.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        focal_alpha: float | Sequence[float] | None = 0.25,
        class_activation: str = "softmax",
        alpha: float = 1.0,
        box_loss: str = "smooth_l1",
        coords: str = "centroids",
        reduction: str = "sum_over_batch_size",
        name: str = "ssd_focal_loss",
        dtype: str = "float32",
    ):
        """Keep the settings.

        Arguments:
            gamma: How fast certain anchors lose weight; 0: not at all.
            focal_alpha: The factor a above. A number in [0, 1] is that of all objects, and 1 minus
                it that of the background. Or one factor a class, the background first. None is 1.
            class_activation: That of the model. ``'softmax'``: one question an anchor, which class
                it is. ``'sigmoid'``: one a class, yes or no, as in the paper of focal loss; p is
                then the probability of the right answer, and each "no" has the factor of the
                background.
            alpha: Weight of the localisation loss; the alpha of focal loss is `focal_alpha`.
            box_loss: As in `SSDLoss`.
            coords: As in `SSDLoss`.
            reduction: As in every Keras loss.
            name: As in every Keras loss.
            dtype: As in every Keras loss.

        Raises:
            ValueError: naming the argument that is not as described.
        """
        super().__init__(alpha, box_loss, coords, reduction, name, dtype)
        check_not_negative(gamma=gamma)
        if class_activation not in _ACTIVATIONS:
            raise ValueError(
                f"`class_activation` must be one of {', '.join(_ACTIVATIONS)}; got "
                f"{class_activation!r}."
            )
        if isinstance(focal_alpha, numbers.Real):
            if not 0 <= focal_alpha <= 1:
                raise ValueError(
                    f"`focal_alpha`, one number, must be in [0, 1]; got {focal_alpha}."
                )
        else:
            focal_alpha = checked_class_values("focal_alpha", focal_alpha)
        self.gamma = gamma
        self.focal_alpha = focal_alpha
        self.class_activation = class_activation

    def class_shares(self, y_true: Any, y_pred: Any) -> Any:
        """Sum the focal losses of all anchors that are not neutral."""
        classes, scores = y_true[..., :-12], y_pred[..., :-12]
        yes, no = self._factors(classes, matched_anchors(y_true))
        if self.class_activation == "softmax":
            losses = yes * ops.sum(classes * self._focal(scores), axis=-1)
        else:
            counts = ops.sum(classes, axis=-1, keepdims=True)  # 0 for a neutral anchor
            classes, scores = classes[..., 1:], scores[..., 1:]
            right = ops.sum(classes * self._focal(scores), axis=-1)
            wrong = ops.sum((counts - classes) * self._focal(1.0 - scores), axis=-1)
            losses = yes * right + no * wrong
        return ops.sum(losses, axis=-1)

    def _focal(self, probability: Any) -> Any:
        # A probability that underflowed to 0 must not give infinity.
        surprise = -ops.log(ops.maximum(probability, 1e-15))
        return ops.power(ops.maximum(1.0 - probability, _LEAST_DOUBT), self.gamma) * surprise

    def _factors(self, classes: Any, positives: Any) -> tuple[Any, Any]:
        """Return the factor of each anchor's class, and that of the answer "no"."""
        if self.focal_alpha is None:
            return 1.0, 1.0
        if isinstance(self.focal_alpha, list):
            return (
                value_of_class(self.focal_alpha, classes, "focal_alpha"),
                self.focal_alpha[0],
            )
        background = 1.0 - self.focal_alpha
        return self.focal_alpha * positives + background * (1.0 - positives), background

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "focal_alpha": self.focal_alpha,
            "class_activation": self.class_activation,
        }
