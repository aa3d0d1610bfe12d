"""Data sets in the text format of YOLO: folders of images, and one text file of boxes per image."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import numpy as np

from data_generator.annotations import (
    LABEL_COLUMNS,
    BoxRules,
    ParsedDataset,
    class_map,
    describe_classes,
    parse_class_id,
    parse_number,
    progress,
    read_text,
    remapped_names,
    unique_image_ids,
)
from data_generator.errors import AnnotationError
from data_generator.image_reading import ImageReadError
from data_generator.image_size import read_image_size
from data_generator.voc_parser import IMAGE_SUFFIXES

_COLUMNS = ("cx", "cy", "width", "height")
# Writers round: half a pixel of a large image may be missing or too much.
_TOLERANCE = 1e-3


def parse_yolo(
    images_dirs: Sequence[str],
    labels_dirs: Sequence[str],
    classes: Sequence[str] | str | os.PathLike,
    include_classes: str | Collection[int | str] = "all",
    remap_classes: bool = False,
    on_invalid_boxes: str = "keep",
    labels_output_format: Sequence[str] = LABEL_COLUMNS,
    verbose: bool = False,
) -> ParsedDataset:
    """Read data sets in the text format of YOLO.

    Arguments: see `DataGenerator.parse_yolo`; `labels_output_format` gives the label columns.

    Returns:
        The data set: images in the order of the folders and of their names, labels float32 arrays
        `(k, 5)` in pixels.

    Raises:
        AnnotationError: A file or folder is missing or cannot be read; file, line, value are named.
        ValueError: An argument is wrong.
    """
    _check_parallel(images_dirs, labels_dirs)
    names = dict(enumerate(_read_classes(classes)))
    ids = class_map(include_classes, names, "classes", remap_classes)
    rules = BoxRules(ids, on_invalid_boxes, labels_output_format)
    dataset = ParsedDataset([], [], [])
    image_names = []
    for images_dir, labels_dir in zip(images_dirs, labels_dirs, strict=True):
        found = find_images(images_dir)
        paths = [os.path.join(labels_dir, f"{os.path.splitext(name)[0]}.txt") for name in found]
        if not any(map(os.path.isfile, paths)):
            raise AnnotationError(
                f"{labels_dir}: not one of the {len(found)} images in {images_dir} has a label "
                f"file here; the first would be {paths[0]!r}"
            )
        title = f"Processing '{os.path.basename(images_dir)}'"
        for name, path in progress(list(zip(found, paths, strict=True)), title, verbose):
            image_path = os.path.join(images_dir, name)
            dataset.filenames.append(image_path)
            dataset.labels.append(_read_labels(path, image_path, names, rules))
        image_names += found
    # Two folders may hold images of the same name.
    are_unique = len(set(image_names)) == len(image_names)
    dataset.image_ids = unique_image_ids(image_names if are_unique else dataset.filenames)
    dataset.class_names = remapped_names(names, ids) if remap_classes else list(names.values())
    dataset.invalid_boxes = rules.invalid_boxes
    return dataset


def find_images(images_dir: str | os.PathLike) -> list[str]:
    """List the images in a folder and in the folders inside it.

    Returns:
        Paths relative to the folder, sorted.

    Raises:
        AnnotationError: There is no such folder, or no image in it.
    """
    found = [
        os.path.relpath(os.path.join(folder, name), images_dir)
        for folder, _, names in os.walk(images_dir)
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES)
    ]
    if not found:
        raise AnnotationError(
            f"{images_dir}: no folder, or one without images ({', '.join(IMAGE_SUFFIXES)})"
        )
    return sorted(found)


def _read_classes(classes: Sequence[str] | str | os.PathLike) -> list[str]:
    """Return the class names with the background, from a list with or a file without it."""
    if isinstance(classes, (str, os.PathLike)):
        names = [line.strip() for line in read_text(classes, "list of classes").splitlines()]
        return ["background", *(name for name in names if name)]
    classes = list(classes)
    if not classes or "background" not in str(classes[0]).lower():
        raise ValueError(
            "classes must begin with 'background', the class 0 of this library; YOLO's class 0 "
            f"comes next. Got {classes[:3]!r}: pass classes=['background', ...]"
        )
    return classes


def _read_labels(path: str, image_path: str, names: dict[int, str], rules: BoxRules) -> np.ndarray:
    """Read the boxes of an image; without a file, or in an empty one, there are none."""
    if not os.path.exists(path):
        return np.zeros((0, 5), np.float32)
    lines = read_text(path, "label file").splitlines()
    size, rows = None, []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        class_id, box = _parse_line(line, names, where)
        size = size or _image_size(image_path, where)
        row = rules.row(class_id, _to_pixels(box, size), where)
        if row is not None:
            rows.append(row)
    return np.array(rows, np.float32).reshape(-1, 5)


def _parse_line(line: str, names: dict[int, str], where: str) -> tuple[int, list[int | float]]:
    """Return the class id of this library, and (cx, cy, width, height) in fractions."""
    cells = line.split()
    if len(cells) != 5:
        hint = ""
        if len(cells) == 6:
            hint = ". A sixth is the confidence of a detection, which ground truth has not"
        elif len(cells) > 6 and len(cells) % 2:
            hint = ". This looks like the polygon of a segmentation: convert it to a box"
        raise AnnotationError(
            f"{where}: expected 5 values (class {' '.join(_COLUMNS)}) separated by spaces, got "
            f"{len(cells)}: {line.strip()!r:.100}{hint}"
        )
    class_id = parse_class_id(cells[0], where) + 1  # 0 is the background here
    if class_id < 1 or class_id not in names:
        known = {i - 1: name for i, name in names.items() if i > 0}
        raise AnnotationError(
            f"{where}: there is no class {cells[0]}; known: {describe_classes(known)}"
        )
    box = [parse_number(cell, name, where) for cell, name in zip(cells[1:], _COLUMNS, strict=True)]
    for name, value in zip(_COLUMNS, box, strict=True):
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
            raise AnnotationError(
                f"{where}: {name} must be a fraction of the image from 0 to 1, got {value}. "
                "Divide pixels by the width or the height of the image"
            )
    return class_id, box


def _to_pixels(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Turn (cx, cy, width, height) in fractions into (xmin, ymin, xmax, ymax) in pixels."""
    cx, cy, box_width, box_height = box
    height, width = size
    return (
        (cx - box_width / 2) * width,
        (cy - box_height / 2) * height,
        (cx + box_width / 2) * width,
        (cy + box_height / 2) * height,
    )


def _image_size(image_path: str, where: str) -> tuple[int, int]:
    try:
        return read_image_size(image_path)
    except ImageReadError as error:
        raise AnnotationError(
            f"{where}: the boxes are fractions of the image, whose size cannot be read: {error}"
        ) from error


def _check_parallel(images_dirs: Sequence[str], labels_dirs: Sequence[str]) -> None:
    for name, value in (("images_dirs", images_dirs), ("labels_dirs", labels_dirs)):
        if isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{name} must be a list of paths, got one path: {value!r}")
    if not images_dirs or len(images_dirs) != len(labels_dirs):
        raise ValueError(
            "images_dirs and labels_dirs must have one entry per folder of images and at least "
            f"one, got {len(images_dirs)} and {len(labels_dirs)}"
        )
