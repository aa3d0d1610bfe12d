"""One picture of a report: a part of an image, with boxes drawn over it."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from eval_utils.report_page import escape

_WIDTH, _HEIGHT = 320, 240  # of a picture in the units of the SVG, which lines and text are in
_MAX_PIXELS = 480  # its longer side in pixels, for screens with fine pixels
_MAX_LABELS = 8  # with more boxes, only the one that a picture is about is labelled
_MAX_MARKS = 60
_LETTER = 7.4  # the width of a letter in the units of the SVG, about


@dataclass(frozen=True)
class Mark:
    """A box to draw.

    Attributes:
        box: (xmin, ymin, xmax, ymax) in pixels of the whole image.
        label: Plain text.
        kind: ``'truth'``, ``'detection'``; or, for the box that the picture is about,
            ``'mistake'`` or ``'missed'``.
    """

    box: tuple[float, float, float, float]
    label: str
    kind: str


def window_around(
    box: Sequence[float], image_size: tuple[int, int], aspect: float = 4 / 3
) -> tuple[int, int, int, int]:
    """Choose the part of an image to show around a box, so that small ones can be seen.

    Arguments:
        box: (xmin, ymin, xmax, ymax) in pixels; it may reach over the border of the image.
        image_size: (height, width) of the image in pixels.
        aspect: The width of the part divided by its height, where the image is large enough.

    Returns:
        (xmin, ymin, xmax, ymax) in whole pixels, inside of the image: two and a half times the box,
        but not less than 45 % of the image.
    """
    height, width = image_size
    wanted = max(
        2.5 * (box[2] - box[0]),
        2.5 * (box[3] - box[1]) * aspect,
        0.45 * max(width, height * aspect),
    )
    sides = []
    for low, high, limit, extent in (
        (box[0], box[2], width, wanted),
        (box[1], box[3], height, wanted / aspect),
    ):
        extent = min(limit, max(1, math.ceil(extent)))
        begin = int(np.clip(round((low + high - extent) / 2), 0, limit - extent))
        sides.append((begin, begin + extent))
    (xmin, xmax), (ymin, ymax) = sides
    return xmin, ymin, xmax, ymax


def picture(
    image: np.ndarray, marks: Sequence[Mark], window: tuple[int, int, int, int], description: str
) -> str:
    """Draw boxes over a part of an image.

    Arguments:
        image: uint8 image `(height, width[, channels])` with 1, 3 (RGB) or 4 (RGBA) channels; of
            other numbers of channels the first one is shown.
        marks: The boxes. Those outside of the window are left out; the last one lies on top.
        window: (xmin, ymin, xmax, ymax) in whole pixels: see `window_around`.
        description: What the picture shows, for those who cannot see it.

    Returns:
        An SVG element with the picture inside.
    """
    xmin, ymin, xmax, ymax = window
    scale = min(_WIDTH / (xmax - xmin), _HEIGHT / (ymax - ymin))
    width, height = scale * (xmax - xmin), scale * (ymax - ymin)
    visible = [
        mark
        for mark in marks
        if mark.box[0] < xmax and mark.box[2] > xmin and mark.box[1] < ymax and mark.box[3] > ymin
    ][-_MAX_MARKS:]
    drawn = []
    for mark in visible:
        corners = [
            scale * (value - begin)
            for value, begin in zip(mark.box, (xmin, ymin, xmin, ymin), strict=True)
        ]
        has_label = len(visible) <= _MAX_LABELS or mark.kind in ("mistake", "missed")
        drawn.append(_draw_mark(mark, corners, width, height, has_label))
    content = base64.b64encode(_jpeg(image[ymin:ymax, xmin:xmax])).decode("ascii")
    # All pictures have the same shape: the part of a narrow image stands in the middle.
    left, top = (width - _WIDTH) / 2, (height - _HEIGHT) / 2
    return (
        f'<svg class="picture" viewBox="{left:.1f} {top:.1f} {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(description)}"><svg width="{width:.1f}" height="{height:.1f}">'
        f'<image width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" '
        f'href="data:image/jpeg;base64,{content}"/>{"".join(drawn)}</svg></svg>'
    )


def _draw_mark(
    mark: Mark, corners: list[float], width: float, height: float, has_label: bool
) -> str:
    # Coordinates far outside would do no harm, but infinite ones would.
    limits = (width, height, width, height)
    left, top, right, bottom = (
        min(max(corner, -10.0), limit + 10.0) for corner, limit in zip(corners, limits, strict=True)
    )
    shape = (
        f'x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 1):.1f}" '
        f'height="{max(bottom - top, 1):.1f}" rx="1"'
    )
    text = ""
    if has_label:
        x = max(4.0, min(left, width - _LETTER * len(mark.label) - 4))
        if mark.kind in ("truth", "missed"):  # below the box, detections above it: both are seen
            y = bottom + 14 if bottom + 18 < height else bottom - 6
        else:
            y = top - 5 if top > 18 else top + 15
        y = max(14.0, min(y, height - 6))
        text = f'<text x="{x:.1f}" y="{y:.1f}">{escape(mark.label)}</text>'
    return (
        f'<g class="{mark.kind}"><title>{escape(mark.label)}</title>'
        f'<rect class="halo" {shape}/><rect {shape}/>{text}</g>'
    )


def _jpeg(image: np.ndarray) -> bytes:
    """Encode an image, made smaller if it is large."""
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels in (3, 4):
        image = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2BGR)
    elif image.ndim == 3:
        image = np.ascontiguousarray(image[..., 0])
    scale = _MAX_PIXELS / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(scale * side)) for side in (image.shape[1], image.shape[0])]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return content.tobytes()
