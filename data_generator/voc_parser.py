"""Pascal VOC data sets: image set files and one XML annotation file per image."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from lxml import etree

from data_generator.annotations import (
    LABEL_COLUMNS,
    BoxRules,
    ParsedDataset,
    class_map,
    describe_classes,
    parse_number,
    progress,
    read_text,
    remapped_names,
)
from data_generator.errors import AnnotationError

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

# VOC images are .jpg; data sets that only borrow its annotation format come with any of these.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".npy")

_FLAGS = {"1": True, "true": True, "0": False, "false": False, "unspecified": False, "": False}


class VocObject(NamedTuple):
    """One <object> of an annotation file.

    Attributes:
        name: The class name.
        box: (xmin, ymin, xmax, ymax) in pixels, as written.
        truncated: Whether part of the object lies outside the box.
        difficult: Whether VOC evaluations ignore the object.
        where: File and object, for error messages.
    """

    name: str
    box: tuple[int | float, int | float, int | float, int | float]
    truncated: bool
    difficult: bool
    where: str


def parse_voc(
    images_dirs: Sequence[str],
    image_set_filenames: Sequence[str],
    annotations_dirs: Sequence[str] = (),
    classes: Sequence[str] = VOC_CLASSES,
    include_classes: str | Collection[int | str] = "all",
    exclude_truncated: bool = False,
    exclude_difficult: bool = False,
    remap_classes: bool = False,
    on_invalid_boxes: str = "keep",
    labels_output_format: Sequence[str] = LABEL_COLUMNS,
    verbose: bool = False,
) -> ParsedDataset:
    """Read data sets in the format of Pascal VOC.

    Arguments: see `DataGenerator.parse_xml`; `labels_output_format` gives the label columns.

    Returns:
        The data set: labels are lists of lists, empty for an image without objects;
        `eval_neutral` is the 'difficult' mark. Both are None without `annotations_dirs`.

    Raises:
        AnnotationError: A file is missing or cannot be read; file, object and value are named.
        ValueError: An argument is wrong.
    """
    _check_parallel(images_dirs, image_set_filenames, annotations_dirs)
    names = dict(enumerate(classes))
    class_ids = {name: class_id for class_id, name in names.items()}
    ids = class_map(include_classes, names, "classes", remap_classes)
    rules = BoxRules(ids, on_invalid_boxes, labels_output_format)
    has_labels = bool(annotations_dirs)
    dataset = ParsedDataset([], [], [] if has_labels else None, [] if has_labels else None)

    for number, (images_dir, image_set) in enumerate(
        zip(images_dirs, image_set_filenames, strict=True)
    ):
        entries = read_image_set(image_set)
        title = f"Processing image set '{os.path.basename(image_set)}'"
        for line, image_id in progress(entries, title, verbose):
            dataset.filenames.append(find_image(images_dir, image_id))
            dataset.image_ids.append(image_id)
            if not has_labels:
                continue
            path = os.path.join(annotations_dirs[number], f"{image_id}.xml")
            _check_annotation_exists(path, image_set, line, image_id)
            boxes, difficult = [], []
            for item in read_voc_annotation(path):
                class_id = _class_id(item, class_ids)
                if (exclude_truncated and item.truncated) or (exclude_difficult and item.difficult):
                    continue
                row = rules.row(class_id, item.box, item.where)
                if row is not None:
                    boxes.append(row)
                    difficult.append(item.difficult)
            dataset.labels.append(boxes)
            dataset.eval_neutral.append(difficult)

    dataset.class_names = remapped_names(names, ids) if remap_classes else list(classes)
    dataset.invalid_boxes = rules.invalid_boxes
    return dataset


def read_image_set(path: str | os.PathLike) -> list[tuple[int, str]]:
    """Read an image set file: one image id per line, blank lines skipped.

    Returns:
        Pairs (line number from 1, image id).

    Raises:
        AnnotationError: The file is missing, not text, or holds no id.
    """
    lines = enumerate(read_text(path, "image set file").splitlines(), start=1)
    entries = [(number, line.strip()) for number, line in lines if line.strip()]
    if not entries:
        raise AnnotationError(f"{path}: the image set file is empty: expected one image id a line")
    return entries


def find_image(images_dir: str | os.PathLike, image_id: str) -> str:
    """Return the path of an image whose suffix is not known: '.jpg' if it or none exists."""
    stem = os.path.join(images_dir, image_id)
    for suffix in IMAGE_SUFFIXES:
        for path in (stem + suffix, stem + suffix.upper()):
            if os.path.isfile(path):
                return path
    return f"{stem}.jpg"


def read_voc_annotation(path: str | os.PathLike) -> list[VocObject]:
    """Read the objects of one annotation file.

    The tags <folder>, <pose>, <truncated> and <difficult> may be missing, coordinates may have
    decimals (they do in VOC2012), and the parts inside an object (the heads and hands of
    persons) are left alone. XML entities are refused, and no other file is ever read.

    Returns:
        The objects in the order of the file.

    Raises:
        AnnotationError: The file is not well-formed XML, declares entities, or an object lacks
            a tag or has a value that cannot be read.
    """
    root = _read_xml(path)
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        name = (element.findtext("name") or "").strip()
        where = f"{path}, object {number}" + (f" ({name!r})" if name else "")
        if not name:
            raise AnnotationError(f"{where}: the tag <name> is missing or empty")
        objects.append(
            VocObject(
                name=name,
                box=_read_box(element, where),
                truncated=_read_flag(element, "truncated", where),
                difficult=_read_flag(element, "difficult", where),
                where=where,
            )
        )
    return objects


def _read_xml(path: str | os.PathLike) -> etree._Element:
    # Entities can make a small file expand to gigabytes or pull in other files: neither belongs
    # in an annotation, so they are not resolved, and a file that declares any is refused.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(Path(path).read_bytes(), parser)
    except OSError as error:
        raise AnnotationError(f"{path}: cannot read the annotation ({error.strerror})") from error
    except etree.XMLSyntaxError as error:
        raise AnnotationError(f"{path}: not well-formed XML: {error.msg}") from error
    document_type = root.getroottree().docinfo.internalDTD
    if document_type is not None and any(document_type.iterentities()):
        raise AnnotationError(f"{path}: the file declares XML entities, which are not allowed")
    return root


def _read_box(element: etree._Element, where: str) -> tuple:
    box = element.find("bndbox")
    if box is None:
        raise AnnotationError(f"{where}: the tag <bndbox> is missing")
    coordinates = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        text = box.findtext(tag)
        if text is None:
            raise AnnotationError(f"{where}: the tag <{tag}> is missing in <bndbox>")
        coordinates.append(parse_number(text.strip(), f"<{tag}>", where))
    return tuple(coordinates)


def _read_flag(element: etree._Element, tag: str, where: str) -> bool:
    text = (element.findtext(tag) or "").strip()
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise AnnotationError(f"{where}: <{tag}> must be 0 or 1, got {text!r}") from None


def _class_id(item: VocObject, class_ids: dict[str, int]) -> int:
    try:
        return class_ids[item.name]
    except KeyError:
        known = describe_classes({class_id: name for name, class_id in class_ids.items()})
        raise AnnotationError(
            f"{item.where}: the class name {item.name!r} is not in classes; known: {known}. Pass "
            "all class names of the data set as classes=['background', ...]"
        ) from None


def _check_annotation_exists(path: str, image_set: str, line: int, image_id: str) -> None:
    if not os.path.isfile(path):
        raise AnnotationError(
            f"{path}: this annotation file does not exist, but {image_set}, line {line}, lists "
            f"the image {image_id!r}. Each line must be the name of an image without its suffix "
            "and nothing else (the sets of single classes in VOC have a second column)"
        )


def _check_parallel(images_dirs, image_set_filenames, annotations_dirs) -> None:
    lists = {
        "images_dirs": images_dirs,
        "image_set_filenames": image_set_filenames,
        "annotations_dirs": annotations_dirs,
    }
    for name, value in lists.items():
        if isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{name} must be a list of paths, got one path: {value!r}")
    lengths = {name: len(value) for name, value in lists.items() if name[0] != "a" or value}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the lists of paths must have one entry per image set, got {lengths}")
