"""The rules that all parsers share: numbers, classes, boxes, label arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_generator.annotations import (
    LABEL_COLUMNS,
    BoxRules,
    check_image_files,
    class_map,
    label_array,
    parse_class_id,
    parse_number,
    progress,
    read_text,
    remapped_names,
)
from data_generator.errors import AnnotationError, DatasetError, EmptyAnnotationsError

NAMES = {0: "background", 1: "car", 2: "dog", 3: "cat"}


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("-3", -3), ("12.0", 12.0), ("1e2", 100)])
def test_numbers(text, number):
    result = parse_number(text, "xmin", "here")
    assert result == number
    assert isinstance(result, int) == text.lstrip("-").isdigit()


@pytest.mark.parametrize("text", ["", "abc", "1,5", "12px", "1_0"])
def test_not_a_number(text):
    with pytest.raises(
        AnnotationError, match=f"^file, line 3: xmin must be a number, got '{text}'"
    ):
        parse_number(text, "xmin", "file, line 3")


def test_endless_messages_are_shortened():
    message = str(AnnotationError("file, line 3: " + "x" * 10**6 + ". Correct it"))
    assert len(message) < 2000
    assert message.startswith("file, line 3: xxx")
    assert message.endswith("xxx. Correct it")
    assert str(AnnotationError("short")) == "short"


@pytest.mark.parametrize("value", ["3", "3.0", 3, 3.0])
def test_class_ids(value):
    class_id = parse_class_id(value, "here")
    assert class_id == 3
    assert isinstance(class_id, int)


@pytest.mark.parametrize("value", ["3.5", "nan", 2.5])
def test_class_ids_that_are_none(value):
    with pytest.raises(AnnotationError, match="here: class_id must be a whole number, got"):
        parse_class_id(value, "here")


@pytest.mark.parametrize("value", ["inf", "-inf", "1e300", 2**31, "9" * 5000])
def test_class_ids_beyond_all_bounds(value):
    with pytest.raises(AnnotationError, match="here: class_id must be a whole number below 2147"):
        parse_class_id(value, "here")


@pytest.mark.parametrize(
    ("include_classes", "names", "remap", "expected"),
    [
        ("all", None, False, None),
        ("all", NAMES, False, {0: 0, 1: 1, 2: 2, 3: 3}),
        ("all", NAMES, True, {0: 0, 1: 1, 2: 2, 3: 3}),
        ([3, 1], NAMES, False, {1: 1, 3: 3}),
        ([3, 1], NAMES, True, {1: 1, 3: 2}),
        (["cat", 2], NAMES, True, {2: 1, 3: 2}),
        ((7, 5), None, False, {5: 5, 7: 7}),
        ({7, 5}, None, True, {5: 1, 7: 2}),
        (np.array([2]), NAMES, True, {2: 1}),
        ("all", {0: "background", 5: "a", 9: "b"}, True, {0: 0, 5: 1, 9: 2}),
    ],
)
def test_class_map(include_classes, names, remap, expected):
    assert class_map(include_classes, names, "the list", remap) == expected


@pytest.mark.parametrize(
    ("include_classes", "names", "remap", "message"),
    [
        ("car", NAMES, False, "must be 'all' or a list of class ids or names, got 'car'"),
        ([], NAMES, False, "include_classes is empty"),
        ([4], NAMES, False, "has 4, which is no class of the list; known: 0 'background', 1 'car'"),
        (["Cat"], NAMES, False, "has 'Cat', which is no class of the list; known: .*3 'cat'"),
        (["cat"], None, False, "has the name 'cat', but class names are not known here"),
        ("all", None, True, "remap_classes=True needs the list of classes"),
    ],
)
def test_class_map_errors(include_classes, names, remap, message):
    with pytest.raises(ValueError, match=message):
        class_map(include_classes, names, "the list", remap)


@given(st.sets(st.integers(1, 50), min_size=1))
def test_remapped_ids_are_1_to_n_in_order(kept):
    names = {0: "background"} | {i: f"class {i}" for i in range(1, 51)}
    ids = class_map(kept, names, "here", remap_classes=True)
    assert [ids[class_id] for class_id in sorted(kept)] == list(range(1, len(kept) + 1))
    new_names = remapped_names(names, ids)
    assert new_names[0] == "background"
    assert {new_names[new]: old for old, new in ids.items()} == {names[i]: i for i in kept}


def test_row_orders_and_maps():
    rules = BoxRules({7: 2}, labels_output_format=("xmin", "ymin", "xmax", "ymax", "class_id"))
    assert rules.row(7, (1, 2, 3, 4), "here") == [1, 2, 3, 4, 2]
    assert rules.row(8, (1, 2, 3, 4), "here") is None
    assert rules.invalid_boxes == []


def test_annotation_files_hold_no_columns_of_ones_own():
    with pytest.raises(ValueError, match=r"'angle'\)\. .* DataGenerator\(filenames"):
        BoxRules(None, labels_output_format=(*LABEL_COLUMNS, "angle"))


INVALID = [
    ((5, 0, 5, 9), "has no size"),
    ((0, 9, 5, 8), "has no size"),
    ((math.nan, 0, 5, 9), "is not finite"),
    ((0, 0, math.inf, 9), "is not finite"),
]


@pytest.mark.parametrize(("box", "why"), INVALID)
def test_invalid_boxes(box, why):
    drop = BoxRules(None, "drop")
    assert drop.row(1, box, "here") is None
    assert len(drop.invalid_boxes) == 1
    assert drop.invalid_boxes[0].startswith("here: the box (xmin, ymin, xmax, ymax) = (")
    assert why in drop.invalid_boxes[0]

    with pytest.raises(AnnotationError, match=f"here: the box .* {why}.*on_invalid_boxes='drop'"):
        BoxRules(None, "raise").row(1, box, "here")

    keep = BoxRules(None, "keep")
    if why == "has no size":
        assert keep.row(1, box, "here") == [1, *box]
        assert len(keep.invalid_boxes) == 1
    else:
        with pytest.raises(AnnotationError, match=why):
            keep.row(1, box, "here")


def test_invalid_boxes_of_classes_left_out_do_not_matter():
    assert BoxRules({1: 1}, "raise").row(2, (5, 5, 5, 5), "here") is None


def test_wrong_policy():
    with pytest.raises(ValueError, match="on_invalid_boxes must be one of .*got 'clip'"):
        BoxRules(None, "clip")


@pytest.mark.parametrize("class_id", [0, -1])
def test_class_ids_of_objects_start_at_1(class_id):
    with pytest.raises(AnnotationError, match=f"here: class id {class_id} is not .* start at 1"):
        BoxRules(None).row(class_id, (1, 2, 3, 4), "here")


@pytest.mark.parametrize(
    ("labels", "shape", "dtype"),
    [
        ([], (0, 5), np.float32),
        (np.zeros((0, 5), int), (0, 5), np.float32),
        (np.zeros((0, 0)), (0, 5), np.float32),
        ([[1, 2, 3, 4, 5]], (1, 5), np.int64),
        ([[1, 2, 3.5, 4, 5]] * 2, (2, 5), np.float32),
        (np.ones((2, 5), np.int32), (2, 5), np.int64),
        (np.ones((2, 5), np.uint8), (2, 5), np.int64),
        (np.ones((2, 5), np.float64), (2, 5), np.float32),
    ],
)
def test_label_array(labels, shape, dtype):
    array = label_array(labels, "here")
    assert array.shape == shape
    assert array.dtype == dtype
    if len(array):
        np.testing.assert_array_equal(array, labels)
        array[0, 0] = 9
        assert labels[0][0] == 1, "the stored labels must not change with the copy"


@pytest.mark.parametrize(
    "labels", [[1, 2, 3, 4, 5], [[1, 2, 3, 4]], [["a"] * 5], np.ones((1, 1, 5)), [[True] * 5]]
)
def test_label_array_errors(labels):
    with pytest.raises(DatasetError, match="a.jpg: labels must be rows of 5 numbers, got an arr"):
        label_array(labels, "a.jpg")


def test_rows_of_different_lengths_are_no_labels():
    with pytest.raises(DatasetError, match=r"a.jpg: labels must be rows of 5 .*inhomogeneous"):
        label_array([[1, 2, 3, 4, 5], [1, 2]], "a.jpg")


def test_read_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\nb")  # with the byte order mark of Windows editors
    assert read_text(path, "list") == "a\nb"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(AnnotationError, match="a.txt: the list is not UTF-8 text .byte 3 is 0xe9"):
        read_text(path, "list")
    with pytest.raises(AnnotationError, match="b.txt: cannot read the list .No such file"):
        read_text(tmp_path / "b.txt", "list")


def test_check_image_files(tmp_path):
    (tmp_path / "a.jpg").touch()
    check_image_files([str(tmp_path / "a.jpg")])
    with pytest.raises(AnnotationError, match=r"2 of 3 image files do not exist, the first is 'x"):
        check_image_files([str(tmp_path / "a.jpg"), "x.jpg", "y.jpg"])


def test_progress(capsys):
    assert list(progress([1, 2], "Counting", verbose=False)) == [1, 2]
    assert capsys.readouterr() == ("", "")
    assert list(progress(iter([1, 2]), "Counting", verbose=True, total=2)) == [1, 2]
    assert "Counting: 100%" in capsys.readouterr().out


def test_kinds_of_errors():
    assert issubclass(AnnotationError, ValueError)
    assert issubclass(EmptyAnnotationsError, (AnnotationError, IndexError))
