"""Average precision of small, medium and large objects.

A range of sizes is evaluated as MS COCO does it: objects of other sizes become neutral, so that
finding them earns nothing and costs nothing; and a detection that matches no object counts as a
false positive only if its own size is in the range. (One difference: to COCO, an object of another
size is neutral for one detection only, and duplicates are wrong. `coco_utils.evaluate_coco` gives
the official numbers.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval_utils.average_precision import average_precision, precision_and_recall
from eval_utils.matched_class import MatchedClass
from eval_utils.matching import MATCHING_RULES


@dataclass(frozen=True)
class SizeRange:
    """Objects with lower <= area < upper, in pixels of the original images."""

    name: str
    lower: float
    upper: float

    def holds(self, boxes: np.ndarray) -> np.ndarray:
        """Say for `(n, 4)` boxes (xmin, ymin, xmax, ymax) which ones are of this size."""
        areas = box_areas(boxes)
        return (areas >= self.lower) & (areas < self.upper)


# The limits of MS COCO, which measures the area of an outline; here it is the area of the box.
COCO_SIZES = (
    SizeRange("small", 0, 32**2),
    SizeRange("medium", 32**2, 96**2),
    SizeRange("large", 96**2, math.inf),
)


@dataclass(frozen=True)
class SizeScores:
    """The results of one range of sizes.

    Attributes:
        size: The range.
        num_gt_per_class: `(n_classes + 1,)` integers: the objects of this size that count.
        average_precisions: `(n_classes + 1,)` float64; NaN for a class without such objects, and
            for class 0, the background.
    """

    size: SizeRange
    num_gt_per_class: np.ndarray
    average_precisions: np.ndarray

    @property
    def mean_average_precision(self) -> float:
        """The mean over the classes that have objects of this size; NaN if none has."""
        known = self.average_precisions[np.isfinite(self.average_precisions)]
        return float(known.mean()) if len(known) else math.nan


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Compute the areas of `(n, 4)` boxes (xmin, ymin, xmax, ymax)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def tercile_sizes(matched_classes: Sequence[MatchedClass | None]) -> tuple[SizeRange, ...]:
    """Divide the objects of a data set into three ranges of sizes that hold equally many.

    For data sets to which the limits of COCO mean nothing, of very small images for example.

    Arguments:
        matched_classes: The matched classes of a `DetectionScorer`; None entries are skipped.

    Returns:
        Three ranges. Equal areas are never divided, so the ranges may differ in what they hold.
    """
    areas = [box_areas(c.gt_boxes[~c.gt_neutral]) for c in matched_classes if c is not None]
    areas = np.sort(np.concatenate([np.zeros(0), *areas]))
    first, second = (areas[len(areas) * k // 3] if len(areas) else 0.0 for k in (1, 2))
    return (
        SizeRange("small", 0, float(first)),
        SizeRange("medium", float(first), float(second)),
        SizeRange("large", float(second), math.inf),
    )


def scores_by_size(
    matched_classes: Sequence[MatchedClass | None],
    sizes: Sequence[SizeRange] = COCO_SIZES,
    iou_threshold: float = 0.5,
    border_pixels: str = "include",
    matching_rule: str = "voc",
    mode: str = "sample",
    num_recall_points: int = 11,
) -> list[SizeScores]:
    """Compute average precisions for each range of sizes.

    Arguments:
        matched_classes: The matched classes of a `DetectionScorer`, None for the background first.
        sizes: The ranges.
        iou_threshold: As in `matching.match_detections`.
        border_pixels: As in `matching.match_detections`.
        matching_rule: A key of `matching.MATCHING_RULES`.
        mode: As in `average_precision.average_precision`.
        num_recall_points: As in `average_precision.average_precision`.

    Returns:
        The scores of each range.
    """
    results = []
    for size in sizes:
        counts, values = [0], [math.nan]
        for matched in matched_classes[1:]:
            neutral = matched.gt_neutral | ~size.holds(matched.gt_boxes)
            matches = MATCHING_RULES[matching_rule](
                matched.images,
                matched.boxes,
                matched.gt_images,
                matched.gt_boxes,
                neutral,
                iou_threshold=iou_threshold,
                border_pixels=border_pixels,
            )
            n_objects = int(np.sum(~neutral))
            counts_as_wrong = (matches.gt_indices >= 0) | size.holds(matched.boxes)
            curve = precision_and_recall(
                np.cumsum(matches.true_positives),
                np.cumsum(matches.false_positives & counts_as_wrong),
                n_objects,
            )
            counts.append(n_objects)
            values.append(
                average_precision(*curve, mode, num_recall_points) if n_objects else math.nan
            )
        results.append(SizeScores(size, np.array(counts), np.array(values)))
    return results
