"""Transformations that cut patches out of images, or put images on a larger canvas."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from data_generator.label_boxes import box_columns, leave_unchanged
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoundGenerator,
    BoxFilter,
    ImageValidator,
)
from data_generator.patch_coordinates import PatchCoordinateGenerator, random_position
from data_generator.pending_image import Colour, PendingImage
from data_generator.random_transformation import RandomTransformation, RandomTrials
from data_generator.transformation import Transformed
from data_generator.window import Crop, CropPad, Pad

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


class PatchTrials(RandomTrials):
    """Trials of patches, of which all that there may be are drawn and judged at once."""

    @abstractmethod
    def patches(self, n: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw patches for an image of the given size.

        Arguments:
            n: The number of trials.
            height: Of the image, in pixels.
            width: Of the image, in pixels.
            rng: The generator to draw from.

        Returns:
            `(<= n, 4)` rows (ymin, xmin, height, width); those that are missing have failed.
        """

    def draw(
        self,
        height: int,
        width: int,
        labels: np.ndarray | None,
        rng: np.random.Generator,
        bounds: Sequence[float] | None = None,
    ) -> CropPad | None:
        """Return the first patch that is good enough, None if none is.

        Arguments:
            height: Of the image, in pixels.
            width: Of the image, in pixels.
            labels: The labels of the image, or None.
            rng: The generator to draw from.
            bounds: (lower, upper) overlap to demand instead of the validator's own.

        Returns:
            A transformation with fixed arguments.
        """
        patches = self.patches(max(1, self.n_trials_max), height, width, rng)
        if labels is not None and self.image_validator is not None:
            ymin, xmin, heights, widths = patches.T
            boxes = labels[:, box_columns(self.labels_format)]
            boxes = boxes - np.stack([xmin, ymin, xmin, ymin], axis=-1)[:, np.newaxis]  # (m, n, 4)
            good = self.image_validator.accepts_each(boxes, heights, widths, rng, bounds)
            patches = patches[good]
        return CropPad(*patches[0].tolist(), **self.edges) if len(patches) else None


class RandomPatch(PatchTrials):
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

    def patches(self, n: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw patches."""
        return self.patch_coord_generator.generate_many(n, height, width, rng)

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


class RandomPatchInf(PatchTrials):
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

    def patches(self, n: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw patches, and keep those whose aspect ratio is within bounds."""
        generator = self.patch_coord_generator
        patches = generator.generate_many(n, height, width, rng)
        aspect_ratios = patches[:, 3] / patches[:, 2]
        least, largest = generator.min_aspect_ratio, generator.max_aspect_ratio
        return patches[(aspect_ratios >= least) & (aspect_ratios <= largest)]

    def sample(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> CropPad | None:
        """Go through rounds of trials; None leaves the image whole."""
        validator = self.image_validator
        has_no_objects = labels is not None and len(labels) == 0
        if has_no_objects and validator is not None and validator.n_boxes_min != "all":
            # No patch shows objects that are not there: all rounds but the last would be in vain.
            return None
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

    def patches(self, n: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw some of the patches of the largest size."""
        if width / height < self.patch_aspect_ratio:
            size = max(1, round(width / self.patch_aspect_ratio)), width
        else:
            size = height, max(1, round(height * self.patch_aspect_ratio))
        corners = [
            random_position(img_side, np.full(n, side), rng)
            for img_side, side in zip((height, width), size, strict=True)
        ]
        return np.stack([*corners, *(np.full(n, side) for side in size)], axis=-1)


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


def _check_aspect_ratio(aspect_ratio: float) -> None:
    if aspect_ratio <= 0:
        raise ValueError(f"`patch_aspect_ratio` must be greater than 0; got {aspect_ratio}.")
