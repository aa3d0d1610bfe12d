"""Choosing anchors for a data set, and checking how well they fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

# Ratios width / height that anchors may have, and how common a shape must be to get its own.
_CANDIDATE_RATIOS = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)
_MIN_SHARE = 0.05


def box_sizes_at(
    labels: Sequence[np.ndarray],
    original_sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
) -> np.ndarray:
    """Collect the sizes that ground truth boxes have once their images are resized.

    Arguments:
        labels: For each image `(k, 5)` rows (class_id, xmin, ymin, xmax, ymax) in its pixels.
        original_sizes: For each image its (height, width).
        image_size: (height, width) that all images are resized to.

    Returns:
        float64 `(n, 2)` array of (width, height) in pixels of the resized images, without boxes
        that have no area.
    """
    sizes = [np.zeros((0, 2))]
    for boxes, (height, width) in zip(labels, original_sizes, strict=True):
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
        factors = (image_size[1] / width, image_size[0] / height)
        sizes.append((boxes[:, 3:5] - boxes[:, 1:3]) * factors)
    sizes = np.concatenate(sizes)
    return sizes[(sizes > 0).all(axis=1)]


def suggest_scales(
    box_sizes: np.ndarray, image_size: tuple[int, int], n_layers: int
) -> tuple[float, ...]:
    """Spread anchor scales over the sizes that the objects of a data set have.

    The scales form a geometric series from the 5 % to the 95 % quantile of sqrt(width * height),
    because IoU depends on the ratio of two sizes, not on their difference. One more scale
    continues the series: together with the geometric mean of its two neighbours, the second
    box of ratio 1, it covers the largest objects.

    Arguments:
        box_sizes: `(n, 2)` (width, height) in pixels of the network's input.
        image_size: (height, width) of the network's input.
        n_layers: Number of predictor layers.

    Returns:
        `n_layers + 1` scales, fractions of the shorter side, the last regular one at most 1.

    Raises:
        ValueError: if there are no boxes.
    """
    if len(box_sizes) == 0:
        raise ValueError("Cannot suggest anchor scales for a data set without any box.")
    sizes = np.sqrt(box_sizes.prod(axis=1)) / min(image_size)
    smallest, largest = np.quantile(sizes, (0.05, 0.95))
    # Objects of one single size would give a series that stands still.
    largest = min(1.0, max(largest, 1.5 * smallest))
    series = np.geomspace(smallest, largest, n_layers)
    step = (largest / smallest) ** (1 / max(1, n_layers - 1))
    return tuple(np.round([*series, series[-1] * step], 4).tolist())


def suggest_aspect_ratios(box_sizes: np.ndarray) -> tuple[float, ...]:
    """Choose the anchor shapes that a data set needs from 1:3, 1:2, 1:1, 2:1 and 3:1.

    Arguments:
        box_sizes: `(n, 2)` (width, height) in pixels of the network's input.

    Returns:
        The ratios width / height that are the nearest one (on a logarithmic scale) of at least
        5 % of the boxes; 1 always.
    """
    ratios = np.log(box_sizes[:, 0] / box_sizes[:, 1])
    nearest = np.abs(ratios[:, np.newaxis] - np.log(_CANDIDATE_RATIOS)).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(_CANDIDATE_RATIOS)) / max(1, len(box_sizes))
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
    best = [
        encoder.similarities(boxes[:, 1:]).max(axis=1)
        for boxes in (np.asarray(b, dtype=np.float64).reshape(-1, 5) for b in labels)
        if len(boxes)
    ]
    return float((np.concatenate(best) >= iou_threshold).mean()) if best else float("nan")
