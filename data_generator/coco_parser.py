"""Data sets in the JSON format of MS COCO."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from data_generator.annotations import (
    COORDINATE_LIMIT,
    LABEL_COLUMNS,
    BoxRules,
    ParsedDataset,
    class_map,
    describe_classes,
    progress,
)
from data_generator.category_maps import CategoryMaps
from data_generator.errors import AnnotationError

_ID = (int, str)
_KINDS = {
    "id": _ID,
    "image_id": _ID,
    "category_id": _ID,
    "name": str,
    "file_name": str,
    "bbox": list,
}


def parse_coco(
    images_dirs: Sequence[str],
    annotations_filenames: Sequence[str],
    ground_truth_available: bool = False,
    include_classes: str | Collection[int | str] = "all",
    remap_classes: bool = False,
    exclude_crowd: bool = False,
    on_invalid_boxes: str = "keep",
    labels_output_format: Sequence[str] = LABEL_COLUMNS,
    verbose: bool = False,
) -> tuple[ParsedDataset, CategoryMaps]:
    """Read data sets in the format of MS COCO.

    Arguments: see `DataGenerator.parse_json`; `labels_output_format` gives the label columns.

    Returns:
        The data set, its labels lists of lists (empty for an image without objects), its
        `eval_neutral` the mark of a crowd, both None without ground truth; and the category
        maps, after any re-mapping.

    Raises:
        AnnotationError: A file is missing or cannot be read; file, entry and value are named.
        ValueError: An argument is wrong.
    """
    _check_parallel(images_dirs, annotations_filenames)
    lists = ([], []) if ground_truth_available else (None, None)
    dataset = ParsedDataset([], [], *lists)
    maps = selection = None
    for images_dir, path in zip(images_dirs, annotations_filenames, strict=True):
        content = _read_json(path)
        names = _read_categories(content, path, required=maps is None)
        if maps is None:
            maps = CategoryMaps.of(names)
            selection = _select(maps, include_classes, remap_classes, path)
            rules = BoxRules(selection, on_invalid_boxes, labels_output_format)
        _check_same_categories(names, maps, path)

        images = _read_images(content, path)
        dataset.filenames += [os.path.join(images_dir, image["file_name"]) for image in images]
        dataset.image_ids += [image["id"] for image in images]
        if ground_truth_available:
            boxes_of = {image["id"]: ([], []) for image in images}
            _read_annotations(content, path, maps, rules, exclude_crowd, boxes_of, verbose)
            for rows, crowd in boxes_of.values():  # in the order of the images
                dataset.labels.append(rows)
                dataset.eval_neutral.append(crowd)

    dataset.invalid_boxes = rules.invalid_boxes
    if remap_classes:
        maps = CategoryMaps.of(
            {maps.classes_to_cats[c]: maps.classes_to_names[c] for c in selection}
        )
    dataset.class_names = maps.classes_to_names
    return dataset, maps


def _read_annotations(
    content: dict,
    path: str,
    maps: CategoryMaps,
    rules: BoxRules,
    exclude_crowd: bool,
    boxes_of: dict[int | str, tuple[list, list]],
    verbose: bool,
) -> None:
    """Append the label row of each annotation, and its mark, to the two lists of its image."""
    annotations = _entries(
        content, "annotations", path, "Files without ground truth need ground_truth_available=False"
    )
    title = f"Processing '{os.path.basename(path)}'"
    for number, annotation in enumerate(progress(annotations, title, verbose)):
        where = f"{path}, annotations[{number}]"
        image_id = _value(annotation, "image_id", where)
        if image_id not in boxes_of:
            raise AnnotationError(f"{where}: image_id {image_id!r} is the id of no entry of images")
        category = _value(annotation, "category_id", where)
        if category not in maps.cats_to_classes:
            raise AnnotationError(
                f"{where}: category_id {category!r} is not in categories; known: "
                + describe_classes(maps.cats_to_names)
            )
        is_crowd = bool(annotation.get("iscrowd"))
        if exclude_crowd and is_crowd:
            continue
        x, y, width, height = _read_box(_value(annotation, "bbox", where), where)
        row = rules.row(maps.cats_to_classes[category], (x, y, x + width, y + height), where)
        if row is not None:
            rows, crowd = boxes_of[image_id]
            rows.append(row)
            crowd.append(is_crowd)


def _read_json(path: str | os.PathLike) -> dict:
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise AnnotationError(
            f"{path}: cannot read the annotations file ({error.strerror})"
        ) from error
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: not UTF-8 text, at byte {error.start}") from error
    except ValueError as error:  # a number of thousands of digits
        raise AnnotationError(f"{path}: not JSON that can be read: {error}") from error
    except RecursionError as error:
        raise AnnotationError(f"{path}: lists or objects are nested too deeply") from error
    if not isinstance(content, dict):
        raise AnnotationError(
            f"{path}: expected a JSON object with 'images', 'annotations' and 'categories', "
            f"got a {type(content).__name__}"
        )
    return content


def _entries(content: dict, key: str, path: str, cure: str) -> list[dict]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise AnnotationError(f"{path}: expected a list {key!r}, got {entries!r:.80}. {cure}")
    return entries


def _value(entry: dict, key: str, where: str):
    if not isinstance(entry, dict) or key not in entry:
        raise AnnotationError(f"{where}: {key!r} is missing, got {entry!r:.200}")
    value = entry[key]
    if isinstance(value, float) and value == value // 1:
        value = int(value)  # some tools write ids as 7.0
    kind = _KINDS[key]
    if isinstance(value, bool) or not isinstance(value, kind):
        expected = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise AnnotationError(f"{where}: {key!r} must be {expected}, got {value!r:.200}")
    return value


def _read_categories(content: dict, path: str, required: bool) -> dict[int, str]:
    """Return {category id: name} in the order of the file."""
    if "categories" not in content and not required:
        return {}
    entries = _entries(content, "categories", path, "Class names and ids come from there")
    names = {}
    for number, entry in enumerate(entries):
        where = f"{path}, categories[{number}]"
        category = _value(entry, "id", where)
        if category in names:
            raise AnnotationError(f"{where}: the id {category!r} occurs twice")
        names[category] = _value(entry, "name", where)
    return names


def _check_same_categories(names: dict[int, str], maps: CategoryMaps, path: str) -> None:
    """Class ids come from the first file, so the others must not number differently."""
    for category, name in names.items():
        if maps.cats_to_names.get(category) != name:
            raise AnnotationError(
                f"{path}: category {category!r} is {name!r} here, but "
                f"{maps.cats_to_names.get(category)!r} in the first annotations file. Parse files "
                "of different categories into data sets of their own"
            )


def _read_images(content: dict, path: str) -> list[dict]:
    images = _entries(content, "images", path, "Each image needs an 'id' and a 'file_name'")
    seen = set()
    for number, image in enumerate(images):
        where = f"{path}, images[{number}]"
        _value(image, "file_name", where)
        image_id = _value(image, "id", where)
        if image_id in seen:
            raise AnnotationError(f"{where}: the id {image_id!r} occurs twice")
        seen.add(image_id)
    return images


def _read_box(box, where: str) -> list:
    """Check [x, y, width, height]; whole numbers beyond all bounds become infinite."""
    if len(box) != 4:
        raise AnnotationError(f"{where}: bbox must be [x, y, width, height], got {box!r:.200}")
    for value in box:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise AnnotationError(f"{where}: bbox must hold four numbers, got {box!r:.200}")
    # Python cannot add an int of hundreds of digits to a float.
    return [math.inf if abs(value) >= COORDINATE_LIMIT else value for value in box]


def _select(maps: CategoryMaps, include_classes, remap_classes: bool, path: str) -> dict[int, int]:
    """Return {class id: new class id} of the categories to keep."""
    if not isinstance(include_classes, str):
        unknown = [
            entry
            for entry in include_classes
            if not isinstance(entry, str) and entry not in maps.cats_to_names
        ]
        if unknown:
            raise ValueError(
                f"include_classes has {unknown[0]!r}, which is no category id of {path}; known: "
                f"{describe_classes(maps.cats_to_names)}. Names can be given instead of ids"
            )
        include_classes = [
            entry if isinstance(entry, str) else maps.cats_to_classes[entry]
            for entry in include_classes
        ]
    names = dict(enumerate(maps.classes_to_names))
    ids = class_map(include_classes, names, f"the categories of {path}", remap_classes)
    return {class_id: new_id for class_id, new_id in ids.items() if class_id != 0}


def _check_parallel(images_dirs, annotations_filenames) -> None:
    for name, value in (
        ("images_dirs", images_dirs),
        ("annotations_filenames", annotations_filenames),
    ):
        if isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{name} must be a list of paths, got one path: {value!r}")
    if not annotations_filenames or len(images_dirs) != len(annotations_filenames):
        raise ValueError(
            "images_dirs and annotations_filenames must have one entry per file and at least one, "
            f"got {len(images_dirs)} and {len(annotations_filenames)}"
        )
