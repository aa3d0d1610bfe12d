"""Handwritten digits on photographs: a small detection data set that needs no download.

The pixels are real, and come with two packages of the `examples` extra: 1,797 scans of handwritten
digits (scikit-learn) and photographs (scikit-learn and scikit-image). Only the composition is
drawn by chance: which digits lie where on which part of which photograph. The result is a Pascal
VOC directory that `DataGenerator.parse_xml` reads like any other, with ten classes:

    python examples/digit_scenes.py --output out/digits

Neither a scan nor any part of a photograph is used in more than one of train, val and test, so a
detector cannot do well on test by remembering. Boxes are tight around the ink that can be seen,
in pixel edges: `xmin = 0` is the left edge of the image, `xmax = width` its right edge.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

# Positions are class ids: `parse_xml(..., classes=CLASSES)`.
CLASSES = (
    "background",
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
)

SPLITS = ("train", "val", "test")
DIGIT_SHARES = (0.8, 0.1, 0.1)  # of the scans of each class
# Each split's part of every photograph, as fractions (xmin, ymin, xmax, ymax); they do not overlap.
PHOTOGRAPH_PARTS = ((0.0, 0.0, 0.6, 1.0), (0.6, 0.0, 1.0, 0.5), (0.6, 0.5, 1.0, 1.0))
PHOTOGRAPHS = {
    "skimage": (
        *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png"),
        *("grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png"),
        "rocket.jpg",
    ),
    "sklearn.datasets": ("china.jpg", "flower.jpg"),
}
SOURCES = """\
Digits: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI, CC BY 4.0.
china.jpg by danielbuechele and flower.jpg by vultilion, both from Flickr, CC BY 2.0, shipped by
scikit-learn. All other photographs are in the public domain or CC0, shipped by scikit-image.
"""

# Of a scene with 0, 1, ..., 7 digits.
N_DIGITS_PROBABILITIES = (0.06, 0.08, 0.12, 0.18, 0.20, 0.18, 0.12, 0.06)
MIN_DIGIT_HEIGHT = 40  # pixels; an 8 x 8 scan is hard to read below that
MAX_DIGIT_HEIGHT = 0.5  # of the shorter side of the image
MAX_ROTATION = 15  # degrees; far more would turn a 6 into a 9
TRUNCATED_SHARE = 0.15  # of the digits are pushed towards a border of the image
MIN_VISIBLE_INK = 0.85  # of every digit, after the border and the digits above it
MIN_CONTRAST = 70  # luminance steps of 255 between ink and what surrounds it
MAX_ATTEMPTS = 40  # to place one digit before the scene does without it
VERSION = 1  # of the pictures: raise it when the same settings no longer give the same pictures


@dataclass
class Digit:
    """One digit on the canvas, before others are laid over it."""

    class_id: int
    ink: np.ndarray  # bool, of the size of the canvas
    area: int  # of all its ink, also outside of the image, in pixels
    luminance: float = 0.0  # of its colour, once it has one

    @property
    def area_inside(self) -> int:
        """The area of the ink inside the image, in pixels."""
        return int(self.ink.sum())


def make_digit_scenes(
    output_dir: str | os.PathLike,
    n_train: int = 1000,
    n_val: int = 200,
    n_test: int = 300,
    image_size: tuple[int, int] = (192, 256),
    seed: int = 0,
) -> Path:
    """Write a Pascal VOC directory of handwritten digits on photographs.

    The directory appears complete or not at all. One that was made with the same settings is kept
    as it is. Scene number k of a split depends on the seed, the split, k and the image size only,
    so that a smaller data set is the beginning of a larger one.

    Arguments:
        output_dir: the directory to make, which must not exist, be empty, or be an earlier result.
        n_train: the number of training images.
        n_val: the number of validation images.
        n_test: the number of test images.
        image_size: (height, width) of all images in pixels, each at least 96.
        seed: any non-negative integer.

    Returns:
        The directory as a `Path`, with `JPEGImages/*.jpg`, `Annotations/*.xml`,
        `ImageSets/Main/{train,val,trainval,test}.txt`, `classes.txt` (the ten names in the order
        of their ids, which start at 1), `settings.json` and `SOURCES.txt`.

    Raises:
        ValueError: if a number of images or the image size makes no sense.
        FileExistsError: if the directory holds anything but a result of the same settings.
        ImportError: if scikit-learn or scikit-image is missing.
    """
    counts = (n_train, n_val, n_test)
    height, width = image_size
    if min(counts) < 0 or sum(counts) == 0:
        raise ValueError(f"Expected numbers of images >= 0, and one > 0, got {counts}.")
    if min(height, width) < 96:
        raise ValueError(f"Expected image_size (height, width) >= 96 pixels, got {image_size}.")
    settings = {
        "version": VERSION,
        "n_images": dict(zip(SPLITS, counts, strict=True)),
        "image_size": [int(height), int(width)],
        "seed": seed,
    }
    output_dir = Path(output_dir)
    if _is_made(output_dir, settings):
        return output_dir

    scans = split_digits(seed)
    photographs = load_photographs()
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.", dir=output_dir.parent))
    try:
        unfinished.chmod(0o755)
        image_sets = {}
        first_id = 1
        for split, (name, count) in enumerate(settings["n_images"].items()):
            backgrounds = [_part(photograph, split) for photograph in photographs]
            image_sets[name] = [f"{number:06d}" for number in range(first_id, first_id + count)]
            first_id += count
            for index, image_id in enumerate(image_sets[name]):
                rng = np.random.default_rng([seed, split, index])
                image, objects = draw_scene(rng, (height, width), scans[name], backgrounds)
                quality = int(rng.integers(80, 96))
                _write_scene(unfinished, image_id, image, objects, quality)
        _write_lists(unfinished, image_sets, settings)
        if output_dir.is_dir():
            output_dir.rmdir()  # known to be empty
        unfinished.rename(output_dir)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # nothing is left of it after a success
    return output_dir


def split_digits(seed: int = 0) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Share the scans of scikit-learn out among the splits, class by class.

    Arguments:
        seed: decides which scan goes where.

    Returns:
        For each of 'train', 'val' and 'test' a list of (class id in 1..10, scan), where a scan is
        a float32 array of shape (8, 8) with ink from 0 to 1. No scan is in two lists.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise _missing("scikit-learn") from error
    digits = load_digits()
    rng = np.random.default_rng(seed)
    shares = {name: [] for name in SPLITS}
    for value in range(10):
        scans = (digits.images[digits.target == value] / 16.0).astype(np.float32)
        order = rng.permutation(len(scans))
        ends = np.round(np.cumsum(DIGIT_SHARES) * len(scans)).astype(int)
        for name, chosen in zip(SPLITS, np.split(order, ends[:-1]), strict=True):
            shares[name].extend((value + 1, scans[index]) for index in chosen)
    return shares


def load_photographs() -> list[np.ndarray]:
    """Read the photographs that scikit-learn and scikit-image ship as files.

    Returns:
        A list of uint8 RGB images `(height, width, 3)` of different sizes.
    """
    photographs = []
    for package, names in PHOTOGRAPHS.items():
        try:
            folder = files(package) / ("data" if package == "skimage" else "images")
        except ModuleNotFoundError as error:
            raise _missing("scikit-image" if package == "skimage" else "scikit-learn") from error
        for name in names:
            content = np.frombuffer((folder / name).read_bytes(), dtype=np.uint8)
            photographs.append(cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1])
    return photographs


def draw_scene(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    scans: list[tuple[int, np.ndarray]],
    backgrounds: list[np.ndarray],
) -> tuple[np.ndarray, list[dict]]:
    """Lay up to seven digits on a part of a photograph.

    A digit is drawn again with other parameters until it can be read: enough of it and of the
    digits below it remains visible, and it stands out against what surrounds it.

    Arguments:
        rng: where all chance comes from.
        image_size: (height, width) in pixels.
        scans: pairs of (class id, scan of shape (8, 8) with ink from 0 to 1).
        backgrounds: uint8 RGB images.

    Returns:
        The uint8 RGB image `(height, width, 3)` and a list with a dict for each object: 'class_id'
        (1..10), 'box' (xmin, ymin, xmax, ymax as integer pixel edges), 'truncated' (bool).
    """
    canvas = _draw_background(rng, image_size, backgrounds[rng.integers(len(backgrounds))])
    digits: list[Digit] = []
    for _ in range(rng.choice(len(N_DIGITS_PROBABILITIES), p=N_DIGITS_PROBABILITIES)):
        for _ in range(MAX_ATTEMPTS):
            class_id, scan = scans[rng.integers(len(scans))]
            alpha, area = _place(rng, _draw_glyph(rng, scan, min(image_size)), image_size)
            digit = Digit(class_id, ink=alpha > 0.5, area=area)
            if not _leaves_all_visible(digit, digits):
                continue
            color = _contrasting_color(rng, canvas, digit, digits)
            if color is not None:
                alpha = alpha[..., None] * rng.uniform(0.9, 1.0)
                canvas += alpha * (color - canvas)
                digits.append(digit)
                break
    return np.round(canvas).astype(np.uint8), list(_visible_objects(digits))


def _draw_background(
    rng: np.random.Generator, image_size: tuple[int, int], photograph: np.ndarray
) -> np.ndarray:
    """Return a random crop of a photograph as float32 `image_size + (3,)`, flipped and dimmed."""
    height, width = image_size
    largest = min(photograph.shape[0] / height, photograph.shape[1] / width)
    crop_height, crop_width = (np.array(image_size) * largest * rng.uniform(0.5, 1)).astype(int)
    top = rng.integers(photograph.shape[0] - crop_height + 1)
    left = rng.integers(photograph.shape[1] - crop_width + 1)
    crop = photograph[top : top + crop_height, left : left + crop_width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    shrinks = crop_height > height
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    canvas = cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=interpolation)
    gain, bias = rng.uniform(0.75, 1.15), rng.uniform(-15, 25)
    return np.clip(canvas.astype(np.float32) * gain + bias, 0, 255).astype(np.float32)


def _draw_glyph(rng: np.random.Generator, scan: np.ndarray, shorter_side: int) -> np.ndarray:
    """Enlarge, turn, slant and stretch a scan.

    Returns:
        The opacity from 0 to 1, float32, cut to the rows and columns with ink.
    """
    largest = shorter_side * MAX_DIGIT_HEIGHT
    height = np.exp(rng.uniform(np.log(MIN_DIGIT_HEIGHT), np.log(largest)))
    cell = height / 8  # the side of one scanned pixel on the canvas
    angle = np.deg2rad(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    slant, stretch = rng.uniform(-0.15, 0.15), rng.uniform(0.85, 1.2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = cell * rotation @ np.array([[stretch, slant], [0, 1]])
    side = int(np.ceil(18 * cell))  # holds the diagonal of the stretched scan
    # The centre of the scan (pixel 3.5, 3.5) goes to the centre of the patch.
    shift = (side - 1) / 2 - matrix @ (3.5, 3.5)
    patch = cv2.warpAffine(
        scan, np.column_stack([matrix, shift]), (side, side), flags=cv2.INTER_CUBIC
    )
    # Interpolation leaves soft slopes that show the grid of the scan: smooth, then steepen them.
    patch = cv2.GaussianBlur(patch, (0, 0), 0.2 * cell)
    slope = np.clip((patch - 0.43) / 0.3, 0, 1)
    alpha = slope * slope * (3 - 2 * slope)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    rng: np.random.Generator, glyph: np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Put a glyph somewhere on an empty canvas, sometimes over its border.

    Returns:
        The opacity on the canvas, and the area of the whole glyph's ink in pixels.
    """
    size, room = np.array(glyph.shape), np.array(image_size)
    lowest, highest = np.zeros(2), np.maximum(room - size, 0.0)
    if rng.random() < TRUNCATED_SHARE:
        axis = rng.integers(2)
        overhang = rng.uniform(0.05, 0.25) * size[axis]
        lowest[axis] = highest[axis] = rng.choice([-overhang, room[axis] - size[axis] + overhang])
    top, left = np.round(rng.uniform(lowest, highest)).astype(int)
    alpha = np.zeros(image_size, dtype=np.float32)
    bottom, right = min(top + size[0], room[0]), min(left + size[1], room[1])
    inside = glyph[max(-top, 0) : bottom - top, max(-left, 0) : right - left]
    alpha[max(top, 0) : bottom, max(left, 0) : right] = inside
    return alpha, int((glyph > 0.5).sum())


