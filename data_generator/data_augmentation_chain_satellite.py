"""An augmentation chain for images taken from above, which look alike whichever way they turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_generator.data_augmentation_chain_variable_input_size import (
    DataAugmentationVariableInputSize,
)
from data_generator.object_detection_2d_geometric_ops import RandomFlip, RandomRotate
from data_generator.object_detection_2d_image_boxes_validation_utils import BoundGenerator
from data_generator.transformation import Transformation


class DataAugmentationSatellite(DataAugmentationVariableInputSize):
    """Distort images, flip them both ways and turn them, cut a random patch, and resize it."""

    def __init__(
        self,
        resize_height: int,
        resize_width: int,
        random_brightness: tuple[float, float, float] = (-48, 48, 0.5),
        random_contrast: tuple[float, float, float] = (0.5, 1.8, 0.5),
        random_saturation: tuple[float, float, float] = (0.5, 1.8, 0.5),
        random_hue: tuple[float, float] = (18, 0.5),
        random_flip: float = 0.5,
        random_rotate: tuple[Sequence[int], float] = ((90, 180, 270), 0.5),
        min_scale: float = 0.3,
        max_scale: float = 2.0,
        min_aspect_ratio: float = 0.8,
        max_aspect_ratio: float = 1.25,
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
            resize_height: As for `DataAugmentationVariableInputSize`, like all that is not
                explained here.
            resize_width: As above.
            random_brightness: As above.
            random_contrast: As above.
            random_saturation: As above.
            random_hue: As above.
            random_flip: The probability to exchange left and right, and that to exchange top and
                bottom.
            random_rotate: (angles to choose from, probability); 90, 180 and 270 degrees, counter-
                clockwise.
            min_scale: As above.
            max_scale: As above.
            min_aspect_ratio: As above.
            max_aspect_ratio: As above.
            n_trials_max: As above.
            clip_boxes: As above.
            overlap_criterion: As above.
            bounds_box_filter: As above.
            bounds_validator: As above.
            n_boxes_min: As above.
            background: As above.
            labels_format: As above.
            keep_channels: As above.
            rng: As above.

        Raises:
            ValueError: if an argument does not suit the transformation it is for.
        """
        self.random_vertical_flip = RandomFlip("vertical", random_flip)
        self.random_rotate = RandomRotate(*random_rotate)
        super().__init__(
            resize_height,
            resize_width,
            random_brightness,
            random_contrast,
            random_saturation,
            random_hue,
            random_flip,
            min_scale,
            max_scale,
            min_aspect_ratio,
            max_aspect_ratio,
            n_trials_max,
            clip_boxes,
            overlap_criterion,
            bounds_box_filter,
            bounds_validator,
            n_boxes_min,
            background,
            labels_format,
            keep_channels,
            rng,
        )

    def parts(self) -> list[Transformation]:
        """Return the transformations in the order in which they are applied."""
        return [
            self.photometric_distortions,
            self.random_flip,
            self.random_vertical_flip,
            self.random_rotate,
            self.random_patch,
            self.resize,
        ]
