"""The multibox loss, box by box with Python's numbers: slow and plain."""

from __future__ import annotations

import math

import numpy as np


def slow_loss(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    neg_pos_ratio: float = 3,
    n_neg_min: int = 0,
    alpha: float = 1.0,
    mining: str = "batch",
) -> list[float]:
    """Return the loss of every image, as `SSDLoss` defines it."""
    batch_size, n_boxes, _ = y_true.shape
    positives = [
        [i for i in range(n_boxes) if max(y_true[b, i, 1:-12]) > 0] for b in range(batch_size)
    ]
    n_positive = sum(map(len, positives))

    # (loss, image, box) of the negatives, the hardest first, in reading order among equals.
    negatives = [
        (class_loss(y_true[b, i], y_pred[b, i]), b, i)
        for b in range(batch_size)
        for i in range(n_boxes)
        if y_true[b, i, 0] > 0
    ]
    negatives = sorted((n for n in negatives if n[0] > 0), key=lambda n: (-n[0], n[1], n[2]))
    if mining == "batch":
        kept = negatives[: max(math.floor(neg_pos_ratio * n_positive), n_neg_min)]
    else:
        kept = []
        for b in range(batch_size):
            of_image = [n for n in negatives if n[1] == b]
            kept += of_image[: max(math.floor(neg_pos_ratio * len(positives[b])), n_neg_min)]

    losses = []
    for b in range(batch_size):
        total = sum(loss for loss, image, _ in kept if image == b)
        for i in positives[b]:
            total += class_loss(y_true[b, i], y_pred[b, i])
            total += alpha * sum(map(smooth_l1, y_true[b, i, -12:-8], y_pred[b, i, -12:-8]))
        losses.append(total / max(1, n_positive) * batch_size)
    return losses


def slow_focal_class_loss(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    gamma: float,
    factors: list[float],
    class_activation: str,
) -> list[float]:
    """Return the classification part of `SSDFocalLoss` of every image; one factor a class."""
    n_positive = sum(max(box[1:-12]) > 0 for image in y_true for box in image)
    losses = []
    for truths, predictions in zip(y_true[..., :-12], y_pred[..., :-12], strict=True):
        total = 0.0
        for truth, prediction in zip(truths.tolist(), predictions.tolist(), strict=True):
            if max(truth) == 0:
                continue  # neutral
            true_class = truth.index(1)
            if class_activation == "softmax":
                total += factors[true_class] * focal(prediction[true_class], gamma)
                continue
            for c in range(1, len(truth)):
                if c == true_class:
                    total += factors[c] * focal(prediction[c], gamma)
                else:
                    total += factors[0] * focal(1 - prediction[c], gamma)
        losses.append(total / max(1, n_positive) * len(y_true))
    return losses


def focal(p: float, gamma: float) -> float:
    """Return the focal loss of an answer to which the probability p was given."""
    return (1 - p) ** gamma * -math.log(max(p, 1e-15))


def class_loss(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the cross-entropy of one box."""
    pairs = zip(truth[:-12].tolist(), prediction[:-12].tolist(), strict=True)
    return -sum(t * math.log(max(p, 1e-15)) for t, p in pairs)


def smooth_l1(truth: float, prediction: float) -> float:
    """Return the smooth L1 distance of two numbers."""
    distance = abs(float(truth) - float(prediction))
    return 0.5 * distance**2 if distance < 1 else distance - 0.5
