"""What all builders share: preprocessing of the input, and what it refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from models.multibox import preprocessed_input

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.float32)


def preprocess(images: np.ndarray, *settings) -> np.ndarray:
    model = keras.Model(*preprocessed_input(images.shape[1:], *settings))
    return model.predict(images, verbose=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_of_any_dtype_become_float32(dtype):
    made = preprocess(IMAGES.astype(dtype), None, None, False)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, IMAGES)


def test_mean_then_deviation_then_channels():
    made = preprocess(IMAGES, [123, 117, 104], 2, (2, 1, 0))
    np.testing.assert_allclose(made, ((IMAGES - [123, 117, 104]) / 2)[..., ::-1])


def test_a_grey_image_can_become_three_channels():
    made = preprocess(IMAGES[..., :1], 100, None, (0, 0, 0))
    np.testing.assert_array_equal(made, np.repeat(IMAGES[..., :1] - 100, 3, axis=-1))


@pytest.mark.parametrize("nothing", [None, False, (), []])
def test_nothing_to_swap(nothing):
    np.testing.assert_array_equal(preprocess(IMAGES, None, None, nothing), IMAGES)


@pytest.mark.parametrize(
    ("image_size", "settings", "message"),
    [
        (300, (None, None, None), r"`image_size` must be \(height, width, channels\).*got 300"),
        ((4, 5), (None, None, None), "`image_size`"),
        ((4, None, 3), (None, None, None), "`image_size`.*all known"),
        ((4, 0, 3), (None, None, None), "`image_size`.*at least 1"),
        ((4.0, 5, 3), (None, None, None), "`image_size`"),
        ((4, 5, 1), ([1, 2, 3], None, None), "`subtract_mean`.*1 channels.*got"),
        ((4, 5, 4), (None, [1, 2, 3], None), "`divide_by_stddev`.*4 channels.*got"),
        ((4, 5, 3), (None, [1, 0, 3], None), "`divide_by_stddev` must not be 0"),
        ((4, 5, 3), (None, None, True), "`swap_channels` must list"),
        ((4, 5, 3), (None, None, (3, 0, 1)), r"`swap_channels` must name channels 0..2"),
    ],
)
def test_wrong_settings_are_named(image_size, settings, message):
    with pytest.raises(ValueError, match=message):
        preprocessed_input(image_size, *settings)
