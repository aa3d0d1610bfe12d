import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_utils.average_precision import (
    area_average_precision,
    average_precision,
    match_detections,
    precision_and_recall,
    sampled_average_precision,
)
from tests.eval_utils.slow_reference import (
    area_in_fractions,
    match_one_by_one,
    sampled_average_precision_in_fractions,
)

A, B, FAR = [0, 0, 9, 9], [20, 0, 29, 9], [60, 60, 69, 69]
NEAR_A = [0, 0, 9, 7]  # IoU with A, border included: 80 / 100


def match(detections, objects, **settings):
    """Match [(image, box), ...] to [(image, box, neutral), ...]; return a "T", "F" or "-" each."""
    images, boxes = zip(*detections, strict=True) if detections else ((), ())
    gt_images, gt_boxes, neutral = zip(*objects, strict=True) if objects else ((), (), ())
    hits, misses = match_detections(
        np.array(images, dtype=int),
        np.array(boxes, dtype=float).reshape(-1, 4),
        np.array(gt_images, dtype=int),
        np.array(gt_boxes, dtype=float).reshape(-1, 4),
        np.array(neutral, dtype=bool),
        **settings,
    )
    assert hits.dtype == misses.dtype == bool
    assert not (hits & misses).any()
    return "".join(
        "T" if hit else "F" if miss else "-" for hit, miss in zip(hits, misses, strict=True)
    )


MATCHING = [
    ("nothing at all", [], [], {}, ""),
    ("no ground truth", [(0, A), (0, B)], [], {}, "FF"),
    ("no detections", [], [(0, A, False)], {}, ""),
    ("one hit", [(0, A)], [(0, A, False)], {}, "T"),
    ("right place, other image", [(1, A)], [(0, A, False)], {}, "F"),
    ("second detection of an object", [(0, A), (0, NEAR_A)], [(0, A, False)], {}, "TF"),
    (
        "the more confident one wins, not the closer",
        [(0, NEAR_A), (0, A)],
        [(0, A, False)],
        {},
        "TF",
    ),
    ("two objects, other order", [(0, B), (0, A)], [(0, A, False), (0, B, False)], {}, "TT"),
    ("the same place in two images", [(3, A), (1, A)], [(1, A, False), (3, A, False)], {}, "TT"),
    ("neutral: neither", [(0, A)], [(0, A, True)], {}, "-"),
    ("neutral: as often as you like", [(0, A), (0, A), (0, FAR)], [(0, A, True)], {}, "--F"),
    # A duplicate of the object it overlaps most does not turn to another one that is still free.
    (
        "no second choice",
        [(0, A), (0, A)],
        [(0, A, False), (0, NEAR_A, False)],
        {"iou_threshold": 0.5},
        "TF",
    ),
    ("the closest object, not the first", [(0, A)], [(0, NEAR_A, True), (0, A, False)], {}, "T"),
    ("the closest object, not the last", [(0, A)], [(0, A, False), (0, NEAR_A, True)], {}, "T"),
    ("equal overlaps: the first object", [(0, A)], [(0, A, True), (0, A, False)], {}, "-"),
    ("equality counts", [(0, NEAR_A)], [(0, A, False)], {"iou_threshold": 0.8}, "T"),
    ("just below the threshold", [(0, NEAR_A)], [(0, A, False)], {"iou_threshold": 0.81}, "F"),
    # IoU of A and NEAR_A: include 80/100, half 63/81, exclude 48/64.
    ("half", [(0, NEAR_A)], [(0, A, False)], {"iou_threshold": 0.79, "border_pixels": "half"}, "F"),
    ("half", [(0, NEAR_A)], [(0, A, False)], {"iou_threshold": 0.77, "border_pixels": "half"}, "T"),
    (
        "exclude",
        [(0, NEAR_A)],
        [(0, A, False)],
        {"iou_threshold": 0.76, "border_pixels": "exclude"},
        "F",
    ),
    (
        "boxes without area",
        [(0, [3, 3, 3, 3])],
        [(0, [3, 3, 3, 3], False)],
        {"border_pixels": "half"},
        "F",
    ),
    ("a pixel is an area", [(0, [3, 3, 3, 3])], [(0, [3, 3, 3, 3], False)], {}, "T"),
    ("not a number", [(0, [np.nan, 0, 9, 9]), (0, A)], [(0, A, False)], {}, "FT"),
]


@pytest.mark.parametrize(
    ("detections", "objects", "settings", "expected"),
    [case[1:] for case in MATCHING],
    ids=[case[0] for case in MATCHING],
)
def test_matching_table(detections, objects, settings, expected):
    assert match(detections, objects, **settings) == expected


