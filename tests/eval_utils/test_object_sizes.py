"""Average precision by object size: by hand, and beside pycocotools."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval_utils.matching import overlapping_pairs
from eval_utils.object_sizes import COCO_SIZES, SizeRange, scores_by_size, tercile_sizes
from eval_utils.scoring import score_detections
from tests.eval_utils.coco_problems import random_problem

SMALL, MEDIUM, LARGE = (0, 0, 20, 20), (100, 0, 150, 50), (200, 0, 400, 200)


def by_size(labels, detections, **arguments):
    scores = score_detections(
        [np.array(labels, float).reshape(-1, 5)],
        [np.array(detections, float).reshape(-1, 6)],
        n_classes=1,
    )
    return scores_by_size(scores.matched_classes, **arguments)


def test_each_size_for_itself():
    found = by_size(
        [(1, *SMALL), (1, *MEDIUM), (1, *LARGE)],
        [(1, 0.9, *SMALL), (1, 0.8, *LARGE), (1, 0.7, 300, 300, 310, 310)],
    )
    assert [s.num_gt_per_class.tolist() for s in found] == [[0, 1], [0, 1], [0, 1]]
    # The last detection is a small one: it comes after the small object was found.
    assert [s.mean_average_precision for s in found] == pytest.approx([1.0, 0.0, 1.0])


def test_a_false_positive_counts_for_its_own_size_only():
    found = by_size(
        [(1, *SMALL), (1, *LARGE)],
        [(1, 0.9, 300, 300, 310, 310), (1, 0.8, *SMALL), (1, 0.7, *LARGE)],
    )
    assert [s.average_precisions[1] for s in found] == pytest.approx(
        [0.5, math.nan, 1.0], nan_ok=True
    )


def test_a_duplicate_counts_for_the_size_of_its_object():
    nearly_small = (0, 0, 33, 33)
    (small,) = by_size(
        [(1, 0, 0, 30, 30), (1, *MEDIUM[:2], 120, 20)],
        [(1, 0.9, 0, 0, 30, 30), (1, 0.8, *nearly_small), (1, 0.7, *MEDIUM[:2], 120, 20)],
        sizes=COCO_SIZES[:1],
        mode="integrate",
    )
    assert small.average_precisions[1] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_limits_belong_to_the_larger_size():
    small, medium, large = COCO_SIZES
    boxes = np.array([[0.0, 0, 32, 32], [0, 0, 31.9, 32], [0, 0, 96, 96], [0, 0, 95.9, 96]])
    assert small.holds(boxes).tolist() == [False, True, False, False]
    assert medium.holds(boxes).tolist() == [True, False, False, True]
    assert large.holds(boxes).tolist() == [False, False, True, False]


def test_terciles_hold_equally_many():
    labels = [(1, 0, 0, side, side) for side in (2, 9, 4, 30, 6, 70)]
    scores = score_detections([np.array(labels, float)], [np.empty((0, 6))], n_classes=1)
    sizes = tercile_sizes(scores.matched_classes)
    assert [(s.lower, s.upper) for s in sizes] == [(0, 36), (36, 900), (900, math.inf)]
    results = scores_by_size(scores.matched_classes, sizes)
    assert [s.num_gt_per_class[1] for s in results] == [2, 2, 2]


def test_terciles_of_nothing():
    scores = score_detections([[]], [[]], n_classes=2)
    results = scores_by_size(scores.matched_classes, tercile_sizes(scores.matched_classes))
    assert all(math.isnan(s.mean_average_precision) for s in results)


RULES = {"border_pixels": "half", "matching_rule": "coco"}


def corners(entry):
    x, y, width, height = entry["bbox"]
    return x, y, x + width, y + height


def scored(truth, detections):
    """Score a problem in COCO's format; images in the order in which COCO goes through them."""
    ids = {category["id"]: k for k, category in enumerate(truth["categories"], start=1)}
    images = sorted(image["id"] for image in truth["images"])
    labels, found = ({image: [] for image in images} for _ in range(2))
    for a in truth["annotations"]:
        labels[a["image_id"]].append((ids[a["category_id"]], *corners(a)))
    for d in detections:
        found[d["image_id"]].append((ids[d["category_id"]], d["score"], *corners(d)))
    return score_detections(labels, found, n_classes=len(ids), **RULES)


def without_duplicates(truth, detections):
    """Leave out detections of objects that others have found.

    There COCO has a rule of its own: an object of another size is neutral for one detection only.
    """

    def has_duplicates(found):
        for matched in scored(truth, found).matched_classes[1:]:
            d, _, _ = overlapping_pairs(
                matched.images, matched.boxes, matched.gt_images, matched.gt_boxes, 0.5, "half"
            )
            if matched.matches.false_positives[d].any():
                return True
        return False

    kept = []
    for detection in detections:
        if not has_duplicates([*kept, detection]):
            kept.append(detection)
    assert len(kept) > 30
    return kept


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_pycocotools(seed):
    truth, detections = random_problem(seed, crowds=False, n_detections=15)
    for annotation in truth["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    detections = without_duplicates(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.maxDets = [10_000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 1:, 0]  # (recall, category, size)
    results = scores_by_size(scored(truth, detections).matched_classes, mode="coco", **RULES)
    for k, result in enumerate(results):
        expected = precision[:, :, k].mean(axis=0)
        expected[expected == -1] = math.nan  # no such objects
        np.testing.assert_allclose(result.average_precisions[1:], expected, rtol=0, atol=1e-9)


def test_a_range_of_its_own():
    (result,) = by_size(
        [(1, *SMALL)], [(1, 0.5, *SMALL)], sizes=[SizeRange("tiny", 0, 500)], mode="integrate"
    )
    assert result.mean_average_precision == 1.0
