"""Images whose pixels are made as late as possible.

A chain of transformations cuts, pads, turns and recolours an image several times over, and most of
the pixels made on the way are thrown away by the next step: the expansion of the SSD paper makes up
to sixteen times as many as the image has, of which the crop that follows keeps a part. But what
these steps do to an image can be said in a few numbers (a window on the plane in which the image
lies, the turns, the recolourings), and composed without a single pixel. Pixels are made when
something needs them, such as an interpolation, and only those that are still visible.

The result is that of the steps one after the other, because all of these commute: a recolouring
maps each pixel on its own, and windows and turns only move pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from data_generator.colour_conversions import PhotometricTransformation
    from data_generator.transformation import GeometricTransformation

Colour = Sequence[float] | float


class Window(NamedTuple):
    """A rectangle of whole pixels on the plane of an image; may reach beyond the image."""

    ymin: int
    xmin: int
    height: int
    width: int

    def intersection(self, other: Window) -> Window:
        """Return what both share; without pixels, but within `other`, if that is nothing."""
        spans = []
        for axis in (0, 1):
            low, high = other[axis], other[axis] + other[axis + 2]
            start = min(max(self[axis], low), high)
            spans.append((start, max(start, min(self[axis] + self[axis + 2], high)) - start))
        (ymin, height), (xmin, width) = spans
        return Window(ymin, xmin, height, width)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the view of an image that contains this window."""
        rows = slice(self.ymin, self.ymin + self.height)
        return image[rows, self.xmin : self.xmin + self.width]


@dataclass(frozen=True)
class PendingImage:
    """An image together with what is still to be done to its pixels.

    Attributes:
        source: `(height, width)` or `(height, width, channels)`; never modified.
        visible: The part of the source that is still needed.
        window: What is shown of the plane of the source.
        background: The colour of what the window shows beyond the visible part.
        recolourings: Transformations of single pixels, applied to the visible part first.
        turns: Transformations that exchange the places of pixels, applied to the window last.
    """

    source: np.ndarray
    visible: Window
    window: Window
    background: Colour = 0
    recolourings: tuple[PhotometricTransformation, ...] = ()
    turns: tuple[GeometricTransformation, ...] = ()

    @classmethod
    def of(cls, image: np.ndarray) -> PendingImage:
        """Start with an array, of which nothing is to be changed yet."""
        whole = Window(0, 0, *image.shape[:2])
        return cls(image, whole, whole)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image after everything that is to be done."""
        return self._sizes()[-1]

    @property
    def is_padded(self) -> bool:
        """Whether there is background around the visible part."""
        return self.window != self.visible

    def seen_through(
        self, ymin: int, xmin: int, height: int, width: int, background: Colour
    ) -> PendingImage:
        """Show another part of the plane; arguments as those of `cut_window`."""
        box = np.array([[xmin, ymin, xmin + width, ymin + height]], np.float64)
        for turn, size in reversed(list(zip(self.turns, self._sizes()[:-1], strict=True))):
            box = turn.box_map(*size).inverse()(box)
        left, top, right, bottom = np.rint(box[0]).astype(int).tolist()
        window = Window(top + self.window.ymin, left + self.window.xmin, bottom - top, right - left)

        goes_beyond = window.intersection(self.window) != window
        if self.is_padded and goes_beyond:  # perhaps in another colour
            return PendingImage.of(self.pixels()).seen_through(
                ymin, xmin, height, width, background
            )
        return replace(
            self,
            visible=window.intersection(self.visible),
            window=window,
            background=background if goes_beyond else self.background,
        )

    def turned(self, turn: GeometricTransformation) -> PendingImage:
        """Mirror or turn the image by a transformation that keeps every pixel as it is."""
        return replace(self, turns=(*self.turns, turn))

    def recoloured(self, recolouring: PhotometricTransformation) -> PendingImage:
        """Change the colours by a transformation that maps each pixel on its own."""
        image = PendingImage.of(self.pixels()) if self.is_padded else self
        return replace(image, recolourings=(*image.recolourings, recolouring))

    def pixels(self) -> np.ndarray:
        """Make the pixels.

        Returns:
            `(height, width)` or `(height, width, channels)`. The source itself if nothing was to
            be done, otherwise an array that shares no memory with it.
        """
        if 0 in (self.visible.height, self.visible.width):
            # OpenCV refuses images without pixels, but a single one tells dtype and channels.
            pixel = self._recolour(self.source[:1, :1])
            return cut_window(pixel, 1, 1, *self.size, self.background)
        is_whole = self.visible == (0, 0, *self.source.shape[:2])
        image = self._recolour(self.source if is_whole else self.visible.cut(self.source))
        ymin, xmin = self.window.ymin - self.visible.ymin, self.window.xmin - self.visible.xmin
        box = np.array([[xmin, ymin, xmin + self.window.width, ymin + self.window.height]], float)
        for turn in self.turns:  # of the plane with the visible part, before there is more of it
            box = turn.box_map(*image.shape[:2])(box)
            image = turn.apply_image(image)
        if self.is_padded:
            xmin, ymin, *_ = np.rint(box[0]).astype(int).tolist()
            return cut_window(image, ymin, xmin, *self.size, self.background)
        is_view = image is not self.source and np.may_share_memory(image, self.source)
        return image.copy() if is_view else image

    def _recolour(self, part: np.ndarray) -> np.ndarray:
        for recolouring in self.recolourings:
            part = recolouring.apply_image(part)
        return part

    def _sizes(self) -> list[tuple[int, int]]:
        sizes = [(self.window.height, self.window.width)]
        for turn in self.turns:
            sizes.append(turn.output_size(*sizes[-1]))
        return sizes


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
