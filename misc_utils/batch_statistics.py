"""Statistics of batch normalisation that fit the weights: measured, instead of averaged on the way.

In training, batch normalisation takes the mean and the variance of the batch; afterwards it takes
running averages of them. These lag behind the weights. A step leaves a share of `momentum` as it
was, so they know little but their initial values until some 5 / (1 - momentum) steps are done: 500
with Keras' default of 0.99, 5,000 with the 0.999 of `keras.applications.MobileNetV2`. A network
that learned well then finds nothing, though its training loss is small. And they never belong to
an average of the weights (`WeightAverage`, `use_ema=True`), which no batch has passed through.

The cure is to measure them on a few dozen training batches before the model is used ("Precise
BatchNorm", arXiv:2105.07576, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import keras
import numpy as np

from misc_utils.random_states import random_states, restore_random_states


def measure_batch_statistics(
    model: keras.Model, batches: Iterable[Any], n_batches: int | None = 50
) -> int:
    """Give batch normalisation the statistics that the model's weights have on some batches.

        batches = train.generate(8, transformations=augmentation, returns={"processed_images"})
        measure_batch_statistics(model, batches)

    The mean of a channel becomes that of all batches, the variance that of all their values: the
    mean of the variances within the batches plus the variance of their means. Layers that are not
    trained (`freeze`) keep the statistics they have. Nothing else in the model changes.

    Arguments:
        model: A model in any mode, compiled or not.
        batches: Images as in training, augmentation included: arrays `(batch, height, width,
            channels)` of one shape, or tuples or lists that begin with one. Not the data set that
            training goes on with, which would lack the batches that are taken here.
        n_batches: How many to take at most. None takes all, which must come to an end.

    Returns:
        The number of layers that got statistics. If there are none, no batch is taken.

    Raises:
        ValueError: if there is no batch, or if statistics are not finite; the layer is named. The
            model keeps those it had, as it does if making a batch fails.
    """
    layers = [layer for layer in _all_layers(model) if _is_trained_normalisation(layer)]
    if not layers:
        return 0
    sums = [np.zeros((3, *layer.moving_mean.shape)) for layer in layers]
    n = 0
    with _own_state_kept(model, layers), _only_last_batch_counting(layers):
        in_training = _InTraining(model)
        for batch in islice(batches, n_batches):
            in_training.predict_on_batch(batch[0] if isinstance(batch, tuple | list) else batch)
            for layer, total in zip(layers, sums, strict=True):
                mean, variance = _statistics(layer)
                total += mean, np.square(mean), variance
            n += 1
    if n == 0:
        raise ValueError("Measuring the statistics of batch normalisation takes a batch at least.")
    results = []
    for layer, total in zip(layers, sums, strict=True):
        mean, mean_square, variance = total / n
        results.append((mean, variance + np.maximum(mean_square - np.square(mean), 0.0)))
        if not np.isfinite(results[-1]).all():
            raise ValueError(
                f"The statistics of layer '{layer.name}' are not finite. Are the model's weights? "
                "Statistics are left as they were."
            )
    for layer, result in zip(layers, results, strict=True):
        _set_statistics(layer, result)
    return len(layers)


class BatchStatistics(keras.callbacks.Callback):
    """Measures the statistics of batch normalisation at the end of every epoch.

    For all that comes after it in the list of callbacks, and for the model when training ends:

        batches = train.generate(8, transformations=augmentation, returns={"processed_images"})
        callbacks = [WeightAverage(), BatchStatistics(batches), MeanAveragePrecision(...)]

    Validation by `fit` itself (`validation_data`) comes before the end of the epoch, so it has the
    running averages.
    """

    def __init__(self, batches: Iterable[Any], n_batches: int = 50):
        """Say on what to measure.

        Arguments:
            batches: As for `measure_batch_statistics`. Each epoch takes the next ones of a
                generator, or the first ones of a list.
            n_batches: How many of them.
        """
        super().__init__()
        self._batches = batches
        self._n_batches = n_batches

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measure."""
        measure_batch_statistics(self.model, self._batches, self._n_batches)


class _InTraining(keras.Model):
    """A model that works as in training, whatever it is used for."""

    def __init__(self, model: keras.Model):
        super().__init__(name="in_training")
        self._model = model

    def call(self, images: Any) -> Any:
        return self._model(images, training=True)


def _all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)
        else:
            yield layer


def _is_trained_normalisation(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


@contextmanager
def _own_state_kept(model: keras.Model, layers: Sequence[Any]) -> Iterator[None]:
    """Undo what passing batches through a model leaves in it."""
    states = random_states(model)
    statistics = [_statistics(layer) for layer in layers]
    try:
        yield
    finally:
        restore_random_states(model, states)
        for layer, own in zip(layers, statistics, strict=True):
            _set_statistics(layer, own)


@contextmanager
def _only_last_batch_counting(layers: Sequence[Any]) -> Iterator[None]:
    """Make running averages those of the last batch alone: in functions that are compiled here."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _statistics(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean, variance), copies."""
    return tuple(
        np.array(keras.ops.convert_to_numpy(variable), np.float64)
        for variable in (layer.moving_mean, layer.moving_variance)
    )


def _set_statistics(layer: Any, statistics: Sequence[np.ndarray]) -> None:
    for variable, value in zip((layer.moving_mean, layer.moving_variance), statistics, strict=True):
        variable.assign(value)
