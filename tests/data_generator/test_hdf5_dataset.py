"""HDF5 data sets: whatever goes in comes out, and files of the original library can be read."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_generator.errors import DatasetError
from data_generator.hdf5_dataset import (
    open_hdf5_dataset,
    read_hdf5_content,
    read_hdf5_image,
    read_hdf5_image_size,
    write_hdf5_dataset,
)

REPOSITORY = Path(__file__).resolve().parents[2]
COLUMNS = ("class_id", "xmin", "ymin", "xmax", "ymax")
OTHER_COLUMNS = ("xmin", "ymin", "xmax", "ymax", "class_id")


def make_images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(4, 6, 3), (5, 3, 3), (2, 2, 1)]
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def make_labels(dtype) -> list[np.ndarray]:
    boxes = np.array([[1, 2.25, 3, 4, 5.5], [20, 1, 2, 3, 4]])
    return [boxes.astype(dtype), np.zeros((0, 5), np.float32), boxes[:1].astype(dtype)]


def roundtrip(path, labels, columns=COLUMNS, **kwargs):
    images = make_images()
    write_hdf5_dataset(path, zip(images, labels, strict=True), 3, **kwargs)
    with open_hdf5_dataset(path) as file:
        for i, image in enumerate(images):
            np.testing.assert_array_equal(read_hdf5_image(file, i), image)
            assert read_hdf5_image(file, i).dtype == np.uint8
        return read_hdf5_content(file, columns)


@pytest.mark.parametrize(
    ("dtype", "stored"), [(np.int64, np.int32), (np.int32, np.int32), (np.float32, np.float32)]
)
def test_labels_keep_their_fractions_and_empty_ones_their_columns(tmp_path, dtype, stored):
    labels = make_labels(dtype)
    content = roundtrip(tmp_path / "a.h5", labels)
    assert [array.dtype for array in content.labels] == [stored] * 3
    for found, expected in zip(content.labels, labels, strict=True):
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "ids", [["000012", "ä b", ""], ["1", "02", "3"], [1, 139, 7000], [-1, 0, 10**30]]
)
def test_image_ids_come_back_as_they_were(tmp_path, ids):
    content = roundtrip(tmp_path / "a.h5", [None] * 3, image_ids=ids)
    assert content.image_ids == ids
    assert [type(image_id) for image_id in content.image_ids] == [type(ids[0])] * 3
    assert content.labels is content.eval_neutral is content.class_names is None


@pytest.mark.parametrize(
    "ids", [["1", 1, 1.5], [1.0, 2.0, 3.0], [("a", 7), ("b", 7), "a"], [True, False, None]]
)
def test_image_ids_of_other_kinds(tmp_path, ids):
    content = roundtrip(tmp_path / "a.h5", [None] * 3, image_ids=ids)
    assert content.image_ids == ids
    assert [type(image_id) for image_id in content.image_ids] == [type(i) for i in ids]


def test_image_ids_of_numpy(tmp_path):
    ids = [np.int64(1), np.int64(2), 3]
    assert roundtrip(tmp_path / "a.h5", [None] * 3, image_ids=ids).image_ids == [1, 2, 3]
    ids = [np.float32(0.5), "a", np.str_("b")]
    assert roundtrip(tmp_path / "b.h5", [None] * 3, image_ids=ids).image_ids == [0.5, "a", "b"]


def test_image_ids_that_cannot_be_stored(tmp_path):
    with pytest.raises(DatasetError, match="image id b'x' cannot be stored.*got bytes"):
        roundtrip(tmp_path / "a.h5", [None] * 3, image_ids=[b"x", "a", 1])


def test_category_ids(tmp_path):
    names = ["background", "dog", "cat"]
    content = roundtrip(tmp_path / "a.h5", [None] * 3, class_names=names, category_ids=[90, "b"])
    assert content.category_ids == [90, "b"]


def test_sizes_without_pixels(tmp_path):
    roundtrip(tmp_path / "a.h5", make_labels(int))
    with open_hdf5_dataset(tmp_path / "a.h5") as file:
        assert [read_hdf5_image_size(file, i) for i in range(3)] == [(4, 6), (5, 3), (2, 2)]


def test_marks_and_names(tmp_path):
    marks = [[True, False], [], [False]]
    names = ["background", "Straße"]
    path = tmp_path / "a.h5"
    content = roundtrip(path, make_labels(int), eval_neutral=marks, class_names=names)
    assert content.eval_neutral == marks
    assert content.class_names == names


def test_labels_in_another_order_of_columns(tmp_path):
    labels = make_labels(int)
    content = roundtrip(tmp_path / "a.h5", labels, OTHER_COLUMNS, labels_output_format=COLUMNS)
    np.testing.assert_array_equal(content.labels[0], labels[0][:, [1, 2, 3, 4, 0]])
    assert content.labels[1].shape == (0, 5)


def test_an_interrupted_run_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.h5"
    roundtrip(path, make_labels(int))
    before = path.read_bytes()

    def entries():
        yield make_images()[0], make_labels(int)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_hdf5_dataset(path, entries(), 3)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_a_missing_folder_is_made_and_a_folder_is_no_file(tmp_path):
    roundtrip(tmp_path / "new" / "caches" / "a.h5", make_labels(int))
    assert [file.name for file in (tmp_path / "new" / "caches").iterdir()] == ["a.h5"]
    with pytest.raises(IsADirectoryError, match="name of a file to write"):
        write_hdf5_dataset(tmp_path / "new", [], 0)


KILLED = """
import os, signal, sys
from tests.data_generator.test_hdf5_dataset import make_images, write_hdf5_dataset
def entries():
    for i in range(1000):
        if i == 500:
            os.kill(os.getpid(), signal.SIGKILL)
        yield make_images()[0], None
