import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_utils.matching import check_matching_rule, match_detections, match_detections_coco
from tests.eval_utils.slow_reference import match_one_by_one, match_one_by_one_coco

A, B, FAR = [0, 0, 9, 9], [20, 0, 29, 9], [60, 60, 69, 69]
NEAR_A = [0, 0, 9, 7]  # IoU with A, border included: 80 / 100


def matches_of(detections, objects, rule=match_detections, **settings):
    """Match [(image, box), ...] to [(image, box, neutral), ...]."""
    images, boxes = zip(*detections, strict=True) if detections else ((), ())
    gt_images, gt_boxes, neutral = zip(*objects, strict=True) if objects else ((), (), ())
    return rule(
        np.array(images, dtype=int),
        np.array(boxes, dtype=float).reshape(-1, 4),
        np.array(gt_images, dtype=int),
        np.array(gt_boxes, dtype=float).reshape(-1, 4),
        np.array(neutral, dtype=bool),
        **settings,
    )


def match(*args, **settings):
    """Match likewise; return a "T", "F" or "-" for each detection."""
    matches = matches_of(*args, **settings)
    hits, misses = matches.true_positives, matches.false_positives
    assert hits.dtype == misses.dtype == matches.gt_found.dtype == bool
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


def test_who_found_what():
    detections = [(0, A), (1, A), (0, NEAR_A), (0, FAR), (1, B)]
    objects = [(1, B, True), (0, A, False), (2, A, False)]
    matches = matches_of(detections, objects)
    assert matches.gt_indices.tolist() == [1, -1, 1, -1, 0]
    assert matches.gt_found.tolist() == [True, True, False]
    assert match(detections, objects) == "TFFF-"


MATCHING_COCO = [
    ("nothing at all", [], [], "", []),
    ("one hit", [(0, A)], [(0, A, False)], "T", [0]),
    ("second detection of an object", [(0, A), (0, NEAR_A)], [(0, A, False)], "TF", [0, -1]),
    ("second choice", [(0, A), (0, A)], [(0, A, False), (0, NEAR_A, False)], "TT", [0, 1]),
    ("equal overlaps: the last", [(0, A)], [(0, A, False), (0, A, False)], "T", [1]),
    ("neutral boxes last", [(0, A)], [(0, A, True), (0, NEAR_A, False)], "T", [1]),
    ("neutral boxes again and again", [(0, A), (0, A)], [(0, A, True)], "--", [0, 0]),
    ("too far from a neutral box", [(0, FAR)], [(0, A, True)], "F", [-1]),
]


@pytest.mark.parametrize(
    ("detections", "objects", "expected", "gt_indices"),
    [case[1:] for case in MATCHING_COCO],
    ids=[case[0] for case in MATCHING_COCO],
)
def test_coco_matching_table(detections, objects, expected, gt_indices):
    assert match(detections, objects, match_detections_coco) == expected
    assert matches_of(detections, objects, match_detections_coco).gt_indices.tolist() == gt_indices


def test_coco_lets_rounding_not_deny_a_perfect_overlap():
    for change, outcome in ((1e-12, "T"), (1e-6, "F")):
        nearly = [(0, [0, 0, 9, 9 - change])]
        settings = {"rule": match_detections_coco, "iou_threshold": 1.0}
        assert match(nearly, [(0, A, False)], **settings) == outcome


def test_coco_leaves_out_the_pixels_under_borders():
    objects = [(0, A, False)]  # IoU with NEAR_A: 63 / 81 without, 80 / 100 with borders
    rule = match_detections_coco
    assert match([(0, NEAR_A)], objects, rule, iou_threshold=0.79) == "F"
    assert match([(0, NEAR_A)], objects, rule, iou_threshold=0.77) == "T"
    assert match([(0, A)], objects, rule, iou_threshold=1.0) == "T"


@given(
    detections=st.lists(st.tuples(st.integers(0, 1), crowded_boxes), max_size=20),
    objects=st.lists(st.tuples(st.integers(0, 1), crowded_boxes, st.booleans()), max_size=8),
    iou_threshold=st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]),
    border=st.sampled_from(["half", "include", "exclude"]),
)
def test_coco_matching_equals_the_slow_reference(detections, objects, iou_threshold, border):
    matches = matches_of(
        detections,
        objects,
        match_detections_coco,
        iou_threshold=iou_threshold,
        border_pixels=border,
    )
    expected = match_one_by_one_coco(detections, objects, iou_threshold, border)
    assert matches.gt_indices.tolist() == expected


def test_an_unknown_rule_is_refused():
    check_matching_rule("coco")
    with pytest.raises(ValueError, match="'voc'.*'coco'.*got 'kitti'"):
        check_matching_rule("kitti")
