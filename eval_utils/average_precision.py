"""From detections and ground truth of one class to precision, recall and average precision.

Pure functions over plain arrays, in the order in which an evaluation needs them:

1. `match_detections`: which detections are true and which are false positives,
2. `precision_and_recall`: the precision/recall curve that their running totals draw,
3. `average_precision`: one number for the curve, by one of two rules of Pascal VOC.

A detection that lies on a neutral box (VOC: an object marked "difficult") is neither a true nor a
false positive: finding it earns nothing and costs nothing.
"""

from __future__ import annotations

import numpy as np

from bounding_box_utils.bounding_box_utils import iou

AVERAGE_PRECISION_MODES = ("sample", "integrate")

# Recalls are quotients of counts, and recall levels are quotients of small integers: two that are
# meant to be equal differ by about 1e-16, two that are not by far more than this.
_RECALL_TOLERANCE = 1e-12


def match_detections(
    images: np.ndarray,
    boxes: np.ndarray,
    gt_images: np.ndarray,
    gt_boxes: np.ndarray,
    gt_neutral: np.ndarray,
    iou_threshold: float = 0.5,
    border_pixels: str = "include",
) -> tuple[np.ndarray, np.ndarray]:
    """Tell the true positives among the detections of one class from the false ones.

    The rule is that of the Pascal VOC development kit: a detection looks at the ground truth box of
    its image that it overlaps most. Too small an overlap makes it a false positive; a neutral box
    makes it neither; otherwise the most confident detection that chose this box is a true positive
    and every later one a duplicate, hence a false positive. (A duplicate does not turn to the box
    that it overlaps second most.)

    Arguments:
        images: `(n,)` integers: the image of each detection, the most confident detection first.
        boxes: `(n, 4)` detected boxes (xmin, ymin, xmax, ymax) in pixels, in the same order.
        gt_images: `(m,)` integers: the image of each ground truth box, in any order.
        gt_boxes: `(m, 4)` ground truth boxes (xmin, ymin, xmax, ymax) in pixels.
        gt_neutral: `(m,)` booleans: True for the boxes that count for nothing.
        iou_threshold: The overlap from which on (equality included) a box counts as found.
        border_pixels: ``'include'`` (Pascal VOC), ``'half'`` or ``'exclude'``: whether the pixels
            under the borders belong to a box.

    Returns:
        Two `(n,)` boolean arrays: true positives and false positives.

    Raises:
        ValueError: if `border_pixels` is unknown or a box array is not `(..., 4)`.
    """
    detection, gt = _pairs_of_the_same_image(images, gt_images)
    with np.errstate(divide="ignore", invalid="ignore"):  # two boxes without area: 0 / 0
        overlaps = iou(boxes[detection], gt_boxes[gt], "corners", "element-wise", border_pixels)

    # If the best box of a detection overlaps it enough, it is among these pairs; a NaN is not.
    enough = overlaps >= iou_threshold
    detection, gt, overlaps = detection[enough], gt[enough], overlaps[enough]

    # Per detection the pair of greatest overlap. Sorting is stable: the first box wins a tie.
    by_overlap = np.lexsort((-overlaps, detection))
    matched, best = np.unique(detection[by_overlap], return_index=True)
    matched_gt = gt[by_overlap][best]

    # `matched` ascends and so follows confidence: the first detection of a box is the one it gets.
    on_object = ~gt_neutral[matched_gt]
    _, first = np.unique(matched_gt[on_object], return_index=True)

    true_positives = np.zeros(len(images), dtype=bool)
    true_positives[matched[on_object][first]] = True
    false_positives = ~true_positives
    false_positives[matched[~on_object]] = False
    return true_positives, false_positives


