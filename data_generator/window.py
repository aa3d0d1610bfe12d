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
