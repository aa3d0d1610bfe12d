"""The NMS kernel: cases one can check by hand, and random ones against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_encoder_decoder.nms import (
    CAFFE_MAX_CANDIDATES_PER_CLASS,
    nms,
    nms_per_class,
    rank_in_class,
)
from tests.slow_nms import slow_nms, slow_nms_per_class

A = [0, 0, 10, 10]
HALF_OF_A = [0, 0, 5, 10]  # IoU with A: 50 / 100
NINE_TWENTIETHS_OF_A = [0, 0, 4.5, 10]
FAR = [100, 100, 110, 110]
POINT = [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "kept"),
    [
        ([A, A], [0.4, 0.6], 0.45, [1]),
        ([A, A], [0.5, 0.5], 0.45, [0]),  # equal scores: the first wins
        ([A, FAR], [0.4, 0.6], 0.45, [1, 0]),
        ([A, HALF_OF_A], [0.6, 0.4], 0.5, [0, 1]),  # an IoU equal to the threshold survives
        ([A, HALF_OF_A], [0.6, 0.4], 0.499, [0]),
        ([A, NINE_TWENTIETHS_OF_A], [0.6, 0.4], 0.45, [0, 1]),
        ([A, FAR], [0.6, 0.4], 0.0, [0, 1]),  # 0 tolerates no overlap, but is a threshold
        ([A, HALF_OF_A], [0.6, 0.4], 0.0, [0]),
        ([A, A], [0.6, 0.4], 1.0, [0, 1]),
        ([A, A], [0.4, 0.6], None, [1, 0]),  # None: no suppression
        ([POINT, POINT], [0.6, 0.4], 0.45, [0, 1]),  # 0 / 0 is no overlap
        ([A], [0.5], 0.45, [0]),
        ([A, A, FAR], [np.nan, 0.1, np.nan], 0.45, [1, 2]),  # NaN ranks last, and nothing hangs
        ([A, A, FAR], [np.inf, 0.1, -np.inf], 0.45, [0, 2]),
    ],
)
def test_cases_by_hand(boxes, scores, threshold, kept):
    np.testing.assert_array_equal(nms(np.array(boxes, float), scores, threshold), kept)


def test_a_suppressed_box_suppresses_nobody():
    chain = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], float)
    np.testing.assert_array_equal(nms(chain, np.array([0.9, 0.8, 0.7]), 0.45), [0, 2])


@pytest.mark.parametrize(
    ("border_pixels", "kept"), [("half", [0, 1]), ("include", [0]), ("exclude", [0, 1])]
)
def test_border_pixels_enter_the_overlap(border_pixels, kept):
    # IoU of pixels 0..9 and 5..14 in a row: 4/14 half, 5/15 include, 3/13 exclude.
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9]], float)
    np.testing.assert_array_equal(nms(boxes, [0.9, 0.8], 0.3, border_pixels), kept)


def test_classes_do_not_suppress_each_other():
    boxes = np.array([A, A, A, FAR], float)
    kept = nms_per_class(boxes, np.array([0.5, 0.6, 0.7, 0.1]), [1, 1, 2, 1], 0.45)
    np.testing.assert_array_equal(kept, [2, 1, 3])


@pytest.mark.parametrize("threshold", [None, 0.45])
def test_no_boxes(threshold):
    kept = nms(np.zeros((0, 4)), np.zeros(0), threshold)
    assert kept.shape == (0,)
    assert kept.dtype.kind == "i"


def test_max_candidates_per_class_counts_boxes_that_enter():
    boxes = np.array([A, A, FAR, A, FAR], float)
    scores, class_ids = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 1, 1, 2, 2])
    np.testing.assert_array_equal(nms_per_class(boxes, scores, class_ids, 0.45), [0, 2, 3, 4])
    kept = nms_per_class(boxes, scores, class_ids, 0.45, max_candidates_per_class=2)
    np.testing.assert_array_equal(kept, [0, 3, 4])  # the two best of class 1 are one object


def test_caffe_lets_400_boxes_of_a_class_take_part():
    corners = 20.0 * np.arange(900)[:, None] * [1, 0]
    boxes, class_ids = np.hstack([corners, corners + 10]), np.repeat([1, 2], [450, 450])
    arguments = (boxes, np.linspace(1, 0, 900), class_ids)
    assert len(nms_per_class(*arguments)) == 900
    kept = nms_per_class(*arguments, max_candidates_per_class=CAFFE_MAX_CANDIDATES_PER_CLASS)
    np.testing.assert_array_equal(kept, [*range(400), *range(450, 850)])


def test_rank_in_class():
    np.testing.assert_array_equal(rank_in_class(np.array([3, 1, 3, 3, 1])), [0, 0, 1, 2, 1])
    assert rank_in_class(np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan])
def test_threshold_out_of_range(threshold):
    with pytest.raises(ValueError, match=r"`iou_threshold` must be a number in \[0, 1\]"):
        nms(np.array([A], float), np.array([0.5]), threshold)


def test_unknown_border_pixels_even_without_boxes():
    with pytest.raises(ValueError, match="border_pixels"):
        nms(np.zeros((0, 4)), np.zeros(0), 0.45, "inside")


def random_boxes(seed, n, n_classes, n_scores):
    """Boxes on a coarse grid with few different scores: equal scores and equal IoUs abound."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 12, (n, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 9, (n, 2))], axis=1).astype(float)
    return boxes, rng.integers(0, n_scores, n) / n_scores, rng.integers(0, n_classes, n)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 60),
    n_classes=st.integers(1, 4),
    n_scores=st.integers(1, 40),
    threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.45, 0.5, 1.0]),
    border=st.sampled_from([("half", 0), ("include", 1)]),
    max_output_size=st.one_of(st.none(), st.integers(1, 70)),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_plain_loop(seed, n, n_classes, n_scores, threshold, border, max_output_size):
    boxes, scores, class_ids = random_boxes(seed, n, n_classes, n_scores)
    border_pixels, d = border
    kept = nms_per_class(boxes, scores, class_ids, threshold, border_pixels, max_output_size)
    expected = slow_nms_per_class(boxes, scores, class_ids, threshold, d)
    np.testing.assert_array_equal(kept, expected[:max_output_size])


@pytest.mark.parametrize("max_output_size", [None, 1, 40, 300])
@pytest.mark.parametrize("n_scores", [5, 10**6])
def test_equals_the_plain_loop_over_several_blocks(monkeypatch, max_output_size, n_scores):
    # Little blocks and short looks, so that a quick test goes through many of them.
    monkeypatch.setattr("ssd_encoder_decoder.nms._BLOCK", 16)
    boxes, scores, class_ids = random_boxes(7, 700, 3, n_scores)
    kept = nms_per_class(boxes, scores, class_ids, 0.45, max_output_size=max_output_size)
    expected = slow_nms_per_class(boxes, scores, class_ids, 0.45)
    assert len(expected) > 40
    np.testing.assert_array_equal(kept, expected[:max_output_size])


def test_one_object_in_very_many_boxes():
    rng = np.random.default_rng(3)
    boxes = np.array([100, 100, 200, 200]) + rng.normal(0, 3, (3000, 4))
    scores = rng.random(3000)
    kept = nms(boxes, scores, 0.6, max_output_size=200)
    np.testing.assert_array_equal(kept, slow_nms(boxes, scores, 0.6))
