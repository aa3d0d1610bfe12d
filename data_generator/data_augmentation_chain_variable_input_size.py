"""An augmentation chain for data sets whose images have various sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_generator.object_detection_2d_geometric_ops import RandomFlip, Resize
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoundGenerator,
    BoxFilter,
    ImageValidator,
)
from data_generator.object_detection_2d_patch_sampling_ops import (
    PatchCoordinateGenerator,
    RandomPatch,
)
from data_generator.photometric_distortion import PhotometricDistortion
from data_generator.transformation import Transformation, TransformationChain


class DataAugmentationVariableInputSize(TransformationChain):
    """Distort images, cut a random patch, flip it and resize it to the size the model expects.

    A patch may also be larger than the image, with background around it. Since it is resized,
    this amounts to random zooms, shifts and changes of the aspect ratio.
    """

    def __init__(
        self,
        resize_height: int,
        resize_width: int,
        random_brightness: tuple[float, float, float] = (-48, 48, 0.5),
        random_contrast: tuple[float, float, float] = (0.5, 1.8, 0.5),
        random_saturation: tuple[float, float, float] = (0.5, 1.8, 0.5),
        random_hue: tuple[float, float] = (18, 0.5),
        random_flip: float = 0.5,
        min_scale: float = 0.3,
        max_scale: float = 2.0,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        n_trials_max: int = 3,
        clip_boxes: bool = True,
        overlap_criterion: str = "area",
        bounds_box_filter: Sequence[float] | BoundGenerator = (0.3, 1.0),
        bounds_validator: Sequence[float] | BoundGenerator = (0.5, 1.0),
        n_boxes_min: int | str = 1,
        background: Sequence[float] | float = (0, 0, 0),
        labels_format: Mapping[str, int] | None = None,
        keep_channels: bool = False,
        rng: np.random.Generator | int | None = None,
    ):
        """Set ranges and probabilities.

        Arguments:
            resize_height: Of the resulting images, in pixels.
            resize_width: Of the resulting images, in pixels.
            random_brightness: (lower, upper, probability); grey levels that are added.
            random_contrast: (lower, upper, probability); a factor.
            random_saturation: (lower, upper, probability); a factor.
            random_hue: (largest turn, probability); in steps of two degrees.
            random_flip: The probability to exchange left and right.
            min_scale: The least width of a patch, as a fraction of that of the image.
            max_scale: The largest width of a patch, as a fraction of that of the image.
            min_aspect_ratio: The least width / height of a patch.
            max_aspect_ratio: The largest width / height of a patch.
            n_trials_max: How often a patch is drawn that shows too few objects, before the whole
                image is taken.
            clip_boxes: Whether to clip boxes to the patch.
            overlap_criterion: ``'center_point'``, ``'area'`` or ``'iou'``, for what follows.
            bounds_box_filter: (lower, upper) overlap with the patch of the boxes that are kept.
            bounds_validator: (lower, upper) overlap of the boxes that count for `n_boxes_min`.
            n_boxes_min: How many boxes a patch must show; or ``'all'``.
            background: The colour around the image, in RGB.
            labels_format: Column positions by name.
            keep_channels: Whether grayscale images stay grayscale and RGBA images keep their
                fourth channel, instead of becoming RGB.
            rng: A generator or a seed for all parts, used where a call does not bring its own.

        Raises:
            ValueError: if an argument does not suit the transformation it is for.
        """
        self.photometric_distortions = PhotometricDistortion(
            random_brightness,
            random_contrast,
            random_saturation,
            random_hue,
            keep_channels=keep_channels,
        )
        self.random_flip = RandomFlip("horizontal", random_flip)
        self.random_patch = RandomPatch(
            PatchCoordinateGenerator(
                must_match="w_ar",
                min_scale=min_scale,
                max_scale=max_scale,
                min_aspect_ratio=min_aspect_ratio,
                max_aspect_ratio=max_aspect_ratio,
            ),
            BoxFilter(
                check_min_area=False,
                check_degenerate=False,
                overlap_criterion=overlap_criterion,
                overlap_bounds=bounds_box_filter,
            ),
            ImageValidator(overlap_criterion, bounds_validator, n_boxes_min),
            n_trials_max,
            clip_boxes,
            background=background,
        )
        # What gets too small to be seen is only known at the final size.
        self.resize = Resize(resize_height, resize_width, box_filter=BoxFilter(check_overlap=False))
        super().__init__(self.parts(), labels_format, rng)

    def parts(self) -> list[Transformation]:
        """Return the transformations in the order in which they are applied."""
        return [self.photometric_distortions, self.random_patch, self.random_flip, self.resize]
