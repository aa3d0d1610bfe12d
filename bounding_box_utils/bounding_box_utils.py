"""Box geometry on NumPy arrays: coordinate formats, intersections and IoU.

Three formats are used throughout the library:

=============  ==========================  ===========================================
name           four numbers                where it is used
=============  ==========================  ===========================================
``corners``    xmin, ymin, xmax, ymax      ground truth labels, detections, NMS
``minmax``     xmin, xmax, ymin, ymax      an alternative encoding
``centroids``  cx, cy, width, height       anchors and offsets, as in the SSD paper
=============  ==========================  ===========================================

`border_pixels` says whether the pixels under a box's border belong to the box. It changes every
side length by a constant `d`, in pixels: ``half`` d = 0 (coordinates are points between pixels),
``include`` d = +1 (Pascal VOC: a box from pixel 3 to pixel 5 is three pixels wide), ``exclude``
d = -1.
"""

from __future__ import annotations

import numpy as np

BOX_FORMATS = ("corners", "minmax", "centroids")

_SIDE_LENGTH_CHANGE = {"half": 0, "include": 1, "exclude": -1}

# The position of (xmin, ymin, xmax, ymax) in each format made of corner coordinates.
_CORNER_COLUMNS = {"corners": (0, 1, 2, 3), "minmax": (0, 2, 1, 3)}

_CONVERSIONS = tuple(
    f"{source}2{target}" for source in BOX_FORMATS for target in BOX_FORMATS if source != target
)


def border_width(border_pixels: str) -> int:
    """Translate a `border_pixels` setting into the pixels it adds to every side of a box.

    Arguments:
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'``.

    Returns:
        0, 1 or -1.

    Raises:
        ValueError: for any other value.
    """
    if border_pixels not in _SIDE_LENGTH_CHANGE:
        raise ValueError(
            f"`border_pixels` must be one of {', '.join(_SIDE_LENGTH_CHANGE)}; "
            f"got {border_pixels!r}."
        )
    return _SIDE_LENGTH_CHANGE[border_pixels]


def check_box_format(coords: str) -> None:
    """Raise a ValueError unless `coords` names one of the three box formats."""
    if coords not in BOX_FORMATS:
        raise ValueError(f"`coords` must be one of {', '.join(BOX_FORMATS)}; got {coords!r}.")


def widened(coordinates: np.ndarray) -> np.ndarray:
    """Bring coordinates to a type in which sides and areas of boxes can be computed.

    NumPy would wrap around without a word: of uint8 coordinates 10 - 30 is 236, and an area of
    300 x 300 is more than int16 holds.

    Arguments:
        coordinates: Array of numbers.

    Returns:
        int64 for integers, float32 for float16, the given array for all other types.
    """
    if coordinates.dtype.kind in "iu":
        return coordinates.astype(np.int64, copy=False)
    if coordinates.dtype == np.float16:
        return coordinates.astype(np.float32)
    return coordinates


def convert_coordinates(
    tensor: np.ndarray, start_index: int, conversion: str, border_pixels: str = "half"
) -> np.ndarray:
    """Convert the four box coordinates inside an array from one format to another.

    Conversions with the same `border_pixels` are inverses of each other.

    Arguments:
        tensor: Array of any rank; the last axis holds four consecutive coordinates from
            `start_index` on. Everything else on that axis is copied through.
        start_index: Position of the first coordinate on the last axis, negative ones included.
        conversion: ``'<source>2<target>'`` for two of corners, minmax, centroids, for example
            ``'corners2centroids'``.
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'``. Only conversions from or to
            centroids depend on it, and only then are the coordinates taken as pixels.

    Returns:
        A new float64 array of the same shape.

    Raises:
        ValueError: if `conversion` or `border_pixels` is unknown, or if the last axis does not hold
            four coordinates from `start_index` on.

    Example:
        >>> import numpy as np
        >>> from bounding_box_utils.bounding_box_utils import convert_coordinates
        >>> label = np.array([[7, 10, 20, 50, 80]])  # class, xmin, ymin, xmax, ymax
        >>> convert_coordinates(label, 1, "corners2centroids")
        array([[ 7., 30., 50., 40., 60.]])

        If the pixels under the border belong to the box, it is one pixel wider and higher:

        >>> convert_coordinates(label, 1, "corners2centroids", border_pixels="include")
        array([[ 7., 30., 50., 41., 61.]])
    """
    if conversion not in _CONVERSIONS:
        raise ValueError(
            f"`conversion` must be one of {', '.join(_CONVERSIONS)}; got {conversion!r}."
        )
    d = border_width(border_pixels)
    source, target = conversion.split("2")
    converted = np.array(tensor, dtype=np.float64)
    n_columns = converted.shape[-1]
    first = start_index + n_columns if start_index < 0 else start_index
    if not 0 <= first <= n_columns - 4:
        raise ValueError(
            f"Expected four coordinates from `start_index` {start_index} on along the last axis, "
            f"which has {n_columns} entries."
        )
    boxes = converted[..., first : first + 4]  # a view: writing to it fills `converted`

    if source == "centroids":
        cx, cy, width, height = (boxes[..., i].copy() for i in range(4))
        corners = (
            cx - (width - d) / 2,
            cy - (height - d) / 2,
            cx + (width - d) / 2,
            cy + (height - d) / 2,
        )
    else:
        corners = tuple(boxes[..., i].copy() for i in _CORNER_COLUMNS[source])

    if target == "centroids":
        xmin, ymin, xmax, ymax = corners
        boxes[..., 0] = (xmin + xmax) / 2
        boxes[..., 1] = (ymin + ymax) / 2
        boxes[..., 2] = xmax - xmin + d
        boxes[..., 3] = ymax - ymin + d
    else:
        for column, values in zip(_CORNER_COLUMNS[target], corners, strict=True):
            boxes[..., column] = values
    return converted


