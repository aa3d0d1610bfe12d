"""An augmentation chain for data sets whose images all have the size that the model expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_generator.object_detection_2d_geometric_ops import (
    RandomFlip,
    RandomScale,
    RandomTranslate,
)
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoundGenerator,
    BoxFilter,
    ImageValidator,
)
from data_generator.photometric_distortion import PhotometricDistortion
from data_generator.random_transformation import RandomChoice
from data_generator.transformation import TransformationChain


class DataAugmentationConstantInputSize(RandomChoice):
    """Distort, shift, zoom and flip images without changing their size.

    A coin decides between two sequences, so that what is shifted out of the image is lost in one
    and may come back in the other:

    1. photometric distortion with contrast second, shift, zoom in, flip;
    2. photometric distortion with contrast last, zoom out, shift, flip.
    """

    def __init__(
        self,
        random_brightness: tuple[float, float, float] = (-48, 48, 0.5),
        random_contrast: tuple[float, float, float] = (0.5, 1.8, 0.5),
        random_saturation: tuple[float, float, float] = (0.5, 1.8, 0.5),
        random_hue: tuple[float, float] = (18, 0.5),
        random_flip: float = 0.5,
        random_translate: tuple[Sequence[float], Sequence[float], float] = (
            (0.03, 0.5),
            (0.03, 0.5),
            0.5,
        ),
        random_scale: tuple[float, float, float] = (0.5, 2.0, 0.5),
        n_trials_max: int = 3,
        clip_boxes: bool = True,
        overlap_criterion: str = "area",
        bounds_box_filter: Sequence[float] | BoundGenerator = (0.3, 1.0),
        bounds_validator: Sequence[float] | BoundGenerator = (0.5, 1.0),
        n_boxes_min: int | str = 1,
        background: Sequence[float] | float = (0, 0, 0),
        labels_format: Mapping[str, int] | None = None,
        random_flip_vertical: float = 0.0,
        keep_channels: bool = False,
        rng: np.random.Generator | int | None = None,
    ):
        """Set ranges and probabilities.

        Arguments:
            random_brightness: (lower, upper, probability); grey levels that are added.
            random_contrast: (lower, upper, probability); a factor.
            random_saturation: (lower, upper, probability); a factor.
            random_hue: (largest turn, probability); in steps of two degrees.
            random_flip: The probability to exchange left and right.
            random_translate: ((least, largest) vertical, (least, largest) horizontal shift as
                fractions of the image size, probability).
            random_scale: (least, largest factor, probability), the least below and the largest
                above 1.
            n_trials_max: How often a shift or a zoom is drawn that leaves too few objects, before
                it is omitted.
            clip_boxes: Whether to clip boxes to the image.
            overlap_criterion: ``'center_point'``, ``'area'`` or ``'iou'``, for what follows.
            bounds_box_filter: (lower, upper) overlap with the image of the boxes that are kept.
            bounds_validator: (lower, upper) overlap of the boxes that count for `n_boxes_min`.
            n_boxes_min: How many boxes must remain after a shift or a zoom; or ``'all'``.
            background: The colour of what gets free, in RGB.
            labels_format: Column positions by name.
            random_flip_vertical: The probability to exchange top and bottom, for images without
                an upside, such as those taken from above.
            keep_channels: Whether grayscale images stay grayscale and RGBA images keep their
                fourth channel, instead of becoming RGB.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: unless random_scale[0] < 1 < random_scale[1], or if an argument does not
                suit the transformation it is for.
        """
        if not random_scale[0] < 1 < random_scale[1]:
            raise ValueError(
                "`random_scale` must begin with a factor below 1, to zoom out, and one above 1, "
                f"to zoom in; got {random_scale}."
            )
        self.box_filter = BoxFilter(
            overlap_criterion=overlap_criterion, overlap_bounds=bounds_box_filter
        )
        self.image_validator = ImageValidator(overlap_criterion, bounds_validator, n_boxes_min)
        edges = {
            "clip_boxes": clip_boxes,
            "box_filter": self.box_filter,
            "image_validator": self.image_validator,
            "n_trials_max": n_trials_max,
            "background": background,
        }
        colours = (random_brightness, random_contrast, random_saturation, random_hue)
        smallest, largest, scale_prob = random_scale
        translate = RandomTranslate(*random_translate, **edges)
        flips = [RandomFlip("horizontal", random_flip)]
        if random_flip_vertical:
            flips.append(RandomFlip("vertical", random_flip_vertical))

        self.sequence1 = [
            PhotometricDistortion(*colours, keep_channels=keep_channels),
            translate,
            RandomScale(1.0, largest, scale_prob, **edges),
            *flips,
        ]
        self.sequence2 = [
            PhotometricDistortion(*colours, contrast_last=True, keep_channels=keep_channels),
            RandomScale(smallest, 1.0, scale_prob, **edges),
            translate,
            *flips,
        ]
        chains = [TransformationChain(self.sequence1), TransformationChain(self.sequence2)]
        super().__init__(chains, prob=1.0, labels_format=labels_format, rng=rng)