def _pairs_of_the_same_image(
    images: np.ndarray, gt_images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """List the index pairs (detection, ground truth box) that share an image, by detection.

    One flat list of pairs instead of a loop: a detection with k boxes in its image owns k
    consecutive pairs, which hold these boxes in the order of `gt_images`.
    """
    by_image = np.argsort(gt_images, kind="stable")
    sorted_gt_images = gt_images[by_image]
    begin = np.searchsorted(sorted_gt_images, images, side="left")
    end = np.searchsorted(sorted_gt_images, images, side="right")
    n_boxes = end - begin

    detection = np.repeat(np.arange(len(images)), n_boxes)
    first_pair = np.cumsum(n_boxes) - n_boxes  # where the pairs of each detection start
    gt = np.arange(len(detection)) + np.repeat(begin - first_pair, n_boxes)
    return detection, by_image[gt]


def precision_and_recall(
    cumulative_true_positives: np.ndarray, cumulative_false_positives: np.ndarray, num_gt: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the precision/recall curve: one point for each detection that is let in.

    precision = TP / (TP + FP), the share of the detections that are right;
    recall = TP / number of objects, the share of the objects that are found.

    Arguments:
        cumulative_true_positives: `(n,)` running total over detections of falling confidence.
        cumulative_false_positives: `(n,)` running total likewise.
        num_gt: The number of ground truth boxes that count.

    Returns:
        Two `(n,)` float64 arrays: precisions (0 as long as there are only neutral detections) and
        recalls (NaN if there is nothing to recall).
    """
    true_positives = np.asarray(cumulative_true_positives, dtype=np.float64)
    detections = true_positives + np.asarray(cumulative_false_positives)
    precisions = np.divide(
        true_positives, detections, out=np.zeros_like(true_positives), where=detections > 0
    )
    recalls = true_positives / (num_gt if num_gt > 0 else np.nan)
    return precisions, recalls


def average_precision(
    precisions: np.ndarray,
    recalls: np.ndarray,
    mode: str = "sample",
    num_recall_points: int = 11,
) -> float:
    """Sum up a precision/recall curve in one number.

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order, which therefore never fall; no NaN.
        mode: ``'sample'``: the mean precision at equidistant recall levels (Pascal VOC until 2009,
            with 11 levels); ``'integrate'``: the area under the curve (Pascal VOC since 2010).
        num_recall_points: The number of recall levels for ``'sample'``.

    Returns:
        The average precision, between 0 and 1; 0 if there are no detections.

    Raises:
        ValueError: if `mode` or `num_recall_points` is not as described.
    """
    check_average_precision_mode(mode, num_recall_points)
    if mode == "integrate":
        return area_average_precision(precisions, recalls)
    return sampled_average_precision(precisions, recalls, num_recall_points)


def check_average_precision_mode(mode: str, num_recall_points: int) -> None:
    """Raise a ValueError unless the arguments name a rule that `average_precision` knows."""
    if mode not in AVERAGE_PRECISION_MODES:
        raise ValueError(
            "The average precision mode must be 'sample' (mean precision at recall levels) or "
            f"'integrate' (area under the precision/recall curve); got {mode!r}."
        )
    if mode == "sample" and num_recall_points < 1:
        raise ValueError(
            "`num_recall_points` must be at least 1 (Pascal VOC 2007 uses 11, COCO 101); "
            f"got {num_recall_points!r}."
        )


def sampled_average_precision(
    precisions: np.ndarray, recalls: np.ndarray, num_recall_points: int = 11
) -> float:
    """Average the precision over equidistant recall levels from 0 to 1.

    The precision at a level is the greatest one at this recall or any higher one, and 0 where the
    curve does not reach the level (Everingham et al., "The Pascal Visual Object Classes (VOC)
    Challenge", 2010, section 4.2).

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order; no NaN.
        num_recall_points: The number of levels, both ends included.

    Returns:
        The average precision, between 0 and 1.
    """
    levels = np.linspace(0.0, 1.0, num_recall_points)
    # 3 of 10 objects reach the level 0.3, although linspace says 0.30000000000000004.
    first_at_level = np.searchsorted(recalls, levels - _RECALL_TOLERANCE, side="left")
    precision_at_level = np.append(_interpolated(precisions), 0.0)[first_at_level]
    return float(precision_at_level.mean())


def area_average_precision(precisions: np.ndarray, recalls: np.ndarray) -> float:
    """Compute the area under the interpolated precision/recall curve.

    The rule of the Pascal VOC development kits since 2010: precision is made to fall with recall,
    then every step of recall, the one from 0 to the first recall included, counts with the
    precision at its end.

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order; no NaN.

    Returns:
        The average precision, between 0 and 1.
    """
    recall_steps = np.diff(recalls, prepend=0.0)
    return float(np.sum(recall_steps * _interpolated(precisions)))


def _interpolated(precisions: np.ndarray) -> np.ndarray:
    """Replace each precision by the greatest one at this or any higher recall."""
    return np.maximum.accumulate(np.asarray(precisions, dtype=np.float64)[::-1])[::-1]