def convert_coordinates2(tensor: np.ndarray, start_index: int, conversion: str) -> np.ndarray:
    """Convert between minmax and centroids: kept for old scripts, see `convert_coordinates`.

    Arguments:
        tensor: As in `convert_coordinates`.
        start_index: As in `convert_coordinates`.
        conversion: ``'minmax2centroids'`` or ``'centroids2minmax'``.

    Returns:
        A new float64 array of the same shape.

    Raises:
        ValueError: for any other conversion.
    """
    if conversion not in ("minmax2centroids", "centroids2minmax"):
        raise ValueError(
            "`conversion` must be 'minmax2centroids' or 'centroids2minmax' here "
            f"(convert_coordinates knows the others); got {conversion!r}."
        )
    return convert_coordinates(tensor, start_index, conversion)


def intersection_area(
    boxes1: np.ndarray,
    boxes2: np.ndarray,
    coords: str = "centroids",
    mode: str = "outer_product",
    border_pixels: str = "half",
) -> np.ndarray:
    """Compute the areas in which boxes overlap.

    Arguments:
        boxes1: `(4,)` or `(m, 4)` boxes in the format `coords`.
        boxes2: `(4,)` or `(n, 4)` boxes in the format `coords`.
        coords: ``'centroids'``, ``'corners'`` or ``'minmax'``. Centroids are turned into corners
            as points (without a border effect) before anything is measured.
        mode: ``'outer_product'``: every box of `boxes1` with every one of `boxes2`;
            ``'element-wise'``: pairs, with broadcasting where one of them holds a single box.
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'`` (see the module's docstring).

    Returns:
        `(m, n)` areas for ``'outer_product'``, `(max(m, n),)` for ``'element-wise'``, in the
        square of the boxes' unit. Integer boxes in corners or minmax give int64.

    Raises:
        ValueError: if a shape, `coords`, `mode` or `border_pixels` is not as described.

    Example:
        >>> from bounding_box_utils.bounding_box_utils import intersection_area
        >>> boxes = [[0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10]]
        >>> intersection_area(boxes, boxes, coords="corners")
        array([[100,  25,   0],
               [ 25, 100,  25],
               [  0,  25, 100]])
    """
    boxes1, boxes2 = _checked_pair(boxes1, boxes2, coords, mode)
    return intersection_area_(*_as_corners(boxes1, boxes2, coords), "corners", mode, border_pixels)


def intersection_area_(
    boxes1: np.ndarray,
    boxes2: np.ndarray,
    coords: str = "corners",
    mode: str = "outer_product",
    border_pixels: str = "half",
) -> np.ndarray:
    """Compute intersections like `intersection_area`, without checking or converting anything.

    Arguments:
        boxes1: `(m, 4)` boxes in the format `coords`.
        boxes2: `(n, 4)` boxes in the format `coords`.
        coords: ``'corners'`` or ``'minmax'``.
        mode: As in `intersection_area`.
        border_pixels: As in `intersection_area`.

    Returns:
        As `intersection_area`.
    """
    d = border_width(border_pixels)
    xmin, ymin, xmax, ymax = _CORNER_COLUMNS[coords]
    if mode == "outer_product":
        boxes1, boxes2 = boxes1[:, np.newaxis], boxes2[np.newaxis]  # (m, 1, 4), (1, n, 4)
    widths = np.minimum(boxes1[..., xmax], boxes2[..., xmax])
    widths = widths - np.maximum(boxes1[..., xmin], boxes2[..., xmin]) + d
    heights = np.minimum(boxes1[..., ymax], boxes2[..., ymax])
    heights = heights - np.maximum(boxes1[..., ymin], boxes2[..., ymin]) + d
    return np.maximum(widths, 0) * np.maximum(heights, 0)


