"""Transformations that cut patches out of images, or put images on a larger canvas."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_generator.label_boxes import leave_unchanged
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoundGenerator,
    BoxFilter,
    ImageValidator,
)
from data_generator.patch_coordinates import PatchCoordinateGenerator, random_position
from data_generator.pending_image import Colour, PendingImage
from data_generator.random_transformation import RandomTransformation, RandomTrials
from data_generator.transformation import Transformed
from data_generator.window import WindowTransformation

__all__ = [
    "Crop",
    "CropPad",
    "Pad",
    "PatchCoordinateGenerator",
    "RandomMaxCropFixedAR",
    "RandomPadFixedAR",
    "RandomPatch",
    "RandomPatchInf",
]

Format = Mapping[str, int] | None
Rng = np.random.Generator | int | None

# `RandomPatchInf` starts over until a patch is good or a coin says stop. With the coin of the SSD
# paper 100 rounds are exceeded once in five million images; with prob=1 and an image that has no
# good patch they would never end.
_MAX_ROUNDS = 100


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
        labels_format: Format = None,
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
        labels_format: Format = None,
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
        labels_format: Format = None,
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


class RandomPatch(RandomTrials):
    """Cut a random patch that shows enough of the objects."""

    def __init__(
        self,
        patch_coord_generator: PatchCoordinateGenerator,
        box_filter: BoxFilter | None = None,
        image_validator: ImageValidator | None = None,
        n_trials_max: int = 3,
        clip_boxes: bool = True,
        prob: float = 1.0,
        background: Colour = (0, 0, 0),
        can_fail: bool = False,
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set where patches come from and what is demanded of them.

        Arguments:
            patch_coord_generator: Draws the patches.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            image_validator: Decides whether a patch shows enough of the objects.
            n_trials_max: How many patches are tried.
            clip_boxes: Whether to clip boxes to the patch.
            prob: The probability to act.
            background: The colour of what lies outside the image.
            can_fail: What happens if no patch is good: True gives None in place of every output,
                which drops the image; False leaves image and labels alone, with None as inverter.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if an argument has the wrong type or `prob` is no probability.
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
        _check_patch_generator(patch_coord_generator)
        self.patch_coord_generator = patch_coord_generator
        self.can_fail = can_fail

    def candidate(self, height: int, width: int, rng: np.random.Generator) -> CropPad:
        """Draw a patch."""
        patch = self.patch_coord_generator.generate(height, width, rng)
        return CropPad(*patch, **self.edges)

    def transform(
        self, image: PendingImage, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Cut a patch; without a good one give up in the way that `can_fail` says."""
        rng = self.rng if rng is None else rng
        if not self.acts(rng):
            return Transformed(image, labels, leave_unchanged)
        patch = self.draw(*image.size, labels, rng)
        if patch is not None:
            return patch.transform(image, labels, rng)
        return Transformed(None, None, None) if self.can_fail else Transformed(image, labels, None)