def _leaves_all_visible(digit: Digit, below: list[Digit]) -> bool:
    """Tell whether enough ink of a new digit and of all the digits below it can be seen."""
    if digit.area_inside < MIN_VISIBLE_INK * digit.area:
        return False
    hidden = digit.ink.copy()
    for other in reversed(below):
        if (other.ink & ~hidden).sum() < MIN_VISIBLE_INK * other.area:
            return False
        hidden |= other.ink
    return True


def _contrasting_color(
    rng: np.random.Generator, canvas: np.ndarray, digit: Digit, below: list[Digit]
) -> np.ndarray | None:
    """Choose an RGB colour that stands out around the ink, and note its luminance in the digit.

    Returns:
        Three float32 values from 0 to 255, or None if no colour was found.
    """
    nearby = cv2.dilate(digit.ink.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    touched = [other.luminance for other in below if (other.ink & nearby).any()]
    around = _luminance(canvas[nearby & ~digit.ink])
    for _ in range(6):
        is_bright = rng.random() < 0.5
        value = rng.uniform(0.8, 1.0) if is_bright else rng.uniform(0.0, 0.45)
        hsv = rng.random(), rng.uniform(0, 0.75 if is_bright else 1), value
        color = np.array(colorsys.hsv_to_rgb(*hsv), dtype=np.float32) * 255
        luminance = float(_luminance(color))
        # A detail of the photograph may come close to the colour; a stroke's whole edge may not.
        stands_out = np.quantile(np.abs(around - luminance), 0.1) >= MIN_CONTRAST
        if stands_out and all(abs(luminance - other) >= MIN_CONTRAST for other in touched):
            digit.luminance = luminance
            return color
    return None


def _luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _visible_objects(digits: list[Digit]) -> Iterator[dict]:
    """Yield class, tight box of the visible ink and truncation of each digit, in drawing order."""
    for index, digit in enumerate(digits):
        visible = digit.ink.copy()
        for above in digits[index + 1 :]:
            visible &= ~above.ink
        ys, xs = np.nonzero(visible)
        box = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
        yield {"class_id": digit.class_id, "box": box, "truncated": digit.area_inside < digit.area}


def _part(photograph: np.ndarray, split: int) -> np.ndarray:
    """Return the part of a photograph that belongs to a split."""
    height, width = photograph.shape[:2]
    xmin, ymin, xmax, ymax = PHOTOGRAPH_PARTS[split]
    rows = slice(round(ymin * height), round(ymax * height))
    return photograph[rows, round(xmin * width) : round(xmax * width)]


def _is_made(output_dir: Path, settings: dict) -> bool:
    """Tell whether the data set is there already; raise if something else is."""
    if not output_dir.exists():
        return False
    if not output_dir.is_dir():
        raise FileExistsError(f"Expected a directory to write to, '{output_dir}' is a file.")
    if not any(output_dir.iterdir()):
        return False
    settings_file = output_dir / "settings.json"
    if not settings_file.exists():
        raise FileExistsError(
            f"'{output_dir}' is not empty and holds no digit scenes. Nothing was changed: name "
            "another directory, or empty this one."
        )
    found = json.loads(settings_file.read_text(encoding="utf-8"))
    if found != settings:
        raise FileExistsError(
            f"'{output_dir}' holds digit scenes of other settings: expected {settings}, found "
            f"{found}. Nothing was changed: name another directory, or remove this one."
        )
    return True


def _write_scene(
    root: Path, image_id: str, image: np.ndarray, objects: list[dict], quality: int
) -> None:
    """Write one JPEG and its Pascal VOC annotation."""
    filename = f"{image_id}.jpg"
    _, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    annotation = ElementTree.Element("annotation")
    _add(annotation, "folder", "digit_scenes")
    _add(annotation, "filename", filename)
    size = _add(annotation, "size")
    for name, value in zip(("height", "width", "depth"), image.shape, strict=True):
        _add(size, name, value)
    _add(annotation, "segmented", 0)
    for entry in objects:
        node = _add(annotation, "object")
        _add(node, "name", CLASSES[entry["class_id"]])
        _add(node, "pose", "Unspecified")
        _add(node, "truncated", int(entry["truncated"]))
        _add(node, "difficult", 0)
        box = _add(node, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), entry["box"], strict=True):
            _add(box, name, value)
    ElementTree.indent(annotation)
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(exist_ok=True)
    (root / "JPEGImages" / filename).write_bytes(jpeg.tobytes())
    (root / "Annotations" / f"{image_id}.xml").write_bytes(ElementTree.tostring(annotation) + b"\n")


