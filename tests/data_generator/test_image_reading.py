"""Reading images: every kind of file, and every kind of damage."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data_generator.image_reading import ImageReadError, read_image
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize

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


GRAY = (np.arange(600) % 256).astype(np.uint8).reshape(20, 30)


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


@pytest.mark.parametrize("channels", [0, -1, True])
def test_wrong_channels(write, channels):
    with pytest.raises(ValueError, match=f"channels must be 3, 1, another.*got {channels}"):
        read_image(write(encode(".png", RGB)), channels)


def test_other_numbers_of_channels(write):
    rgba = np.concatenate([RGB, GRAY[..., None]], 2)
    np.testing.assert_array_equal(read_image(write(encode(".png", rgba), "a.png"), 4), rgba)
    with pytest.raises(ImageReadError, match="b.png: the image has 3 channels, but channels=4"):
        read_image(write(encode(".png", RGB), "b.png"), 4)
    with pytest.raises(ImageReadError, match="the image has 3 channels, but channels=2"):
        read_image(write(encode(".png", RGB), "b.png"), 2)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


SIX = np.random.default_rng(0).integers(0, 256, (20, 30, 6), dtype=np.uint8)


@pytest.mark.parametrize(
    ("stored", "channels", "expected"),
    [
        (SIX, None, SIX),
        (SIX, 6, SIX),
        (np.asfortranarray(SIX), 6, SIX),
        (SIX.astype(np.uint16) * 257, 6, SIX),
        (RGB, 3, RGB),
        (GRAY, None, GRAY[..., None]),
        (GRAY, 1, GRAY[..., None]),
        (GRAY, 3, np.repeat(GRAY[..., None], 3, 2)),
        (np.repeat(GRAY[..., None], 3, 2), 1, GRAY[..., None]),
    ],
)
def test_arrays_in_files(write, stored, channels, expected):
    image = read_image(write(npy(stored), "image.npy"), channels)
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(SIX), "the image has 6 channels, but channels=3"),
        (npy(SIX)[:-5], "the .npy file is damaged"),
        (npy(SIX)[:12], "the .npy file is damaged"),
        (npy(SIX / 255), r"got the shape \(20, 30, 6\) and float64"),
        (npy(SIX[0, 0]), r"got the shape \(6,\) and uint8"),
        (npy(SIX[:0]), r"got the shape \(0, 30, 6\)"),
        (npy(np.array([[None]])), "the .npy file is damaged: Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_no_images(write, data, message):
    with pytest.raises(ImageReadError, match=f"image.npy: .*{message}"):
        read_image(write(data, "image.npy"))


@pytest.mark.parametrize("channels", [3, None])
def test_alpha_is_dropped(write, channels):
    alpha = np.full((20, 30, 1), 7, np.uint8)
    path = write(encode(".png", np.concatenate([RGB, alpha], 2)), "image.png")
    np.testing.assert_array_equal(read_image(path, channels), RGB)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_become_8(write, suffix):
    path = write(encode(suffix, RGB.astype(np.uint16) * 257), "image" + suffix)
    np.testing.assert_array_equal(read_image(path), RGB)
    values = np.array([[0, 255, 256, 511, 512, 65535]], np.uint16)  # the upper 8 bits stay
    for channels in (1, 3, None):
        image = read_image(write(encode(suffix, values), "gray" + suffix), channels)
        assert image[0, :, 0].tolist() == [0, 0, 1, 1, 2, 255]
    rgba = np.full((4, 5, 4), 257, np.uint16) * np.arange(1, 5, dtype=np.uint16)
    image = read_image(write(encode(suffix, rgba), "rgba" + suffix), 4)
    np.testing.assert_array_equal(image[0, 0], [1, 2, 3, 4])


def test_fractions_are_refused(write):
    path = write(cv2.imencode(".tiff", RGB.astype(np.float32) / 255)[1].tobytes(), "image.tiff")
    for channels in (1, 3, 5, None):
        with pytest.raises(ImageReadError, match="image.tiff: not an image .*numbers that are no"):
            read_image(path, channels)


def pillow(image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_palettes(write):
    image = Image.fromarray(RGB).quantize(16)  # has less colours than that, so nothing is lost
    for kind in ("PNG", "GIF", "BMP"):
        path = write(pillow(image, kind), f"image.{kind.lower()}")
        np.testing.assert_array_equal(read_image(path), RGB)
        assert read_image(path, None).shape == (20, 30, 3)


def test_cmyk(write):
    image = Image.fromarray(RGB).convert("CMYK")
    path = write(pillow(image, "JPEG", quality=98), "image.jpg")
    for channels in (3, None):
        found = read_image(path, channels)
        assert found.shape == (20, 30, 3)
        assert np.abs(found[10, 5].astype(int) - RGB[10, 5]).max() < 12


def test_black_and_white_and_transparent_gray(write):
    black_white = np.where(GRAY > 127, 255, 0).astype(np.uint8)
    path = write(pillow(Image.fromarray(black_white).convert("1"), "PNG"), "image.png")
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], black_white)
    transparent = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(black_white)])
    path = write(pillow(transparent, "PNG"), "image.png")
    np.testing.assert_array_equal(read_image(path)[..., 0], GRAY)


def tiff(image: np.ndarray) -> bytes:
    """Build a TIFF file without compression, for any number of channels."""
    height, width, channels = image.shape
    data = image.tobytes()
    bits = 8 + len(data)  # where the bits of each channel stand
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits),
        (259, 3, 1, 1),  # no compression
        (262, 3, 1, 1),  # gray, and extra channels
        (273, 4, 1, 8),  # where the pixels stand
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    sizes = struct.pack("<H", 8) * channels
    return struct.pack("<2sHI", b"II", 42, bits + len(sizes)) + data + sizes + directory


def test_tiff_of_many_channels(write, capfd):
    """OpenCV reads four channels at most; the message says what to do with more."""
    path = write(tiff(SIX), "image.tiff")
    for channels in (6, None):
        with pytest.raises(ImageReadError, match="image.tiff: .*4 channels.* can come as .npy"):
            read_image(path, channels)
    capfd.readouterr()  # OpenCV complains, too


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
    with pytest.raises(ImageReadError, match="not the name of a file"):
        read_image("a\0.jpg")


def test_the_error_is_a_value_error():
    assert issubclass(ImageReadError, ValueError)


def test_a_data_set_of_six_channels(tmp_path):
    np.save(tmp_path / "a.npy", SIX)
    files = [str(tmp_path / "a.npy")]
    dataset = DataGenerator(filenames=files, labels=[[[1, 3, 4, 12, 16]]], image_channels=6)
    dataset.create_hdf5_dataset(tmp_path / "a.h5", verbose=False)
    for source in (dataset, DataGenerator(hdf5_dataset_path=tmp_path / "a.h5")):
        batches = source.generate(
            1, transformations=[Resize(10, 15)], returns={"processed_images", "processed_labels"}
        )
        images, labels = next(batches)
        assert images.shape == (1, 10, 15, 6)
        np.testing.assert_array_equal(labels[0][0], [1, 2, 2, 6, 8])
