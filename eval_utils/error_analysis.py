"""What kinds of mistakes a detector makes: every detection and every object gets a verdict.

Matching (`eval_utils.matching`) looks at one class at a time and says "right" or "wrong". Here the
classes are looked at together, to say what is wrong: a cat that was taken for a dog is a wrong
detection of one class and a missed object of another, and one mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from eval_utils.matched_class import MatchedClass
from eval_utils.matching import match_detections_coco, overlapping_pairs

# Below this overlap two boxes have nothing to do with each other (as in TIDE, arXiv:2008.08115).
BACKGROUND_OVERLAP = 0.1


class Verdict(StrEnum):
    """What became of a detection. The mistakes are in the order in which they are looked for."""

    CORRECT = "correct"
    NEUTRAL = "on a neutral box"
    DUPLICATE = "duplicate"
    WRONG_CLASS = "wrong class"
    POOR_BOX = "poor box"
    BACKGROUND = "background"


MISTAKES = (Verdict.DUPLICATE, Verdict.WRONG_CLASS, Verdict.POOR_BOX, Verdict.BACKGROUND)


@dataclass(frozen=True)
class JudgedDetections:
    """The detections of all classes from a confidence on, the most confident one first.

    Attributes:
        class_ids: `(n,)` integers.
        images: `(n,)` integers: positions in the data set.
        confidences: `(n,)` float64.
        boxes: `(n, 4)` float64 (xmin, ymin, xmax, ymax) in pixels of the image.
        verdicts: `(n,)` texts, each one a `Verdict`. A *duplicate* overlaps an object of its class,
            which a better detection has found; one of *wrong class* overlaps an object of another
            class; a *poor box* touches an object of its class, but not enough; *background* is
            everything else.
        objects: `(n,)` integers: the object that the detection found, or the missed object that it
            took for another class; -1 for none. No two detections share one.
    """

    class_ids: np.ndarray
    images: np.ndarray
    confidences: np.ndarray
    boxes: np.ndarray
    verdicts: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class JudgedObjects:
    """The objects of all classes.

    Attributes:
        class_ids: `(m,)` integers.
        images: `(m,)` integers: positions in the data set.
        boxes: `(m, 4)` float64 (xmin, ymin, xmax, ymax) in pixels of the image.
        neutral: `(m,)` booleans: True for those that count for nothing.
        found: `(m,)` booleans: which ones a detection of their class has found.
        taken_for: `(m,)` integers: the class that a missed object was taken for, 0 for none.
    """

    class_ids: np.ndarray
    images: np.ndarray
    boxes: np.ndarray
    neutral: np.ndarray
    found: np.ndarray
    taken_for: np.ndarray

    @property
    def missed(self) -> np.ndarray:
        """`(m,)` booleans: the objects that count and were not found."""
        return ~(self.found | self.neutral)


def judge(
    matched_classes: Sequence[MatchedClass | None],
    confidence_thresh: float,
    iou_threshold: float = 0.5,
    border_pixels: str = "include",
) -> tuple[JudgedDetections, JudgedObjects]:
    """Give every detection from a confidence on, and every object, a verdict.

    What is right stays right: the correct detections are the true positives of the matching. The
    others, in the order of their confidence, may then take one missed object of another class each.

    Arguments:
        matched_classes: The matched classes of a `DetectionScorer`, None for the background first.
        confidence_thresh: The least confidence of the detections to look at.
        iou_threshold: The overlap from which on (equality included) two boxes are of one object.
            Use that of the matching.
        border_pixels: As in `matching.match_detections`. Use that of the matching.

    Returns:
        The detections and the objects.
    """
    classes = [matched for matched in matched_classes if matched is not None]
    objects = _pool_objects(classes)
    detections = _pool_detections(classes, confidence_thresh)
    found = detections.objects[detections.objects >= 0]
    objects.found[found] = True

    detections.verdicts[:] = _verdicts(detections, objects, iou_threshold, border_pixels)
    wrong = np.flatnonzero(detections.verdicts == Verdict.WRONG_CLASS)
    free = np.flatnonzero(objects.missed)
    chosen = match_detections_coco(
        detections.images[wrong],
        detections.boxes[wrong],
        objects.images[free],
        objects.boxes[free],
        np.zeros(len(free), dtype=bool),
        iou_threshold,
        border_pixels,
    ).gt_indices
    wrong, taken = wrong[chosen >= 0], free[chosen[chosen >= 0]]
    detections.objects[wrong] = taken
    objects.taken_for[taken] = detections.class_ids[wrong]
    return detections, objects


def _pool_objects(classes: Sequence[MatchedClass]) -> JudgedObjects:
    """Put the objects of all classes together, as if none had been found."""
    counts = [len(c.gt_boxes) for c in classes]
    return JudgedObjects(
        class_ids=np.repeat(np.arange(1, len(classes) + 1), counts),
        images=np.concatenate([c.gt_images for c in classes]),
        boxes=np.concatenate([c.gt_boxes for c in classes]),
        neutral=np.concatenate([c.gt_neutral for c in classes]),
        found=np.zeros(sum(counts), dtype=bool),
        taken_for=np.zeros(sum(counts), dtype=np.intp),
    )


def _pool_detections(classes: Sequence[MatchedClass], confidence_thresh: float) -> JudgedDetections:
    """Put the detections of all classes together, with a verdict on the neutral ones."""
    confidences = np.concatenate([c.confidences for c in classes])
    order = np.argsort(-confidences, kind="stable")
    order = order[confidences[order] >= confidence_thresh]
    # Where the objects of each class begin among those of all classes.
    begin = np.cumsum([0, *(len(c.gt_boxes) for c in classes[:-1])])
    hits = [
        np.where(c.matches.true_positives, c.matches.gt_indices + first, -1)
        for c, first in zip(classes, begin, strict=True)
    ]
    # Those that are wrong get their verdict later.
    verdicts = [np.where(c.neutral, Verdict.NEUTRAL, Verdict.CORRECT) for c in classes]
    counts = [len(c.confidences) for c in classes]
    return JudgedDetections(
        class_ids=np.repeat(np.arange(1, len(classes) + 1), counts)[order],
        images=np.concatenate([c.images for c in classes])[order],
        confidences=confidences[order],
        boxes=np.concatenate([c.boxes for c in classes])[order],
        verdicts=np.concatenate(verdicts).astype(object)[order],
        objects=np.concatenate(hits)[order],
    )


def _verdicts(
    detections: JudgedDetections,
    objects: JudgedObjects,
    iou_threshold: float,
    border_pixels: str,
) -> np.ndarray:
    """Find out what is wrong with the detections that are neither correct nor neutral."""
    d, g, overlaps = overlapping_pairs(
        detections.images,
        detections.boxes,
        objects.images,
        objects.boxes,
        min(BACKGROUND_OVERLAP, iou_threshold),
        border_pixels,
    )
    counts = ~objects.neutral[g]
    same_class = detections.class_ids[d] == objects.class_ids[g]
    enough = overlaps >= iou_threshold
    verdicts = np.full(len(detections.images), Verdict.BACKGROUND, dtype=object)
    # What is looked for first is written last.
    verdicts[d[counts & same_class]] = Verdict.POOR_BOX
    verdicts[d[counts & ~same_class & enough]] = Verdict.WRONG_CLASS
    verdicts[d[counts & same_class & enough]] = Verdict.DUPLICATE
    is_wrong = (detections.objects < 0) & (detections.verdicts != Verdict.NEUTRAL)
    return np.where(is_wrong, verdicts, detections.verdicts)


def confusion_matrix(
    detections: JudgedDetections, objects: JudgedObjects, n_classes: int
) -> np.ndarray:
    """Count which classes are taken for which.

    Arguments:
        detections: The detections that `judge` returns.
        objects: The objects that it returns.
        n_classes: The number of positive classes.

    Returns:
        `(n_classes + 1, n_classes + 1)` integers: the row is the class of an object, the column
        what it was taken for, and 0 is the background. The diagonal holds the objects that were
        found, column 0 those that were missed altogether, row 0 the detections that belong to no
        object or to one that another detection stands for already. So a row (but row 0) sums up to
        the objects of its class, and a column (but column 0) to the detections of its class.
        Neutral objects, and detections on them, are left out.
    """
    counts = np.zeros((n_classes + 1, n_classes + 1), dtype=np.int64)
    paired = detections.objects >= 0
    rows = np.zeros(len(paired), dtype=np.intp)
    rows[paired] = objects.class_ids[detections.objects[paired]]
    counted = detections.verdicts != Verdict.NEUTRAL
    np.add.at(counts, (rows[counted], detections.class_ids[counted]), 1)
    missed = objects.missed & (objects.taken_for == 0)
    np.add.at(counts, (objects.class_ids[missed], 0), 1)
    return counts
