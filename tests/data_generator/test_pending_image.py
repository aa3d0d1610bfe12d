from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_generator.pending_image import cut_window, fill_colour

IMAGE = np.random.default_rng(0).integers(1, 256, (5, 7, 3), np.uint8)
COLOUR = (11, 22, 33)


@given(
    ymin=st.integers(-9, 9),
    xmin=st.integers(-9, 9),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
)
def test_equals_looking_up_every_pixel(ymin, xmin, height, width):
    window = cut_window(IMAGE, ymin, xmin, height, width, COLOUR)
    assert window.shape == (height, width, 3)
    for row in range(height):
        for column in range(width):
            y, x = row + ymin, column + xmin
            inside = 0 <= y < 5 and 0 <= x < 7
            expected = IMAGE[y, x] if inside else COLOUR
            np.testing.assert_array_equal(window[row, column], expected)


def test_is_never_a_view():
    for window in (cut_window(IMAGE, 0, 0, 5, 7, 0), cut_window(IMAGE, 1, 1, 2, 2, 0)):
        assert not np.shares_memory(window, IMAGE)


def test_fractions_survive_in_float_images():
    window = cut_window(np.full((2, 2, 1), 0.25, np.float32), -1, 0, 3, 2, (0.75,))
    assert window[:, 0, 0].tolist() == [0.75, 0.25, 0.25]


@pytest.mark.parametrize(
    ("shape", "background", "expected"),
    [
        ((2, 2), (1, 2, 3), [1]),
        ((2, 2, 1), (1, 2, 3), [1]),
        ((2, 2, 3), (1, 2, 3), [1, 2, 3]),
        ((2, 2, 5), (1, 2, 3), [1, 2, 3, 3, 3]),
        ((2, 2, 3), 9, [9, 9, 9]),
    ],
)
def test_colours(shape, background, expected):
    assert fill_colour(np.zeros(shape), background) == expected
