"""Greedy non-maximum suppression (NMS) on NumPy arrays: the one kernel behind every decoder.

The rule (Caffe's `ApplyNMSFast`): take the box with the highest score, drop all others whose IoU
with it is greater than the threshold, and repeat with what is left. Equal scores are taken in the
order of the input, and an IoU equal to the threshold survives.

Two facts make it fast without changing its result:

- Whether a box survives depends only on boxes with a higher score. So the greedy result on the best
  `d` boxes is exactly the beginning of the result on all of them, and a caller who wants the best
  200 detections need not look at the thousands of boxes below (`max_output_size`).
- A suppressed box suppresses nobody. So a block of boxes needs its IoU with the survivors before it
  and with itself only, and memory stays bounded however many boxes there are.
"""

from __future__ import annotations

import numpy as np

from bounding_box_utils.bounding_box_utils import border_width, iou

CAFFE_MAX_CANDIDATES_PER_CLASS = 400
"""How many boxes of each class the original Caffe SSD lets into NMS (`nms_param.top_k`)."""

# Boxes that are compared with each other in one matrix: large enough to keep the interpreter out of
# the way, small enough for the matrices to stay in the processor's cache.
_BLOCK = 128

# How many times more boxes than wanted survivors to look at first. In the overlapping output of an
# SSD about one in four or five survives; if it turns out to be fewer, more boxes are looked at.
_FIRST_LOOK = 5


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float | None = 0.45,
    border_pixels: str = "half",
    max_output_size: int | None = None,
) -> np.ndarray:
    """Suppress boxes that overlap a better one, whatever their class.

    Arguments:
        boxes: `(n, 4)` corners (xmin, ymin, xmax, ymax).
        scores: `(n,)`. NaN ranks below every number.
        iou_threshold: A box is dropped if its IoU with a better surviving one is greater than this;
            None drops nothing.
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'``, as in `iou`.
        max_output_size: Return only this many of the best survivors; None returns all.

    Returns:
        `(k,)` int indices of the surviving boxes, best first.

    Raises:
        ValueError: if `iou_threshold` is not in [0, 1] or `border_pixels` is unknown.

    Example:
        Three boxes on one object, and one elsewhere:

        >>> import numpy as np
        >>> from ssd_encoder_decoder.nms import nms
        >>> boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 1, 10, 11]])
        >>> nms(boxes, scores=np.array([0.6, 0.9, 0.7, 0.8]))
        array([1, 2])
    """
    one_class = np.zeros(len(scores), np.intp)
    return nms_per_class(boxes, scores, one_class, iou_threshold, border_pixels, max_output_size)


def nms_per_class(
    boxes: np.ndarray,
    scores: np.ndarray,
    class_ids: np.ndarray,
    iou_threshold: float | None = 0.45,
    border_pixels: str = "half",
    max_output_size: int | None = None,
    max_candidates_per_class: int | None = None,
) -> np.ndarray:
    """Suppress boxes that overlap a better one of the same class.

    Arguments:
        boxes: `(n, 4)` corners (xmin, ymin, xmax, ymax).
        scores: `(n,)`. NaN ranks below every number.
        class_ids: `(n,)` integers; only boxes of the same class suppress each other.
        iou_threshold: A box is dropped if its IoU with a better surviving one of its class is
            greater than this; None drops nothing.
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'``, as in `iou`.
        max_output_size: Return only this many of the best survivors of all classes together; None
            returns all.
        max_candidates_per_class: Let only this many of the best boxes of each class take part (400
            in Caffe, see `CAFFE_MAX_CANDIDATES_PER_CLASS`); None lets all of them.

    Returns:
        `(k,)` int indices of the surviving boxes in descending order of their scores, in the order
        of the input among equals.

    Raises:
        ValueError: if `iou_threshold` is not in [0, 1] or `border_pixels` is unknown.
    """
    check_iou_threshold(iou_threshold)
    border_width(border_pixels)  # complains about an unknown setting also when there are no boxes
    boxes, class_ids = np.asarray(boxes), np.asarray(class_ids)
    order = np.argsort(-np.asarray(scores), kind="stable")
    if max_candidates_per_class is not None:
        order = order[rank_in_class(class_ids[order]) < max_candidates_per_class]
    if iou_threshold is None:
        return order[:max_output_size]

    wanted = len(order) if max_output_size is None else max_output_size
    looked_at = max(_FIRST_LOOK * wanted, 4 * _BLOCK)
    while True:
        best = order[:looked_at]
        survivors = best[_survives(boxes[best], class_ids[best], iou_threshold, border_pixels)]
        if len(survivors) >= wanted or looked_at >= len(order):
            return survivors[:wanted]
        looked_at *= 2


def check_iou_threshold(iou_threshold: float | None) -> None:
    """Raise a ValueError unless `iou_threshold` is None or lies in [0, 1]."""
    if iou_threshold is not None and not 0 <= iou_threshold <= 1:
        raise ValueError(
            "`iou_threshold` must be a number in [0, 1], or None for no suppression; "
            f"got {iou_threshold!r}."
        )


def rank_in_class(class_ids: np.ndarray) -> np.ndarray:
    """Count for every entry how many of the same class come before it.

    Arguments:
        class_ids: `(n,)` integers.

    Returns:
        `(n,)` int ranks, 0 for the first of each class.
    """
    by_class = np.argsort(class_ids, kind="stable")
    _, first, counts = np.unique(class_ids[by_class], return_index=True, return_counts=True)
    ranks = np.empty(len(class_ids), np.intp)
    ranks[by_class] = np.arange(len(class_ids)) - np.repeat(first, counts)
    return ranks


def _survives(
    boxes: np.ndarray, class_ids: np.ndarray, iou_threshold: float, border_pixels: str
) -> np.ndarray:
    """Return the `(n,)` mask of survivors among boxes of several classes, given best first."""
    by_class = np.argsort(class_ids, kind="stable")
    class_starts = np.flatnonzero(np.diff(class_ids[by_class])) + 1
    survives = np.empty(len(boxes), bool)
    for members in np.split(by_class, class_starts):
        survives[members] = _survives_in_class(boxes[members], iou_threshold, border_pixels)
    return survives


def _survives_in_class(boxes: np.ndarray, iou_threshold: float, border_pixels: str) -> np.ndarray:
    """Return the `(n,)` mask of survivors among boxes of one class, given best first."""
    survives = np.ones(len(boxes), bool)
    if len(boxes) < 2:
        return survives
    for start in range(0, len(boxes), _BLOCK):
        in_block = np.arange(start, min(start + _BLOCK, len(boxes)))
        better = boxes[:start][survives[:start]]
        if start:
            beaten = _overlap(better, boxes[in_block], iou_threshold, border_pixels).any(axis=0)
            survives[in_block] = ~beaten
            in_block = in_block[~beaten]
        overlaps = _overlap(boxes[in_block], boxes[in_block], iou_threshold, border_pixels)
        overlaps = np.triu(overlaps, k=1)  # [i, j]: i, the better one, would suppress j
        for i in np.flatnonzero(overlaps.any(axis=1)):
            if survives[in_block[i]]:
                survives[in_block[overlaps[i]]] = False
    return survives


def _overlap(
    boxes1: np.ndarray, boxes2: np.ndarray, iou_threshold: float, border_pixels: str
) -> np.ndarray:
    """Return the `(m, n)` mask of pairs whose IoU is greater than the threshold."""
    # Two boxes without area give 0 / 0, infinite boxes inf / inf; NaN is not greater than
    # anything, so both survive.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return iou(boxes1, boxes2, "corners", "outer_product", border_pixels) > iou_threshold
