"""Reading images: every kind of file, and every kind of damage."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from data_generator.image_reading import ImageReadError, read_image

RGB = np.zeros((20, 30, 3), np.uint8)
RGB[:, :15, 0] = 200  # red on the left
RGB[:, 15:, 2] = 100  # blue on the right
RGB[:5, :, 1] = 50


def encode(suffix: str, image: np.ndarray, *options: int) -> bytes:
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    if image.ndim == 3:
        image = cv2.cvtColor(image, order[image.shape[2]])
    return cv2.imencode(suffix, image, options)[1].tobytes()


def exif(orientation: int, thumbnail: bytes = b"") -> bytes:
    """Build an EXIF segment (APP1) with an orientation, and anything behind it."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\x00" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0) + thumbnail
    body = b"Exif\x00\x00" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.fixture
def write(tmp_path):
    def write_file(data: bytes, name: str = "image.jpg") -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write_file


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm"])
def test_lossless_colours_come_out_as_rgb(write, suffix):
    image = read_image(write(encode(suffix, RGB), "image" + suffix))
    np.testing.assert_array_equal(image, RGB)
    assert image.dtype == np.uint8
    assert image.flags.writeable


def test_jpeg_is_close(write):
    image = read_image(write(encode(".jpg", RGB, cv2.IMWRITE_JPEG_QUALITY, 95)))
    assert image.shape == RGB.shape
    assert np.abs(image[10, 5].astype(int) - RGB[10, 5]).max() < 10


def test_name_outside_ascii(write):
    path = write(encode(".png", RGB), "Straße 猫.png")
    np.testing.assert_array_equal(read_image(path), RGB)


GRAY = np.arange(600, dtype=np.uint8).reshape(20, 30)


@pytest.mark.parametrize(
    ("stored", "channels", "shape"),
    [
        (GRAY, 3, (20, 30, 3)),
        (GRAY, 1, (20, 30, 1)),
        (GRAY, None, (20, 30, 1)),
        (RGB, 3, (20, 30, 3)),
        (RGB, 1, (20, 30, 1)),
        (RGB, None, (20, 30, 3)),
    ],
)
def test_channels(write, stored, channels, shape):
    image = read_image(write(encode(".png", stored), "image.png"), channels)
    assert image.shape == shape
    if stored is GRAY:
        np.testing.assert_array_equal(image, np.broadcast_to(GRAY[..., None], shape))
    elif channels != 1:
        np.testing.assert_array_equal(image, RGB)


def test_wrong_channels(write):
    with pytest.raises(ValueError, match="channels must be 3, 1 or None.*got 4"):
        read_image(write(encode(".png", RGB)), 4)


@pytest.mark.parametrize("channels", [3, None])
def test_alpha_is_dropped(write, channels):
    alpha = np.full((20, 30, 1), 7, np.uint8)
    path = write(encode(".png", np.concatenate([RGB, alpha], 2)), "image.png")
    np.testing.assert_array_equal(read_image(path, channels), RGB)


def test_16_bits_become_8(write):
    path = write(encode(".png", RGB.astype(np.uint16) * 257), "image.png")
    np.testing.assert_array_equal(read_image(path), RGB)


@pytest.mark.parametrize("channels", [3, 1, None])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, lambda x: x), (3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1, (0, 1)))],
)
def test_exif_orientation_is_applied(write, orientation, turn, channels):
    data = encode(".jpg", RGB)
    plain = read_image(write(data, "plain.jpg"), channels)
    turned = read_image(write(data[:2] + exif(orientation) + data[2:], "turned.jpg"), channels)
    np.testing.assert_array_equal(turned, turn(plain))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_cut_off_files(write, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(suffix, noise)
    path = write(data[: int(len(data) * kept)], "cut" + suffix)
    with pytest.raises(ImageReadError, match=f"cut{suffix}: .*cut off"):
        read_image(path)


@pytest.mark.parametrize("scan_script", [0, 1], ids=["baseline", "progressive"])
def test_cut_off_jpeg_is_found_without_the_help_of_the_decoder(write, monkeypatch, scan_script):
    data = encode(".jpg", RGB, cv2.IMWRITE_JPEG_PROGRESSIVE, scan_script)
    thumbnail = exif(1, thumbnail=data)  # brings an end-of-image marker into the header
    path = write(data[:2] + thumbnail + data[2:-2])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: RGB)  # decoders may fill up with grey
    with pytest.raises(ImageReadError, match="image.jpg: the image file is cut off"):
        read_image(path)


@pytest.mark.parametrize("scan_script", [0, 1], ids=["baseline", "progressive"])
@pytest.mark.parametrize("appended", [b"\0" * 50, b"\xff\xda appended by a camera \xff"])
def test_bytes_behind_the_picture_do_no_harm(write, scan_script, appended):
    data = encode(".jpg", RGB, cv2.IMWRITE_JPEG_PROGRESSIVE, scan_script)
    image = read_image(write(data + appended))
    np.testing.assert_array_equal(image, read_image(write(data)))
    png = encode(".png", RGB) + appended
    np.testing.assert_array_equal(read_image(write(png, "image.png")), RGB)


def huge_png() -> bytes:
    """Build a PNG whose header announces more pixels than OpenCV agrees to decode."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", 900_000, 900_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "image file is empty"),
        (b"<html>404</html>", r"not an image.*b'<html>40'"),
        (b"\xff\xd8 \xff\xd9", "not an image"),
        (huge_png(), "not an image"),
    ],
    ids=["empty", "html", "jpeg-without-content", "announces-too-many-pixels"],
)
def test_no_image(write, data, message):
    with pytest.raises(ImageReadError, match=f"bad.jpg: .*{message}"):
        read_image(write(data, "bad.jpg"))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageReadError, match="none.jpg: cannot read.*No such file.*suffix"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageReadError, match="cannot read"):
        read_image(tmp_path)


def test_the_error_is_a_value_error():
    assert issubclass(ImageReadError, ValueError)
