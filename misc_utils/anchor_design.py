"""Choosing anchors for a data set, and checking how well they fit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

# Ratios width / height that anchors may have, and how common a shape must be to get its own.
_CANDIDATE_RATIOS = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)
_MIN_SHARE = 0.05
# The ratios of one layer's scale to the one before that are tried.
_SCALE_STEPS = (1.4, 1.6, 1.8, 2.0, 2.2)
_ENOUGH_BOXES = 300


def suggest_scales(
    labels: Sequence[np.ndarray],
    image_size: tuple[int, int],
    predictor_sizes: Sequence[tuple[int, int]],
    aspect_ratios: Sequence[float],
) -> tuple[float, ...]:
    """Find the anchor scales that fit the objects of a data set best.

    Tried are geometric series, because IoU depends on the ratio of two sizes, not on their
    difference. A fine series has an anchor of about the right size for every object; but anchors of
    a coarse map lie far apart, and small ones on it miss the objects between them. So every series
    is judged by the anchors that it really gives: by the share of boxes that have one with an IoU
    of at least 0.5, plus the mean of the boxes' best IoUs.

    Arguments:
        labels: For each image `(k, 5)` rows (class_id, xmin, ymin, xmax, ymax) in pixels of the
            network's input.
        image_size: (height, width) of the network's input.
        predictor_sizes: (height, width) of each predictor layer's feature map.
        aspect_ratios: Ratios width / height that the anchors of all layers will have.

    Returns:
        One scale a layer and a last one, fractions of the shorter side of the image.

    Raises:
        ValueError: if there are no boxes.
    """
    boxes = _all_boxes(labels)
    if len(boxes) == 0:
        raise ValueError("Cannot suggest anchor scales for a data set without any box.")
    # A few hundred boxes, evenly picked, tell as much as all of them.
    boxes = boxes[:: max(1, len(boxes) // _ENOUGH_BOXES)]
    sizes = np.sqrt((boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2])) / min(image_size)
    starts = np.geomspace(*np.quantile(sizes, (0.02, 0.5)), num=9)

    best_scales, best_score = None, -1.0
    for start, step in itertools.product(np.unique(starts), _SCALE_STEPS):
        # Only the extra scale behind the last layer may exceed the image.
        scales = np.minimum(start * step ** np.arange(len(predictor_sizes)), 1.0)
        scales = np.append(scales, start * step ** len(predictor_sizes))
        encoder = SSDInputEncoder(
            *image_size,
            n_classes=1,
            predictor_sizes=predictor_sizes,
            scales=scales,
            aspect_ratios_global=aspect_ratios,
        )
        best_ious = encoder.similarities(boxes[:, 1:]).max(axis=1)
        score = (best_ious >= 0.5).mean() + best_ious.mean()
        if score > best_score:
            best_scales, best_score = scales, score
    return tuple(np.round(best_scales, 4).tolist())


def suggest_aspect_ratios(labels: Sequence[np.ndarray]) -> tuple[float, ...]:
    """Choose the anchor shapes that a data set needs from 1:3, 1:2, 1:1, 2:1 and 3:1.

    Arguments:
        labels: For each image `(k, 5)` rows (class_id, xmin, ymin, xmax, ymax) in pixels of the
            network's input, where resizing may have changed the shapes.

    Returns:
        The ratios width / height that are the nearest one (on a logarithmic scale) of at least
        5 % of the boxes; 1 always.
    """
    boxes = _all_boxes(labels)
    ratios = np.log((boxes[:, 3] - boxes[:, 1]) / (boxes[:, 4] - boxes[:, 2]))
    nearest = np.abs(ratios[:, np.newaxis] - np.log(_CANDIDATE_RATIOS)).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(_CANDIDATE_RATIOS)) / max(1, len(boxes))
    return tuple(
        ratio
        for ratio, share in zip(_CANDIDATE_RATIOS, shares, strict=True)
        if ratio == 1 or share >= _MIN_SHARE
    )


def share_with_anchor(
    encoder: SSDInputEncoder, labels: Sequence[np.ndarray], iou_threshold: float = 0.5
) -> float:
    """Measure how many ground truth boxes have an anchor that fits them well.

    Arguments:
        encoder: The encoder, whose anchors count.
        labels: For each image `(k, 5)` rows (class_id, xmin, ymin, xmax, ymax) in pixels of the
            network's input.
        iou_threshold: What counts as fitting well.

    Returns:
        The share of boxes whose best anchor has at least that IoU; NaN without boxes.
    """
    boxes = _all_boxes(labels)
    if len(boxes) == 0:
        return float("nan")
    return float((encoder.similarities(boxes[:, 1:]).max(axis=1) >= iou_threshold).mean())


def _all_boxes(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Join the labels of all images, without boxes that have no area: float64 `(n, 5)`."""
    boxes = [np.asarray(b, dtype=np.float64).reshape(-1, 5) for b in labels]
    boxes = np.concatenate([np.zeros((0, 5)), *boxes])
    return boxes[(boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])]
