"""Precision, recall and F1 at a confidence threshold, and the threshold where F1 is best.

Average precision judges a detector at all thresholds at once; whoever uses the detector has to
choose one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from eval_utils.matched_class import MatchedClass


@dataclass(frozen=True)
class OperatingPoint:
    """How a detector does if only detections from a confidence on are let in.

    Attributes:
        threshold: The confidence.
        true_positives: The number of right detections of this confidence or more.
        false_positives: The number of wrong ones.
        n_objects: The number of objects to find.
    """

    threshold: float
    true_positives: int
    false_positives: int
    n_objects: int

    @property
    def precision(self) -> float:
        """The share of the detections that are right; NaN without detections."""
        n_detections = self.true_positives + self.false_positives
        return self.true_positives / n_detections if n_detections else math.nan

    @property
    def recall(self) -> float:
        """The share of the objects that are found; NaN without objects."""
        return self.true_positives / self.n_objects if self.n_objects else math.nan

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; NaN without objects."""
        total = self.true_positives + self.false_positives + self.n_objects
        return 2 * self.true_positives / total if self.n_objects else math.nan


def operating_point(matched_classes: Iterable[MatchedClass], threshold: float) -> OperatingPoint:
    """Count what is right and wrong at a threshold.

    Arguments:
        matched_classes: The matches of the classes to count together: of one, or of all.
        threshold: Detections of this confidence or more count.

    Returns:
        The operating point. Detections on neutral boxes, and these boxes, do not count.
    """
    confidences, right, wrong, n_objects = _pool(matched_classes)
    is_in = confidences >= threshold
    return OperatingPoint(
        float(threshold), int(np.sum(right & is_in)), int(np.sum(wrong & is_in)), n_objects
    )


def best_operating_point(matched_classes: Iterable[MatchedClass]) -> OperatingPoint | None:
    """Find the threshold with the greatest F1, the highest one among equals.

    Arguments:
        matched_classes: The matches of the classes that are to share a threshold.

    Returns:
        The operating point, whose threshold is the confidence of a detection; None if no detection
        is right.
    """
    confidences, right, wrong, n_objects = _pool(matched_classes)
    if not right.any():
        return None
    order = np.argsort(-confidences, kind="stable")
    confidences, hits, misses = confidences[order], np.cumsum(right[order]), np.cumsum(wrong[order])
    f1 = 2 * hits / (hits + misses + n_objects)
    # Detections of equal confidence are let in together: only the last one of them is a choice.
    is_choice = np.append(confidences[1:] != confidences[:-1], True)
    best = int(np.argmax(np.where(is_choice, f1, -1.0)))
    return OperatingPoint(float(confidences[best]), int(hits[best]), int(misses[best]), n_objects)


def _pool(
    matched_classes: Iterable[MatchedClass],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return confidences, true positives, false positives, and the number of objects."""
    classes = list(matched_classes)
    return (
        np.concatenate([np.zeros(0), *(c.confidences for c in classes)]),
        np.concatenate([np.zeros(0, bool), *(c.matches.true_positives for c in classes)]),
        np.concatenate([np.zeros(0, bool), *(c.matches.false_positives for c in classes)]),
        sum(int(np.sum(~c.gt_neutral)) for c in classes),
    )
