"""Transformations that move pixels and boxes: resize, flip, translate, scale, rotate.

Box coordinates are continuous: an image of width W reaches from x = 0 to x = W, and the pixel in
column i covers [i, i + 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from data_generator.label_boxes import BoxMap
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoxFilter,
    ImageValidator,
)
from data_generator.pending_image import Colour, PendingImage, fill_colour
from data_generator.random_transformation import RandomChoice, TrialsInTurn
from data_generator.transformation import GeometricTransformation
from data_generator.window import WindowTransformation

Format = Mapping[str, int] | None
Rng = np.random.Generator | int | None

# OpenCV's border colours have four elements, and some of its functions accept no more channels.
_MAX_OPENCV_CHANNELS = 4

_OPENCV_TURNS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


def with_opencv(
    image: np.ndarray, function: Callable[[np.ndarray, slice], np.ndarray]
) -> np.ndarray:
    """Apply an OpenCV function to an image with any number of channels.

    OpenCV drops a channel axis of length one, and some functions stop at four channels.

    Arguments:
        image: `(height, width)` or `(height, width, channels)`.
        function: Called with up to four channels of the image and the slice that chose them.

    Returns:
        The result, with the channel axis of the image.
    """
    if image.ndim == 2:
        return function(image, slice(0, 1))
    channels = image.shape[2]
    if channels <= _MAX_OPENCV_CHANNELS:
        result = function(image, slice(0, channels))
        return result if result.ndim == 3 else result[:, :, np.newaxis]
    parts = []
    for first in range(0, channels, _MAX_OPENCV_CHANNELS):
        chosen = slice(first, min(first + _MAX_OPENCV_CHANNELS, channels))
        parts.append(np.atleast_3d(function(np.ascontiguousarray(image[:, :, chosen]), chosen)))
    return np.concatenate(parts, axis=2)


class Resize(GeometricTransformation):
    """Resize images to a fixed size, whatever that does to their aspect ratio."""

    def __init__(
        self,
        height: int,
        width: int,
        interpolation_mode: int = cv2.INTER_LINEAR,
        box_filter: BoxFilter | None = None,
        labels_format: Format = None,
    ):
        """Set the size.

        Arguments:
            height: Of the resized image, in pixels.
            width: Of the resized image, in pixels.
            interpolation_mode: One of OpenCV's `INTER_*` numbers.
            box_filter: Decides which boxes are kept; None keeps all.
            labels_format: Column positions by name.

        Raises:
            ValueError: if the size is not positive or `box_filter` is no `BoxFilter`.
        """
        super().__init__(box_filter=box_filter, labels_format=labels_format)
        if height < 1 or width < 1:
            raise ValueError(f"`height` and `width` must be positive; got {height} and {width}.")
        self.out_height = height
        self.out_width = width
        self.interpolation_mode = interpolation_mode

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the fixed size."""
        return self.out_height, self.out_width

    def box_map(self, height: int, width: int) -> BoxMap:
        """Scale both axes."""
        return BoxMap(x_scale=self.out_width / width, y_scale=self.out_height / height)

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Resize the pixels."""
        size = (self.out_width, self.out_height)
        mode = self.interpolation_mode
        return with_opencv(image, lambda part, _: cv2.resize(part, size, interpolation=mode))


class ResizeRandomInterp(RandomChoice):
    """Resize images to a fixed size, each with an interpolation chosen at random."""

    def __init__(
        self,
        height: int,
        width: int,
        interpolation_modes: Sequence[int] = (
            cv2.INTER_NEAREST,
            cv2.INTER_LINEAR,
            cv2.INTER_CUBIC,
            cv2.INTER_AREA,
            cv2.INTER_LANCZOS4,
        ),
        box_filter: BoxFilter | None = None,
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set the size and the interpolations.

        Arguments:
            height: Of the resized image, in pixels.
            width: Of the resized image, in pixels.
            interpolation_modes: OpenCV's `INTER_*` numbers to choose from.
            box_filter: Decides which boxes are kept; None keeps all.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `interpolation_modes` is no list or tuple, or empty, or for the
                reasons of `Resize`.
        """
        if not isinstance(interpolation_modes, (list, tuple)) or not interpolation_modes:
            raise ValueError(
                "`interpolation_modes` must be a list or tuple of OpenCV's interpolation numbers; "
                f"got {interpolation_modes!r}."
            )
        resizes = [Resize(height, width, mode, box_filter) for mode in interpolation_modes]
        super().__init__(resizes, prob=1.0, labels_format=labels_format, rng=rng)
        self.height = height
        self.width = width
        self.interpolation_modes = interpolation_modes


