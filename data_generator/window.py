"""Windows on the plane in which an image lies, with a background colour around the image.

Cropping, padding and shifting are all of this kind: they show another part of the plane, and boxes
are measured from the corner of the window instead of that of the image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from data_generator.label_boxes import BoxMap
from data_generator.object_detection_2d_image_boxes_validation_utils import BoxFilter
from data_generator.transformation import GeometricTransformation

Colour = Sequence[float] | float


def fill_colour(image: np.ndarray, background: Colour) -> list[float]:
    """Fit a background colour to the channels of an image.

    Arguments:
        image: `(height, width)` or `(height, width, channels)`.
        background: One value for each channel. Of a longer colour the first values count (so an
            image without a channel axis gets the first); a shorter one goes on with its last
            value. A number stands for a grey.

    Returns:
        One value for each channel.
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    colour = list(np.atleast_1d(background))
    return (colour + colour[-1:] * channels)[:channels]


def cut_window(
    image: np.ndarray, ymin: int, xmin: int, height: int, width: int, background: Colour
) -> np.ndarray:
    """Cut a window out of an image, which may reach beyond it.

    Arguments:
        image: `(image_height, image_width)`, with or without a channel axis, of any dtype.
        ymin: Upper edge of the window, in pixels of the image; may be negative.
        xmin: Left edge of the window; may be negative.
        height: Of the window.
        width: Of the window.
        background: The colour of what lies outside the image, see `fill_colour`.

    Returns:
        A new array of the size of the window, with the dtype and the channels of the image.
    """
    top, left = max(0, ymin), max(0, xmin)
    part = image[top : max(0, ymin + height), left : max(0, xmin + width)]
    if part.shape[:2] == (height, width):
        return part.copy()
    window = np.empty((height, width, *image.shape[2:]), image.dtype)
    row = np.empty(window.shape[1:], image.dtype)
    colour = np.array(fill_colour(image, background)).astype(image.dtype)
    row[...] = colour if image.ndim == 3 else colour[0]
    window[...] = row  # row by row: ten times faster than pixel by pixel
    y, x = top - ymin, left - xmin
    window[y : y + part.shape[0], x : x + part.shape[1]] = part
    return window


class WindowTransformation(GeometricTransformation):
    """A transformation that shows a window on the image plane."""

    def __init__(
        self,
        clip_boxes: bool = True,
        box_filter: BoxFilter | None = None,
        background: Colour = (0, 0, 0),
        labels_format: Mapping[str, int] | None = None,
    ):
        """Set what the edges do to boxes and pixels.

        Arguments:
            clip_boxes: Whether to clip boxes to the window.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            background: The colour of what lies outside the image, see `fill_colour`.
            labels_format: Column positions by name.

        Raises:
            ValueError: if `box_filter` is no `BoxFilter`.
        """
        super().__init__(clip_boxes, box_filter, labels_format)
        self.background = background

    @abstractmethod
    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return (ymin, xmin, height, width) of the window on an image of the given size."""

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the window."""
        return self.window(height, width)[2:]

    def box_map(self, height: int, width: int) -> BoxMap:
        """Measure from the corner of the window."""
        ymin, xmin, *_ = self.window(height, width)
        return BoxMap(x_shift=-xmin, y_shift=-ymin)

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Cut the window out of the pixels."""
        return cut_window(image, *self.window(*image.shape[:2]), self.background)
