"""The rules of the evaluation once more: one prediction at a time, slow and easy to check."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

SIDE_LENGTH_CHANGE = {"half": 0, "include": 1, "exclude": -1}


def overlap(box1: Sequence, box2: Sequence, border: str, border_of_intersection: str) -> float:
    """IoU of two boxes (xmin, ymin, xmax, ymax), 0 where it is undefined."""

    def area(xmin, ymin, xmax, ymax, d):
        return (xmax - xmin + d) * (ymax - ymin + d)

    d, d_intersection = SIDE_LENGTH_CHANGE[border], SIDE_LENGTH_CHANGE[border_of_intersection]
    width = min(box1[2], box2[2]) - max(box1[0], box2[0]) + d_intersection
    height = min(box1[3], box2[3]) - max(box1[1], box2[1]) + d_intersection
    intersection = max(0, width) * max(0, height)
    union = area(*box1, d) + area(*box2, d) - intersection
    return intersection / union if union else 0.0


def match_one_by_one(
    predictions: Sequence[tuple],
    ground_truth: dict,
    iou_threshold: float,
    border: str,
    border_of_intersection: str | None = None,
) -> tuple[list[int], list[int]]:
    """Match (image, box) pairs, best first, to {image: [(box, neutral), ...]}; return TP and FP."""
    taken = set()
    true_positives, false_positives = [], []
    for image, box in predictions:
        candidates = ground_truth.get(image, [])
        overlaps = [
            overlap(box, gt_box, border, border_of_intersection or border)
            for gt_box, _ in candidates
        ]
        best = overlaps.index(max(overlaps)) if overlaps else None
        hit, miss = 0, 0
        if best is None or overlaps[best] < iou_threshold:
            miss = 1
        elif candidates[best][1]:
            pass  # a neutral box: neither hit nor miss
        elif (image, best) in taken:
            miss = 1
        else:
            hit = 1
            taken.add((image, best))
        true_positives.append(hit)
        false_positives.append(miss)
    return true_positives, false_positives


def match_one_by_one_coco(
    detections: Sequence[tuple], objects: Sequence[tuple], iou_threshold: float, border: str
) -> list[int]:
    """Match (image, box) pairs, best first, to (image, box, neutral); return object indices.

    Each detection looks for an object that is free, then for a neutral box; the last one of those
    that it overlaps most wins.
    """
    free = set(range(len(objects)))
    chosen = []
    for image, box in detections:
        choice = -1
        for want_neutral in (False, True):
            best = min(iou_threshold, 1 - 1e-10)
            if choice >= 0:
                break
            for index, (gt_image, gt_box, neutral) in enumerate(objects):
                if gt_image != image or neutral != want_neutral or index not in free:
                    continue
                if overlap(box, gt_box, border, border) >= best:
                    best, choice = overlap(box, gt_box, border, border), index
        if choice >= 0 and not objects[choice][2]:
            free.remove(choice)
        chosen.append(choice)
    return chosen


def sampled_average_precision_in_fractions(
    true_positives: Sequence[int], false_positives: Sequence[int], num_gt: int, num_points: int
) -> float:
    """The n-point rule in whole numbers, so that no recall level is lost to rounding."""
    points = []
    hits = detections = 0
    for hit, miss in zip(true_positives, false_positives, strict=True):
        hits += int(hit)
        detections += int(hit) + int(miss)
        precision = Fraction(hits, detections) if detections else Fraction(0)
        points.append((Fraction(hits, num_gt), precision))
    total = Fraction(0)
    for k in range(num_points):
        level = Fraction(k, num_points - 1)
        total += max((precision for recall, precision in points if recall >= level), default=0)
    return float(total / num_points)


def area_in_fractions(
    true_positives: Sequence[int], false_positives: Sequence[int], num_gt: int
) -> float:
    """The VOC 2010 area: each object found adds 1 / num_gt times the best precision from there."""
    points = []
    hits = detections = 0
    for hit, miss in zip(true_positives, false_positives, strict=True):
        hits += int(hit)
        detections += int(hit) + int(miss)
        points.append((hits, Fraction(hits, detections) if detections else Fraction(0)))
    total = Fraction(0)
    for found in range(1, hits + 1):
        total += max(precision for n, precision in points if n >= found) / num_gt
    return float(total)