class Flip(GeometricTransformation):
    """Mirror images, left to right or top to bottom.

    Example:
        >>> import numpy as np
        >>> from data_generator.object_detection_2d_geometric_ops import Flip
        >>> image, labels = np.zeros((100, 200, 3), np.uint8), np.array([[1, 20, 30, 60, 80]])
        >>> flipped_image, flipped_labels = Flip("horizontal")(image, labels)
        >>> flipped_labels
        array([[  1, 140,  30, 180,  80]])
    """

    def __init__(self, dim: str = "horizontal", labels_format: Format = None):
        """Set the direction.

        Arguments:
            dim: ``'horizontal'`` exchanges left and right, ``'vertical'`` top and bottom.
            labels_format: Column positions by name.

        Raises:
            ValueError: for any other `dim`.
        """
        super().__init__(labels_format=labels_format)
        if dim not in ("horizontal", "vertical"):
            raise ValueError(f"`dim` must be 'horizontal' or 'vertical'; got {dim!r}.")
        self.dim = dim

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the same size."""
        return height, width

    def box_map(self, height: int, width: int) -> BoxMap:
        """Mirror one axis: x' = W - x, or y' = H - y."""
        if self.dim == "horizontal":
            return BoxMap(x_scale=-1.0, x_shift=width)
        return BoxMap(y_scale=-1.0, y_shift=height)

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Mirror the pixels."""
        axis = 1 if self.dim == "horizontal" else 0
        return with_opencv(image, lambda part, _: cv2.flip(part, axis))

    def defer(self, image: PendingImage) -> PendingImage:
        """Note the flip down."""
        return image.turned(self)


