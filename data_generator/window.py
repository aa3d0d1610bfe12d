"""Windows on the plane in which an image lies, with a background colour around the image.

Cropping, padding and shifting are all of this kind: they show another part of the plane, and boxes
are measured from the corner of the window instead of that of the image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from data_generator.label_boxes import BoxMap
from data_generator.object_detection_2d_image_boxes_validation_utils import BoxFilter
from data_generator.pending_image import Colour, PendingImage, cut_window
from data_generator.transformation import GeometricTransformation


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

    def defer(self, image: PendingImage) -> PendingImage:
        """Note the window down."""
        return image.seen_through(*self.window(*image.size), self.background)


class CropPad(WindowTransformation):
    """Cut a patch out of images; where it reaches beyond them there is background."""

    def __init__(
        self,
        patch_ymin: int,
        patch_xmin: int,
        patch_height: int,
        patch_width: int,
        clip_boxes: bool = True,
        box_filter: BoxFilter | None = None,
        background: Colour = (0, 0, 0),
        labels_format: Mapping[str, int] | None = None,
    ):
        """Set the patch.

        Arguments:
            patch_ymin: Upper edge of the patch, in pixels of the image; may be negative.
            patch_xmin: Left edge of the patch; may be negative.
            patch_height: In pixels.
            patch_width: In pixels.
            clip_boxes: Whether to clip boxes to the patch.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            background: The colour of what lies outside the image.
            labels_format: Column positions by name.

        Raises:
            ValueError: if the patch has no pixels or `box_filter` is no `BoxFilter`; when called,
                if the patch lies away from the image.
        """
        super().__init__(clip_boxes, box_filter, background, labels_format)
        if patch_height < 1 or patch_width < 1:
            raise ValueError(
                f"A patch needs a height and a width of at least one pixel; got {patch_height} "
                f"and {patch_width}."
            )
        self.patch_ymin = patch_ymin
        self.patch_xmin = patch_xmin
        self.patch_height = patch_height
        self.patch_width = patch_width

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the patch, after checking that it meets the image."""
        bottom, right = self.patch_ymin + self.patch_height, self.patch_xmin + self.patch_width
        if self.patch_ymin > height or self.patch_xmin > width or bottom < 0 or right < 0:
            raise ValueError(
                f"The patch from (y, x) = ({self.patch_ymin}, {self.patch_xmin}) to ({bottom}, "
                f"{right}) lies outside the image, which is {height} pixels high and {width} wide."
            )
        return self.patch_ymin, self.patch_xmin, self.patch_height, self.patch_width


class Crop(WindowTransformation):
    """Cut pixels off the edges of images."""

    def __init__(
        self,
        crop_top: int,
        crop_bottom: int,
        crop_left: int,
        crop_right: int,
        clip_boxes: bool = True,
        box_filter: BoxFilter | None = None,
        labels_format: Mapping[str, int] | None = None,
    ):
        """Set how much is cut.

        Arguments:
            crop_top: Rows to cut off at the top.
            crop_bottom: Rows to cut off at the bottom.
            crop_left: Columns to cut off on the left.
            crop_right: Columns to cut off on the right.
            clip_boxes: Whether to clip boxes to what remains.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            labels_format: Column positions by name.

        Raises:
            ValueError: if an amount is negative or `box_filter` is no `BoxFilter`; when called,
                if nothing of the image remains.
        """
        super().__init__(clip_boxes, box_filter, labels_format=labels_format)
        _check_not_negative(
            crop_top=crop_top, crop_bottom=crop_bottom, crop_left=crop_left, crop_right=crop_right
        )
        self.crop_top = crop_top
        self.crop_bottom = crop_bottom
        self.crop_left = crop_left
        self.crop_right = crop_right

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return what remains."""
        new_height = height - self.crop_top - self.crop_bottom
        new_width = width - self.crop_left - self.crop_right
        if new_height < 1 or new_width < 1:
            raise ValueError(
                f"Cropping {self.crop_top} + {self.crop_bottom} rows and {self.crop_left} + "
                f"{self.crop_right} columns leaves nothing of an image of {height} x {width} "
                "pixels (height x width)."
            )
        return self.crop_top, self.crop_left, new_height, new_width


class Pad(WindowTransformation):
    """Add a margin to images."""

    def __init__(
        self,
        pad_top: int,
        pad_bottom: int,
        pad_left: int,
        pad_right: int,
        background: Colour = (0, 0, 0),
        labels_format: Mapping[str, int] | None = None,
    ):
        """Set the margins.

        Arguments:
            pad_top: Rows to add at the top.
            pad_bottom: Rows to add at the bottom.
            pad_left: Columns to add on the left.
            pad_right: Columns to add on the right.
            background: The colour of the margin.
            labels_format: Column positions by name.

        Raises:
            ValueError: if an amount is negative.
        """
        super().__init__(clip_boxes=False, background=background, labels_format=labels_format)
        _check_not_negative(
            pad_top=pad_top, pad_bottom=pad_bottom, pad_left=pad_left, pad_right=pad_right
        )
        self.pad_top = pad_top
        self.pad_bottom = pad_bottom
        self.pad_left = pad_left
        self.pad_right = pad_right

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the image with its margins."""
        new_height = height + self.pad_top + self.pad_bottom
        new_width = width + self.pad_left + self.pad_right
        return -self.pad_top, -self.pad_left, new_height, new_width


def _check_not_negative(**amounts: int) -> None:
    for name, amount in amounts.items():
        if amount < 0:
            raise ValueError(f"`{name}` must not be negative; got {amount}.")
