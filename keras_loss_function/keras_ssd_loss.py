"""The multibox loss of SSD (paper, section 2.2; equations 1 to 3)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_MINING = ("batch", "per_image")


@keras.saving.register_keras_serializable(package="ssd_keras")
class SSDLoss(keras.losses.Loss):
    """Softmax cross-entropy for the classes plus smooth L1 for the boxes, with hard negatives.

    Nearly all anchors of an image are background. If all of them counted, the network would learn
    to say "background" and nothing else. So all *positives* (anchors matched with an object) count,
    but of the *negatives* (background anchors) only those with the highest loss, three for each
    positive: hard negative mining. *Neutral* anchors, whose class vector is all zeros, never count.

        loss = (class loss + alpha * localisation loss) / max(1, number of positives)

    The positives of the whole batch normalise the loss, as in Caffe. Keras averages a loss over the
    images of a batch, hence every image's share is multiplied by the batch size first.

    Everything is computed in float32 under any dtype policy.
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

        Raises:
            ValueError: naming the argument that is not as described.
        """
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if neg_pos_ratio < 0 or n_neg_min < 0 or alpha < 0:
            raise ValueError(
                "`neg_pos_ratio`, `n_neg_min` and `alpha` must not be negative; "
                f"got {neg_pos_ratio}, {n_neg_min} and {alpha}."
            )
        if mining not in _MINING:
            raise ValueError(f"`mining` must be one of {', '.join(_MINING)}; got {mining!r}.")
        self.neg_pos_ratio = neg_pos_ratio
        self.n_neg_min = n_neg_min
        self.alpha = alpha
        self.mining = mining

    def smooth_L1_loss(self, y_true: Any, y_pred: Any) -> Any:  # noqa: N802 (the public name)
        """Compute the localisation loss of every box: smooth L1, summed over four offsets.

        Quadratic near zero, so that small errors pull gently; linear beyond 1, so that a badly
        matched box does not dominate the batch (Fast R-CNN, arXiv:1504.08083, equation 3).

        Arguments:
            y_true: `(..., 4)` true offsets.
            y_pred: `(..., 4)` predicted offsets.

        Returns:
            `(...)` losses.
        """
        error = ops.abs(y_true - y_pred)
        return ops.sum(ops.where(error < 1.0, 0.5 * error * error, error - 0.5), axis=-1)

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
            y_pred: `(batch, n_boxes, n_classes + 12)` raw model output. The last eight columns of
                both (anchors and variances) play no role.

        Returns:
            float32 `(batch,)`: each image's share times the batch size; the mean over the batch is
            the loss of the paper.

        Raises:
            ValueError: if targets and predictions are not of the same shape.
        """
        y_true, y_pred = _float32_pair(y_true, y_pred)
        shares = self._class_shares(y_true, y_pred) + self.alpha * self._box_shares(y_true, y_pred)
        return shares * _weight_of_shares(y_true)

    def classification_loss(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the part of the loss that is about classes: cross-entropy, hard negatives only.

        Arguments: as those of `call`.

        Returns:
            float32 `(batch,)`, in the same unit as `call`, which is this part plus `alpha` times
            the `localization_loss`.
        """
        y_true, y_pred = _float32_pair(y_true, y_pred)
        return self._class_shares(y_true, y_pred) * _weight_of_shares(y_true)

    def localization_loss(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the part of the loss that is about boxes: smooth L1, not multiplied by `alpha`.

        Arguments: as those of `call`.

        Returns:
            float32 `(batch,)`, in the same unit as `call`.
        """
        y_true, y_pred = _float32_pair(y_true, y_pred)
        return self._box_shares(y_true, y_pred) * _weight_of_shares(y_true)

    def _class_shares(self, y_true: Any, y_pred: Any) -> Any:
        """Sum the classification losses of the boxes that count: `(batch,)`."""
        losses = self.log_loss(y_true[..., :-12], y_pred[..., :-12])  # (batch, n_boxes)
        positives = matched_anchors(y_true)
        negatives = y_true[..., 0]  # 1 where an anchor is background
        kept_negatives = ops.stop_gradient(
            self._hard_negatives(losses * negatives, ops.sum(positives, axis=-1))
        )
        return ops.sum(losses * (positives + kept_negatives), axis=-1)

    def _box_shares(self, y_true: Any, y_pred: Any) -> Any:
        """Sum the localisation losses of the positives: `(batch,)`."""
        losses = self.smooth_L1_loss(y_true[..., -12:-8], y_pred[..., -12:-8])
        return ops.sum(losses * matched_anchors(y_true), axis=-1)

    def _hard_negatives(self, negative_losses: Any, positives_per_image: Any) -> Any:
        """Mark the negatives with the highest losses, the first ones among equals.

        Arguments:
            negative_losses: `(batch, n_boxes)`; 0 where an anchor is not a negative.
            positives_per_image: `(batch,)`.

        Returns:
            float32 `(batch, n_boxes)`: 1 for the negatives to keep, else 0.
        """
        shape = ops.shape(negative_losses)
        # Mining ranks the boxes of a "pool": the whole batch, or one image.
        if self.mining == "batch":
            losses = ops.reshape(negative_losses, (1, -1))
            n_positive = ops.sum(positives_per_image, keepdims=True)
        else:
            losses, n_positive = negative_losses, positives_per_image
        wanted = ops.maximum(self.neg_pos_ratio * n_positive, float(self.n_neg_min))
        # A static-shape form of "top k with a k that only the data knows": the k-th largest loss
        # is a threshold; all above it are kept, and of those equal to it the first few.
        available = ops.sum(ops.cast(losses > 0, "float32"), axis=-1)
        k = ops.cast(ops.minimum(wanted, available), "int32")[:, None]  # (pools, 1), whole
        ascending = ops.sort(losses, axis=-1)
        position = ops.clip(ops.shape(losses)[1] - k, 0, ops.shape(losses)[1] - 1)
        threshold = ops.take_along_axis(ascending, position, axis=-1)
        above = losses > threshold
        tied = ops.cast(losses == threshold, "int32")
        room = k - ops.sum(ops.cast(above, "int32"), axis=-1, keepdims=True)
        kept = ops.logical_or(above, ops.logical_and(tied > 0, ops.cumsum(tied, axis=-1) <= room))
        return ops.reshape(ops.cast(kept, "float32"), shape)

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {
            **super().get_config(),
            "neg_pos_ratio": self.neg_pos_ratio,
            "n_neg_min": self.n_neg_min,
            "alpha": self.alpha,
            "mining": self.mining,
            "dtype": self.dtype,
        }


@keras.saving.register_keras_serializable(package="ssd_keras")
class LossOfEachImage:
    """What `SSDLoss.compute_loss` is: a function of `(y_true, y_pred)` that Keras can save.

    A model may be compiled with it. With a bound method it could be, too, but then the saved model
    could not be loaded: Keras does not restore methods, but it does restore objects.
    """

    name = "compute_loss"

    def __init__(self, loss: SSDLoss):
        """Keep the loss whose values this function returns."""
        self.loss = loss

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss of every image of a batch: see `SSDLoss.call`."""
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


def _float32_pair(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    y_true = ops.cast(y_true, "float32")
    y_pred = ops.cast(y_pred, "float32")
    _check_shapes(y_true.shape, y_pred.shape)
    return y_true, y_pred


def _weight_of_shares(y_true: Any) -> Any:
    """Return what makes the mean over a batch the sum of all shares a positive."""
    n_positive = ops.sum(matched_anchors(y_true))
    return ops.cast(ops.shape(y_true)[0], "float32") / ops.maximum(1.0, n_positive)


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
