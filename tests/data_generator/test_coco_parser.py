"""COCO files: the two numberings, what files leave out, what is wrong with them."""

from __future__ import annotations

import copy
import json

import pytest

from data_generator.category_maps import CategoryMaps
from data_generator.coco_parser import parse_coco
from data_generator.errors import AnnotationError

CONTENT = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": "x", "file_name": "b.jpg"}],
    "categories": [
        {"id": 13, "name": "stop sign"},
        {"id": 0, "name": "person"},
        {"id": 90, "name": "dog"},
    ],
    "annotations": [
        {"image_id": "x", "category_id": 90, "bbox": [1, 2, 10, 20]},
        {"image_id": 7, "category_id": 0, "bbox": [0.5, 2, 10, 20], "iscrowd": 1},
        {"image_id": "x", "category_id": 13, "bbox": [3, 4, 5, 6], "iscrowd": 0},
    ],
}


@pytest.fixture
def parse(tmp_path):
    def parse_contents(*contents, **kwargs):
        paths = []
        for i, content in enumerate(contents):
            paths.append(str(tmp_path / f"{i}.json"))
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (tmp_path / f"{i}.json").write_bytes(data)
        options = {"ground_truth_available": True} | kwargs
        return parse_coco(["images"] * len(paths), paths, **options)

    return parse_contents


def changed(*path, value=None) -> dict:
    """Return the content with one value changed, or without it."""
    content = copy.deepcopy(CONTENT)
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


def test_boxes_and_class_ids(parse):
    dataset, maps = parse(CONTENT)
    assert dataset.image_ids == [7, "x"]
    # Class ids count the categories in the order of the file; 0 is a category like any other.
    assert dataset.labels == [[[2, 0.5, 2, 10.5, 22]], [[3, 1, 2, 11, 22], [1, 3, 4, 8, 10]]]
    assert maps == CategoryMaps(
        cats_to_names={13: "stop sign", 0: "person", 90: "dog"},
        classes_to_names=["background", "stop sign", "person", "dog"],
        cats_to_classes={13: 1, 0: 2, 90: 3},
        classes_to_cats={1: 13, 2: 0, 3: 90},
    )
    assert dataset.class_names == maps.classes_to_names
    # Nobody can be expected to find each member of a crowd: evaluations leave its box out.
    assert dataset.eval_neutral == [[True], [False, False]]


def test_byte_order_mark(parse):
    assert parse(json.dumps(CONTENT).encode("utf-8-sig"))[0].labels == parse(CONTENT)[0].labels


@pytest.mark.parametrize("include_classes", [[90, 13], ["dog", "stop sign"], {90, "stop sign"}])
def test_include_by_category_id_or_name(parse, include_classes):
    dataset, maps = parse(CONTENT, include_classes=include_classes)
    assert dataset.labels == [[], [[3, 1, 2, 11, 22], [1, 3, 4, 8, 10]]]
    assert len(maps.cats_to_names) == 3
    dataset, maps = parse(CONTENT, include_classes=include_classes, remap_classes=True)
    assert dataset.labels == [[], [[2, 1, 2, 11, 22], [1, 3, 4, 8, 10]]]
    assert maps == CategoryMaps.of({13: "stop sign", 90: "dog"})
    assert dataset.class_names == ["background", "stop sign", "dog"]


def test_category_zero_can_be_included(parse):
    dataset, _ = parse(CONTENT, include_classes=[0], remap_classes=True)
    assert dataset.labels == [[[1, 0.5, 2, 10.5, 22]], []]


@pytest.mark.parametrize("unknown", [3, "cat"])
def test_include_unknown(parse, unknown):
    message = f"include_classes has {unknown!r}, which is no .*known: .*'stop sign'"
    with pytest.raises(ValueError, match=message):
        parse(CONTENT, include_classes=[90, unknown])


def test_exclude_crowd(parse):
    dataset, _ = parse(CONTENT, exclude_crowd=True)
    assert [len(labels) for labels in dataset.labels] == [0, 2]
    assert dataset.eval_neutral == [[], [False, False]]


def test_marks_follow_their_boxes(parse):
    dataset, _ = parse(CONTENT, include_classes=["dog"])
    assert dataset.eval_neutral == [[], [False]]
    content = changed("annotations", 1, "bbox", value=[0, 0, 0, 0])
    dataset, _ = parse(content, on_invalid_boxes="drop")
    assert dataset.eval_neutral == [[], [False, False]]


def test_ids_written_as_floats(parse):
    content = changed("annotations", 1, "image_id", value=7.0)
    assert parse(content)[0].labels == parse(CONTENT)[0].labels


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e400", "-1e300", "Infinity", "NaN"])
def test_numbers_beyond_all_bounds(parse, number):
    text = json.dumps(CONTENT).replace("10", number, 1)
    with pytest.raises(AnnotationError, match=r"annotations\[0\]: the box .* is not finite"):
        parse(text.encode())
    dataset, _ = parse(text.encode(), on_invalid_boxes="drop")
    assert [len(labels) for labels in dataset.labels] == [1, 1]


