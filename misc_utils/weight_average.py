"""A moving average of the weights, with any optimizer, on any backend."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


class WeightAverage(keras.callbacks.Callback):
    """Keeps a moving average of a model's weights and shows it to all that comes after an epoch.

    The average over the last steps is nearly always a better detector than the weights after any
    single one, because it leaves out the noise of the last batches. Training goes on with the
    weights themselves; between the end of an epoch and the next one the model has the average, and
    it keeps it when training ends. So put this callback *before* those that save or measure:

        model.fit(..., callbacks=[WeightAverage(), MeanAveragePrecision(...), ModelCheckpoint(...)])

    Validation by `fit` itself (`validation_data`) is before the end of the epoch; it, too, gets the
    average.

    Keras' optimizers can do it, too (`use_ema=True`), and keep the average in saved models, which
    this callback does not: it starts again where training goes on. But theirs starts with the
    weights after one step and takes long to forget them, the model has it only at the end (see
    `misc_utils.training.averaged_weights`), and on JAX a second `fit` fails.

    Batch normalisation keeps its running statistics, which are those of the weights on the way:
    `misc_utils.batch_statistics.BatchStatistics`, put behind this callback, measures those of the
    average.
    """

    def __init__(self, momentum: float = 0.999):
        """Set how far back the average reaches.

        Arguments:
            momentum: Share of the average that a step leaves as it is: about 1 / (1 - momentum)
                steps count. At first it is smaller, (1 + step) / (10 + step), so that the first
                weights are soon forgotten.

        Raises:
            ValueError: if `momentum` is not in [0, 1).
        """
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1); got {momentum}.")
        self.momentum = momentum
        self._averages: list[Any] | None = None
        self._own: list[np.ndarray] | None = None
        self._step = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Start with the weights as they are."""
        variables = self.model.trainable_variables
        self._averages = [keras.ops.copy(_value(variable)) for variable in variables]
        self._own, self._step = None, 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Give the model its own weights back."""
        self._show_own()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Take the step into the average."""
        self._step += 1
        keep = min(self.momentum, (1 + self._step) / (10 + self._step))
        self._averages = [
            keep * average + (1.0 - keep) * _value(variable)
            for average, variable in zip(
                self._averages, self.model.trainable_variables, strict=True
            )
        ]

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Validate with the average."""
        self._show_average()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Give the model the average."""
        self._show_average()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leave the average in the model."""
        self._show_average()
        self._averages = self._own = None

    def _show_average(self) -> None:
        if self._averages is None or self._own is not None:
            return
        variables = self.model.trainable_variables
        self._own = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
        for variable, average in zip(variables, self._averages, strict=True):
            # A copy: JAX gives the memory of a model's weights to the next step.
            variable.assign(np.array(keras.ops.convert_to_numpy(average)))

    def _show_own(self) -> None:
        if self._own is None:
            return
        for variable, value in zip(self.model.trainable_variables, self._own, strict=True):
            variable.assign(value)
        self._own = None


def _value(variable: Any) -> Any:
    # PyTorch would remember for gradients what the average was made of, step after step.
    return keras.ops.stop_gradient(keras.ops.convert_to_tensor(variable))
