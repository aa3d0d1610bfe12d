"""Conversions of images between colour spaces, data types and numbers of channels."""

from __future__ import annotations

from abc import abstractmethod

import cv2
import numpy as np

from data_generator.label_boxes import leave_unchanged
from data_generator.pending_image import PendingImage
from data_generator.transformation import Transformation, Transformed

# A multiple of the number of pixels that OpenCV converts at once on any processor.
_ROW = 256


class PhotometricTransformation(Transformation):
    """A transformation with fixed arguments that changes pixels and never boxes."""

    @abstractmethod
    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Change the pixels; the given array stays as it is."""

    def transform(
        self, image: PendingImage, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Change the pixels and pass the labels through."""
        return Transformed(self.defer(image), labels, leave_unchanged)

    def defer(self, image: PendingImage) -> PendingImage:
        """Note the change down. Pixels must not depend on others, or this be overridden."""
        return image.recoloured(self)


class ConvertColor(PhotometricTransformation):
    """Convert between RGB, HSV and grayscale."""

    def __init__(self, current: str = "RGB", to: str = "HSV", keep_3ch: bool = True):
        """Choose the colour spaces.

        Arguments:
            current: ``'RGB'`` or ``'HSV'``.
            to: ``'RGB'``, ``'HSV'`` or ``'GRAY'``. The space the image is in changes nothing.
            keep_3ch: Whether grayscale images get three equal channels instead of none.

        Raises:
            NotImplementedError: for any other colour space.
        """
        super().__init__()
        if current not in ("RGB", "HSV") or to not in ("RGB", "HSV", "GRAY"):
            raise NotImplementedError(
                "Conversions go from RGB or HSV to RGB, HSV or GRAY; "
                f"got current={current!r}, to={to!r}."
            )
        self.current = current
        self.to = to
        self.keep_3ch = keep_3ch

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Convert an image with three channels."""
        if self.current == self.to:
            return image
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"Colours can be converted for images with three channels; got {image.shape}. "
                "ConvertTo3Channels makes three out of one or four."
            )
        if self.to == "HSV":
            return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        if self.current == "HSV":
            image = hsv_to_rgb(image)
        if self.to == "RGB":
            return image
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return np.stack([gray] * 3, axis=-1) if self.keep_3ch else gray


class ConvertDataType(PhotometricTransformation):
    """Convert images to uint8 or float32."""

    def __init__(self, to: str = "uint8"):
        """Choose the type.

        Arguments:
            to: ``'uint8'`` (rounded half to even; values outside 0..255 wrap around, so clip
                them first) or ``'float32'``.

        Raises:
            ValueError: for any other type.
        """
        super().__init__()
        if to not in ("uint8", "float32"):
            raise ValueError(f"`to` must be 'uint8' or 'float32'; got {to!r}.")
        self.to = to

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Convert an image; one that has the type already is returned as it is."""
        if image.dtype == self.to:
            return image
        if self.to == "float32":
            return image.astype(np.float32)
        # By way of a wider integer, since float to uint8 is undefined outside the range in C.
        return np.rint(image).astype(np.int64).astype(np.uint8)


class ConvertTo3Channels(PhotometricTransformation):
    """Give grayscale images three equal channels, and drop the alpha channel of RGBA images."""

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Convert an image with no channel axis, or with one, three or four channels."""
        if image.ndim == 2:
            return np.stack([image] * 3, axis=-1)
        channels = image.shape[2]
        if channels == 3:
            return image
        if channels == 1:
            return np.repeat(image, 3, axis=2)
        if channels == 4:
            return np.ascontiguousarray(image[:, :, :3])
        raise ValueError(
            "Images with one, three or four channels can be given three; "
            f"got {channels} channels, shape {image.shape}."
        )


def hsv_to_rgb(image: np.ndarray) -> np.ndarray:
    """Convert from HSV to RGB, so that the result depends on nothing but the colour.

    OpenCV converts the pixels of a row by vector instructions, and what remains at its end in
    another way that may differ by one grey level. Then the same pixel could come out differently
    after a crop than before. In rows of a suitable length nothing remains.

    Arguments:
        image: `(height, width, 3)`, uint8 or float32.

    Returns:
        An array of the same shape and dtype.
    """
    if image.dtype != np.uint8:
        return cv2.cvtColor(image, cv2.COLOR_HSV2RGB)
    pixels = np.ascontiguousarray(image).reshape(-1, 3)
    whole = len(pixels) - len(pixels) % _ROW
    rgb = np.empty_like(pixels)
    if whole > 0:
        rows = rgb[:whole].reshape(-1, _ROW, 3)  # a view: the result is written into it
        cv2.cvtColor(pixels[:whole].reshape(-1, _ROW, 3), cv2.COLOR_HSV2RGB, dst=rows)
    rest = np.zeros((1, _ROW, 3), np.uint8)
    rest[0, : len(pixels) - whole] = pixels[whole:]
    rgb[whole:] = cv2.cvtColor(rest, cv2.COLOR_HSV2RGB)[0, : len(pixels) - whole]
    return rgb.reshape(image.shape)
