from __future__ import annotations

import numpy as np
import pytest

from data_generator.object_detection_2d_photometric_ops import (
    ConvertColor,
    ConvertDataType,
    Hue,
)
from data_generator.photometric_distortion import PhotometricDistortion

ALWAYS = {
    "random_brightness": (-48, 48, 1.0),
    "random_contrast": (0.5, 1.8, 1.0),
    "random_saturation": (0.5, 1.8, 1.0),
    "random_hue": (18, 1.0),
}


def step_by_step(distortion: PhotometricDistortion, image: np.ndarray, seed: int) -> np.ndarray:
    """Do the same one operation after another, with arithmetic in float32."""
    rng = np.random.default_rng(seed)
    rng.random()  # whether to act at all, which the distortion always does
    names = ("brightness", "contrast", "saturation", "hue")
    drawn = {name: getattr(distortion, name).sample(1, 1, None, rng) for name in names}
    to_float, to_uint8 = ConvertDataType("float32"), ConvertDataType("uint8")
    sequence = [to_float, drawn["brightness"]]
    sequence += [] if distortion.contrast_last else [drawn["contrast"]]
    sequence += [to_uint8, ConvertColor("RGB", "HSV"), to_float]
    sequence += [drawn["saturation"], drawn["hue"], to_uint8]
    # A hue of 179.6 is rounded to 180, a full turn, which in 8 bits is 0 (OpenCV makes nearly the
    # same colour of both). As uint8, a turn by nothing does just this.
    sequence += [Hue(0), ConvertColor("HSV", "RGB")]
    if distortion.contrast_last:
        sequence += [to_float, drawn["contrast"], to_uint8]
    for operation in sequence:
        if operation is not None:
            image = operation(image)
    return image


@pytest.mark.parametrize("contrast_last", [False, True])
@pytest.mark.parametrize("settings", [{}, ALWAYS], ids=["by chance", "always"])
def test_equals_the_operations_one_by_one(contrast_last, settings):
    distortion = PhotometricDistortion(**settings, contrast_last=contrast_last)
    image = np.random.default_rng(3).integers(0, 256, (40, 50, 3), np.uint8)
    for seed in range(40):
        fused = distortion(image, rng=seed)
        np.testing.assert_array_equal(fused, step_by_step(distortion, image, seed))


def test_the_order_matters():
    image = np.random.default_rng(3).integers(0, 256, (40, 50, 3), np.uint8)
    second = PhotometricDistortion(**ALWAYS)(image, rng=1)
    last = PhotometricDistortion(**ALWAYS, contrast_last=True)(image, rng=1)
    assert np.abs(second.astype(int) - last).max() > 4


@pytest.mark.parametrize(
    ("shape", "keep_channels", "expected"),
    [
        ((6, 8), False, (6, 8, 3)),
        ((6, 8, 1), False, (6, 8, 3)),
        ((6, 8, 4), False, (6, 8, 3)),
        ((6, 8), True, (6, 8)),
        ((6, 8, 1), True, (6, 8, 1)),
        ((6, 8, 4), True, (6, 8, 4)),
        ((6, 8, 5), False, (6, 8, 5)),
    ],
)
def test_channels(shape, keep_channels, expected):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    distorted = PhotometricDistortion(**ALWAYS, keep_channels=keep_channels)(image, rng=0)
    assert distorted.shape == expected
    assert distorted.dtype == np.uint8


def test_float_images_are_rounded_first():
    image = np.random.default_rng(1).uniform(0, 255, (6, 8, 3)).astype(np.float32)
    distortion = PhotometricDistortion()
    expected = distortion(np.rint(image).astype(np.uint8), rng=5)
    np.testing.assert_array_equal(distortion(image, rng=5), expected)


def test_without_any_probability_nothing_changes():
    image = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    never = PhotometricDistortion((-1, 1, 0.0), (0.5, 1.5, 0.0), (0.5, 1.5, 0.0), (18, 0.0))
    np.testing.assert_array_equal(never(image, rng=0), image)
