"""Recognising boxes whose coordinates stand in another order or unit than they are read in."""

from __future__ import annotations

import numpy as np

# Impossible boxes that are slips of annotators rather than a wrong order: a share and a number.
_SLIPS, _FEW = 0.02, 5
# Annotations may end at the last pixel or behind it.
_BORDER = 1.0

_READINGS = {
    "(xmin, xmax, ymin, ymax)": lambda b: b[:, [0, 2, 1, 3]],
    "(ymin, xmin, ymax, xmax)": lambda b: b[:, [1, 0, 3, 2]],
    "(xmin, ymin, width, height)": lambda b: np.hstack([b[:, :2], b[:, :2] + b[:, 2:]]),
    "(cx, cy, width, height)": lambda b: np.hstack(
        [b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2]
    ),
    "(xmax, ymax, xmin, ymin)": lambda b: b[:, [2, 3, 0, 1]],
}


def suspect_coordinates(boxes: np.ndarray, image_sizes: np.ndarray) -> list[str]:
    """Say what the coordinates of a data set may really be, if they are not what they should be.

    A box is possible if it has a positive width and height and lies within its image. If too many
    boxes are not, and most of these would be in another order of the coordinates, that is probably
    the order they have.

    Arguments:
        boxes: `(n, 4)` boxes, read as (xmin, ymin, xmax, ymax) in pixels.
        image_sizes: `(n, 2)` (height, width) of the image of each box.

    Returns:
        Sentences for a person to read; none if nothing is suspicious.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    image_sizes = np.asarray(image_sizes, np.float64).reshape(-1, 2)
    if len(boxes) == 0:
        return []
    with np.errstate(invalid="ignore"):  # infinities and NaN are impossible coordinates, no more
        if (np.abs(boxes) <= 2).all() and image_sizes.min() > 8:
            return [
                "All coordinates are between -2 and 2: they look like fractions of the image. "
                "Boxes must be in pixels: multiply x by the width and y by the height of the image"
            ]
        possible = _possible(boxes, image_sizes)
        share = possible.mean()
        if share >= 1 - _SLIPS or (~possible).sum() < _FEW:
            return []
        shares = {
            name: _possible(read(boxes), image_sizes).mean() for name, read in _READINGS.items()
        }
        swapped = ((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])).mean()
        outside = (boxes[:, 2:] > image_sizes[:, ::-1] + _BORDER).any(axis=1).mean()
    best = max(shares, key=shares.get)
    found = f"{1 - share:.0%} of the boxes are impossible as (xmin, ymin, xmax, ymax)"
    if 1 - shares[best] <= (1 - share) / 2:
        return [
            f"{found}, but only {1 - shares[best]:.0%} would be as {best}: check the order in "
            "which the parser is told to read the columns (input_format, labels_output_format)"
        ]
    details = [
        text.format(part)
        for text, part in (
            ("{:.0%} have xmax < xmin or ymax < ymin: these may be swapped", swapped),
            ("{:.0%} reach out of their image: was it resized after it was annotated?", outside),
        )
        if part > _SLIPS / 2
    ]
    return ["; ".join([found, *details])]


def _possible(boxes: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    """Mark the boxes (xmin, ymin, xmax, ymax) that have an area and lie within their image."""
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    inside = (boxes[:, :2] >= -_BORDER).all(axis=1)
    return has_area & inside & (boxes[:, 2:] <= image_sizes[:, ::-1] + _BORDER).all(axis=1)
