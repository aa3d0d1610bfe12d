"""How far a predicted box is from the true one: of its offsets, or of the boxes themselves.

Smooth L1, the loss of the paper, compares the four offsets one by one. But a detection counts if
its IoU with the object is high enough, and four numbers that are each a little wrong may cost less
than they hurt. The losses of the IoU family compare the boxes as areas:

    GIoU = IoU - (hull - union) / hull                     arXiv:1902.09630
    DIoU = IoU - (distance of the centres / diagonal)^2    arXiv:1911.08287
    CIoU = DIoU - a term for the aspect ratio              arXiv:1911.08287

The hull is the smallest box around both boxes, the diagonal is its own. The loss is 1 minus these.
Where boxes do not touch, IoU is 0 whatever the distance; the hull and the distance still say which
way to go.

Their scale is another one. A box that is shifted by a tenth of its width costs 0.5 with smooth L1
(at a variance of 0.1) and 0.18 with GIoU, and no box costs more than 2 with GIoU or DIoU, while
smooth L1 has no upper end. `alpha` of the loss weighs boxes against classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from ssd_encoder_decoder.box_coder import decode_boxes, to_corners

BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")

# A prediction is taken to be at most so many anchor sizes away from its anchor, and at most so many
# times larger or smaller: the exponential of an untrained network's offset may be infinite. The
# number is Detectron's (BBOX_XFORM_CLIP): a box of 1000 pixels from an anchor of 16.
_LARGEST_RATIO = 1000.0 / 16.0
# Areas and lengths below this count as none; its square is far from underflow.
_NOTHING = 1e-12


def smooth_l1(y_true: Any, y_pred: Any) -> Any:
    """Compute smooth L1, summed over the four offsets of each box.

    Quadratic near zero, so that small errors pull gently; linear beyond 1, so that a badly matched
    box does not dominate the batch (Fast R-CNN, arXiv:1504.08083, equation 3).

    Arguments:
        y_true: `(..., 4)` true offsets.
        y_pred: `(..., 4)` predicted offsets.

    Returns:
        `(...)` losses.
    """
    error = ops.abs(y_true - y_pred)
    return ops.sum(ops.where(error < 1.0, 0.5 * error * error, error - 0.5), axis=-1)


def box_losses(kind: str, y_true: Any, y_pred: Any, coords: str) -> Any:
    """Compute the localisation loss of every box.

    Arguments:
        kind: One of `BOX_LOSSES`.
        y_true: float32 `(..., 12)` true offsets, anchors, variances.
        y_pred: float32 `(..., 12)` predicted offsets; the other columns play no role.
        coords: The format of the anchors; only the IoU family needs to know.

    Returns:
        `(...)` losses.
    """
    if kind == "smooth_l1":
        return smooth_l1(y_true[..., :4], y_pred[..., :4])
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    anchors, variances = y_true[..., 4:8], y_true[..., 8:]
    return iou_losses(
        kind,
        _corners(y_true[..., :4] * variances, anchors, coords),
        _corners(_within_reach(y_pred[..., :4] * variances, coords), anchors, coords),
    )


def iou_losses(kind: str, true_boxes: Any, predicted_boxes: Any) -> Any:
    """Compare boxes as areas.

    Distances and aspect ratios are those of the coordinates given: in fractions of an image that is
    not square they are not those in pixels. IoU and GIoU are the same in both.

    Arguments:
        kind: ``'giou'``, ``'diou'`` or ``'ciou'``.
        true_boxes: float32 `(..., 4)` corners.
        predicted_boxes: float32 `(..., 4)` corners. One whose ends are swapped has no area.

    Returns:
        `(...)` losses: 0 for the same box; at most 2 for ``'giou'`` and ``'diou'``, 3 for
        ``'ciou'``.
    """
    true_boxes = ops.convert_to_tensor(true_boxes)
    predicted_boxes = ops.convert_to_tensor(predicted_boxes)
    true_width, true_height = _sides(true_boxes)
    width, height = _sides(predicted_boxes)
    inner_width, inner_height = _sides(_common_part(true_boxes, predicted_boxes))
    hull_width, hull_height = _sides(_hull(true_boxes, predicted_boxes))
    intersection = inner_width * inner_height
    union = true_width * true_height + width * height - intersection
    iou = _ratio(intersection, union)
    if kind == "giou":
        hull = hull_width * hull_height
        return 1.0 - iou + _ratio(hull - union, hull)
    dx, dy = _twice_the_centre_distance(true_boxes, predicted_boxes)
    diagonal = hull_width * hull_width + hull_height * hull_height
    loss = 1.0 - iou + _ratio(0.25 * (dx * dx + dy * dy), diagonal)
    if kind == "diou":
        return loss
    difference = _angle(true_width, true_height) - _angle(width, height)
    aspect = 4.0 / math.pi**2 * difference * difference
    # The worse the overlap, the less the shape matters; the weight itself is not learned from.
    weight = ops.stop_gradient(_ratio(aspect, 1.0 - iou + aspect))
    return loss + weight * aspect


def _within_reach(offsets: Any, coords: str) -> Any:
    """Limit offsets, which are multiplied by their variances already."""
    moves = [_LARGEST_RATIO] * 4
    # Of centroids the last two are logarithms of size ratios.
    limits = moves[:2] + [math.log(_LARGEST_RATIO)] * 2 if coords == "centroids" else moves
    limits = np.array(limits, np.float32)
    return ops.maximum(ops.minimum(offsets, limits), -limits)


def _corners(offsets: Any, anchors: Any, coords: str) -> Any:
    """Decode offsets, which are multiplied by their variances already."""
    boxes = decode_boxes(offsets, anchors, ops.ones((4,), "float32"), coords, ops.exp, ops.stack)
    return to_corners(boxes, coords, ops.stack)


def _common_part(boxes: Any, others: Any) -> Any:
    starts = ops.maximum(boxes[..., :2], others[..., :2])
    ends = ops.minimum(boxes[..., 2:], others[..., 2:])
    return ops.concatenate([starts, ends], axis=-1)


def _hull(boxes: Any, others: Any) -> Any:
    """Return the smallest box around both, of which the ends of the second may be swapped."""
    first, second = others[..., :2], others[..., 2:]
    starts = ops.minimum(boxes[..., :2], ops.minimum(first, second))
    ends = ops.maximum(boxes[..., 2:], ops.maximum(first, second))
    return ops.concatenate([starts, ends], axis=-1)


def _sides(corners: Any) -> tuple[Any, Any]:
    return (
        ops.maximum(corners[..., 2] - corners[..., 0], 0.0),
        ops.maximum(corners[..., 3] - corners[..., 1], 0.0),
    )


def _twice_the_centre_distance(boxes: Any, others: Any) -> tuple[Any, Any]:
    difference = boxes - others
    return difference[..., 0] + difference[..., 2], difference[..., 1] + difference[..., 3]


def _angle(width: Any, height: Any) -> Any:
    """Return the arc tangent of width / height, of boxes without any extent, too."""
    return ops.arctan2(ops.maximum(width, _NOTHING), ops.maximum(height, _NOTHING))


def _ratio(part: Any, whole: Any) -> Any:
    """Divide, with 0 for a part of nothing."""
    is_something = whole > _NOTHING
    return ops.where(is_something, part, 0.0) / ops.where(is_something, whole, 1.0)
