"""The photometric distortion of the augmentation chains, fused into look-up tables.

Done step by step, the SSD distortion converts an image between uint8 and float four times and
does arithmetic on every pixel for every operation. But each operation maps values one by one, so
that all those between two changes of the colour space make one table with 256 entries. The result
is the same, bit for bit, with one exception: a hue that is rounded up to a full turn becomes 0,
where the steps leave OpenCV an invalid 180 (one value in some thousands, by a grey level or two).
"""

from __future__ import annotations

import cv2
import numpy as np

from data_generator.label_boxes import leave_unchanged
from data_generator.object_detection_2d_photometric_ops import (
    ConvertDataType,
    ConvertTo3Channels,
    RandomBrightness,
    RandomContrast,
    RandomHue,
    RandomSaturation,
    look_up,
    lookup_table,
)
from data_generator.transformation import Transformation, Transformed

Rng = np.random.Generator | int | None


class PhotometricDistortion(Transformation):
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
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if a range or probability is not as the operation wants it.
        """
        super().__init__()
        self.brightness = RandomBrightness(*random_brightness)
        self.contrast = RandomContrast(*random_contrast)
        self.saturation = RandomSaturation(*random_saturation)
        self.hue = RandomHue(*random_hue)
        self.contrast_last = contrast_last
        self.keep_channels = keep_channels
        self.rng = np.random.default_rng(rng)

    def transform(
        self, image: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Draw one set of distortions, and apply it to the pixels as uint8."""
        rng = self.rng if rng is None else rng
        image = ConvertDataType("uint8").apply_image(image)
        if not self.keep_channels and (image.ndim == 2 or image.shape[2] in (1, 4)):
            image = ConvertTo3Channels().apply_image(image)

        size = image.shape[:2]
        brightness, contrast, saturation, hue = (
            operation.sample(*size, labels, rng)
            for operation in (self.brightness, self.contrast, self.saturation, self.hue)
        )
        first, last = (
            ([brightness], [contrast])
            if self.contrast_last
            else (
                [brightness, contrast],
                [],
            )
        )
        image = _apply_in_rgb(image, first)
        # Also if neither was drawn: the detour by 8-bit HSV costs a little precision itself, and
        # images shall not differ in that.
        if image.ndim == 3 and image.shape[2] == 3 and (self.saturation.prob or self.hue.prob):
            image = _apply_in_hsv(image, [hue, saturation])
        return Transformed(_apply_in_rgb(image, last), labels, leave_unchanged)


def _apply_in_rgb(image: np.ndarray, value_maps: list) -> np.ndarray:
    value_maps = [value_map for value_map in value_maps if value_map is not None]
    return look_up(image, {None: lookup_table(value_maps)}) if value_maps else image


def _apply_in_hsv(image: np.ndarray, value_maps: list) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    tables = {value_map.channel: value_map.table() for value_map in value_maps if value_map}
    return cv2.cvtColor(look_up(hsv, tables) if tables else hsv, cv2.COLOR_HSV2RGB)
