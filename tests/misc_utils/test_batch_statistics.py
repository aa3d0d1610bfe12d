"""Measured statistics of batch normalisation: their values, and that nothing else changes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_layers.batch_normalization import BatchNormalization
from misc_utils.batch_statistics import BatchStatistics, measure_batch_statistics
from misc_utils.random_states import random_states
from models.keras_ssd7 import build_model

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (12, 5, 4, 3)).astype(np.float32) * np.float32([1, 10, 0.1])
Y = RNG.normal(size=(12, 1)).astype(np.float32)


def make_model(*more: keras.layers.Layer, kind: type = BatchNormalization) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = x = keras.Input((5, 4, 3))
    for layer in [
        kind(momentum=0.999, name="first"),
        *more,
        keras.layers.Conv2D(4, 3, name="conv"),
        kind(momentum=0.999, name="second"),
        keras.layers.Flatten(),
        keras.layers.Dense(1),
    ]:
        x = layer(x)
    return keras.Model(image, x)


def statistics(model: keras.Model, name: str) -> list[np.ndarray]:
    layer = model.get_layer(name)
    return [keras.ops.convert_to_numpy(v) for v in (layer.moving_mean, layer.moving_variance)]


@pytest.mark.parametrize("kind", [BatchNormalization, keras.layers.BatchNormalization])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, Y[: len(x)]), lambda x: [x]])
def test_they_are_those_of_all_values_together(kind, wrap):
    model = make_model(kind=kind)
    assert measure_batch_statistics(model, [wrap(X[:4]), wrap(X[4:8]), wrap(X[8:])]) == 2
    mean, variance = statistics(model, "first")
    np.testing.assert_allclose(mean, X.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, X.var((0, 1, 2)), rtol=1e-5)


def test_with_one_batch_inference_is_what_training_is():
    model = make_model()
    in_training = keras.ops.convert_to_numpy(model(X, training=True))
    assert np.abs(model.predict(X, verbose=0) - in_training).max() > 0.1  # running averages lag
    measure_batch_statistics(model, [X])
    np.testing.assert_allclose(model.predict(X, verbose=0), in_training, rtol=1e-4, atol=1e-4)


def test_nothing_else_changes():
    model = make_model(keras.layers.Dropout(0.5))
    model.compile("sgd", loss="mse")
    names = {
        f"{layer}/moving_{each}" for layer in ("first", "second") for each in ("mean", "variance")
    }
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.variables}
    states = random_states(model)
    measure_batch_statistics(model, [X])
    assert random_states(model) == states
    assert {
        v.path for v in model.variables if (keras.ops.convert_to_numpy(v) != before[v.path]).any()
    } == names
    assert model.get_layer("first").momentum == 0.999
    # Training goes on with running averages.
    measured, _ = statistics(model, "first")
    model.fit(X[:4], Y[:4], batch_size=4, verbose=0)
    expected = 0.999 * measured + 0.001 * X[:4].mean((0, 1, 2))
    np.testing.assert_allclose(statistics(model, "first")[0], expected, rtol=1e-5)


def test_layers_that_are_not_trained_keep_theirs():
    model = make_model()
    model.get_layer("first").trainable = False
    assert measure_batch_statistics(model, [X]) == 1
    mean, variance = statistics(model, "first")
    assert (mean == 0).all()
    assert (variance == 1).all()
    assert (statistics(model, "second")[0] != 0).all()


def test_models_within_models():
    inner = make_model()
    image = keras.Input((5, 4, 3))
    outer = keras.Model(image, keras.layers.Dense(1)(inner(image)))
    assert measure_batch_statistics(outer, [X]) == 2
    np.testing.assert_allclose(statistics(inner, "first")[0], X.mean((0, 1, 2)), rtol=1e-5)


def test_as_many_batches_as_asked_for():
    batches = iter([X[:4], X[4:8], X[8:]])
    model = make_model()
    measure_batch_statistics(model, batches, n_batches=2)
    np.testing.assert_allclose(statistics(model, "first")[0], X[:8].mean((0, 1, 2)), rtol=1e-5)
    measure_batch_statistics(model, batches, n_batches=None)
    np.testing.assert_allclose(statistics(model, "first")[0], X[8:].mean((0, 1, 2)), rtol=1e-5)


def test_without_normalisation_no_batch_is_taken():
    image = keras.Input((5, 4, 3))
    batches = iter([X])
    assert measure_batch_statistics(keras.Model(image, keras.layers.Flatten()(image)), batches) == 0
    assert next(batches) is X


def failing_batches():
    yield X
    raise OSError("no such image")


@pytest.mark.parametrize(
    ("batches", "error", "text"),
    [
        ([], ValueError, "takes a batch at least"),
        (failing_batches(), OSError, "no such image"),
        ([X, X * np.float32(np.nan)], ValueError, "layer 'first' are not finite"),
    ],
)
def test_after_an_error_they_are_as_before(batches, error, text):
    model = make_model()
    measure_batch_statistics(model, [X[:3]])
    before = model.get_weights()
    with pytest.raises(error, match=text):
        measure_batch_statistics(model, batches)
    for value, own in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, own)
    assert model.get_layer("first").momentum == 0.999


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_detectors_in_every_mode(mode):
    images = RNG.integers(0, 256, (4, 64, 96, 3)).astype(np.float32)
    model = build_model((64, 96, 3), 2, mode, subtract_mean=127.5, divide_by_stddev=127.5)
    assert measure_batch_statistics(model, [images]) == 7
    assert all((layer != 0).all() for layer in statistics(model, "bn7"))


class Seen(keras.callbacks.Callback):
    """Notes the first layer's mean at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.means = []

    def on_epoch_end(self, epoch, logs=None):
        self.means.append(statistics(self.model, "first")[0])


def test_the_callback_measures_for_those_behind_it_and_leaves_training_as_it_is():
    histories = []
    for callbacks in ([], [BatchStatistics([X[:4], X[4:]], n_batches=1), seen := Seen()]):
        model = make_model()
        model.compile("sgd", loss="mse")
        history = model.fit(
            X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=callbacks
        )
        histories.append(history.history["loss"])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-6)
    np.testing.assert_allclose(seen.means, [X[:4].mean((0, 1, 2))] * 3, rtol=1e-5)
