"""Transformations of colours. Boxes stay where they are.

Images hold values from 0 to 255, as uint8 or as floats, and come out with the dtype they had.
Most operations here map each value on its own; for uint8 images they become look-up tables with
256 entries, which is exact and many times faster than arithmetic on every pixel.

Hue and saturation work on HSV images in OpenCV's 8-bit layout (also when stored as floats): hue
from 0 to 179, in steps of two degrees, saturation and value from 0 to 255.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import permutations

import cv2
import numpy as np

from data_generator.colour_conversions import (
    ConvertColor,
    ConvertDataType,
    ConvertTo3Channels,
    PhotometricTransformation,
)
from data_generator.pending_image import PendingImage
from data_generator.random_transformation import (
    RandomArgument,
    RandomChoice,
    RandomTransformation,
)

__all__ = [
    "Brightness",
    "ChannelSwap",
    "Contrast",
    "ConvertColor",
    "ConvertDataType",
    "ConvertTo3Channels",
    "Gamma",
    "HistogramEqualization",
    "Hue",
    "RandomBrightness",
    "RandomChannelSwap",
    "RandomContrast",
    "RandomGamma",
    "RandomHistogramEqualization",
    "RandomHue",
    "RandomSaturation",
    "Saturation",
]

HUE_STEPS = 180

Rng = np.random.Generator | int | None


class ValueMap(PhotometricTransformation):
    """A transformation that maps every value on its own, in all channels or in one.

    Attributes:
        channel: The channel it is about; None for all of them.
    """

    channel: int | None = None

    @abstractmethod
    def map_values(self, values: np.ndarray) -> np.ndarray:
        """Map float values to new ones of the same dtype."""

    def table(self) -> np.ndarray:
        """Return where the 256 values of a uint8 image go."""
        return lookup_table([self])

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Map a uint8 image by a table, a float image by arithmetic."""
        if image.dtype == np.uint8:
            return look_up(image, {self.channel: self.table()})
        if not np.issubdtype(image.dtype, np.floating):
            raise ValueError(
                f"{type(self).__name__} expects uint8 or float images; got {image.dtype}. "
                "ConvertDataType makes either of them."
            )
        if self.channel is None:
            return self.map_values(image)
        mapped = image.copy()
        mapped[..., self.channel] = self.map_values(image[..., self.channel])
        return mapped


def lookup_table(value_maps: Sequence[ValueMap]) -> np.ndarray:
    """Compose value maps into one table, with a single rounding (half to even) in the end.

    Arguments:
        value_maps: In the order in which they are applied, in float32.

    Returns:
        `(256,)` uint8.
    """
    values = np.arange(256, dtype=np.float32)
    for value_map in value_maps:
        values = value_map.map_values(values)
    return np.rint(values).astype(np.uint8)


def look_up(image: np.ndarray, tables: dict[int | None, np.ndarray]) -> np.ndarray:
    """Replace the values of a uint8 image by those in look-up tables.

    Arguments:
        image: `(height, width)` or `(height, width, channels)` uint8.
        tables: One `(256,)` uint8 table for all channels, under the key None, or a table for
            each channel that changes, under its number.

    Returns:
        A new array of the same shape.
    """
    if None in tables:
        return cv2.LUT(image, tables[None]).reshape(image.shape)
    channels = 1 if image.ndim == 2 else image.shape[2]
    combined = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], channels, axis=1)
    for channel, table in tables.items():
        combined[:, channel] = table
    return cv2.LUT(image, combined[np.newaxis]).reshape(image.shape)


class Hue(ValueMap):
    """Turn the hue of an HSV image."""

    channel = 0

    def __init__(self, delta: float):
        """Set the turn.

        Arguments:
            delta: In hue steps of two degrees, in [-180, 180].

        Raises:
            ValueError: if `delta` is not in that range.
        """
        super().__init__()
        if not -HUE_STEPS <= delta <= HUE_STEPS:
            raise ValueError(f"`delta` must lie in [-{HUE_STEPS}, {HUE_STEPS}]; got {delta}.")
        self.delta = delta

    def map_values(self, values: np.ndarray) -> np.ndarray:
        """Add to the hue, around the circle."""
        return (values + self.delta) % HUE_STEPS

    def table(self) -> np.ndarray:
        """Return the table; what is rounded up to a full turn is 0 again."""
        return super().table() % HUE_STEPS


