"""Pictures of detections and ground truth: boxes with labels on a copy of the image."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from misc_utils.files import write_bytes

ClassNames = Sequence[str] | Mapping[int, str] | None
Color = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def draw_detections(
    image: np.ndarray,
    detections: np.ndarray,
    class_names: ClassNames = None,
    ground_truth: np.ndarray | None = None,
    min_size: int = 0,
) -> np.ndarray:
    """Draw detections as solid boxes, and ground truth, if given, as dashed ones.

    Labels read 'name 0.97' on a ground of the colour of the class, those of the ground truth on
    white. A class has the same colour in every picture. Detections of higher confidence are drawn
    over others.

    Arguments:
        image: uint8 RGB, RGBA or grey image `(height, width[, channels])`; it is not changed.
        detections: array `(n, 6)` with rows (class_id, confidence, xmin, ymin, xmax, ymax), in
            pixels of the image; boxes may reach over its border. n may be 0.
        class_names: names by class id: a sequence that starts with 'background' for id 0, or a
            mapping. None writes the ids.
        ground_truth: array `(k, 5)` with rows (class_id, xmin, ymin, xmax, ymax), or None.
        min_size: enlarge an image whose longer side is below this many pixels by a whole factor,
            for labels that can be read on small images. 0 never enlarges.

    Returns:
        A new uint8 RGB image, `(height, width, 3)` times the factor of enlargement.

    Raises:
        ValueError: if an array has another shape or dtype than said above, if a coordinate is not
            a finite number, or if a class id has no name.

    Example:
        >>> import numpy as np
        >>> from misc_utils.drawing import draw_detections, save_image
        >>> image = np.zeros((240, 320, 3), np.uint8)
        >>> detections = np.array([[1, 0.97, 40, 60, 200, 180]])
        >>> picture = draw_detections(image, detections, class_names=["background", "cat"])
        >>> save_image("cat.png", picture)
        >>> picture.shape, picture.dtype
        ((240, 320, 3), dtype('uint8'))
    """
    boxes = [] if ground_truth is None else _ground_truth_boxes(ground_truth, class_names)
    boxes += _detection_boxes(detections, class_names)
    return _draw(image, boxes, min_size)


def draw_ground_truth(
    image: np.ndarray,
    ground_truth: np.ndarray,
    class_names: ClassNames = None,
    min_size: int = 0,
) -> np.ndarray:
    """Draw ground truth boxes as dashed lines.

    Arguments:
        image: see `draw_detections`.
        ground_truth: array `(k, 5)` with rows (class_id, xmin, ymin, xmax, ymax) in pixels.
        class_names: see `draw_detections`.
        min_size: see `draw_detections`.

    Returns:
        A new uint8 RGB image: see `draw_detections`.

    Raises:
        ValueError: see `draw_detections`.
    """
    return _draw(image, _ground_truth_boxes(ground_truth, class_names), min_size)


def draw_matches(
    image: np.ndarray,
    ground_truth: np.ndarray,
    anchors: np.ndarray,
    class_names: ClassNames = None,
    min_size: int = 0,
) -> np.ndarray:
    """Draw ground truth boxes as dashed lines, and the anchors matched to them as thin ones.

    Arguments:
        image: see `draw_detections`.
        ground_truth: array `(k, 5)` with rows (class_id, xmin, ymin, xmax, ymax) in pixels.
        anchors: array `(n, 5)` of the same kind, with the class that each anchor is matched to.
        class_names: see `draw_detections`.
        min_size: see `draw_detections`.

    Returns:
        A new uint8 RGB image: see `draw_detections`.

    Raises:
        ValueError: see `draw_detections`.
    """
    boxes = [
        _Box(row[1:], class_color(int(row[0])), "", False)
        for row in _rows(anchors, 5, "anchors (class_id, xmin, ymin, xmax, ymax)")
    ]
    # The first is drawn first: ground truth lies above the anchors.
    return _draw(image, boxes + _ground_truth_boxes(ground_truth, class_names), min_size)


def class_color(class_id: int) -> Color:
    """Return the RGB colour of a class, which is the same everywhere and always.

    The hues of successive ids are a golden angle apart, so that any few ids in a row get colours
    that are easy to tell from each other; the lightness changes every few ids for the same reason.

    Arguments:
        class_id: an integer >= 0.

    Returns:
        Three integers from 0 to 255.

    Example:
        >>> from misc_utils.drawing import class_color
        >>> class_color(1), class_color(2)
        ((99, 19, 236), (19, 236, 36))
    """
    hue = (0.11 + 0.618034 * class_id) % 1.0
    lightness = (0.5, 0.65, 0.38)[class_id // 7 % 3]
    return tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, 0.85))


def save_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image file in one step; missing folders are made.

    Arguments:
        path: the file; its suffix chooses the format (.png, .jpg, ...).
        image: uint8 RGB, RGBA or grey image `(height, width[, channels])`.

    Raises:
        ValueError: if the image has another shape or dtype, or the suffix is of no image format.
    """
    suffix = Path(path).suffix
    bgr = cv2.cvtColor(_to_rgb(image), cv2.COLOR_RGB2BGR)
    if not suffix or not cv2.haveImageWriter(f"_{suffix}"):
        raise ValueError(f"Expected a suffix such as '.png' or '.jpg' in '{os.fspath(path)}'.")
    _, content = cv2.imencode(suffix, bgr)
    write_bytes(path, content.tobytes())


