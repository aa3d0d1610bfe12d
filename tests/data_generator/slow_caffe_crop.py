"""The batch sampler of SSD in Caffe, trial by trial, in fractions of the image and pure Python."""

from __future__ import annotations

import math
import random

Box = tuple[float, float, float, float]


def overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def draw_patch(rng: random.Random) -> Box:
    scale = rng.uniform(0.3, 1.0)
    ratio = rng.uniform(max(0.5, scale**2), min(2.0, 1 / scale**2))
    width, height = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
    xmin, ymin = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return xmin, ymin, xmin + width, ymin + height


def draw_crop(boxes: list[Box], rng: random.Random) -> Box:
    """Draw a crop for boxes in fractions of the image; (0, 0, 1, 1) is the whole image."""
    successes = [(0.0, 0.0, 1.0, 1.0)]
    for bound in (0.1, 0.3, 0.5, 0.7, 0.9, 0.0):
        for _ in range(50):
            patch = draw_patch(rng)
            if any(overlap(patch, box) >= bound for box in boxes):
                successes.append(patch)
                break
    return rng.choice(successes)


def emitted(boxes: list[Box], crop: Box) -> list[tuple[int, Box]]:
    """Return (number, part inside) of the boxes whose centre lies in the crop."""
    kept = []
    for number, (xmin, ymin, xmax, ymax) in enumerate(boxes):
        x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
        if crop[0] <= x <= crop[2] and crop[1] <= y <= crop[3]:
            inside = max(xmin, crop[0]), max(ymin, crop[1]), min(xmax, crop[2]), min(ymax, crop[3])
            kept.append((number, inside))
    return kept