class RandomHue(RandomTransformation):
    """Turn the hue of an HSV image by a random amount."""

    def __init__(self, max_delta: float = 18, prob: float = 0.5, rng: Rng = None):
        """Set the range.

        Arguments:
            max_delta: The turn is drawn from [-max_delta, max_delta]; in [0, 180].
            prob: The probability to act.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `max_delta` is not in that range, or `prob` is no probability.
        """
        if not 0 <= max_delta <= HUE_STEPS:
            raise ValueError(f"`max_delta` must lie in [0, {HUE_STEPS}]; got {max_delta}.")
        super().__init__(prob, rng=rng)
        self.max_delta = max_delta

    def draw(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Hue:
        """Draw the turn."""
        return Hue(rng.uniform(-self.max_delta, self.max_delta))


class Saturation(ValueMap):
    """Multiply the saturation of an HSV image, and clip it to [0, 255]."""

    channel = 1

    def __init__(self, factor: float):
        """Set the factor.

        Arguments:
            factor: Greater than 0; below 1 fades, above 1 intensifies.

        Raises:
            ValueError: if `factor` is not positive.
        """
        super().__init__()
        self.factor = _positive("factor", factor)

    def map_values(self, values: np.ndarray) -> np.ndarray:
        """Multiply and clip."""
        return np.clip(values * self.factor, 0, 255)


class RandomSaturation(RandomArgument):
    """Multiply the saturation of an HSV image by a random factor."""

    def __init__(self, lower: float = 0.3, upper: float = 2.0, prob: float = 0.5, rng: Rng = None):
        """Set the range.

        Arguments:
            lower: The lowest factor, at least 0.
            upper: The highest factor.
            prob: The probability to act.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `lower` is negative or not below `upper`, or `prob` is no probability.
        """
        super().__init__(Saturation, _not_negative("lower", lower), upper, prob, rng)


class Brightness(ValueMap):
    """Add to the values of an RGB image, and clip them to [0, 255].

    Example:
        >>> import numpy as np
        >>> from data_generator.object_detection_2d_photometric_ops import Brightness
        >>> Brightness(100)(np.array([[[0, 100, 200]]], np.uint8))  # stays within 0 to 255
        array([[[100, 200, 255]]], dtype=uint8)
    """

    def __init__(self, delta: float):
        """Set what is added, in grey levels."""
        super().__init__()
        self.delta = delta

    def map_values(self, values: np.ndarray) -> np.ndarray:
        """Add and clip."""
        return np.clip(values + self.delta, 0, 255)


class RandomBrightness(RandomArgument):
    """Add a random number of grey levels to an RGB image."""

    def __init__(self, lower: float = -84, upper: float = 84, prob: float = 0.5, rng: Rng = None):
        """Set the range.

        Arguments:
            lower: The lowest number of grey levels.
            upper: The highest number of grey levels.
            prob: The probability to act.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `lower` is not below `upper`, or `prob` is no probability.
        """
        super().__init__(Brightness, lower, upper, prob, rng)


class Contrast(ValueMap):
    """Multiply the distances of an RGB image's values from a pivot, and clip them to [0, 255]."""

    def __init__(self, factor: float, pivot: float = 127.5):
        """Set the factor.

        Arguments:
            factor: Greater than 0; below 1 flattens, above 1 steepens.
            pivot: The grey level that stays. About 127.5 an image keeps its brightness; about 0,
                as in the Caffe implementation of SSD, it gets darker or brighter as well.

        Raises:
            ValueError: if `factor` is not positive.
        """
        super().__init__()
        self.factor = _positive("factor", factor)
        self.pivot = pivot

    def map_values(self, values: np.ndarray) -> np.ndarray:
        """Multiply about the pivot and clip."""
        return np.clip(self.pivot + self.factor * (values - self.pivot), 0, 255)


class RandomContrast(RandomArgument):
    """Change the contrast of an RGB image by a random factor.

    Example:
        >>> import numpy as np
        >>> from data_generator.object_detection_2d_photometric_ops import RandomContrast
        >>> image = np.array([[[100, 150, 200]]], np.uint8)
        >>> contrast = RandomContrast(0.5, 1.5, prob=1.0, rng=0)  # the same seed, the same images
        >>> [contrast(image).tolist() for _ in range(3)]
        [[[[106, 145, 183]]], [[[113, 139, 165]]], [[[89, 159, 230]]]]
    """

    def __init__(
        self,
        lower: float = 0.5,
        upper: float = 1.5,
        prob: float = 0.5,
        pivot: float = 127.5,
        rng: Rng = None,
    ):
        """Set the range.

        Arguments:
            lower: The lowest factor, at least 0.
            upper: The highest factor.
            prob: The probability to act.
            pivot: The grey level that stays, see `Contrast`.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `lower` is negative or not below `upper`, or `prob` is no probability.
        """
        contrast = partial(Contrast, pivot=pivot)
        super().__init__(contrast, _not_negative("lower", lower), upper, prob, rng)


class Gamma(ValueMap):
    """Correct the gamma of an RGB image: v' = 255 (v / 255)^(1 / gamma)."""

    def __init__(self, gamma: float):
        """Set the exponent.

        Arguments:
            gamma: Greater than 0; below 1 darkens, above 1 brightens.

        Raises:
            ValueError: if `gamma` is not positive.
        """
        super().__init__()
        self.gamma = _positive("gamma", gamma)
        self.gamma_inv = 1.0 / gamma

    def map_values(self, values: np.ndarray) -> np.ndarray:
        """Apply the power."""
        return 255 * (np.clip(values, 0, 255) / 255) ** self.gamma_inv

    def table(self) -> np.ndarray:
        """Return the table, cut down to whole values as customary for gamma tables."""
        return self.map_values(np.arange(256, dtype=np.float64)).astype(np.uint8)


class RandomGamma(RandomArgument):
    """Correct the gamma of an RGB image by a random exponent."""

    def __init__(self, lower: float = 0.25, upper: float = 2.0, prob: float = 0.5, rng: Rng = None):
        """Set the range.

        Arguments:
            lower: The lowest gamma, at least 0.
            upper: The highest gamma.
            prob: The probability to act.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `lower` is negative or not below `upper`, or `prob` is no probability.
        """
        super().__init__(Gamma, _not_negative("lower", lower), upper, prob, rng)


class HistogramEqualization(PhotometricTransformation):
    """Equalise the histogram of the values of an HSV image."""

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Equalise the last of three uint8 channels."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                "A histogram can be equalised for uint8 images with three channels (HSV); "
                f"got {image.dtype} of shape {image.shape}."
            )
        equalized = image.copy()
        equalized[:, :, 2] = cv2.equalizeHist(np.ascontiguousarray(image[:, :, 2]))
        return equalized

    def defer(self, image: PendingImage) -> PendingImage:
        """Equalise now: the histogram is that of the pixels that are visible at this point."""
        return PendingImage.of(self.apply_image(image.pixels()))