class RandomPatchInf(RandomTrials):
    """Cut a random patch under demands that change until a patch meets them.

    The crops of the SSD paper (section 2.2) are of this kind: the minimal overlap with the objects
    is drawn for each round of trials, and each round may also decide for the whole image.
    """

    def __init__(
        self,
        patch_coord_generator: PatchCoordinateGenerator,
        box_filter: BoxFilter | None = None,
        image_validator: ImageValidator | None = None,
        bound_generator: BoundGenerator | None = None,
        n_trials_max: int = 50,
        clip_boxes: bool = True,
        prob: float = 0.857,
        background: Colour = (0, 0, 0),
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set where patches come from and what is demanded of them.

        Arguments:
            patch_coord_generator: Draws the patches. Those whose width / height is outside its
                aspect ratio limits are failed trials.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            image_validator: Decides whether a patch shows enough of the objects.
            bound_generator: Draws the bounds of the validator for each round of trials.
            n_trials_max: How many patches are tried in a round.
            clip_boxes: Whether to clip boxes to the patch.
            prob: The probability of a round to try patches; otherwise the image stays whole.
            background: The colour of what lies outside the image.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if an argument has the wrong type or `prob` is no probability.
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
        if not (bound_generator is None or isinstance(bound_generator, BoundGenerator)):
            raise ValueError(
                "`bound_generator` must be None or a BoundGenerator; "
                f"got {type(bound_generator).__name__}."
            )
        _check_patch_generator(patch_coord_generator)
        self.patch_coord_generator = patch_coord_generator
        self.bound_generator = bound_generator

    def candidate(self, height: int, width: int, rng: np.random.Generator) -> CropPad | None:
        """Draw a patch; None if its aspect ratio is out of bounds."""
        generator = self.patch_coord_generator
        ymin, xmin, patch_height, patch_width = generator.generate(height, width, rng)
        aspect_ratio = patch_width / patch_height
        if not generator.min_aspect_ratio <= aspect_ratio <= generator.max_aspect_ratio:
            return None
        return CropPad(ymin, xmin, patch_height, patch_width, **self.edges)

    def sample(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> CropPad | None:
        """Go through rounds of trials; None leaves the image whole."""
        for _ in range(_MAX_ROUNDS):
            if not self.acts(rng):
                return None
            bounds = None if self.bound_generator is None else self.bound_generator(rng)
            patch = self.draw(height, width, labels, rng, bounds)
            if patch is not None:
                return patch
        return None


class RandomMaxCropFixedAR(RandomPatch):
    """Cut the largest possible patch of a given aspect ratio, at a random place."""

    def __init__(
        self,
        patch_aspect_ratio: float,
        box_filter: BoxFilter | None = None,
        image_validator: ImageValidator | None = None,
        n_trials_max: int = 3,
        clip_boxes: bool = True,
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set the aspect ratio.

        Arguments:
            patch_aspect_ratio: Width / height.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            image_validator: Decides whether a patch shows enough of the objects.
            n_trials_max: How many places are tried before the image is left alone.
            clip_boxes: Whether to clip boxes to the patch.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if the aspect ratio is not positive or an argument has the wrong type.
        """
        super().__init__(
            PatchCoordinateGenerator(patch_aspect_ratio=patch_aspect_ratio),
            box_filter,
            image_validator,
            n_trials_max,
            clip_boxes,
            labels_format=labels_format,
            rng=rng,
        )
        _check_aspect_ratio(patch_aspect_ratio)
        self.patch_aspect_ratio = patch_aspect_ratio

    def candidate(self, height: int, width: int, rng: np.random.Generator) -> CropPad:
        """Draw one of the patches of the largest size."""
        if width / height < self.patch_aspect_ratio:
            size = max(1, round(width / self.patch_aspect_ratio)), width
        else:
            size = height, max(1, round(height * self.patch_aspect_ratio))
        corner = (random_position(*sides, rng) for sides in zip((height, width), size, strict=True))
        return CropPad(*corner, *size, **self.edges)


class RandomPadFixedAR(RandomTransformation):
    """Put images at a random place on the smallest canvas of a given aspect ratio."""

    def __init__(
        self,
        patch_aspect_ratio: float,
        background: Colour = (0, 0, 0),
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set the aspect ratio.

        Arguments:
            patch_aspect_ratio: Width / height of the canvas.
            background: Its colour.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if the aspect ratio is not positive.
        """
        super().__init__(labels_format=labels_format, rng=rng)
        _check_aspect_ratio(patch_aspect_ratio)
        self.patch_aspect_ratio = patch_aspect_ratio
        self.background = background

    def draw(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Pad:
        """Draw the margins; one of the directions needs none."""
        extra_height = extra_width = 0
        if width / height < self.patch_aspect_ratio:
            extra_width = max(0, round(height * self.patch_aspect_ratio) - width)
        else:
            extra_height = max(0, round(width / self.patch_aspect_ratio) - height)
        top, left = rng.integers(extra_height + 1), rng.integers(extra_width + 1)
        return Pad(top, extra_height - top, left, extra_width - left, self.background)


def _check_patch_generator(generator: PatchCoordinateGenerator) -> None:
    if not isinstance(generator, PatchCoordinateGenerator):
        raise ValueError(
            "`patch_coord_generator` must be a PatchCoordinateGenerator; "
            f"got {type(generator).__name__}."
        )


def _check_not_negative(**amounts: int) -> None:
    for name, amount in amounts.items():
        if amount < 0:
            raise ValueError(f"`{name}` must not be negative; got {amount}.")


def _check_aspect_ratio(aspect_ratio: float) -> None:
    if aspect_ratio <= 0:
        raise ValueError(f"`patch_aspect_ratio` must be greater than 0; got {aspect_ratio}.")
