"""Greedy non-maximum suppression as one would explain it: slow, and plain enough to be right."""

from __future__ import annotations

import numpy as np


def slow_nms(boxes, scores, iou_threshold: float, d: float = 0) -> list[int]:
    """Take the best box, cross out what overlaps it too much, repeat.

    Arguments:
        boxes: `(n, 4)` corners.
        scores: `(n,)` numbers.
        iou_threshold: Greater IoU is too much.
        d: What the border rule adds to every side length: 0, 1 or -1.

    Returns:
        The indices of the boxes taken, in the order in which they were taken.
    """
    boxes = np.asarray(boxes).tolist()
    left, taken = list(range(len(boxes))), []
    while left:
        best = max(left, key=lambda i: (scores[i], -i))
        taken.append(best)
        left = [
            i for i in left if i != best and not slow_iou(boxes[i], boxes[best], d) > iou_threshold
        ]
    return taken


def slow_nms_per_class(boxes, scores, class_ids, iou_threshold: float, d: float = 0) -> list[int]:
    """Run `slow_nms` on every class alone; return the indices taken, best first."""
    class_ids = np.asarray(class_ids)
    taken = []
    for class_id in np.unique(class_ids):
        members = np.flatnonzero(class_ids == class_id)
        taken += [members[i] for i in slow_nms(boxes[members], scores[members], iou_threshold, d)]
    return sorted(taken, key=lambda i: (-scores[i], i))


def slow_iou(box1, box2, d: float = 0) -> float:
    """Return the intersection over union of two boxes; 0 if neither has an area."""
    width = max(min(box1[2], box2[2]) - max(box1[0], box2[0]) + d, 0)
    height = max(min(box1[3], box2[3]) - max(box1[1], box2[1]) + d, 0)
    areas = [(box[2] - box[0] + d) * (box[3] - box[1] + d) for box in (box1, box2)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0
