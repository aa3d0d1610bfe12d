"""The encoding of one image, box by box and anchor by anchor in float64: slow and plain.

It takes the anchors of an encoder and its settings, and nothing else of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

BORDERS = {"half": 0, "include": 1, "exclude": -1}


class SlowTarget(NamedTuple):
    """What the slow encoding says about one image.

    Attributes:
        rows: float64 `(n_boxes, n_classes + 12)` target.
        margin: How close the closest decision was: the least difference between an IoU and a
            threshold, or between a first match and the best that it excluded.
    """

    rows: np.ndarray
    margin: float


def slow_encode(encoder: SSDInputEncoder, labels: np.ndarray) -> SlowTarget:
    """Encode the labels of one image."""
    anchors = [tuple(row) for boxes in encoder.boxes_list for row in boxes.reshape(-1, 4)]
    overlaps = [
        [_iou(box[1:], _corners_in_pixels(anchor, encoder), encoder) for anchor in anchors]
        for box in labels
    ]
    matches, margin = _bipartite(overlaps)  # anchor -> object
    positive, neutral = dict(matches), set()
    for i in range(len(anchors)):
        if i in matches or len(labels) == 0:
            continue
        best = max(range(len(labels)), key=lambda k: (overlaps[k][i], -k))
        if encoder.matching_type == "multi" and overlaps[best][i] >= encoder.pos_iou_threshold:
            positive[i] = best
        elif overlaps[best][i] >= encoder.neg_iou_limit:
            neutral.add(i)

    rows = np.zeros((len(anchors), encoder.n_classes + 12))
    for i, anchor in enumerate(anchors):
        rows[i, -8:-4] = anchor
        rows[i, -4:] = encoder.variances
        if i in positive:
            box = labels[positive[i]]
            rows[i, int(box[0])] = 1
            rows[i, -12:-8] = _offsets(box[1:], anchor, encoder)
        elif i not in neutral:
            rows[i, encoder.background_id] = 1
    thresholds = (encoder.pos_iou_threshold, encoder.neg_iou_limit)
    margins = (abs(v - t) for row in overlaps for v in row for t in thresholds)
    return SlowTarget(rows, min(margin, *margins) if overlaps else margin)


def _bipartite(overlaps: list[list[float]]) -> tuple[dict[int, int], float]:
    """Take the largest overlap of all, then the largest that is still possible, and so on.

    Returns the object of each matched anchor, and by how much the closest choice was made.
    """
    pairs = sorted((-v, k, i) for k, row in enumerate(overlaps) for i, v in enumerate(row) if v > 0)
    matches, margin = {}, math.inf
    while pairs:
        best, object_, anchor = pairs[0]
        matches[anchor] = object_
        excluded = [v for v, k, i in pairs[1:] if (k == object_) != (i == anchor)]
        margin = min(margin, excluded[0] - best) if excluded else margin
        pairs = [(v, k, i) for v, k, i in pairs if k != object_ and i != anchor]
    return matches, margin


def _iou(box1, box2, encoder: SSDInputEncoder) -> float:
    d = BORDERS[encoder.border_pixels]
    width = max(0.0, min(box1[2], box2[2]) - max(box1[0], box2[0]) + d)
    height = max(0.0, min(box1[3], box2[3]) - max(box1[1], box2[1]) + d)
    areas = [(b[2] - b[0] + d) * (b[3] - b[1] + d) for b in (box1, box2)]
    return width * height / (sum(areas) - width * height)


def _corners_in_pixels(anchor, encoder: SSDInputEncoder) -> tuple:
    a, b, c, d = anchor
    xmin, ymin, xmax, ymax = {
        "corners": (a, b, c, d),
        "minmax": (a, c, b, d),
        "centroids": (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    }[encoder.coords]
    if not encoder.normalize_coords:
        return xmin, ymin, xmax, ymax
    width, height = encoder.img_width, encoder.img_height
    return xmin * width, ymin * height, xmax * width, ymax * height


def _offsets(box, anchor, encoder: SSDInputEncoder) -> list[float]:
    width, height = encoder.img_width, encoder.img_height
    if not encoder.normalize_coords:
        width = height = 1
    xmin, ymin, xmax, ymax = box
    v = encoder.variances
    if encoder.coords == "centroids":
        border = BORDERS[encoder.border_pixels]
        return [
            ((xmin + xmax) / 2 / width - anchor[0]) / anchor[2] / v[0],
            ((ymin + ymax) / 2 / height - anchor[1]) / anchor[3] / v[1],
            math.log((xmax - xmin + border) / width / anchor[2]) / v[2],
            math.log((ymax - ymin + border) / height / anchor[3]) / v[3],
        ]
    if encoder.coords == "corners":
        values = (xmin / width, ymin / height, xmax / width, ymax / height)
        sides = (anchor[2] - anchor[0], anchor[3] - anchor[1]) * 2
    else:
        values = (xmin / width, xmax / width, ymin / height, ymax / height)
        sides = (anchor[1] - anchor[0],) * 2 + (anchor[3] - anchor[2],) * 2
    return [(values[i] - anchor[i]) / sides[i] / v[i] for i in range(4)]
