"""The photometric distortion of the augmentation chains, fused into look-up tables.

Done step by step, the SSD distortion converts an image between uint8 and float four times and
does arithmetic on every pixel for every operation. But each operation maps values one by one, so
that all those between two changes of the colour space make one table with 256 entries. The result
is the same, bit for bit, with one exception: a hue that is rounded up to a full turn becomes 0,
where the steps leave OpenCV an invalid 180 (one value in some thousands, by a grey level or two).
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from data_generator.colour_conversions import (
    ConvertDataType,
    ConvertTo3Channels,
    PhotometricTransformation,
    hsv_to_rgb,
)
from data_generator.object_detection_2d_photometric_ops import (
    RandomBrightness,
    RandomContrast,
    RandomHue,
    RandomSaturation,
    ValueMap,
    look_up,
    lookup_table,
)
from data_generator.random_transformation import RandomTransformation

Rng = np.random.Generator | int | None


class PhotometricDistortion(RandomTransformation):
    """Change brightness, contrast, saturation and hue at random, each with its own probability.

    Brightness always comes first. Contrast comes second or last, which matters because saturation
    and hue see its effect only in the first case (section 2.2 of the SSD paper refers to these
    distortions; the two orders are those of the Caffe implementation).
    """

    def __init__(
        self,
        random_brightness: tuple[float, float, float] = (-48, 48, 0.5),
        random_contrast: tuple[float, float, float] = (0.5, 1.8, 0.5),
        random_saturation: tuple[float, float, float] = (0.5, 1.8, 0.5),
        random_hue: tuple[float, float] = (18, 0.5),
        contrast_last: bool = False,
        keep_channels: bool = False,
        labels_format: Mapping[str, int] | None = None,
        contrast_pivot: float = 127.5,
        always_by_hsv: bool = True,
        rng: Rng = None,
    ):
        """Set ranges and order.

        Arguments:
            random_brightness: (lower, upper, probability) of `RandomBrightness`.
            random_contrast: (lower, upper, probability) of `RandomContrast`.
            random_saturation: (lower, upper, probability) of `RandomSaturation`.
            random_hue: (max_delta, probability) of `RandomHue`.
            contrast_last: Whether contrast comes last instead of second.
            keep_channels: Whether images that are not RGB keep their number of channels, and do
                without saturation and hue. Otherwise grayscale and RGBA images become RGB. Five
                channels, say, are kept in any case.
            labels_format: Column positions by name.
            contrast_pivot: The grey level that contrast leaves alone.
            always_by_hsv: Whether images for which neither saturation nor hue was drawn make the
                detour by 8-bit HSV all the same. It costs a little precision, and images shall
                not differ in that; doing without it is faster.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if a range or probability is not as the operation wants it.
        """
        super().__init__(labels_format=labels_format, rng=rng)
        self.brightness = RandomBrightness(*random_brightness)
        self.contrast = RandomContrast(*random_contrast, pivot=contrast_pivot)
        self.saturation = RandomSaturation(*random_saturation)
        self.hue = RandomHue(*random_hue)
        self.contrast_last = contrast_last
        self.keep_channels = keep_channels
        self.always_by_hsv = always_by_hsv

    def draw(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Distortion:
        """Draw one set of distortions."""
        brightness, contrast, saturation, hue = (
            operation.sample(height, width, labels, rng)
            for operation in (self.brightness, self.contrast, self.saturation, self.hue)
        )
        by_hsv = self.always_by_hsv and (self.saturation.prob > 0 or self.hue.prob > 0)
        return Distortion(
            [brightness] if self.contrast_last else [brightness, contrast],
            [saturation, hue],
            [contrast] if self.contrast_last else [],
            by_hsv or saturation is not None or hue is not None,
            self.keep_channels,
        )


class Distortion(PhotometricTransformation):
    """One set of distortions, of which some work on RGB and some on HSV values."""

    def __init__(
        self,
        before: list[ValueMap | None],
        in_hsv: list[ValueMap | None],
        after: list[ValueMap | None],
        by_hsv: bool = True,
        keep_channels: bool = False,
    ):
        """Set the operations; None stands for one that does not act.

        Arguments:
            before: What is done to the RGB image first.
            in_hsv: What is done to the HSV image after that.
            after: What is done to the RGB image in the end.
            by_hsv: Whether the image is converted to HSV and back at all.
            keep_channels: As of `PhotometricDistortion`.
        """
        super().__init__()
        self.before, self.in_hsv, self.after = (
            [value_map for value_map in value_maps if value_map is not None]
            for value_maps in (before, in_hsv, after)
        )
        self.by_hsv = by_hsv
        self.keep_channels = keep_channels

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Distort the pixels as uint8."""
        image = ConvertDataType("uint8").apply_image(image)
        if not self.keep_channels and (image.ndim == 2 or image.shape[2] in (1, 4)):
            image = ConvertTo3Channels().apply_image(image)
        image = _apply_in_rgb(image, self.before)
        if self.by_hsv and image.ndim == 3 and image.shape[2] == 3:
            image = _apply_in_hsv(image, self.in_hsv)
        return _apply_in_rgb(image, self.after)


def _apply_in_rgb(image: np.ndarray, value_maps: list[ValueMap]) -> np.ndarray:
    return look_up(image, {None: lookup_table(value_maps)}) if value_maps else image


def _apply_in_hsv(image: np.ndarray, value_maps: list[ValueMap]) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    tables = {value_map.channel: value_map.table() for value_map in value_maps}
    return hsv_to_rgb(look_up(hsv, tables) if tables else hsv)