def test_invalid_boxes(parse):
    content = changed("annotations", 2, "bbox", value=[3, 4, 0, 6])
    dataset, _ = parse(content)
    assert dataset.labels[1][1] == [1, 3, 4, 3, 10]
    dataset, _ = parse(content, on_invalid_boxes="drop")
    assert len(dataset.labels[1]) == 1
    assert "0.json, annotations[2]: the box" in dataset.invalid_boxes[0]
    with pytest.raises(AnnotationError, match="is not finite"):
        parse(changed("annotations", 2, "bbox", value=[3, 4, float("nan"), 6]))


def test_without_ground_truth(parse):
    content = changed("annotations")
    dataset, maps = parse(content, ground_truth_available=False)
    assert dataset.labels is dataset.eval_neutral is None
    assert maps.classes_to_cats == {1: 13, 2: 0, 3: 90}
    with pytest.raises(
        AnnotationError, match="'annotations', got None. .*ground_truth_available=F"
    ):
        parse(content)


def test_several_files(parse):
    second = changed("categories")
    second["images"][0]["file_name"] = "c.jpg"
    dataset, _ = parse(CONTENT, second)
    assert dataset.image_ids == [7, "x", 7, "x"]
    assert dataset.filenames[2].endswith("c.jpg")
    assert dataset.labels[:2] == dataset.labels[2:]


def test_files_that_number_differently(parse):
    second = changed("categories", 0, "name", value="bus")
    with pytest.raises(AnnotationError, match="1.json: category 13 is 'bus' here, but 'stop sign'"):
        parse(CONTENT, second)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"0\.json, line 1, column 2: not JSON"),
        (b"", r"0\.json, line 1, column 1: not JSON"),
        (b'{"a": "caf\xe9"}', r"0\.json: not UTF-8 text, at byte 10"),
        ([], r"0\.json: expected a JSON object with 'images'.*got a list"),
        (changed("images"), "expected a list 'images', got None"),
        (changed("categories"), "expected a list 'categories', got None"),
        (changed("images", 1, "id"), r"images\[1\]: 'id' is missing, got {'file_name': 'b.jpg'}"),
        (changed("images", 1, "file_name"), r"images\[1\]: 'file_name' is missing"),
        (changed("images", 1, "id", value=7), r"images\[1\]: the id 7 occurs twice"),
        (changed("images", 1, "id", value=[7]), r"images\[1\]: 'id' must be int or str, got \[7\]"),
        (changed("images", 1, "id", value=True), r"images\[1\]: 'id' must be int or str, got True"),
        (changed("images", 1, "id", value=1.5), r"images\[1\]: 'id' must be int or str, got 1.5"),
        (
            changed("images", 1, "file_name", value=7),
            r"images\[1\]: 'file_name' must be str, got 7",
        ),
        (changed("categories", 1, "name", value=7), r"categories\[1\]: 'name' must be str, got 7"),
        (b"[" * 100_000, r"0\.json: lists or objects are nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", r"0\.json: not JSON that can be read: Exceeds the limit"),
        (changed("images", 1, value="b.jpg"), r"images\[1\]: 'file_name' is missing, got 'b.jpg'"),
        (changed("categories", 2, "id", value=13), r"categories\[2\]: the id 13 occurs twice"),
        (changed("categories", 2, "name"), r"categories\[2\]: 'name' is missing"),
        (
            changed("annotations", 1, "image_id", value=8),
            r"annotations\[1\]: image_id 8 is the id of no entry of images",
        ),
        (
            changed("annotations", 1, "category_id", value=1),
            r"annotations\[1\]: category_id 1 is not in categories; known: 13 'stop sign', 0 'per",
        ),
        (changed("annotations", 1, "bbox"), r"annotations\[1\]: 'bbox' is missing"),
        (
            changed("annotations", 1, "bbox", value=[1, 2, 3]),
            r"annotations\[1\]: bbox must be \[x, y, width, height\], got \[1, 2, 3\]",
        ),
        (
            changed("annotations", 1, "bbox", value=[1, 2, "3", 4]),
            r"annotations\[1\]: bbox must hold four numbers, got \[1, 2, '3', 4\]",
        ),
    ],
)
def test_broken_files(parse, content, message):
    with pytest.raises(AnnotationError, match=message):
        parse(content)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("images", ["a.json"]), "images_dirs must be a list of paths, got one path: 'images'"),
        ((["images"], "a.json"), "annotations_filenames must be a list of paths"),
        ((["images"], ["a.json", "b.json"]), "one entry per file and at least one, got 1 and 2"),
        (([], []), "got 0 and 0"),
    ],
)
def test_lists_of_paths(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse_coco(*arguments)


def test_missing_file():
    with pytest.raises(AnnotationError, match="none.json: cannot read the annotations file"):
        parse_coco(["images"], ["none.json"])