@dataclass(frozen=True)
class _Box:
    """What is drawn for one object."""

    corners: np.ndarray  # (4,) in pixels of the image before it is enlarged
    color: Color
    label: str  # none for an anchor, whose line is thin
    is_ground_truth: bool


def _detection_boxes(detections: np.ndarray, class_names: ClassNames) -> list[_Box]:
    """Return the boxes in the order of drawing: least confident first."""
    rows = _rows(detections, 6, "detections (class_id, confidence, xmin, ymin, xmax, ymax)")
    rows = rows[np.argsort(rows[:, 1], kind="stable")]
    return [
        _Box(row[2:], class_color(int(row[0])), f"{_name(row[0], class_names)} {row[1]:.2f}", False)
        for row in rows
    ]


def _ground_truth_boxes(ground_truth: np.ndarray, class_names: ClassNames) -> list[_Box]:
    rows = _rows(ground_truth, 5, "ground truth (class_id, xmin, ymin, xmax, ymax)")
    return [
        _Box(row[1:], class_color(int(row[0])), _name(row[0], class_names), True) for row in rows
    ]


def _rows(array: np.ndarray, n_columns: int, meaning: str) -> np.ndarray:
    """Return a float `(n, n_columns)` array, also for an empty list."""
    rows = np.asarray(array, dtype=np.float64)
    if rows.size == 0:
        return np.empty((0, n_columns))
    if rows.ndim != 2 or rows.shape[1] != n_columns:
        raise ValueError(
            f"Expected {meaning} of one image as an array (n, {n_columns}), got shape "
            f"{rows.shape}. Of a list or batch, pass the entry of the image."
        )
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise ValueError(f"Expected finite numbers in {meaning}, row {bad[0]} is {rows[bad[0]]}.")
    return rows


def _name(class_id: float, class_names: ClassNames) -> str:
    class_id = int(class_id)
    if class_names is None:
        return str(class_id)
    try:
        if class_id < 0:
            raise IndexError
        return str(class_names[class_id])
    except LookupError:
        raise ValueError(
            f"Class id {class_id} has no name among the {len(class_names)} class_names. A sequence "
            "of names must start with 'background', which is class 0."
        ) from None


def _to_rgb(image: np.ndarray) -> np.ndarray:
    """Return a new contiguous uint8 RGB image."""
    image = np.asarray(image)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ValueError(
            "Expected a uint8 image (height, width) or (height, width, 1, 3 or 4), got "
            f"{image.dtype} of shape {image.shape}."
        )
    if 0 in image.shape:
        raise ValueError(f"Expected an image with pixels, got shape {image.shape}.")
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(image[..., :3]).copy()