write_hdf5_dataset(sys.argv[1], entries(), 1000)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal on this system")
def test_a_run_that_is_killed_leaves_nothing_that_could_be_loaded(tmp_path):
    path = tmp_path / "a.h5"
    command = [sys.executable, "-c", KILLED, str(path)]
    result = subprocess.run(command, cwd=REPOSITORY, timeout=60)
    assert result.returncode == -signal.SIGKILL
    assert not path.exists()
    (rest,) = tmp_path.iterdir()
    assert rest.name.startswith(".")  # hidden: nobody takes it for the data set
    with pytest.raises(DatasetError, match="truncated file"):
        open_hdf5_dataset(rest)
    roundtrip(path, make_labels(int))  # nor is it in the way of the next run
    assert set(tmp_path.iterdir()) == {rest, path}


def test_a_file_of_the_original_library(tmp_path):
    """Label shapes (0, 0), int32 labels, no attributes beyond the four."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("has_labels", "has_image_ids", "variable_image_size"):
            file.attrs[name] = np.bool_(True)
        file.attrs["has_eval_neutral"] = np.bool_(False)
        for name, base in (("images", np.uint8), ("labels", np.int32)):
            file.create_dataset(name, (2,), h5py.vlen_dtype(base))
        file["image_shapes"] = np.array([[1, 2, 3], [2, 1, 3]], np.int32)
        file["label_shapes"] = np.array([[2, 5], [0, 0]], np.int32)
        file.create_dataset("image_ids", (2,), h5py.string_dtype())[:] = ["000001", "17"]
        for i in range(2):
            file["images"][i] = np.arange(6, dtype=np.uint8)
        file["labels"][0] = np.arange(10, dtype=np.int32)
    with open_hdf5_dataset(tmp_path / "a.h5") as file:
        content = read_hdf5_content(file, OTHER_COLUMNS)  # columns are taken as they are
        np.testing.assert_array_equal(content.labels[0], np.arange(10).reshape(2, 5))
        assert content.labels[1].shape == (0, 5)
        assert content.image_ids == ["000001", "17"]
        np.testing.assert_array_equal(read_hdf5_image(file, 1), np.arange(6).reshape(2, 1, 3))


def test_columns_of_ones_own(tmp_path):
    columns = (*COLUMNS, "angle")
    labels = [np.array([[1, 2, 3, 4, 5, 0.5], [2, 3, 4, 5, 6, -1]]), np.zeros((0, 6))]
    entries = [(np.zeros((2, 3, 3), np.uint8), boxes) for boxes in labels]
    write_hdf5_dataset(tmp_path / "a.h5", entries, n_images=2, labels_output_format=columns)
    with open_hdf5_dataset(tmp_path / "a.h5") as file:
        content = read_hdf5_content(file, columns)
        without = read_hdf5_content(file, OTHER_COLUMNS)
    for stored, boxes in zip(content.labels, labels, strict=True):
        np.testing.assert_array_equal(stored, boxes)
    np.testing.assert_array_equal(without.labels[0], labels[0][:, [1, 2, 3, 4, 0]])


def test_files_that_are_none(tmp_path):
    with pytest.raises(DatasetError, match="none.h5: cannot open this HDF5 data set"):
        open_hdf5_dataset(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(DatasetError, match="text.h5: cannot open this HDF5 data set"):
        open_hdf5_dataset(tmp_path / "text.h5")
    h5py.File(tmp_path / "other.h5", "w").close()
    with pytest.raises(DatasetError, match="other.h5: not an image data set: it has no images, im"):
        open_hdf5_dataset(tmp_path / "other.h5")


@pytest.fixture
def complete(tmp_path):
    path = tmp_path / "a.h5"
    marks = [[True, False], [], [False]]
    roundtrip(path, make_labels(int), image_ids=["a", 1, 2], eval_neutral=marks, class_names=["b"])
    return path


def read_everything(path) -> None:
    with open_hdf5_dataset(path) as file:
        read_hdf5_content(file, COLUMNS)
        for i in range(len(file["images"])):
            read_hdf5_image(file, i)
            read_hdf5_image_size(file, i)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.__delitem__("has_labels"), "it has no has_labels"),
        (lambda f: f.__delitem__("labels"), "it has no labels"),
        (lambda f: f.__delitem__("image_ids"), "it has no image_ids"),
        (lambda f: f["image_shapes"].resize(2, 0), "image_shapes has 2 entries for 3 images"),
        (lambda f: f["image_shapes"].write_direct(np.full((3, 3), 7, np.int32)), "is damaged, or"),
        (lambda f: f.attrs.__setitem__("class_names", "["), "is damaged, or of another kind"),
        (lambda f: f.attrs.__setitem__("category_ids", "[1]"), "category_ids must have one entry"),
        (lambda f: f.attrs.__setitem__("labels_output_format", "[1]"), "is damaged, or of"),
        (lambda f: f.move("label_shapes", "x") or f.move("images", "y"), "it has no images"),
        (lambda f: f.__delitem__("images") or f.create_group("images"), "has 3 entries for 0"),
    ],
)
def test_damaged_contents(complete, change, message):
    read_everything(complete)
    with h5py.File(complete, "r+") as file:
        change(file)
    with pytest.raises(DatasetError, match=f"a.h5: .*{message}"):
        read_everything(complete)


@pytest.mark.parametrize("share", np.linspace(0, 0.99, 12))
def test_truncated_files(complete, share):
    data = complete.read_bytes()
    complete.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DatasetError, match="a.h5: cannot open this HDF5 data set"):
        read_everything(complete)