class RandomFlip(RandomChoice):
    """Mirror images at random."""

    def __init__(
        self,
        dim: str = "horizontal",
        prob: float = 0.5,
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set direction and probability.

        Arguments:
            dim: ``'horizontal'`` or ``'vertical'``, as for `Flip`.
            prob: The probability to act.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: for any other `dim`, or if `prob` is no probability.
        """
        super().__init__([Flip(dim)], prob, labels_format, rng)
        self.dim = dim


class Translate(WindowTransformation):
    """Shift images inside a canvas that keeps its place."""

    def __init__(
        self,
        dy: float,
        dx: float,
        clip_boxes: bool = True,
        box_filter: BoxFilter | None = None,
        background: Colour = (0, 0, 0),
        labels_format: Format = None,
    ):
        """Set the shift.

        Arguments:
            dy: Downwards, as a fraction of the image height; rounded to whole pixels.
            dx: To the right, as a fraction of the image width; rounded to whole pixels.
            clip_boxes: Whether to clip boxes to the image.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            background: The colour of what gets free.
            labels_format: Column positions by name.

        Raises:
            ValueError: if `box_filter` is no `BoxFilter`.
        """
        super().__init__(clip_boxes, box_filter, background, labels_format)
        self.dy = dy
        self.dx = dx

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Move the window the other way."""
        return -round(height * self.dy), -round(width * self.dx), height, width


class RandomTranslate(TrialsInTurn):
    """Shift images by random amounts in random directions."""

    def __init__(
        self,
        dy_minmax: tuple[float, float] = (0.03, 0.3),
        dx_minmax: tuple[float, float] = (0.03, 0.3),
        prob: float = 0.5,
        clip_boxes: bool = True,
        box_filter: BoxFilter | None = None,
        image_validator: ImageValidator | None = None,
        n_trials_max: int = 3,
        background: Colour = (0, 0, 0),
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set the ranges.

        Arguments:
            dy_minmax: The least and the largest shift up or down, fractions of the height.
            dx_minmax: The least and the largest shift left or right, fractions of the width.
            prob: The probability to act.
            clip_boxes: Whether to clip boxes to the image.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            image_validator: Decides whether a shift leaves enough objects in the image.
            n_trials_max: How many shifts are tried before the image is left alone.
            background: The colour of what gets free.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if a range is negative or the wrong way round, or an argument has the
                wrong type.
        """
        super().__init__(
            image_validator,
            n_trials_max,
            prob,
            clip_boxes,
            box_filter,
            background,
            labels_format,
            rng,
        )
        for name, (least, largest) in (("dy_minmax", dy_minmax), ("dx_minmax", dx_minmax)):
            if not 0 <= least <= largest:
                raise ValueError(
                    f"`{name}` must be (min, max) with 0 <= min <= max; got ({least}, {largest})."
                )
        self.dy_minmax = dy_minmax
        self.dx_minmax = dx_minmax

    def candidate(self, height: int, width: int, rng: np.random.Generator) -> Translate:
        """Draw a shift and a sign for each axis."""
        dy = rng.uniform(*self.dy_minmax) * rng.choice((-1, 1))
        dx = rng.uniform(*self.dx_minmax) * rng.choice((-1, 1))
        return Translate(dy, dx, **self.edges)


class Scale(GeometricTransformation):
    """Zoom images about their centre, inside a canvas that keeps its size."""

    def __init__(
        self,
        factor: float,
        clip_boxes: bool = True,
        box_filter: BoxFilter | None = None,
        background: Colour = (0, 0, 0),
        labels_format: Format = None,
    ):
        """Set the factor.

        Arguments:
            factor: Greater than 0; below 1 zooms out, above 1 zooms in.
            clip_boxes: Whether to clip boxes to the image.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            background: The colour around a smaller image.
            labels_format: Column positions by name.

        Raises:
            ValueError: if `factor` is not positive or `box_filter` is no `BoxFilter`.
        """
        super().__init__(clip_boxes, box_filter, labels_format)
        if factor <= 0:
            raise ValueError(f"`factor` must be greater than 0; got {factor}.")
        self.factor = factor
        self.background = background

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the same size."""
        return height, width

    def box_map(self, height: int, width: int) -> BoxMap:
        """Scale about the centre: x' = W / 2 + f (x - W / 2)."""
        f = self.factor
        return BoxMap(f, (1 - f) * width / 2, f, (1 - f) * height / 2)

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Zoom the pixels with bilinear interpolation."""
        height, width = image.shape[:2]
        to = self.box_map(height, width)
        matrix = np.array([[to.x_scale, 0, to.x_shift], [0, to.y_scale, to.y_shift]])
        colour = fill_colour(image, self.background)
        return with_opencv(
            image,
            lambda part, chosen: cv2.warpAffine(
                part,
                matrix,
                (width, height),
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=[float(value) for value in colour[chosen]],
            ),
        )


class RandomScale(TrialsInTurn):
    """Zoom images by a random factor."""

    def __init__(
        self,
        min_factor: float = 0.5,
        max_factor: float = 1.5,
        prob: float = 0.5,
        clip_boxes: bool = True,
        box_filter: BoxFilter | None = None,
        image_validator: ImageValidator | None = None,
        n_trials_max: int = 3,
        background: Colour = (0, 0, 0),
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set the range.

        Arguments:
            min_factor: The lowest factor, greater than 0.
            max_factor: The highest factor.
            prob: The probability to act.
            clip_boxes: Whether to clip boxes to the image.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            image_validator: Decides whether a zoom leaves enough objects in the image.
            n_trials_max: How many factors are tried before the image is left alone.
            background: The colour around a smaller image.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: unless 0 < min_factor <= max_factor, or if an argument has the wrong type.
        """
        super().__init__(
            image_validator,
            n_trials_max,
            prob,
            clip_boxes,
            box_filter,
            background,
            labels_format,
            rng,
        )
        if not 0 < min_factor <= max_factor:
            raise ValueError(
                "The factors must satisfy 0 < min_factor <= max_factor; "
                f"got {min_factor} and {max_factor}."
            )
        self.min_factor = min_factor
        self.max_factor = max_factor

    def candidate(self, height: int, width: int, rng: np.random.Generator) -> Scale:
        """Draw a factor."""
        return Scale(rng.uniform(self.min_factor, self.max_factor), **self.edges)


class Rotate(GeometricTransformation):
    """Turn images by a multiple of 90 degrees, without losing a pixel."""

    def __init__(self, angle: int, labels_format: Format = None):
        """Set the angle.

        Arguments:
            angle: 90, 180 or 270 degrees, counter-clockwise.
            labels_format: Column positions by name.

        Raises:
            ValueError: for any other angle.
        """
        super().__init__(labels_format=labels_format)
        if angle not in (90, 180, 270):
            raise ValueError(f"`angle` must be 90, 180 or 270; got {angle!r}.")
        self.angle = angle

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size, with height and width exchanged by a quarter turn."""
        return (height, width) if self.angle == 180 else (width, height)

    def box_map(self, height: int, width: int) -> BoxMap:
        """Turn the axes: 90 degrees bring the right edge to the top, 270 the left one."""
        if self.angle == 90:
            return BoxMap(y_scale=-1.0, y_shift=width, transpose=True)  # (x, y) -> (y, W - x)
        if self.angle == 180:
            return BoxMap(-1.0, width, -1.0, height)  # (x, y) -> (W - x, H - y)
        return BoxMap(x_scale=-1.0, x_shift=height, transpose=True)  # (x, y) -> (H - y, x)

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Turn the pixels."""
        return with_opencv(image, lambda part, _: cv2.rotate(part, _OPENCV_TURNS[self.angle]))

    def defer(self, image: PendingImage) -> PendingImage:
        """Note the turn down."""
        return image.turned(self)


class RandomRotate(RandomChoice):
    """Turn images by a multiple of 90 degrees, drawn at random."""

    def __init__(
        self,
        angles: Sequence[int] = (90, 180, 270),
        prob: float = 0.5,
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set the angles.

        Arguments:
            angles: What to choose from: 90, 180, 270 degrees, counter-clockwise.
            prob: The probability to act.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: for any other angle, for no angle, or if `prob` is no probability.
        """
        if len(angles) == 0:
            raise ValueError("`angles` must name at least one angle; got none.")
        super().__init__([Rotate(angle) for angle in angles], prob, labels_format, rng)
        self.angles = angles
