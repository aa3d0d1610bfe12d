"""Metrics that say what the multibox loss consists of.

    loss = SSDLoss(alpha=1.0)
    model.compile(optimizer, loss=loss, metrics=loss_metrics(loss))

Then `fit` and `evaluate` report, beside `loss`, also `classification_loss`, `localization_loss` and
`n_positive`, and of validation data the same with `val_` before it. At the end of an epoch

    loss = classification_loss + alpha * localization_loss + regularisation

also if the last batch is smaller than the others: metrics, like the loss, average over images.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_loss_function.keras_ssd_loss import MultiboxLoss, SSDLoss, matched_anchors


def loss_metrics(loss: MultiboxLoss) -> list[keras.metrics.Metric]:
    """Make the metrics that take a loss apart.

    Arguments:
        loss: The loss that the model is compiled with: `SSDLoss`, `SSDFocalLoss` or one's own.

    Returns:
        New metrics for the argument `metrics` of `model.compile`.
    """
    return [ClassificationLoss(loss), LocalizationLoss(loss), NumberOfPositives()]


class _LossPart(keras.metrics.Mean):
    """The mean of a value of each image that a `MultiboxLoss` computes."""

    def __init__(self, loss: MultiboxLoss | None, name: str, dtype: Any):
        super().__init__(name=name, dtype=dtype)
        loss = SSDLoss() if loss is None else loss
        if not isinstance(loss, MultiboxLoss):
            raise ValueError(
                f"`{name}` takes an SSDLoss apart; got {loss!r}. Give the metric the loss that the "
                "model is compiled with (of `loss.compute_loss` it is `loss`)."
            )
        self.loss = loss

    def _add(self, values: Any, sample_weight: Any) -> None:
        if sample_weight is not None:
            # Keras divides a loss by the number of images, not by the sum of their weights.
            values = values * ops.cast(sample_weight, values.dtype)
        super().update_state(values)

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        loss = keras.saving.serialize_keras_object(self.loss)
        return {"loss": loss, "name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict) -> _LossPart:
        """Make the metric from what `get_config` returned."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


@keras.saving.register_keras_serializable(package="ssd_keras")
class ClassificationLoss(_LossPart):
    """The mean classification loss: see `MultiboxLoss.classification_loss`."""

    def __init__(
        self, loss: MultiboxLoss | None = None, name: str = "classification_loss", dtype: Any = None
    ):
        """Keep the loss.

        Arguments:
            loss: The loss to take apart; None: an `SSDLoss` with its defaults.
            name: As in every Keras metric.
            dtype: As in every Keras metric.

        Raises:
            ValueError: if `loss` is no `MultiboxLoss`.
        """
        super().__init__(loss, name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Arguments:
            y_true: `(batch, n_boxes, n_classes + 12)` targets.
            y_pred: `(batch, n_boxes, n_classes + 12)` raw model output.
            sample_weight: `(batch,)` weights of the images, or None.
        """
        self._add(self.loss.classification_loss(y_true, y_pred), sample_weight)


@keras.saving.register_keras_serializable(package="ssd_keras")
class LocalizationLoss(_LossPart):
    """The mean localisation loss, not multiplied by alpha: see `MultiboxLoss.localization_loss`."""

    def __init__(
        self, loss: MultiboxLoss | None = None, name: str = "localization_loss", dtype: Any = None
    ):
        """Keep the loss: see `ClassificationLoss`."""
        super().__init__(loss, name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: see `ClassificationLoss.update_state`."""
        self._add(self.loss.localization_loss(y_true, y_pred), sample_weight)


@keras.saving.register_keras_serializable(package="ssd_keras")
class NumberOfPositives(keras.metrics.Mean):
    """The mean number of positives an image: anchors that are matched with an object.

    It says how much there is to learn from. Near zero, the anchors do not suit the objects, or the
    augmentation cuts them away; the loss, which is divided by this number, does not show it.
    """

    def __init__(self, name: str = "n_positive", dtype: Any = None):
        """Start at zero.

        Arguments:
            name: As in every Keras metric.
            dtype: As in every Keras metric.
        """
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any = None, sample_weight: Any = None) -> None:
        """Add a batch.

        Arguments:
            y_true: `(batch, n_boxes, n_classes + 12)` targets.
            y_pred: Plays no role.
            sample_weight: Plays no role: an anchor is matched or not.
        """
        y_true = ops.cast(y_true, "float32")
        super().update_state(ops.sum(matched_anchors(y_true), axis=-1))
