"""Which detections of one class are right: the matching rules of Pascal VOC and of MS COCO.

Both go through the detections from the most to the least confident one and compare each with the
ground truth boxes of its image. They differ in what a detection may choose from:

====================  ===========================================  =============================
                      Pascal VOC                                   MS COCO
====================  ===========================================  =============================
which box             the one it overlaps most; if that is taken,  the one it overlaps most among
                      the detection is a false positive            those that are still free
neutral boxes         like all others; whoever chooses one is      only if no other box is left
                      neither right nor wrong                      for the detection
equal overlaps        the first box                                the last box
area of a box         counts the pixels under its border           does not
====================  ===========================================  =============================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bounding_box_utils.bounding_box_utils import iou


@dataclass(frozen=True)
class Matches:
    """What became of the detections of one class, and of the objects they were looking for.

    Attributes:
        gt_indices: `(n,)` integers: the ground truth box that each detection chose, -1 for none. A
            false positive that chose a box is a duplicate, any other one is at the wrong place.
        true_positives: `(n,)` booleans.
        false_positives: `(n,)` booleans. A detection that is neither chose a neutral box.
        gt_found: `(m,)` booleans: which ground truth boxes some detection chose.
    """

    gt_indices: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    gt_found: np.ndarray


def match_detections(
    images: np.ndarray,
    boxes: np.ndarray,
    gt_images: np.ndarray,
    gt_boxes: np.ndarray,
    gt_neutral: np.ndarray,
    iou_threshold: float = 0.5,
    border_pixels: str = "include",
) -> Matches:
    """Match the detections of one class to its ground truth by the rule of Pascal VOC.

    A detection looks at the ground truth box of its image that it overlaps most. Too small an
    overlap makes it a false positive; a neutral box makes it neither; otherwise the most confident
    detection that chose this box is a true positive and every later one a duplicate, hence a false
    positive. (A duplicate does not turn to the box that it overlaps second most.) This is what the
    VOC development kit does.

    Arguments:
        images: `(n,)` integers: the image of each detection, the most confident detection first.
        boxes: `(n, 4)` detected boxes (xmin, ymin, xmax, ymax) in pixels, in the same order.
        gt_images: `(m,)` integers: the image of each ground truth box, in any order.
        gt_boxes: `(m, 4)` ground truth boxes (xmin, ymin, xmax, ymax) in pixels.
        gt_neutral: `(m,)` booleans: True for the boxes that count for nothing (VOC: "difficult").
        iou_threshold: The overlap from which on (equality included) a box counts as found.
        border_pixels: ``'include'`` (Pascal VOC), ``'half'`` or ``'exclude'``: whether the pixels
            under the borders belong to a box.

    Returns:
        The matches.

    Raises:
        ValueError: if `border_pixels` is unknown or a box array is not `(..., 4)`.

    Example:
        Two detections of the only object of image 0, then one in image 1, where there is none:

        >>> import numpy as np
        >>> from eval_utils.matching import match_detections
        >>> boxes = np.array([[11, 10, 50, 50], [10, 10, 48, 50], [10, 10, 50, 50]])
        >>> truth = np.array([[10, 10, 50, 50]])
        >>> matches = match_detections(
        ...     np.array([0, 0, 1]), boxes, np.array([0]), truth, gt_neutral=np.array([False])
        ... )
        >>> matches.true_positives, matches.gt_indices  # the second one is a duplicate
        (array([ True, False, False]), array([ 0,  0, -1]))
    """
    detection, gt, overlaps = overlapping_pairs(
        images, boxes, gt_images, gt_boxes, iou_threshold, border_pixels
    )
    # If the best box of a detection overlaps it enough, it is among these pairs. Sorting is stable:
    # the first box wins a tie.
    by_overlap = np.lexsort((-overlaps, detection))
    matched, best = np.unique(detection[by_overlap], return_index=True)
    gt_indices = np.full(len(images), -1, dtype=np.intp)
    gt_indices[matched] = gt[by_overlap][best]

    # `matched` ascends and so follows confidence: the first detection of a box is the one it gets.
    on_object = matched[~gt_neutral[gt_indices[matched]]]
    _, first = np.unique(gt_indices[on_object], return_index=True)
    true_positives = np.zeros(len(images), dtype=bool)
    true_positives[on_object[first]] = True
    return _matches(gt_indices, true_positives, gt_neutral)


def match_detections_coco(
    images: np.ndarray,
    boxes: np.ndarray,
    gt_images: np.ndarray,
    gt_boxes: np.ndarray,
    gt_neutral: np.ndarray,
    iou_threshold: float = 0.5,
    border_pixels: str = "half",
) -> Matches:
    """Match the detections of one class to its ground truth by the rule of MS COCO.

    A detection takes the box that it overlaps most among those that are still free, if it overlaps
    it enough. Only if there is none, it may choose a neutral box, and is then neither right nor
    wrong; a neutral box is never used up. (COCO's own evaluation measures the overlap with a crowd
    in another way; see `coco_utils.evaluate_coco`.)

    Arguments: as those of `match_detections`.

    Returns:
        The matches. No detection of this rule is a duplicate.

    Raises:
        ValueError: if `border_pixels` is unknown or a box array is not `(..., 4)`.
    """
    threshold = min(iou_threshold, 1 - 1e-10)  # COCO: rounding shall not deny a perfect overlap
    detection, gt, overlaps = overlapping_pairs(
        images, boxes, gt_images, gt_boxes, threshold, border_pixels
    )
    in_order_of_choice = np.lexsort((-gt, -overlaps, gt_neutral[gt], detection))
    gt_indices = [-1] * len(images)
    is_free = [True] * len(gt_boxes)
    is_neutral = gt_neutral.tolist()
    # Who comes later depends on who came before. Few pairs get here, so a loop is fast enough.
    for d, g in zip(
        detection[in_order_of_choice].tolist(), gt[in_order_of_choice].tolist(), strict=True
    ):
        if gt_indices[d] == -1 and is_free[g]:
            gt_indices[d] = g
            is_free[g] = is_neutral[g]

    gt_indices = np.array(gt_indices, dtype=np.intp)
    chose = gt_indices >= 0
    true_positives = chose.copy()
    true_positives[chose] = ~gt_neutral[gt_indices[chose]]
    return _matches(gt_indices, true_positives, gt_neutral)


MATCHING_RULES: dict[str, Callable[..., Matches]] = {
    "voc": match_detections,
    "coco": match_detections_coco,
}


def check_matching_rule(rule: str) -> None:
    """Raise a ValueError unless `rule` names one of `MATCHING_RULES`."""
    if rule not in MATCHING_RULES:
        raise ValueError(
            "`matching_rule` must be 'voc' (the box of greatest overlap decides) or 'coco' (the "
            f"free box of greatest overlap decides); got {rule!r}."
        )


def _matches(gt_indices: np.ndarray, true_positives: np.ndarray, gt_neutral: np.ndarray) -> Matches:
    """Complete the matches: who is not a true positive is a false one, except on neutral boxes."""
    chose = gt_indices >= 0
    false_positives = ~true_positives
    false_positives[chose] &= ~gt_neutral[gt_indices[chose]]
    gt_found = np.zeros(len(gt_neutral), dtype=bool)
    gt_found[gt_indices[chose]] = True
    return Matches(gt_indices, true_positives, false_positives, gt_found)


def overlapping_pairs(
    images: np.ndarray,
    boxes: np.ndarray,
    gt_images: np.ndarray,
    gt_boxes: np.ndarray,
    iou_threshold: float,
    border_pixels: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the pairs of a detection and a ground truth box of its image that overlap enough.

    Arguments: as those of `match_detections`.

    Returns:
        Three `(k,)` arrays: index of the detection, index of the ground truth box, and IoU; ordered
        by detection.
    """
    detection, gt = _pairs_of_the_same_image(images, gt_images)
    with np.errstate(divide="ignore", invalid="ignore"):  # two boxes without area: 0 / 0
        overlaps = iou(boxes[detection], gt_boxes[gt], "corners", "element-wise", border_pixels)
    enough = overlaps >= iou_threshold  # false for NaN
    return detection[enough], gt[enough], overlaps[enough]


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