class RandomHistogramEqualization(RandomChoice):
    """Equalise the histogram of an HSV image at random."""

    def __init__(self, prob: float = 0.5, rng: Rng = None):
        """Set the probability to act, and the generator or seed for calls without their own."""
        super().__init__([HistogramEqualization()], prob, rng=rng)


class ChannelSwap(PhotometricTransformation):
    """Reorder the channels of an image."""

    def __init__(self, order: Sequence[int]):
        """Set the order: the numbers of the channels as they shall follow each other."""
        super().__init__()
        self.order = tuple(order)

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Reorder the channels of a `(height, width, channels)` image."""
        if image.ndim != 3 or not all(-image.shape[2] <= c < image.shape[2] for c in self.order):
            raise ValueError(
                f"The channel order {self.order} does not fit an image of shape {image.shape}."
            )
        return np.take(image, self.order, axis=2)


class RandomChannelSwap(RandomChoice):
    """Put the three channels of an image into one of the five other orders."""

    def __init__(self, prob: float = 0.5, rng: Rng = None):
        """Set the probability to act, and the generator or seed for calls without their own."""
        orders = [order for order in permutations(range(3)) if order != (0, 1, 2)]
        super().__init__([ChannelSwap(order) for order in orders], prob, rng=rng)


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise ValueError(f"`{name}` must be greater than 0; got {value}.")
    return value


def _not_negative(name: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"`{name}` must not be negative; got {value}.")
    return value