def _add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = None if text is None else str(text)
    return child


def _write_lists(root: Path, image_sets: dict[str, list[str]], settings: dict) -> None:
    """Write everything that stands beside the images and their annotations."""
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    image_sets = {**image_sets, "trainval": image_sets["train"] + image_sets["val"]}
    for name, image_ids in image_sets.items():
        lines = "".join(f"{image_id}\n" for image_id in image_ids)
        (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
    lines = "".join(f"{name}\n" for name in CLASSES[1:])
    (root / "classes.txt").write_text(lines, encoding="utf-8")
    (root / "SOURCES.txt").write_text(SOURCES, encoding="utf-8")
    (root / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _missing(package: str) -> ImportError:
    return ImportError(
        f"The digit scenes are made of data that {package} ships, which is not installed: "
        "pip install 'ssd-keras[examples]'"
    )


def main() -> None:
    """Make the data set from the command line."""
    parser = argparse.ArgumentParser(description="Make a data set of digits on photographs.")
    parser.add_argument("--output", required=True, help="directory to make")
    parser.add_argument("--train", type=int, default=1000, help="number of training images")
    parser.add_argument("--val", type=int, default=200, help="number of validation images")
    parser.add_argument("--test", type=int, default=300, help="number of test images")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        default=(192, 256),
        metavar=("HEIGHT", "WIDTH"),
        help="in pixels (default: 192 256)",
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same pictures")
    options = parser.parse_args()
    path = make_digit_scenes(
        options.output,
        n_train=options.train,
        n_val=options.val,
        n_test=options.test,
        image_size=tuple(options.image_size),
        seed=options.seed,
    )
    print(f"{options.train + options.val + options.test} scenes in {path}")


if __name__ == "__main__":
    main()
