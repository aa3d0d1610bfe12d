"""Tests of the anchor suggestions."""

import numpy as np
import pytest

from misc_utils.anchor_design import share_with_anchor, suggest_aspect_ratios, suggest_scales
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

MAPS = [(37, 37), (18, 18), (9, 9), (4, 4)]


def square_boxes(sides, seed=0, size=300):
    rng = np.random.default_rng(seed)
    sides = np.asarray(sides, float)
    corner = rng.uniform(0, 1, (len(sides), 2)) * (size - sides[:, np.newaxis])
    return np.column_stack([np.ones(len(sides)), corner, corner + sides[:, np.newaxis]])


def lamp_posts(n=200, ratio=1 / 3, seed=0):
    rng = np.random.default_rng(seed)
    height = rng.uniform(40, 120, n)
    size = np.column_stack([height * ratio, height])
    corner = rng.uniform(0, 150, (n, 2))
    return np.column_stack([np.ones(n), corner, corner + size])


@pytest.mark.parametrize(("low", "high"), [(15, 40), (30, 120), (60, 280)])
def test_suggested_scales_fit_better_than_the_default_ones(low, high):
    labels = [square_boxes(np.geomspace(low, high, 150))]
    scales = suggest_scales(labels, (300, 300), MAPS, (1.0,))
    assert len(scales) == 5
    assert all(a <= b for a, b in zip(scales[:-1], scales[1:], strict=True))
    share = {
        name: share_with_anchor(
            SSDInputEncoder(300, 300, 1, MAPS, scales=chosen, aspect_ratios_global=(1.0,)), labels
        )
        for name, chosen in {"default": None, "suggested": scales}.items()
    }
    assert share["suggested"] >= share["default"]
    assert share["suggested"] > 0.75


def test_small_objects_are_not_left_to_the_coarse_maps():
    # All objects are small. A series that only follows the sizes would put anchors of 20 pixels on
    # a map whose cells are 75 pixels apart.
    scales = suggest_scales([square_boxes(np.full(100, 20.0))], (300, 300), MAPS, (1.0,))
    assert 12 < scales[0] * 300 < 28
    assert scales[3] * 300 > 40


def test_scales_of_huge_objects_are_valid_for_the_anchor_layer():
    scales = suggest_scales([square_boxes(np.full(7, 290.0))], (300, 300), MAPS, (1.0,))
    assert max(scales[:-1]) <= 1
    SSDInputEncoder(300, 300, 1, MAPS, scales=scales)


def test_no_boxes_no_scales():
    with pytest.raises(ValueError, match="without any box"):
        suggest_scales([np.zeros((0, 5))], (300, 300), MAPS, (1.0,))


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(10, 10)] * 20, (1.0,)),
        ([(10, 10)] * 10 + [(10, 20)] * 10, (0.5, 1.0)),
        ([(30, 10)] * 20, (1.0, 3.0)),
        ([(10, 10)] * 99 + [(10, 20)], (1.0,)),  # 1 % is too rare
        ([(10, 10), (0, 20)], (1.0,)),  # a box without area says nothing
        ([], (1.0,)),
    ],
)
def test_ratios_are_those_that_occur(shapes, expected):
    labels = [[[1, 5, 5, 5 + width, 5 + height]] for width, height in shapes]
    assert suggest_aspect_ratios(labels) == pytest.approx(expected)


def test_suggestions_raise_the_share_of_boxes_with_an_anchor():
    labels = [lamp_posts(100, ratio=1 / 7), [], lamp_posts(100, ratio=1 / 7, seed=1)]
    ratios = suggest_aspect_ratios(labels)
    suggested = SSDInputEncoder(
        300,
        300,
        1,
        MAPS,
        scales=suggest_scales(labels, (300, 300), MAPS, ratios),
        aspect_ratios_global=ratios,
    )
    default = SSDInputEncoder(300, 300, 1, MAPS)
    before, after = (share_with_anchor(encoder, labels, 0.4) for encoder in (default, suggested))
    assert after > before + 0.2


def test_share_counts_boxes_by_their_best_anchor():
    encoder = SSDInputEncoder(100, 100, 1, [(1, 1)], scales=[0.5, 1.0], two_boxes_for_ar1=False)
    exact = [1, 25, 25, 75, 75]  # the anchor itself
    half = [1, 25, 25, 75, 50]  # the upper half of it; the 2:1 anchor has IoU 0.61 with it
    far = [1, 0, 0, 10, 10]
    assert share_with_anchor(encoder, [[exact, far], [half]], 0.5) == pytest.approx(2 / 3)
    assert share_with_anchor(encoder, [[exact, far], [half]], 0.9) == pytest.approx(1 / 3)


def test_share_without_boxes_is_unknown():
    encoder = SSDInputEncoder(100, 100, 1, [(4, 4)])
    assert np.isnan(share_with_anchor(encoder, [np.zeros((0, 5))]))
