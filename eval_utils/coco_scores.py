"""The twelve numbers of MS COCO, with names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# The order of the engine's area ranges and limits of detections per image and category.
AREAS = ("all", "small", "medium", "large")
MAX_DETECTIONS = (1, 10, 100)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)

# name: (is average precision, IoU threshold or None for the mean over all, area, max detections),
# in the order in which COCO lists them.
_DEFINITIONS = {
    "ap": (True, None, "all", 100),
    "ap50": (True, 0.5, "all", 100),
    "ap75": (True, 0.75, "all", 100),
    "ap_small": (True, None, "small", 100),
    "ap_medium": (True, None, "medium", 100),
    "ap_large": (True, None, "large", 100),
    "ar1": (False, None, "all", 1),
    "ar10": (False, None, "all", 10),
    "ar100": (False, None, "all", 100),
    "ar_small": (False, None, "small", 100),
    "ar_medium": (False, None, "medium", 100),
    "ar_large": (False, None, "large", 100),
}

_ROW = " {:<18} ({}) @[ IoU={:<9} | area={:>6} | maxDets={:>3} ] = {}"


@dataclass(frozen=True)
class CocoNumbers:
    """The twelve numbers by which COCO judges detections, between 0 and 1.

    A number is NaN if there is no object to which it could refer (COCO prints -1): no small
    objects, no `ap_small`.

    Attributes:
        ap: Average precision, the mean over the IoU thresholds 0.5, 0.55, ..., 0.95.
        ap50, ap75: Average precision at one IoU threshold.
        ap_small, ap_medium, ap_large: `ap` for objects of up to 32 x 32 pixels, up to 96 x 96, and
            beyond.
        ar1, ar10, ar100: Average recall, the mean over the IoU thresholds, with so many detections
            per image and category.
        ar_small, ar_medium, ar_large: `ar100` by the size of objects.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float

    @property
    def stats(self) -> np.ndarray:
        """`(12,)` float64: the numbers as `COCOeval.stats` has them, -1 for what is undefined."""
        values = np.array([getattr(self, name) for name in _DEFINITIONS])
        return np.where(np.isnan(values), -1.0, values)

    def as_dict(self) -> dict[str, float | None]:
        """Return the numbers by name for a JSON file, None for what is undefined."""
        values = {name: getattr(self, name) for name in _DEFINITIONS}
        return {name: None if math.isnan(value) else value for name, value in values.items()}


@dataclass(frozen=True)
class CocoScores(CocoNumbers):
    """The twelve numbers of MS COCO over all categories, and for each category.

    ``print(scores)`` shows the table that COCO's own evaluation prints.

    Attributes:
        per_category: {category name: its numbers}, in the order of the ground truth. Those of a
            category without objects are NaN; it is no part of the means. Category ids take the
            place of names if two categories share a name.
    """

    per_category: dict[str | int, CocoNumbers]

    def __str__(self) -> str:
        lines = []
        for name, (is_precision, iou, area, max_detections) in _DEFINITIONS.items():
            value = getattr(self, name)
            lines.append(
                _ROW.format(
                    "Average Precision" if is_precision else "Average Recall",
                    "AP" if is_precision else "AR",
                    "0.50:0.95" if iou is None else f"{iou:.2f}",
                    area,
                    max_detections,
                    "n/a" if math.isnan(value) else f"{value:.3f}",
                )
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """Return all numbers by name for a JSON file, None for what is undefined."""
        per_category = {str(key): value.as_dict() for key, value in self.per_category.items()}
        return {**super().as_dict(), "per_category": per_category}


def coco_scores(
    precision: np.ndarray, recall: np.ndarray, categories: list[str | int]
) -> CocoScores:
    """Sum up what an engine with the semantics of pycocotools has accumulated.

    Arguments:
        precision: `(10, 101, k, 4, 3)`: for each IoU threshold, recall level, category, area range
            and limit of detections the precision, -1 if the category has no such objects.
        recall: `(10, k, 4, 3)` likewise.
        categories: The k names.

    Returns:
        The numbers.
    """
    per_category = {
        name: CocoNumbers(**_numbers(precision[:, :, [k]], recall[:, [k]]))
        for k, name in enumerate(categories)
    }
    return CocoScores(**_numbers(precision, recall), per_category=per_category)


def _numbers(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    numbers = {}
    for name, (is_precision, iou, area, max_detections) in _DEFINITIONS.items():
        values = precision if is_precision else recall
        values = values[..., AREAS.index(area), MAX_DETECTIONS.index(max_detections)]
        if iou is not None:
            values = values[np.isclose(IOU_THRESHOLDS, iou)]
        values = values[values > -1]
        numbers[name] = float(values.mean()) if values.size else math.nan
    return numbers
