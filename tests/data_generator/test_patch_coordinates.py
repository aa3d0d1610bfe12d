from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_generator.patch_coordinates import PatchCoordinateGenerator, random_position


def test_recorded_ranges(golden):
    """The 200 recorded draws come from another random generator; ranges must agree."""
    recorded = golden("data_ops")
    for case in recorded.info["patch_coordinates"]:
        samples = recorded.arrays[case["samples"]]
        generator = PatchCoordinateGenerator(**case["kwargs"], rng=0)
        drawn = np.array([generator() for _ in range(2000)])
        # More draws reach a little further than 200 did, but not much.
        reach = 0.25 * (samples.max(axis=0) - samples.min(axis=0)) + 2
        np.testing.assert_array_less(samples.min(axis=0) - reach, drawn.min(axis=0))
        np.testing.assert_array_less(drawn.max(axis=0), samples.max(axis=0) + reach)
        error = 5 * samples.std(axis=0) / np.sqrt(200) + 1e-9
        np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - samples.mean(axis=0)), error)


@given(
    must_match=st.sampled_from(["h_w", "h_ar", "w_ar"]),
    img_height=st.integers(1, 300),
    img_width=st.integers(1, 300),
    max_scale=st.floats(0.31, 4),
    seed=st.integers(0, 99),
)
def test_patches_have_pixels_and_meet_the_image(must_match, img_height, img_width, max_scale, seed):
    generator = PatchCoordinateGenerator(must_match=must_match, max_scale=max_scale)
    patch = generator.generate(img_height, img_width, np.random.default_rng(seed))
    for begin, side, img_side in zip(patch[:2], patch[2:], (img_height, img_width), strict=True):
        assert side >= 1
        if side <= img_side:
            assert 0 <= begin <= img_side - side
        else:
            assert img_side - side <= begin <= 0


def test_positions_reach_both_ends():
    rng = np.random.default_rng(0)
    assert {random_position(5, 3, rng) for _ in range(99)} == {0, 1, 2}
    assert {random_position(3, 5, rng) for _ in range(99)} == {-2, -1, 0}


def test_uniform_scale_keeps_the_aspect_ratio():
    generator = PatchCoordinateGenerator(1000, 2000, scale_uniformly=True, rng=0)
    for _ in range(50):
        *_, height, width = generator()
        assert abs(width - 2 * height) <= 2


def test_the_image_size_may_be_set_later():
    generator = PatchCoordinateGenerator(rng=0)
    with pytest.raises(ValueError, match="`img_height` and `img_width`, which are None and None"):
        generator()
    generator.img_height, generator.img_width = 10, 20
    assert generator()[2] <= 10


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"must_match": "ar_h"}, "'h_w', 'h_ar' or 'w_ar'; got 'ar_h'"),
        ({"min_scale": 1.0}, "`min_scale` must be below `max_scale`"),
        ({"min_aspect_ratio": 2.0}, "`min_aspect_ratio` must be below"),
        ({"scale_uniformly": True, "patch_width": 5}, "patch_width=5"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PatchCoordinateGenerator(**kwargs)
