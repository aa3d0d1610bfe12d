"""Detections and objects of one class, and which of them belong together: the detail of a result.

What a report needs to show the mistakes of a detector, and a curve to be drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval_utils.ground_truth import GroundTruth
from eval_utils.matching import MATCHING_RULES, Matches
from eval_utils.prediction_results import Prediction, prediction_arrays


@dataclass(frozen=True)
class MatchedClass:
    """The detections of one class, the most confident one first, and the objects of this class.

    Images are given by their position in the data set: `data_generator.image_ids[image]`,
    `data_generator.filenames[image]`. (Of several images with one id it is the first.)

    Attributes:
        images: `(n,)` integers: the image of each detection.
        confidences: `(n,)` float64.
        boxes: `(n, 4)` float64 (xmin, ymin, xmax, ymax) in pixels of the image.
        matches: Which detections are true and which false positives, which ground truth box each
            one chose (an index into the `gt_...` arrays), and which boxes were found.
        gt_images: `(m,)` integers: the image of each ground truth box.
        gt_rows: `(m,)` integers: its position among the labels of the image.
        gt_boxes: `(m, 4)` float64 (xmin, ymin, xmax, ymax) in pixels of the image.
        gt_neutral: `(m,)` booleans: True for the boxes that count for nothing.
    """

    images: np.ndarray
    confidences: np.ndarray
    boxes: np.ndarray
    matches: Matches
    gt_images: np.ndarray
    gt_rows: np.ndarray
    gt_boxes: np.ndarray
    gt_neutral: np.ndarray

    @property
    def neutral(self) -> np.ndarray:
        """`(n,)` booleans: the detections that are neither true nor false positives."""
        return ~(self.matches.true_positives | self.matches.false_positives)

    @property
    def duplicates(self) -> np.ndarray:
        """`(n,)` booleans: the false positives on an object that another detection has found."""
        return self.matches.false_positives & (self.matches.gt_indices >= 0)

    @property
    def missed(self) -> np.ndarray:
        """`(m,)` booleans: the ground truth boxes that count and that no detection has found."""
        return ~(self.matches.gt_found | self.gt_neutral)


def match_class(
    predictions: Sequence[Prediction],
    ground_truth: GroundTruth,
    class_id: int,
    iou_threshold: float = 0.5,
    border_pixels: str = "include",
    matching_rule: str = "voc",
    sorting_algorithm: str = "stable",
) -> MatchedClass:
    """Rank the predictions of one class by confidence and match them to its ground truth.

    Arguments:
        predictions: Tuples (image_id, confidence, xmin, ymin, xmax, ymax).
        ground_truth: The ground truth of all classes.
        class_id: The class, from 1 on.
        iou_threshold: The overlap from which on (equality included) a box counts as found.
        border_pixels: ``'include'``, ``'half'`` or ``'exclude'``.
        matching_rule: A key of `matching.MATCHING_RULES`.
        sorting_algorithm: The `kind` of `numpy.argsort`.

    Returns:
        The matched class.

    Raises:
        ValueError: if a prediction is none, or names an image that is not in the ground truth.
    """
    images, confidences, boxes = prediction_arrays(predictions, ground_truth.image_numbers)
    ranking = np.argsort(-confidences, kind=sorting_algorithm)
    images, confidences, boxes = images[ranking], confidences[ranking], boxes[ranking]
    objects = ground_truth.of_class(class_id)
    matches = MATCHING_RULES[matching_rule](
        images,
        boxes,
        objects.images,
        objects.boxes,
        objects.neutral,
        iou_threshold=iou_threshold,
        border_pixels=border_pixels,
    )
    return MatchedClass(
        images,
        confidences,
        boxes,
        matches,
        objects.images,
        objects.rows,
        objects.boxes,
        objects.neutral,
    )