def _draw(image: np.ndarray, boxes: list[_Box], min_size: int) -> np.ndarray:
    """Draw all boxes, then all labels, so that no line crosses a label."""
    canvas = _to_rgb(image)
    factor = max(1, int(np.ceil(min_size / max(canvas.shape[:2]))))
    if factor > 1:
        canvas = cv2.resize(canvas, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    height, width = canvas.shape[:2]
    thickness = max(1, round(max(height, width) / 350))

    limits = np.array([width, height, width, height])
    placed = []
    for box in boxes:
        # Lines outside of the image cannot be seen, and OpenCV overflows on huge coordinates.
        corners = np.clip(box.corners * factor, -4 * thickness, limits + 4 * thickness)
        xmin, ymin, xmax, ymax = np.round(corners).astype(int).tolist()
        # The edge xmax is the right border of pixel xmax - 1.
        xmax, ymax = max(xmax - 1, xmin), max(ymax - 1, ymin)
        placed.append((xmin, ymin, xmax, ymax))
        if box.is_ground_truth:
            _draw_dashed(canvas, placed[-1], box.color, thickness)
        else:
            width = thickness if box.label else 1
            cv2.rectangle(canvas, (xmin, ymin), (xmax, ymax), box.color, width)

    taken: list[tuple[int, int, int, int]] = []
    # The most confident detection comes last, chooses its place first, and is drawn last.
    labels = [
        (box, _place_label(box.label, corners, canvas.shape, taken, box.is_ground_truth))
        for box, corners in zip(reversed(boxes), reversed(placed), strict=True)
        if box.label
    ]
    for box, position in reversed(labels):
        _draw_label(canvas, box.label, position, _WHITE if box.is_ground_truth else box.color)
    return canvas


def _draw_dashed(
    canvas: np.ndarray, corners: tuple[int, int, int, int], color: Color, thickness: int
) -> None:
    """Draw a rectangle in dashes of its colour and white, to be seen on any background."""
    xmin, ymin, xmax, ymax = corners
    dash = 5 * thickness
    cv2.rectangle(canvas, (xmin, ymin), (xmax, ymax), _WHITE, thickness)
    for x in range(xmin, xmax + 1, 2 * dash):
        for y in (ymin, ymax):
            cv2.line(canvas, (x, y), (min(x + dash, xmax), y), color, thickness)
    for y in range(ymin, ymax + 1, 2 * dash):
        for x in (xmin, xmax):
            cv2.line(canvas, (x, y), (x, min(y + dash, ymax)), color, thickness)


def _text_style(image_shape: tuple[int, ...]) -> tuple[float, int]:
    """Return font scale and stroke width: 0.4 is the smallest scale that can be read."""
    scale = max(0.4, max(image_shape[:2]) / 1200)
    return scale, max(1, round(1.5 * scale))


def _place_label(
    text: str,
    corners: tuple[int, int, int, int],
    image_shape: tuple[int, ...],
    taken: list[tuple[int, int, int, int]],
    prefers_below: bool,
) -> tuple[int, int, int, int]:
    """Find a place for a label beside its box, inside the image, free of other labels if possible.

    Returns:
        (xmin, ymin, xmax, ymax) in pixels, which is added to `taken`.
    """
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, *_text_style(image_shape))
    width, height = text_width + 4, text_height + baseline + 2
    places = []
    for x, y in _label_candidates(corners, width, height, prefers_below):
        x = max(0, min(x, image_shape[1] - width))
        y = max(0, min(y, image_shape[0] - height))
        places.append((x, y, x + width, y + height))
    free = [place for place in places if not any(_overlap(place, other) for other in taken)]
    taken.append((free or places)[0])
    return taken[-1]


def _label_candidates(
    corners: tuple[int, int, int, int], width: int, height: int, prefers_below: bool
) -> Iterator[tuple[int, int]]:
    """Yield top left corners for a label: above, below, and inside its box, left or right."""
    xmin, ymin, xmax, ymax = corners
    above, below = ymin - height, ymax + 1
    for y in (below, above, ymin, ymax - height) if prefers_below else (above, below, ymin):
        for x in (xmin, xmax + 1 - width):
            yield x, y


def _overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> bool:
    return (
        first[0] < second[2]
        and second[0] < first[2]
        and first[1] < second[3]
        and second[1] < first[3]
    )


def _draw_label(
    canvas: np.ndarray, text: str, place: tuple[int, int, int, int], color: Color
) -> None:
    """Write black or white text, whichever is easier to read, on a filled rectangle."""
    xmin, ymin, xmax, ymax = place
    scale, stroke = _text_style(canvas.shape)
    _, baseline = cv2.getTextSize(text, _FONT, scale, stroke)
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = _BLACK if luminance > 140 else _WHITE
    cv2.rectangle(canvas, (xmin, ymin), (xmax - 1, ymax - 1), color, cv2.FILLED)
    origin = (xmin + 2, ymax - baseline - 1)
    cv2.putText(canvas, text, origin, _FONT, scale, ink, stroke, cv2.LINE_AA)
