"""Input preprocessing: what each layer does, in float32 under any policy, and what it refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_layers.preprocessing import ChannelSwap, MeanSubtraction, StddevDivision

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.float32)
MEAN = [123, 117, 104]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (MeanSubtraction(127.5), IMAGES - 127.5),
        (MeanSubtraction(MEAN), IMAGES - np.float32(MEAN)),
        (MeanSubtraction(np.array(MEAN)), IMAGES - np.float32(MEAN)),
        (MeanSubtraction(IMAGES[0]), IMAGES - IMAGES[0]),  # a mean image
        (StddevDivision(127.5), IMAGES / np.float32(127.5)),
        (StddevDivision((58, 57, 56)), IMAGES / np.float32([58, 57, 56])),
        (ChannelSwap((2, 1, 0)), IMAGES[..., ::-1]),
        (ChannelSwap(np.array([1, 1])), IMAGES[..., [1, 1]]),
    ],
)
def test_results_and_round_trip(layer, expected, tmp_path):
    inputs = keras.Input((4, 5, 3))
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, *expected.shape[1:])
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), expected, rtol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.layers[-1](IMAGES), layer(IMAGES))


@pytest.mark.parametrize(
    "make",
    [lambda: MeanSubtraction(MEAN), lambda: StddevDivision(3), lambda: ChannelSwap((2, 1, 0))],
)
def test_half_precision_does_not_round_pixels(make):
    images = np.full((1, 2, 2, 3), 255, np.float32) - np.float32(0.5)
    full = make()(images)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = make()(images)
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(half, full)


@pytest.mark.parametrize("layer", [MeanSubtraction, StddevDivision])
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 1), (1, 4, 5, 1)])
def test_values_that_do_not_fit_the_channels_are_refused(layer, shape):
    # A grey image minus an RGB mean would silently become an RGB image.
    with pytest.raises(ValueError, match=r"one a channel of the input \(4, 5, 1\)"):
        layer(np.ones(shape))(keras.Input((4, 5, 1)))


@pytest.mark.parametrize("order", [(2, 1, 0), (0, -1)])
def test_channels_that_the_input_lacks_are_refused(order):
    with pytest.raises(ValueError, match="`swap_channels` must name channels 0..1"):
        ChannelSwap(order)(keras.Input((4, 5, 2)))
