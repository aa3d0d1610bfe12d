"""The size of an image file from its first bytes, without decoding the pixels."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from data_generator.image_reading import read_image

# Start of frame: the JPEG segments that hold the size, among which three codes mean other things.
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_EXIF_SEGMENT = 0xE1
_ORIENTATION_TAG = 0x0112
_WEBP_HAS_EXIF = 0x08


def read_image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Read the size that `read_image` gives an image, mostly without decoding it.

    Of JPEG, PNG, BMP and WebP files only the header is read, and a quarter turn by the EXIF
    orientation is taken into account. Everything else is decoded. What follows the header is not
    looked at: a file that is cut off has a size, too.

    Arguments:
        path: The image file.

    Returns:
        (height, width) in pixels, as a viewer shows the image.

    Raises:
        ImageReadError: The file is missing, empty or no image.
    """
    try:
        with open(path, "rb") as file:
            size = _size_in_header(file)
    except (OSError, ValueError, struct.error, IndexError):
        size = None  # `read_image` says what is wrong, or knows better
    if size is None or min(size) < 1:
        height, width, _ = read_image(path, channels=None).shape
        return height, width
    return size


def _size_in_header(file: BinaryIO) -> tuple[int, int] | None:
    """Return (height, width), or None for whatever is not simple."""
    start = file.read(30)
    if start.startswith(b"\xff\xd8"):
        file.seek(2)
        return _jpeg_size(file)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_size(file)
    if start.startswith(b"BM"):
        return _bmp_size(start)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp_size(start)
    return None


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    turned = False
    while file.read(1) == b"\xff":
        code = file.read(1)[0]
        while code == 0xFF:  # any number of them may stand before a marker's code
            code = file.read(1)[0]
        if code == _START_OF_SCAN:
            return None
        (length,) = struct.unpack(">H", file.read(2))
        if code in _START_OF_FRAME:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return (width, height) if turned else (height, width)
        if code == _EXIF_SEGMENT:
            content = file.read(length - 2)
            if content.startswith(b"Exif\0\0"):
                turned = _exif_orientation(content[6:]) in (5, 6, 7, 8)
        else:
            file.seek(length - 2, os.SEEK_CUR)
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Return the orientation in an EXIF segment, a TIFF header with its first directory."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        raise ValueError("not EXIF data")
    (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
    (n_entries,) = struct.unpack_from(f"{order}H", tiff, offset)
    for entry in range(n_entries):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, offset + 2 + 12 * entry)
        if tag == _ORIENTATION_TAG:
            return value
    return 1


def _png_size(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(16)
    width, height = struct.unpack(">II", file.read(8))
    file.seek(8)
    while True:  # chunk by chunk, in search of an orientation
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IEND":
            return height, width
        if header[4:] == b"eXIf":
            return None
        file.seek(int.from_bytes(header[:4], "big") + 4, os.SEEK_CUR)  # content and checksum


def _bmp_size(start: bytes) -> tuple[int, int] | None:
    if start[14] < 40:  # the header of OS/2 is laid out differently
        return None
    width, height = struct.unpack_from("<ii", start, 18)
    return abs(height), width  # a negative height says that the rows begin at the top


def _webp_size(start: bytes) -> tuple[int, int] | None:
    kind = start[12:16]
    if kind == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", start, 26)
        return height & 0x3FFF, width & 0x3FFF  # the two bits above are a hint how to scale
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X" and not start[20] & _WEBP_HAS_EXIF:
        width, height = (int.from_bytes(start[i : i + 3], "little") + 1 for i in (24, 27))
        return height, width
    return None
