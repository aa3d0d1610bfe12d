"""A whole data set in one HDF5 file: decoded images, labels, ids, marks.

Layout (that of the original library): the root attributes `has_labels`, `has_image_ids`,
`has_eval_neutral` and `variable_image_size`; the data sets `images` (flattened uint8, of variable
length), `image_shapes` `(n, 3)`, and, where there are any, `labels` (flattened int32 or float32),
`label_shapes` `(n, 2)`, `image_ids` (strings) and `eval_neutral` (booleans). The attributes
`image_ids_are_integers`, `labels_output_format` and `class_names` were added.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from data_generator.annotations import LABEL_COLUMNS, progress
from data_generator.errors import DatasetError


@dataclass
class DatasetContent:
    """What stands beside the images in a file: lists with one entry per image, or None.

    Attributes:
        labels: Label arrays `(k, 5)`.
        image_ids: Strings, or integers.
        eval_neutral: Lists of booleans, one per box.
        class_names: Names by class id, 'background' first.
    """

    labels: list[np.ndarray] | None = None
    image_ids: list | None = None
    eval_neutral: list[list[bool]] | None = None
    class_names: list[str] | None = None


def write_hdf5_dataset(
    file_path: str | os.PathLike,
    entries: Iterable[tuple[np.ndarray, np.ndarray | None]],
    n_images: int,
    image_ids: Sequence | None = None,
    eval_neutral: Sequence | None = None,
    class_names: Sequence[str] | None = None,
    labels_output_format: Sequence[str] = LABEL_COLUMNS,
    variable_image_size: bool = True,
    verbose: bool = False,
) -> list[np.ndarray] | None:
    """Write a data set to an HDF5 file.

    The file appears under its name only when it is complete: a run that is interrupted leaves
    an older file as it was.

    Arguments:
        file_path: The file; an existing one is replaced.
        entries: Pairs of a uint8 image `(height, width, channels)` and its `(k, 5)` labels; the
            labels of all or of none are None.
        n_images: How many there are.
        image_ids: The ids of the images.
        eval_neutral: One boolean per box for each image.
        class_names: Names by class id.
        labels_output_format: The columns of the labels, in order.
        variable_image_size: Whether the images may differ in size; stored as an attribute.
        verbose: Show progress.

    Returns:
        The labels that were written, or None.
    """
    file_path = os.fspath(file_path)
    temporary = f"{file_path}.incomplete"
    try:
        with h5py.File(temporary, "w") as file:
            entries = progress(entries, "Creating HDF5 dataset", verbose, total=n_images)
            labels = _write_images(file, entries, n_images)
            _write_labels(file, labels, labels_output_format)
            _write_image_ids(file, image_ids)
            _write_eval_neutral(file, eval_neutral)
            file.attrs["variable_image_size"] = bool(variable_image_size)
            if class_names is not None:
                file.attrs["class_names"] = json.dumps(list(class_names))
        os.replace(temporary, file_path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
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
    whole = all(array.dtype.kind == "i" for array in labels if array.size)
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
    # The file holds strings; this mark brings COCO's integer ids back as integers.
    integers = all(isinstance(image_id, (int, np.integer)) for image_id in image_ids)
    file.attrs["image_ids_are_integers"] = integers
    ids = file.create_dataset("image_ids", (len(image_ids),), h5py.string_dtype())
    ids[:] = [str(image_id) for image_id in image_ids]


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
    missing = [name for name in ("images", "image_shapes") if name not in file]
    if missing:
        file.close()
        raise DatasetError(f"{file_path}: not an image data set: it has no {missing}")
    return file


def read_hdf5_content(file: h5py.File, labels_output_format: Sequence[str]) -> DatasetContent:
    """Read everything but the images.

    Arguments:
        file: An open data set, from this or from the original library.
        labels_output_format: The columns of the labels in the order wanted.

    Returns:
        The content, empty labels as `(0, 5)` arrays.
    """
    content = DatasetContent()
    order = list(range(5))
    if "labels_output_format" in file.attrs:  # the original library stores the columns as they are
        stored_format = json.loads(file.attrs["labels_output_format"])
        order = [stored_format.index(name) for name in labels_output_format]
    if file.attrs["has_labels"]:
        content.labels = [flat.reshape(-1, 5)[:, order] for flat in file["labels"][:]]
    if file.attrs["has_image_ids"]:
        content.image_ids = list(file["image_ids"].asstr()[:])
        if file.attrs.get("image_ids_are_integers", False):
            content.image_ids = [int(image_id) for image_id in content.image_ids]
    if file.attrs["has_eval_neutral"]:
        content.eval_neutral = [marks.tolist() for marks in file["eval_neutral"][:]]
    if "class_names" in file.attrs:
        content.class_names = json.loads(file.attrs["class_names"])
    return content


def read_hdf5_image(file: h5py.File, index: int) -> np.ndarray:
    """Read one image as a new uint8 array `(height, width, channels)`."""
    return file["images"][index].reshape(file["image_shapes"][index])