def iou(
    boxes1: np.ndarray,
    boxes2: np.ndarray,
    coords: str = "centroids",
    mode: str = "outer_product",
    border_pixels: str = "half",
) -> np.ndarray:
    """Compute the intersection over union (Jaccard overlap) of boxes.

    The border effect enters the intersection and both areas alike, as in the official Pascal VOC
    evaluation code, so that a box has an IoU of exactly 1 with itself.

    Arguments:
        boxes1: `(4,)` or `(m, 4)` boxes in the format `coords`.
        boxes2: `(4,)` or `(n, 4)` boxes in the format `coords`.
        coords: ``'centroids'``, ``'corners'`` or ``'minmax'``.
        mode: ``'outer_product'`` or ``'element-wise'``, as in `intersection_area`.
        border_pixels: ``'half'``, ``'include'`` or ``'exclude'`` (see the module's docstring).

    Returns:
        `(m, n)` values in [0, 1] for ``'outer_product'``, `(max(m, n),)` for ``'element-wise'``.
        Two boxes without any area give NaN (0 / 0).

    Raises:
        ValueError: if a shape, `coords`, `mode` or `border_pixels` is not as described.

    Example:
        A box, one of the same size that is shifted by half its width, and one beside it:

        >>> from bounding_box_utils.bounding_box_utils import iou
        >>> boxes = [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]]
        >>> iou(boxes[0], boxes, coords="corners").round(3)
        array([[1.   , 0.333, 0.   ]])
    """
    boxes1, boxes2 = _checked_pair(boxes1, boxes2, coords, mode)
    d = border_width(border_pixels)
    boxes1, boxes2 = _as_corners(boxes1, boxes2, coords)
    intersections = intersection_area_(boxes1, boxes2, "corners", mode, border_pixels)

    areas1, areas2 = (
        (boxes[:, 2] - boxes[:, 0] + d) * (boxes[:, 3] - boxes[:, 1] + d)
        for boxes in (boxes1, boxes2)
    )
    if mode == "outer_product":
        areas1, areas2 = areas1[:, np.newaxis], areas2[np.newaxis]
    return intersections / (areas1 + areas2 - intersections)


def _checked_pair(
    boxes1: np.ndarray, boxes2: np.ndarray, coords: str, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Validate the arguments that `intersection_area` and `iou` share; promote `(4,)` boxes."""
    pair = []
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        boxes = widened(np.asarray(boxes))
        if boxes.ndim > 2:
            raise ValueError(f"`{name}` must have shape (4,) or (n, 4); got {boxes.shape}.")
        pair.append(np.atleast_2d(boxes))
    for name, boxes in zip(("boxes1", "boxes2"), pair, strict=True):
        if boxes.shape[1] != 4:
            raise ValueError(f"A box has four coordinates; `{name}` has {boxes.shape[1]} columns.")
    if mode not in ("outer_product", "element-wise"):
        raise ValueError(f"`mode` must be 'outer_product' or 'element-wise'; got {mode!r}.")
    check_box_format(coords)
    boxes1, boxes2 = pair
    if mode == "element-wise" and len(boxes1) != len(boxes2) and 1 not in map(len, pair):
        raise ValueError(
            "In mode 'element-wise' `boxes1` and `boxes2` must hold equally many boxes, or one of "
            f"them a single box; got {len(boxes1)} and {len(boxes2)}."
        )
    return boxes1, boxes2


def _as_corners(
    boxes1: np.ndarray, boxes2: np.ndarray, coords: str
) -> tuple[np.ndarray, np.ndarray]:
    if coords == "centroids":
        return (
            convert_coordinates(boxes1, 0, "centroids2corners"),
            convert_coordinates(boxes2, 0, "centroids2corners"),
        )
    columns = _CORNER_COLUMNS[coords]
    return boxes1[:, columns], boxes2[:, columns]
