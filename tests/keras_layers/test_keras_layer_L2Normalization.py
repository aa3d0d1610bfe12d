"""The normalisation layer: recorded values, zeros, half precision, gradients, names."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_layers.keras_layer_L2Normalization import L2Normalization


def slow_normalization(x: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Normalise pixel by pixel in float64."""
    result = np.zeros(x.shape)
    for pixel in np.ndindex(x.shape[:-1]):
        length = np.sqrt(max(sum(float(value) ** 2 for value in x[pixel]), 1e-12))
        result[pixel] = gamma * x[pixel] / length
    return result


def test_recorded_values(golden):
    recorded = golden("anchor_l2_layers")
    cases = [case for case in recorded.info["cases"] if case["cls"] == "L2Normalization"]
    for case in cases:
        layer = L2Normalization(**case["kwargs"])
        x = recorded.arrays[case["input"]]
        expected = recorded.arrays[case["output"]]
        np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, rtol=1e-5)
        gamma, expected = (recorded.arrays[name] for name in case["with_gamma"])
        layer.set_weights([gamma])
        np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, rtol=1e-5)
        assert len(layer.weights) == case["n_weights"]
        assert layer.gamma_init == case["kwargs"]["gamma_init"]
    assert len(cases) == 2


def test_values_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 100, (2, 3, 4, 6)).astype(np.float32)
    gamma = rng.uniform(1, 30, 6).astype(np.float32)
    layer = L2Normalization()
    layer.build(x.shape)
    layer.set_weights([gamma])
    made = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(made, slow_normalization(x, gamma), rtol=1e-5)
    lengths = np.linalg.norm(made / gamma, axis=-1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_an_all_zero_pixel_stays_zero():
    x = np.ones((1, 2, 2, 5), np.float32)
    x[0, 0, 1] = 0
    made = ops.convert_to_numpy(L2Normalization()(x))
    np.testing.assert_array_equal(made[0, 0, 1], 0)
    np.testing.assert_allclose(made[0, 0, 0], 20 / np.sqrt(5), rtol=1e-6)


def test_name_and_start_of_the_weight():
    layer = L2Normalization(gamma_init=10, name="conv4_3_norm")
    layer.build((None, None, None, 512))
    (gamma,) = layer.trainable_weights
    assert gamma.path == "conv4_3_norm/conv4_3_norm_gamma"
    np.testing.assert_array_equal(ops.convert_to_numpy(gamma), np.full(512, 10, np.float32))


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 1e-3), ("mixed_bfloat16", 8e-3), ("float16", 1e-3)]
)
def test_the_sum_of_squares_does_not_overflow_in_half_precision(policy, tolerance):
    # 512 squares of 500 are 1.3e8; float16 ends at 65504.
    x = np.random.default_rng(0).uniform(400, 600, (1, 2, 2, 512)).astype(np.float32)
    layer = L2Normalization(dtype=policy)
    made = layer(x)
    assert keras.backend.standardize_dtype(made.dtype) == layer.compute_dtype
    made = ops.convert_to_numpy(ops.cast(made, "float32"))
    np.testing.assert_allclose(made, slow_normalization(x, np.full(512, 20.0)), rtol=tolerance)


def test_training_moves_the_scale_towards_the_target():
    x = np.random.default_rng(0).normal(size=(8, 3, 3, 4)).astype(np.float32)
    target = slow_normalization(x, np.array([5.0, 10.0, 20.0, 30.0])).astype(np.float32)
    model = keras.Sequential([keras.Input((3, 3, 4)), L2Normalization(gamma_init=15)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    losses = [float(model.train_on_batch(x, target)) for _ in range(60)]
    assert losses[-1] < 1e-3 * losses[0]
    (gamma,) = model.get_weights()
    np.testing.assert_allclose(gamma, [5, 10, 20, 30], rtol=0.02)


def test_the_number_of_channels_must_be_known():
    with pytest.raises(ValueError, match="one weight for each channel.*None"):
        L2Normalization().build((None, 3, 3, None))
