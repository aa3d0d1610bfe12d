"""A whole data set in one HDF5 file: decoded images, labels, ids, marks.

Layout (that of the original library): the root attributes `has_labels`, `has_image_ids`,
`has_eval_neutral` and `variable_image_size`; the data sets `images` (flattened uint8, of variable
length), `image_shapes` `(n, 3)`, and, where there are any, `labels` (flattened int32 or float32),
`label_shapes` `(n, 2)`, `image_ids` (strings) and `eval_neutral` (booleans). The attributes
`image_ids_are_integers`, `image_ids_are_json`, `labels_output_format`, `class_names` and
`category_ids` were added.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from data_generator.annotations import COORDINATE_LIMIT, LABEL_COLUMNS, progress
from data_generator.errors import DatasetError
from misc_utils.files import atomic_path


@dataclass
class DatasetContent:
    """What stands beside the images in a file: lists with one entry per image, or None.

    Attributes:
        labels: Label arrays, `(k, 5)` where there are no columns of the user's own.
        image_ids: Strings, or integers.
        eval_neutral: Lists of booleans, one per box.
        class_names: Names by class id, 'background' first.
        category_ids: The ids that the classes 1..n have in COCO's own numbering.
    """

    labels: list[np.ndarray] | None = None
    image_ids: list | None = None
    eval_neutral: list[list[bool]] | None = None
    class_names: list[str] | None = None
    category_ids: list[int | str] | None = None


def write_hdf5_dataset(
    file_path: str | os.PathLike,
    entries: Iterable[tuple[np.ndarray, np.ndarray | None]],
    n_images: int,
    image_ids: Sequence | None = None,
    eval_neutral: Sequence | None = None,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int | str] | None = None,
    labels_output_format: Sequence[str] = LABEL_COLUMNS,
    variable_image_size: bool = True,
    verbose: bool = False,
) -> list[np.ndarray] | None:
    """Write a data set to an HDF5 file.

    The file appears under its name only when it is complete: a run that is interrupted leaves
    an older file as it was. (One that is killed leaves a hidden file in the folder, too.)

    Arguments:
        file_path: The file; an existing one is replaced, missing folders are made.
        entries: Pairs of a uint8 image `(height, width, channels)` and its `(k, 5)` labels; the
            labels of all or of none are None.
        n_images: How many there are.
        image_ids: The ids of the images: strings, numbers, or tuples of these.
        eval_neutral: One boolean per box for each image.
        class_names: Names by class id.
        category_ids: The ids of the classes 1..n in COCO's own numbering.
        labels_output_format: The columns of the labels, in order.
        variable_image_size: Whether the images may differ in size; stored as an attribute.
        verbose: Show progress.

    Returns:
        The labels that were written, or None.

    Raises:
        DatasetError: An image id is of another kind.
    """
    with atomic_path(file_path) as temporary, h5py.File(temporary, "w") as file:
        entries = progress(entries, "Creating HDF5 dataset", verbose, total=n_images)
        labels = _write_images(file, entries, n_images)
        _write_labels(file, labels, labels_output_format)
        _write_image_ids(file, image_ids)
        _write_eval_neutral(file, eval_neutral)
        file.attrs["variable_image_size"] = bool(variable_image_size)
        for name, values in (("class_names", class_names), ("category_ids", category_ids)):
            if values is not None:
                file.attrs[name] = json.dumps(list(values))
    return labels


def _write_images(file: h5py.File, entries: Iterable, n_images: int) -> list | None:
    """Write the images one by one, and return their labels."""
    images = file.create_dataset("images", (n_images,), h5py.vlen_dtype(np.uint8))
    shapes = _create_shapes(file, "image_shapes", n_images, 3)
    all_labels = []
    for i, (image, labels) in enumerate(entries):
        images[i] = image.reshape(-1)
        shapes[i] = image.shape
        all_labels.append(labels)
    return None if any(labels is None for labels in all_labels) else all_labels


def _write_labels(file: h5py.File, labels: list | None, labels_output_format) -> None:
    file.attrs["has_labels"] = labels is not None
    if labels is None:
        return
    file.attrs["labels_output_format"] = json.dumps(list(labels_output_format))
    # int32 as in the original, but only if nothing is lost: COCO's coordinates are fractions.
    whole = all(
        array.dtype.kind == "i" and np.abs(array).max() < COORDINATE_LIMIT
        for array in labels
        if array.size
    )
    dtype = np.dtype(np.int32 if whole else np.float32)
    flat = file.create_dataset("labels", (len(labels),), h5py.vlen_dtype(dtype))
    shapes = _create_shapes(file, "label_shapes", len(labels), 2)
    for i, array in enumerate(labels):
        flat[i] = array.astype(dtype).reshape(-1)
        shapes[i] = array.shape


def _write_image_ids(file: h5py.File, image_ids: Sequence | None) -> None:
    file.attrs["has_image_ids"] = image_ids is not None
    if image_ids is None:
        return
    # The file holds strings; these marks bring other ids back as what they were.
    kinds = {type(image_id) for image_id in image_ids}
    integers = all(issubclass(k, (int, np.integer)) and k is not bool for k in kinds)
    as_json = not integers and not all(issubclass(k, str) for k in kinds)
    file.attrs["image_ids_are_integers"] = integers
    file.attrs["image_ids_are_json"] = as_json
    ids = file.create_dataset("image_ids", (len(image_ids),), h5py.string_dtype())
    ids[:] = [_id_as_json(image_id) if as_json else str(image_id) for image_id in image_ids]


def _id_as_json(image_id: Any) -> str:
    try:
        return json.dumps(image_id.item() if isinstance(image_id, np.generic) else image_id)
    except TypeError as error:
        raise DatasetError(
            f"The image id {image_id!r:.80} cannot be stored in an HDF5 file: expected a string, a "
            f"number or a tuple of these, got {type(image_id).__name__}"
        ) from error


def _write_eval_neutral(file: h5py.File, eval_neutral: Sequence | None) -> None:
    file.attrs["has_eval_neutral"] = eval_neutral is not None
    if eval_neutral is None:
        return
    marks = file.create_dataset("eval_neutral", (len(eval_neutral),), h5py.vlen_dtype(np.bool_))
    for i, per_box in enumerate(eval_neutral):
        marks[i] = np.array(per_box, np.bool_)


def _create_shapes(file: h5py.File, name: str, n_images: int, n_axes: int) -> h5py.Dataset:
    return file.create_dataset(name, (n_images, n_axes), np.int32, maxshape=(None, n_axes))


def open_hdf5_dataset(file_path: str | os.PathLike) -> h5py.File:
    """Open a data set for reading.

    Files that are cut off, or no data sets, are recognised. Beyond that the HDF5 library trusts
    what a file says of itself, and bytes changed inside it can crash the process: open only files
    that you, or people whom you trust, have made.

    Raises:
        DatasetError: There is no such file, or it is not such a data set.
    """
    try:
        file = h5py.File(file_path, "r")
    except OSError as error:
        raise DatasetError(
            f"{file_path}: cannot open this HDF5 data set ({error}). Make it with "
            "DataGenerator.create_hdf5_dataset"
        ) from error
    try:
        with _damage_reported(file):
            _check_parts(file)
    except DatasetError:
        file.close()
        raise
    return file


def _check_parts(file: h5py.File) -> None:
    """Check that all parts are there, and have one entry per image."""
    marks = {
        "labels": "has_labels",
        "image_ids": "has_image_ids",
        "eval_neutral": "has_eval_neutral",
    }
    missing = [name for name in ("images", "image_shapes") if name not in file]
    missing += [mark for mark in marks.values() if mark not in file.attrs]
    missing += [name for name, mark in marks.items() if file.attrs.get(mark) and name not in file]
    if missing:
        raise DatasetError(
            f"{file.filename}: not an image data set: it has no {', '.join(missing)}. Data sets "
            "are made by DataGenerator.create_hdf5_dataset"
        )
    n_images = len(file["images"])
    present = ["image_shapes", *(name for name, mark in marks.items() if file.attrs[mark])]
    for name in present:
        if len(file[name]) != n_images:
            raise DatasetError(
                f"{file.filename}: {name} has {len(file[name])} entries for {n_images} images: "
                "the file is damaged or incomplete. Make it anew with create_hdf5_dataset"
            )


@contextmanager
def _damage_reported(file: h5py.File) -> Iterator[None]:
    """Turn what the HDF5 library says of a damaged file into one kind of error."""
    try:
        yield
    # AttributeError: a group in the place of a data set, or numbers in that of texts.
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{file.filename}: the HDF5 data set is damaged, or of another kind "
            f"({type(error).__name__}: {error}). Make it anew with create_hdf5_dataset"
        ) from error


def read_hdf5_content(file: h5py.File, labels_output_format: Sequence[str]) -> DatasetContent:
    """Read everything but the images.

    Arguments:
        file: An open data set, from this or from the original library.
        labels_output_format: The columns of the labels in the order wanted.

    Returns:
        The content, empty labels as `(0, 5)` arrays.

    Raises:
        DatasetError: The file is damaged, or made by something else.
    """
    with _damage_reported(file):
        return _read_content(file, labels_output_format)


def _read_content(file: h5py.File, labels_output_format: Sequence[str]) -> DatasetContent:
    content = DatasetContent()
    order = list(range(len(LABEL_COLUMNS)))
    n_columns = len(order)
    if "labels_output_format" in file.attrs:  # the original library stores the columns as they are
        stored_format = json.loads(file.attrs["labels_output_format"])
        order = [stored_format.index(name) for name in labels_output_format]
        n_columns = len(stored_format)
    if file.attrs["has_labels"]:
        content.labels = [flat.reshape(-1, n_columns)[:, order] for flat in file["labels"][:]]
    if file.attrs["has_image_ids"]:
        content.image_ids = list(file["image_ids"].asstr()[:])
        if file.attrs.get("image_ids_are_integers", False):
            content.image_ids = [int(image_id) for image_id in content.image_ids]
        elif file.attrs.get("image_ids_are_json", False):
            content.image_ids = [_id_from_json(text) for text in content.image_ids]
    if file.attrs["has_eval_neutral"]:
        content.eval_neutral = [marks.tolist() for marks in file["eval_neutral"][:]]
    for name in ("class_names", "category_ids"):
        if name in file.attrs:
            setattr(content, name, json.loads(file.attrs[name]))
    if (
        content.category_ids is not None
        and len(content.category_ids) != len(content.class_names) - 1
    ):
        raise ValueError("category_ids must have one entry for each class but the background")
    return content


def _id_from_json(text: str) -> Any:
    image_id = json.loads(text)
    return tuple(image_id) if isinstance(image_id, list) else image_id


def read_hdf5_image(file: h5py.File, index: int) -> np.ndarray:
    """Read one image as a new uint8 array `(height, width, channels)`.

    Raises:
        DatasetError: The file is damaged.
    """
    with _damage_reported(file):
        return file["images"][index].reshape(file["image_shapes"][index])


def read_hdf5_image_size(file: h5py.File, index: int) -> tuple[int, int]:
    """Read the (height, width) of an image without its pixels.

    Raises:
        DatasetError: The file is damaged.
    """
    with _damage_reported(file):
        height, width, _ = file["image_shapes"][index].tolist()
        return height, width
