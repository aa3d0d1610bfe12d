"""Sizes of images without decoding: the same as those of the decoded images, always."""

from __future__ import annotations

import io
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from data_generator.image_reading import ImageReadError, read_image
from data_generator.image_size import read_image_size

HEIGHT, WIDTH = 37, 301  # more than one byte for the width, which tells the byte orders apart
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def pillow(kind: str, image=None, **options) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(NOISE)).save(file, kind, **options)
    return file.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def check(tmp_path, data: bytes) -> None:
    (tmp_path / "image").write_bytes(data)
    height, width, _ = read_image(tmp_path / "image", None).shape
    assert read_image_size(tmp_path / "image") == (height, width)


FILES = {
    "baseline": pillow("JPEG"),
    "progressive": pillow("JPEG", progressive=True),
    "gray-jpeg": pillow("JPEG", Image.fromarray(NOISE[..., 0])),
    "cmyk": pillow("JPEG", Image.fromarray(NOISE).convert("CMYK")),
    "comment": pillow("JPEG", comment=b"\xff\xc0 no marker"),
    "padded-markers": pillow("JPEG").replace(b"\xff\xc0", b"\xff\xff\xff\xc0", 1),
    "png": pillow("PNG"),
    "palette": pillow("PNG", Image.fromarray(NOISE).quantize(9)),
    "bmp": pillow("BMP"),
    "bmp-top-down": cv2.imencode(".bmp", NOISE)[1].tobytes(),
    "webp-lossy": pillow("WEBP"),
    "webp-lossless": pillow("WEBP", lossless=True),
    "webp-alpha": pillow("WEBP", Image.fromarray(NOISE).convert("RGBA")),
    "gif": pillow("GIF"),
    "tiff": pillow("TIFF"),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_size_equals_that_of_the_decoded_image(tmp_path, data):
    check(tmp_path, data)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(tmp_path, kind, value):
    check(tmp_path, pillow(kind, exif=orientation(value)))


def test_big_endian_orientation(tmp_path):
    data = pillow(
        "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    check(tmp_path, data)
    assert read_image_size(tmp_path / "image") == (WIDTH, HEIGHT)


def test_bmp_with_rows_from_the_top(tmp_path):
    data = bytearray(pillow("BMP"))
    data[22:26] = (-HEIGHT).to_bytes(4, "little", signed=True)
    check(tmp_path, bytes(data))


def test_arrays(tmp_path):
    np.save(tmp_path / "a.npy", NOISE)
    assert read_image_size(tmp_path / "a.npy") == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "data",
    [b"", b"text", FILES["baseline"][:20], FILES["png"][:20], FILES["bmp"][:20], b"\xff\xd8\xff"],
    ids=["empty", "text", "jpeg", "png", "bmp", "marker"],
)
def test_files_that_are_none(tmp_path, data):
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(ImageReadError, match="image: "):
        read_image_size(tmp_path / "image")
    with pytest.raises(ImageReadError, match="none.jpg: cannot read"):
        read_image_size(tmp_path / "none.jpg")


def test_a_file_that_is_cut_off_has_a_size(tmp_path):
    (tmp_path / "image").write_bytes(FILES["baseline"][:-100])
    assert read_image_size(tmp_path / "image") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_damaged_headers_raise_nothing_else(tmp_path, kind):
    rng = np.random.default_rng(0)
    data = pillow(kind, Image.fromarray(NOISE[:8, :8]), exif=orientation(6))
    for _ in range(25 if kind == "PNG" else 200):  # huge PNG files take OpenCV long
        broken = bytearray(data)
        for position in rng.integers(min(len(data), 80), size=2):
            broken[position] = rng.integers(256)
        (tmp_path / "image").write_bytes(broken)
        try:
            height, width = read_image_size(tmp_path / "image")
        except ImageReadError:
            continue
        assert height > 0 < width


def test_large_images_are_not_decoded(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    start = time.perf_counter()
    assert read_image_size(tmp_path / "a.jpg") == (3000, 3000)
    header = time.perf_counter() - start
    start = time.perf_counter()
    read_image(tmp_path / "a.jpg")
    assert header < (time.perf_counter() - start) / 3
