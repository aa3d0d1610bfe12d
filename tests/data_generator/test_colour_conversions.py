from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_generator.colour_conversions import ConvertColor, hsv_to_rgb

HSV = np.random.default_rng(0).integers(0, 256, (37, 123, 3), np.uint8)
HSV[:, :, 0] %= 180


def test_hsv_to_rgb_is_what_opencv_does_up_to_a_grey_level():
    difference = np.abs(hsv_to_rgb(HSV).astype(int) - cv2.cvtColor(HSV, cv2.COLOR_HSV2RGB))
    assert difference.max() <= 1
    assert difference.mean() < 0.1
    floats = HSV.astype(np.float32)
    np.testing.assert_array_equal(hsv_to_rgb(floats), cv2.cvtColor(floats, cv2.COLOR_HSV2RGB))


@pytest.mark.parametrize("to", ["HSV", "RGB"])
def test_a_crop_has_the_colours_of_the_whole(to):
    """So that it makes no difference whether colours or windows come first."""
    convert = ConvertColor("RGB" if to == "HSV" else "HSV", to)
    whole = convert(HSV)
    for rows, columns in (
        (slice(0, 37), slice(0, 1)),
        (slice(3, 9), slice(1, 30)),
        (slice(36, 37), slice(122, 123)),
        (slice(0, 30), slice(59, 123)),
    ):
        np.testing.assert_array_equal(convert(HSV[rows, columns]), whole[rows, columns])
