"""Reading one image file: channels, alpha, orientation, and files that are not what they seem."""

from __future__ import annotations

import io
import os
import re

import cv2
import numpy as np

# A JPEG marker is 0xff followed by its code. Inside compressed data 0xff is always followed by
# 0x00 (a stuffed byte) or by a restart code 0xd0-0xd7; 0xff 0xff is padding before a marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JPEG_END = b"\xff\xd9"
_NPY_START = b"\x93NUMPY"
_PNG_END = b"IEND\xaeB`\x82"


class ImageReadError(ValueError):
    """An image file that is missing, empty, cut off, damaged, or no image at all."""


def read_image(path: str | os.PathLike, channels: int | None = 3) -> np.ndarray:
    """Read an image file as a uint8 array, upright and without its alpha channel.

    - The EXIF orientation is applied, so a photograph taken with a turned camera comes out as a
      viewer shows it; its boxes are expected to be annotated on that view.
    - Of 16 bits per channel the upper 8 are kept (65535 becomes 255, 255 becomes 0). Measurements
      that use only the lower bits must be scaled before they are saved.
    - Palettes and CMYK become RGB. Transparent pixels keep the colour beneath.
    - Of an animation, the first frame is read.
    - Images with more channels than colours have come as NumPy files (`.npy`): arrays
      `(height, width)` or `(height, width, channels)` of uint8 or uint16, colours as RGB.

    Arguments:
        path: The file, in any format that OpenCV decodes (JPEG, PNG, BMP, WebP, TIFF, ...), or
            `.npy`.
        channels: 3 for RGB (a grayscale file gets three equal channels), 1 for grayscale (a
            colour file is converted), None for what the file holds (without its alpha channel).
            Any other number for files with just as many channels, such as 4 for RGB and alpha.

    Returns:
        A new uint8 array of shape `(height, width, channels)`; colours in the order RGB.

    Raises:
        ImageReadError: The file is missing, empty, cut off, damaged or not an image, or it has
            another number of channels. Some decoders fill what is missing in a cut-off file with
            grey and say nothing; here it is an error, because its boxes would be learned as grey.
        ValueError: `channels` is neither a positive number nor None.
    """
    if channels is not None and (isinstance(channels, bool) or channels < 1):
        raise ValueError(f"channels must be 3, 1, another number or None, got {channels!r}")
    data = _read_bytes(path)
    if data.startswith(_NPY_START):
        return _read_npy(data, path, channels)
    if not _is_complete(data):
        raise ImageReadError(
            f"{os.fspath(path)}: the image file is cut off (the end of the picture is missing "
            f"from its {len(data)} bytes). Copy it again, or remove it from the data set"
        )
    image = _decode(data, channels)
    if image is None:
        raise ImageReadError(
            f"{os.fspath(path)}: not an image that OpenCV can decode ({len(data)} bytes that "
            f"start with {data[:8]!r}); the file is damaged, cut off, or of another kind. Images "
            "of more than 4 channels, or of numbers that are no bytes, can come as .npy files"
        )
    _check_channels(image, path, channels)
    return image


def _read_bytes(path: str | os.PathLike) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ImageReadError(
            f"{os.fspath(path)}: cannot read the image file ({error.strerror}). Check the images "
            "folder that was given, and that the suffix and its upper and lower case are right"
        ) from error
    except ValueError as error:  # a NUL byte in the name, or half of a surrogate pair
        raise ImageReadError(f"{os.fspath(path)!r}: not the name of a file: {error}") from error
    if not data:
        raise ImageReadError(f"{os.fspath(path)}: the image file is empty (0 bytes)")
    return data


def _decode(data: bytes, channels: int | None) -> np.ndarray | None:
    """Decode to `(height, width, channels)`, or return None if OpenCV cannot."""
    # IMREAD_UNCHANGED would ignore the EXIF orientation, hence IMREAD_ANYCOLOR.
    flags = {
        3: cv2.IMREAD_COLOR_RGB,
        1: cv2.IMREAD_GRAYSCALE,
        None: cv2.IMREAD_ANYCOLOR,
    }.get(channels, cv2.IMREAD_UNCHANGED)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # such as a header that announces more pixels than OpenCV allows
        return None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    image = _to_8_bits(image)
    if image.ndim == 2:
        return image[:, :, np.newaxis]
    if channels is None:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if channels != 3 and image.shape[2] == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
    return image


def _read_npy(data: bytes, path: str | os.PathLike, channels: int | None) -> np.ndarray:
    try:
        image = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
        raise ImageReadError(f"{os.fspath(path)}: the .npy file is damaged: {error}") from error
    is_image = image.ndim in (2, 3) and image.size and image.dtype in (np.uint8, np.uint16)
    if not is_image:
        raise ImageReadError(
            f"{os.fspath(path)}: expected an array (height, width) or (height, width, channels) "
            f"of uint8 or uint16, got the shape {image.shape} and {image.dtype}"
        )
    image = _to_8_bits(image).reshape(*image.shape[:2], -1)
    if image.shape[2] == 1 and channels == 3:
        image = np.repeat(image, 3, axis=2)
    elif image.shape[2] == 3 and channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, np.newaxis]
    _check_channels(image, path, channels)
    return np.ascontiguousarray(image)


def _to_8_bits(image: np.ndarray) -> np.ndarray:
    return (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image


def _check_channels(image: np.ndarray, path: str | os.PathLike, channels: int | None) -> None:
    if channels is not None and image.shape[2] != channels:
        raise ImageReadError(
            f"{os.fspath(path)}: the image has {image.shape[2]} channels, but channels={channels} "
            "was asked for (image_channels of the data set, or the channels of a model's input)"
        )


def _is_complete(data: bytes) -> bool:
    """Say whether a JPEG or PNG file reaches its end mark; other formats are left to OpenCV."""
    if data.startswith(b"\xff\xd8"):
        return data.endswith(_JPEG_END) or _jpeg_has_end(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data.endswith(_PNG_END) or _PNG_END in data
    return True


def _jpeg_has_end(data: bytes) -> bool:
    """Walk along the markers of a JPEG file until its end-of-image marker.

    Searching for the marker's two bytes is not enough: a thumbnail in the header carries one
    too, and whatever a camera appends behind the picture may hold anything.
    """
    position = 2  # behind the start-of-image marker
    while marker := _JPEG_MARKER.search(data, position):
        code = marker.group(1)[0]
        if code == _JPEG_END[1]:
            return True
        # Every other marker outside compressed data starts a segment that gives its length.
        # The compressed data behind a start of scan has none: the search for the next marker
        # runs over it.
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False