def test_unknown_border_pixels_are_refused_even_without_boxes():
    with pytest.raises(ValueError, match="border_pixels"):
        match([], [], border_pixels="included")


# Boxes of 0 to 8 pixels a side, close enough together for most to overlap several others.
crowded_boxes = st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(4, 8)] * 2)


@given(
    detections=st.lists(st.tuples(st.integers(0, 1), crowded_boxes), max_size=20),
    objects=st.lists(st.tuples(st.integers(0, 1), crowded_boxes, st.booleans()), max_size=8),
    iou_threshold=st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]),
    border=st.sampled_from(["half", "include", "exclude"]),
)
def test_matching_equals_the_slow_reference(detections, objects, iou_threshold, border):
    by_image = {}
    for image, box, neutral in objects:
        by_image.setdefault(image, []).append((box, neutral))
    hits, misses = match_one_by_one(detections, by_image, iou_threshold, border)

    expected = "".join(
        "T" if hit else "F" if miss else "-" for hit, miss in zip(hits, misses, strict=True)
    )
    assert match(detections, objects, iou_threshold=iou_threshold, border_pixels=border) == expected


def test_precision_and_recall_by_hand():
    hits, misses = np.cumsum([0, 1, 0, 1]), np.cumsum([0, 0, 1, 0])  # the first one is neutral
    precisions, recalls = precision_and_recall(hits, misses, num_gt=4)
    np.testing.assert_allclose(precisions, [0, 1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(recalls, [0, 1 / 4, 1 / 4, 2 / 4])


def test_recall_of_a_class_without_objects_is_not_a_number():
    precisions, recalls = precision_and_recall(np.array([0, 0]), np.array([1, 2]), num_gt=0)
    np.testing.assert_array_equal(precisions, [0, 0])
    assert np.isnan(recalls).all()


AVERAGES = [
    # hits (T) and misses (F) in the order of falling confidence, objects, 11 points, area
    ("T", 1, 1.0, 1.0),
    ("TTTT", 4, 1.0, 1.0),
    ("", 3, 0.0, 0.0),
    ("FFF", 3, 0.0, 0.0),
    ("FT", 1, 0.5, 0.5),
    ("TF", 1, 1.0, 1.0),
    ("TT", 4, 6 / 11, 0.5),  # levels 0, .1, ..., .5
    ("TFT", 2, (6 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2),
    ("FTT", 2, 2 / 3, 2 / 3),  # precision 1/2 at recall 1/2 is raised to 2/3
    # 3 / 10 < numpy.linspace(0, 1, 11)[3] in floating point; the level 0.3 counts nevertheless.
    ("TTT", 10, 4 / 11, 0.3),
    ("TTTTTTT", 10, 8 / 11, 0.7),
]


@pytest.mark.parametrize(("outcomes", "num_gt", "sampled", "area"), AVERAGES)
def test_average_precision_table(outcomes, num_gt, sampled, area):
    hits = np.cumsum([outcome == "T" for outcome in outcomes])
    misses = np.cumsum([outcome == "F" for outcome in outcomes])
    curve = precision_and_recall(hits, misses, num_gt)
    assert average_precision(*curve) == pytest.approx(sampled, abs=1e-12)
    assert average_precision(*curve, mode="integrate") == pytest.approx(area, abs=1e-12)


@given(
    outcomes=st.lists(st.sampled_from("TF-"), max_size=40),
    n_missed=st.integers(0, 30),
    num_points=st.sampled_from([2, 5, 11, 101]),
)
def test_average_precision_equals_whole_number_arithmetic(outcomes, n_missed, num_points):
    hits = [outcome == "T" for outcome in outcomes]
    misses = [outcome == "F" for outcome in outcomes]
    num_gt = max(1, sum(hits) + n_missed)
    curve = precision_and_recall(np.cumsum(hits), np.cumsum(misses), num_gt)

    sampled = sampled_average_precision(*curve, num_points)
    area = area_average_precision(*curve)
    expected = sampled_average_precision_in_fractions(hits, misses, num_gt, num_points)
    assert sampled == pytest.approx(expected, abs=1e-12)
    assert area == pytest.approx(area_in_fractions(hits, misses, num_gt), abs=1e-12)
    assert type(sampled) is type(area) is float


@pytest.mark.parametrize(
    ("mode", "num_recall_points", "message"),
    [("integral", 11, "got 'integral'"), ("sample", 0, "num_recall_points.*got 0")],
)
def test_unknown_rules_are_refused(mode, num_recall_points, message):
    with pytest.raises(ValueError, match=message):
        average_precision(np.ones(1), np.ones(1), mode, num_recall_points)
