"""The moving average of the weights: its values, who sees it when, and that training goes on."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from misc_utils.fine_tuning import LearningRateMultipliers
from misc_utils.weight_average import WeightAverage

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(8, 1)).astype(np.float32)


def make_model(optimizer: keras.optimizers.Optimizer | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, name="a")(inputs))
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss="mse")
    return model


def fit(model: keras.Model, *callbacks, epochs: int = 3, **arguments) -> keras.callbacks.History:
    return model.fit(
        X, Y, batch_size=2, shuffle=False, epochs=epochs, verbose=0, callbacks=[*callbacks],
        **arguments,
    )  # fmt: skip


class Kernels(keras.callbacks.Callback):
    """Notes the kernel after each step and after each epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.model.get_weights()[0])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.model.get_weights()[0])


@pytest.mark.parametrize("momentum", [0.9, 0.25, 0])
def test_the_average_by_hand_and_training_as_without_it(momentum):
    model, without = make_model(), Kernels()
    average = model.get_weights()[0]
    fit(model, without)
    expected = []
    for step, kernel in enumerate(without.steps, start=1):
        keep = min(momentum, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * kernel
        expected.append(average)

    model, seen = make_model(), Kernels()
    fit(model, WeightAverage(momentum), seen)
    np.testing.assert_allclose(seen.steps, without.steps, rtol=1e-5, atol=1e-6)
    # Those who come after it see the average at the end of each epoch of four steps ...
    np.testing.assert_allclose(seen.epochs, expected[3::4], rtol=1e-5, atol=1e-6)
    # ... and it is what training leaves behind.
    np.testing.assert_allclose(model.get_weights()[0], expected[-1], rtol=1e-5, atol=1e-6)


def test_validation_is_of_the_average():
    model = make_model()
    history = fit(model, WeightAverage(0.9), validation_data=(X, Y)).history
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), history["val_loss"][-1], rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.1),
        lambda: LearningRateMultipliers(keras.optimizers.SGD(0.1, momentum=0.9), {"*/bias": 2}),
        # Keras' own average: with its optimizers alone, a second fit fails on JAX.
        lambda: LearningRateMultipliers(keras.optimizers.SGD(0.1, use_ema=True), {"*/bias": 2}),
    ],
)
def test_training_may_go_on(make):
    model = make_model(make())
    for _ in range(3):
        fit(model, WeightAverage(0.9), epochs=1)
    assert np.isfinite(model.get_weights()[0]).all()


@pytest.mark.parametrize("momentum", [-0.1, 1, float("nan")])
def test_senseless_momenta_are_refused(momentum):
    with pytest.raises(ValueError, match=f"`momentum`.*got {momentum}"):
        WeightAverage(momentum)
