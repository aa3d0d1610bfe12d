"""Reading one image file: channels, alpha, orientation, and files that are not what they seem."""

from __future__ import annotations

import os
import re

import cv2
import numpy as np

# A JPEG marker is 0xff followed by its code. Inside compressed data 0xff is always followed by
# 0x00 (a stuffed byte) or by a restart code 0xd0-0xd7; 0xff 0xff is padding before a marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JPEG_END = b"\xff\xd9"
_PNG_END = b"IEND\xaeB`\x82"


class ImageReadError(ValueError):
    """An image file that is missing, empty, cut off, damaged, or no image at all."""


def read_image(path: str | os.PathLike, channels: int | None = 3) -> np.ndarray:
    """Read an image file as a uint8 array, upright and without its alpha channel.

    The EXIF orientation is applied, so a photograph taken with a turned camera comes out as a
    viewer shows it; its boxes are expected to be annotated on that view. Images of 16 bits per
    channel are reduced to 8. Of an animation, the first frame is read.

    Arguments:
        path: The file, in any format that OpenCV decodes (JPEG, PNG, BMP, WebP, TIFF, ...).
        channels: 3 for RGB (a grayscale file gets three equal channels), 1 for grayscale (a
            colour file is converted), None for what the file holds: 1 or 3.

    Returns:
        A new uint8 array of shape `(height, width, channels)`; colours in the order RGB.

    Raises:
        ImageReadError: The file is missing, empty, cut off, damaged or not an image. Some
            decoders fill what is missing in a cut-off file with grey and say nothing; here it
            is an error, because its boxes would be learned as grey.
        ValueError: `channels` is not 3, 1 or None.
    """
    if channels not in (3, 1, None):
        raise ValueError(f"channels must be 3, 1 or None (as in the file), got {channels!r}")
    data = _read_bytes(path)
    if not _is_complete(data):
        raise ImageReadError(
            f"{os.fspath(path)}: the image file is cut off (the end of the picture is missing "
            f"from its {len(data)} bytes). Copy it again, or remove it from the data set"
        )
    image = _decode(data, channels)
    if image is None:
        raise ImageReadError(
            f"{os.fspath(path)}: not an image that OpenCV can decode ({len(data)} bytes that "
            f"start with {data[:8]!r}); the file is damaged, cut off, or of another kind"
        )
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
    }[channels]
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # such as a header that announces more pixels than OpenCV allows
        return None
    if image is None:
        return None
    if image.ndim == 2:
        return image[:, :, np.newaxis]
    if channels is None:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image


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
