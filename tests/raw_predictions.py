"""Raw SSD predictions for tests and benchmarks of decoding, made rather than stored.

The recipe is the one of `tests/golden/README.md`. It draws uniform numbers and uses + - * / only,
so that the result is the same to the last bit everywhere; the order of the draws and of the
operations matters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parent / "golden"
VARIANCES = (0.1, 0.1, 0.2, 0.2)


def make_y_pred(
    seed: int,
    anchors: np.ndarray,
    n_classes: int,
    batch: int,
    n_gt: int,
    noise: float = 0.004,
    offs: float = 1.2,
) -> np.ndarray:
    """Make predictions with `n_gt` objects an image, and clutter everywhere.

    Arguments:
        seed: Of the random numbers.
        anchors: float32 `(n, 4)` centroids.
        n_classes: Number of classes, the background included.
        batch: Number of images.
        n_gt: Objects in an image.
        noise: Level of the clutter.
        offs: Range of the offsets.

    Returns:
        float32 `(batch, n, n_classes + 12)`.
    """
    rng = np.random.default_rng(seed)
    cx, cy, width, height = anchors.astype(np.float64).T
    xmin, ymin, xmax, ymax = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    area = width * height
    y_pred = np.zeros((batch, len(anchors), n_classes + 12), np.float32)
    for image in y_pred:
        objects = rng.integers(0, len(anchors), n_gt)  # each looks like one of the anchors
        object_classes = rng.integers(1, n_classes, n_gt)
        strengths = rng.random(n_gt)
        weights = rng.random((len(anchors), n_classes))
        weights = weights * weights
        weights = weights * weights * noise
        weights[:, 0] = 1.0
        for anchor, class_id, strength in zip(objects, object_classes, strengths, strict=True):
            overlap_x = np.minimum(xmax, xmax[anchor]) - np.maximum(xmin, xmin[anchor])
            overlap_y = np.minimum(ymax, ymax[anchor]) - np.maximum(ymin, ymin[anchor])
            overlap = np.maximum(overlap_x, 0.0) * np.maximum(overlap_y, 0.0)
            iou = overlap / (area + area[anchor] - overlap)
            peak = iou * iou * (0.3 + 0.7 * rng.random(len(anchors))) * (1.0 + 11.0 * strength)
            confusable = 1 + (class_id + 3) % (n_classes - 1)
            weights[:, class_id] += peak
            weights[:, confusable] += 0.15 * peak * rng.random(len(anchors))
        total = weights[:, 0].copy()
        for class_id in range(1, n_classes):
            total = total + weights[:, class_id]
        image[:, :n_classes] = weights / total[:, np.newaxis]
        image[:, -12:-8] = (rng.random((len(anchors), 4)) - 0.5) * offs
        image[:, -8:-4] = anchors
        image[:, -4:] = VARIANCES
    return y_pred


def golden_predictions() -> dict[str, np.ndarray]:
    """Load the stored inputs of the decoders, and make the ones of SSD300's full size.

    Returns:
        name -> float32 `(batch, n_boxes, n_classes + 12)`; ``'FULL'`` and ``'FULL2'`` have 8,732
        boxes and 20 classes.
    """
    with np.load(GOLDEN / "decode_inputs.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    anchors = arrays.pop("anchors_full")
    arrays["FULL"] = make_y_pred(5204, anchors, n_classes=21, batch=1, n_gt=8)
    arrays["FULL2"] = make_y_pred(5105, anchors, n_classes=21, batch=2, n_gt=6, noise=0.0012)
    empty = arrays["B"].copy()
    empty[0, :, :-12] = 0
    empty[0, :, 0] = 1
    arrays["B_empty"] = empty
    return arrays
