"""The multibox loss of SSD (paper, section 2.2; equations 1 to 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bounding_box_utils.bounding_box_utils import check_box_format
from keras_loss_function.box_losses import BOX_LOSSES, box_losses, smooth_l1
from keras_loss_function.class_values import checked_class_values, value_of_class
from keras_loss_function.global_batch import per_positive
from keras_loss_function.hard_negative_mining import MINING, hard_negatives


class MultiboxLoss(keras.losses.Loss):
    """What all losses of SSD share: boxes and classes, weighed, divided by the number of positives.

    A subclass says what the classes of an image cost, `class_shares`, and nothing else.

        loss = (class loss + alpha * localisation loss) / max(1, number of positives)

    The positives of the whole batch normalise the loss, as in Caffe. Keras averages a loss over the
    images of a batch, hence every image's share is multiplied by the batch size first.

    Everything is computed in float32 under any dtype policy.
    """

    def __init__(
        self,
        alpha: float,
        box_loss: str,
        coords: str,
        reduction: str,
        name: str,
        dtype: str,
    ):
        """Keep the settings: see `SSDLoss`."""
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_not_negative(alpha=alpha)
        if box_loss not in BOX_LOSSES:
            raise ValueError(
                f"`box_loss` must be one of {', '.join(BOX_LOSSES)}; got {box_loss!r}."
            )
        check_box_format(coords)
        self.alpha = alpha
        self.box_loss = box_loss
        self.coords = coords

    def class_shares(self, y_true: Any, y_pred: Any) -> Any:
        """Sum the classification losses of the anchors that count.

        Arguments:
            y_true: float32 `(batch, n_boxes, n_classes + 12)` targets.
            y_pred: float32 `(batch, n_boxes, n_classes + 12)` raw model output.

        Returns:
            float32 `(batch,)`, not divided by anything.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `class_shares`.")

    def box_shares(self, y_true: Any, y_pred: Any) -> Any:
        """Sum the localisation losses of the positives: as `class_shares`."""
        losses = box_losses(self.box_loss, y_true[..., -12:], y_pred[..., -12:], self.coords)
        return ops.sum(losses * matched_anchors(y_true), axis=-1)

    def smooth_L1_loss(self, y_true: Any, y_pred: Any) -> Any:  # noqa: N802 (the public name)
        """Compute smooth L1, summed over the four offsets of each box: see `smooth_l1`."""
        return smooth_l1(y_true, y_pred)

    def log_loss(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the classification loss of every box: the cross-entropy.

        Arguments:
            y_true: `(..., n_classes)` one-hot classes, or all zeros.
            y_pred: `(..., n_classes)` class probabilities, after the softmax.

        Returns:
            `(...)` losses.
        """
        # A probability that underflowed to 0 must not give infinity.
        return -ops.sum(ops.multiply(y_true, ops.log(ops.maximum(y_pred, 1e-15))), axis=-1)

    @property
    def compute_loss(self) -> LossOfEachImage:
        """The function `call`, in a form that Keras can save with a compiled model."""
        return LossOfEachImage(self)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss of every image of a batch.

        Arguments:
            y_true: `(batch, n_boxes, n_classes + 12)` targets of an `SSDInputEncoder`.
            y_pred: `(batch, n_boxes, n_classes + 12)` raw model output. Its last eight columns
                (anchors and variances) play no role; those of the targets only for losses of the
                IoU family.

        Returns:
            float32 `(batch,)`: each image's share times the batch size; the mean over the batch is
            the loss of the paper.

        Raises:
            ValueError: if targets and predictions are not of the same shape.
        """
        y_true, y_pred = _float32_pair(y_true, y_pred)
        shares = self.class_shares(y_true, y_pred) + self.alpha * self.box_shares(y_true, y_pred)
        return _per_positive(shares, y_true)

    def classification_loss(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the part of the loss that is about classes.

        Arguments: as those of `call`.

        Returns:
            float32 `(batch,)`, in the same unit as `call`, which is this part plus `alpha` times
            the `localization_loss`.
        """
        y_true, y_pred = _float32_pair(y_true, y_pred)
        return _per_positive(self.class_shares(y_true, y_pred), y_true)

    def localization_loss(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the part of the loss that is about boxes, not multiplied by `alpha`.

        Arguments: as those of `call`.

        Returns:
            float32 `(batch,)`, in the same unit as `call`.
        """
        y_true, y_pred = _float32_pair(y_true, y_pred)
        return _per_positive(self.box_shares(y_true, y_pred), y_true)

    def get_config(self) -> dict:
        """Return the constructor arguments that all of these losses have."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "box_loss": self.box_loss,
            "coords": self.coords,
            "dtype": self.dtype,
        }


@keras.saving.register_keras_serializable(package="ssd_keras")
class SSDLoss(MultiboxLoss):
    """Softmax cross-entropy for the classes plus smooth L1 for the boxes, with hard negatives.

    Nearly all anchors of an image are background. If all of them counted, the network would learn
    to say "background" and nothing else. So all *positives* (anchors matched with an object) count,
    but of the *negatives* (background anchors) only those with the highest loss, three for each
    positive: hard negative mining. *Neutral* anchors, whose class vector is all zeros, never count.

        loss = (class loss + alpha * localisation loss) / max(1, number of positives)

    See `MultiboxLoss` for how that fits into Keras.

    Example:
        >>> import numpy as np
        >>> from keras_loss_function.keras_ssd_loss import SSDLoss
        >>> from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
        >>> encoder = SSDInputEncoder(100, 200, n_classes=2, predictor_sizes=[(6, 12), (3, 6)])
        >>> targets = encoder([np.array([[2, 20, 30, 60, 80]])])
        >>> loss, predictions = SSDLoss(alpha=1.0), targets.copy()
        >>> float(loss(targets, predictions))  # a perfect prediction
        0.0
        >>> predictions[..., -12] += 1  # every box one unit to the right: smooth L1 gives 1 - 0.5
        >>> float(loss(targets, predictions))
        0.5
    """

    def __init__(
        self,
        neg_pos_ratio: float = 3,
        n_neg_min: int = 0,
        alpha: float = 1.0,
        mining: str = "batch",
        reduction: str = "sum_over_batch_size",
        name: str = "ssd_loss",
        dtype: str = "float32",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        box_loss: str = "smooth_l1",
        coords: str = "centroids",
    ):
        """Keep the settings.

        Arguments:
            neg_pos_ratio: Largest number of negatives a positive.
            n_neg_min: Number of negatives to keep at least (of the batch, or of every image with
                `mining='per_image'`), also where there is no positive at all.
            alpha: Weight of the localisation loss.
            mining: ``'batch'``: the hardest negatives of the whole batch. ``'per_image'``: Caffe's
                rule, each image's own hardest negatives, in proportion to its own positives.
            reduction: As in every Keras loss.
            name: As in every Keras loss.
            dtype: As in every Keras loss.
            class_weights: One factor a class, the background first, for the classification loss of
                the anchors of that class; None is 1 for all. Which negatives are hard, and by what
                the loss is divided, does not depend on it.
            label_smoothing: Share in [0, 1) of a positive's class that is spread evenly over all
                classes, the background among them. Negatives stay certain: there are hundreds of
                them for each positive, and all would learn to score each class a little.
            box_loss: ``'smooth_l1'``, the paper's, or one of the IoU family: ``'giou'``,
                ``'diou'``, ``'ciou'``. See `keras_loss_function.box_losses`, also for their scale.
            coords: The model's box format, which only the IoU family needs to know.

        Raises:
            ValueError: naming the argument that is not as described.
        """
        super().__init__(alpha, box_loss, coords, reduction, name, dtype)
        check_not_negative(neg_pos_ratio=neg_pos_ratio, n_neg_min=n_neg_min)
        if mining not in MINING:
            raise ValueError(f"`mining` must be one of {', '.join(MINING)}; got {mining!r}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be in [0, 1); got {label_smoothing}.")
        self.neg_pos_ratio = neg_pos_ratio
        self.n_neg_min = n_neg_min
        self.mining = mining
        self.class_weights = checked_class_values("class_weights", class_weights)
        self.label_smoothing = label_smoothing

    def class_shares(self, y_true: Any, y_pred: Any) -> Any:
        """Sum the cross-entropies of the positives and of the hard negatives."""
        classes, scores = y_true[..., :-12], y_pred[..., :-12]
        losses = self.log_loss(classes, scores)  # (batch, n_boxes)
        positives = matched_anchors(y_true)
        negatives = classes[..., 0]  # 1 where an anchor is background
        kept_negatives = hard_negatives(
            ops.stop_gradient(losses * negatives),
            ops.sum(positives, axis=-1),
            self.neg_pos_ratio,
            self.n_neg_min,
            self.mining,
        )
        if self.label_smoothing:
            of_any_class = self.log_loss(ops.ones_like(scores), scores) / scores.shape[-1]
            share = self.label_smoothing * positives
            losses = (1.0 - share) * losses + share * of_any_class
        if self.class_weights is not None:
            losses = losses * value_of_class(self.class_weights, classes, "class_weights")
        return ops.sum(losses * (positives + kept_negatives), axis=-1)

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {
            **super().get_config(),
            "neg_pos_ratio": self.neg_pos_ratio,
            "n_neg_min": self.n_neg_min,
            "mining": self.mining,
            "class_weights": self.class_weights,
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable(package="ssd_keras")
class LossOfEachImage:
    """What `compute_loss` of a loss is: a function of `(y_true, y_pred)` that Keras can save.

    A model may be compiled with it. With a bound method it could be, too, but then the saved model
    could not be loaded: Keras does not restore methods, but it does restore objects.
    """

    name = "compute_loss"

    def __init__(self, loss: MultiboxLoss):
        """Keep the loss whose values this function returns."""
        self.loss = loss

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss of every image of a batch: see `MultiboxLoss.call`."""
        return self.loss.call(y_true, y_pred)

    def get_config(self) -> dict:
        """Return the constructor argument."""
        return {"loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict) -> LossOfEachImage:
        """Make the function from what `get_config` returned."""
        return cls(keras.saving.deserialize_keras_object(config["loss"]))


def matched_anchors(y_true: Any) -> Any:
    """Mark the positives: the anchors that are matched with an object.

    Arguments:
        y_true: `(batch, n_boxes, n_classes + 12)` targets of an `SSDInputEncoder`.

    Returns:
        `(batch, n_boxes)`: 1 for the positives, 0 for negatives and neutral anchors.
    """
    return ops.max(y_true[..., 1:-12], axis=-1)


def check_not_negative(**arguments: float) -> None:
    """Raise a ValueError that names the first argument that is not a number of at least 0."""
    for name, value in arguments.items():
        try:
            is_valid = 0 <= value < math.inf
        except TypeError:  # None, or a text
            is_valid = False
        if not is_valid:
            raise ValueError(f"`{name}` must be a number that is not negative; got {value!r}.")


def _float32_pair(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    y_true = ops.cast(y_true, "float32")
    y_pred = ops.cast(y_pred, "float32")
    _check_shapes(y_true.shape, y_pred.shape)
    return y_true, y_pred


def _per_positive(shares: Any, y_true: Any) -> Any:
    """Make the mean over the batch the sum of all shares for each positive."""
    return per_positive(shares, ops.sum(matched_anchors(y_true), axis=-1))


def _check_shapes(targets: tuple, predictions: tuple) -> None:
    """Refuse shapes that cannot belong together, as far as they are known (None is not)."""
    fits = len(targets) == len(predictions) == 3 and all(
        None in (target, prediction) or target == prediction
        for target, prediction in zip(targets, predictions, strict=True)
    )
    if not fits:
        raise ValueError(
            "Targets and predictions must both have the shape (batch, n_boxes, n_classes + 12); "
            f"got {tuple(targets)} and {tuple(predictions)}. Make the encoder from the model, "
            "SSDInputEncoder.from_model(model), and train a model built with mode='training'."
        )
