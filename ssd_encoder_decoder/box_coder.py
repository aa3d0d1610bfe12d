"""The box coder: offsets from an anchor to a box, and back.

The network predicts, for every anchor, how to move and stretch it so that it covers an object.
SSD (paper, section 2.2) measures the move in units of the anchor's size and the stretch on a
logarithmic scale, so that offsets look the same for small and for large objects:

    dx = (cx - cx_anchor) / width_anchor         dw = log(width / width_anchor)
    dy = (cy - cy_anchor) / height_anchor        dh = log(height / height_anchor)

Each offset is then divided by its *variance*. The word is the Caffe code's; they are plain scaling
constants (0.1 for the centre, 0.2 for the size) that bring the four targets to similar magnitudes.

For boxes given by corner coordinates every coordinate is moved on its own, in units of the anchor's
width (x) or height (y), divided by its variance.

Only arithmetic operators and indexing are used on the boxes, so the same functions serve NumPy
arrays and backend tensors; `log`, `exp` and `stack` are arguments for that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bounding_box_utils.bounding_box_utils import check_box_format

# The columns (xmin, xmax) and (ymin, ymax) of the corner formats, and the axis of each column.
_EXTENTS = {"corners": ((0, 2), (1, 3)), "minmax": ((0, 1), (2, 3))}
_AXIS_OF_COLUMN = {"corners": (0, 1, 0, 1), "minmax": (0, 0, 1, 1)}


def _columns(boxes: Any) -> tuple[Any, Any, Any, Any]:
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _anchor_sides(anchors: Any, coords: str) -> tuple[Any, Any]:
    """Return the anchors' (width, height) for a corner format."""
    (x_low, x_high), (y_low, y_high) = _EXTENTS[coords]
    return (
        anchors[..., x_high] - anchors[..., x_low],
        anchors[..., y_high] - anchors[..., y_low],
    )


def encode_boxes(
    boxes: Any,
    anchors: Any,
    variances: Any,
    coords: str,
    log: Callable = np.log,
    stack: Callable = np.stack,
) -> Any:
    """Express boxes as offsets from anchors.

    Arguments:
        boxes: `(..., 4)` boxes in the format `coords`, in the unit of the anchors.
        anchors: `(..., 4)` anchor boxes in the format `coords`, none of zero size.
        variances: `(..., 4)` or `(4,)` scaling constants.
        coords: ``'centroids'`` (the paper's encoding), ``'corners'`` or ``'minmax'``.
        log: Natural logarithm for the kind of array given.
        stack: `stack(list, axis=-1)` for the kind of array given.

    Returns:
        `(..., 4)` offsets, without unit.

    Raises:
        ValueError: if `coords` is unknown.

    Example:
        An object a little to the right of an anchor of 100 x 100 pixels, and twice as wide:

        >>> import numpy as np
        >>> from ssd_encoder_decoder.box_coder import encode_boxes
        >>> anchor, box = np.array([150.0, 150, 100, 100]), np.array([160.0, 150, 200, 100])
        >>> encode_boxes(box, anchor, np.array([0.1, 0.1, 0.2, 0.2]), "centroids").round(3)
        array([1.   , 0.   , 3.466, 0.   ])
    """
    check_box_format(coords)
    v = _columns(variances)
    if coords == "centroids":
        cx, cy, width, height = _columns(boxes)
        anchor_cx, anchor_cy, anchor_width, anchor_height = _columns(anchors)
        return stack(
            [
                (cx - anchor_cx) / (anchor_width * v[0]),
                (cy - anchor_cy) / (anchor_height * v[1]),
                log(width / anchor_width) / v[2],
                log(height / anchor_height) / v[3],
            ],
            axis=-1,
        )
    sides = _anchor_sides(anchors, coords)
    return stack(
        [
            (boxes[..., i] - anchors[..., i]) / (sides[_AXIS_OF_COLUMN[coords][i]] * v[i])
            for i in range(4)
        ],
        axis=-1,
    )


def decode_boxes(
    offsets: Any,
    anchors: Any,
    variances: Any,
    coords: str,
    exp: Callable = np.exp,
    stack: Callable = np.stack,
) -> Any:
    """Apply predicted offsets to anchors: the inverse of `encode_boxes`.

    Arguments:
        offsets: `(..., 4)` offsets as the network predicts them.
        anchors: `(..., 4)` anchor boxes in the format `coords`.
        variances: `(..., 4)` or `(4,)` scaling constants.
        coords: ``'centroids'``, ``'corners'`` or ``'minmax'``.
        exp: Exponential function for the kind of array given.
        stack: `stack(list, axis=-1)` for the kind of array given.

    Returns:
        `(..., 4)` boxes in the format `coords`, in the unit of the anchors.

    Raises:
        ValueError: if `coords` is unknown.

    Example:
        >>> import numpy as np
        >>> from ssd_encoder_decoder.box_coder import decode_boxes
        >>> anchor, variances = np.array([150.0, 150, 100, 100]), np.array([0.1, 0.1, 0.2, 0.2])
        >>> decode_boxes(np.array([1.0, 0, 0, 0]), anchor, variances, "centroids")
        array([160., 150., 100., 100.])
    """
    check_box_format(coords)
    v = _columns(variances)
    if coords == "centroids":
        dx, dy, dw, dh = _columns(offsets)
        anchor_cx, anchor_cy, anchor_width, anchor_height = _columns(anchors)
        return stack(
            [
                dx * v[0] * anchor_width + anchor_cx,
                dy * v[1] * anchor_height + anchor_cy,
                exp(dw * v[2]) * anchor_width,
                exp(dh * v[3]) * anchor_height,
            ],
            axis=-1,
        )
    sides = _anchor_sides(anchors, coords)
    return stack(
        [
            offsets[..., i] * v[i] * sides[_AXIS_OF_COLUMN[coords][i]] + anchors[..., i]
            for i in range(4)
        ],
        axis=-1,
    )


def to_corners(boxes: Any, coords: str, stack: Callable = np.stack) -> Any:
    """Bring boxes of any format to corners (xmin, ymin, xmax, ymax), without a border effect.

    Unlike `convert_coordinates` it keeps the dtype and works on backend tensors.

    Arguments:
        boxes: `(..., 4)` boxes in the format `coords`.
        coords: ``'centroids'``, ``'corners'`` or ``'minmax'``.
        stack: `stack(list, axis=-1)` for the kind of array given.

    Returns:
        `(..., 4)` boxes as corners.

    Raises:
        ValueError: if `coords` is unknown.
    """
    check_box_format(coords)
    if coords == "corners":
        return boxes
    first, second, third, fourth = _columns(boxes)
    if coords == "minmax":
        return stack([first, third, second, fourth], axis=-1)
    half_width, half_height = third / 2, fourth / 2
    return stack(
        [first - half_width, second - half_height, first + half_width, second + half_height],
        axis=-1,
    )
