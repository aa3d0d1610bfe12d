"""Tests of opening data sets of every format by naming their files."""

import json

import cv2
import numpy as np
import pytest

from data_generator.errors import AnnotationError
from misc_utils.dataset_sources import (
    dataset_format,
    find_class_names,
    fingerprint,
    open_dataset,
    read_class_names,
)

# Two images of 40 x 30 pixels: a cat and a dog, marked as difficult or as a crowd; and nothing.
BOXES = [("cat", (2, 4, 20, 24), 0), ("dog", (10, 6, 30, 26), 1)]
NAMES = ["background", "cat", "dog"]


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((30, 40, 3), 90, np.uint8))


def write_voc(folder):
    objects = "".join(
        f"<object><name>{name}</name><difficult>{flag}</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, flag in BOXES
    )
    for image_id, content in (("a", objects), ("b", "")):
        write_image(folder / "JPEGImages" / f"{image_id}.jpg")
        annotation = folder / "Annotations" / f"{image_id}.xml"
        annotation.parent.mkdir(exist_ok=True)
        annotation.write_text(f"<annotation>{content}</annotation>")
    image_set = folder / "ImageSets" / "Main" / "train.txt"
    image_set.parent.mkdir(parents=True)
    image_set.write_text("a\nb\n")
    return image_set


def write_coco(folder, images="train2017"):
    for name in ("a.jpg", "b.jpg"):
        write_image(folder / images / name)
    content = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(("a.jpg", "b.jpg"))],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {
                "id": n,
                "image_id": 0,
                "category_id": {"cat": 17, "dog": 18}[name],
                "bbox": [x, y, right - x, bottom - y],
                "iscrowd": flag,
            }
            for n, (name, (x, y, right, bottom), flag) in enumerate(BOXES)
        ],
    }
    path = folder / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return path


def write_csv(folder):
    for name in ("a.jpg", "b.jpg"):
        write_image(folder / "images" / name)
    ids = {"cat": 1, "dog": 2}
    rows = [f"a.jpg,{x},{r},{y},{b},{ids[name]}" for name, (x, y, r, b), _ in BOXES]
    path = folder / "labels.csv"
    path.write_text("\n".join(["frame,xmin,xmax,ymin,ymax,class_id", *rows, "b.jpg,,,,,"]) + "\n")
    (folder / "classes.txt").write_text("cat\ndog\n")
    return path


def write_yolo(folder):
    for name in ("a.jpg", "b.jpg"):
        write_image(folder / "images" / "train" / name)
    (folder / "labels" / "train").mkdir(parents=True)
    rows = [
        f"{n} {(x + r) / 80} {(y + b) / 60} {(r - x) / 40} {(b - y) / 30}"
        for n, (_, (x, y, r, b), _) in enumerate(BOXES)
    ]
    (folder / "labels" / "train" / "a.txt").write_text("\n".join(rows))
    (folder / "classes.txt").write_text("cat\ndog\n")
    return folder / "images" / "train"


WRITERS = {"voc": write_voc, "coco": write_coco, "csv": write_csv, "yolo": write_yolo}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_data(kind, tmp_path):
    source = WRITERS[kind](tmp_path / "data")
    assert dataset_format([source]) == kind
    dataset = open_dataset([source])
    assert list(dataset.class_names) == NAMES
    np.testing.assert_allclose(dataset.labels[0], [[1, *BOXES[0][1]], [2, *BOXES[1][1]]], atol=1e-4)
    assert len(dataset.labels[1]) == 0
    assert dataset.get_image(0).shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("kind", "option"), [("voc", {"use_difficult": False}), ("coco", {"use_crowds": False})]
)
def test_marked_objects_can_be_left_out(kind, option, tmp_path):
    source = WRITERS[kind](tmp_path)
    assert len(open_dataset([source], **option).labels[0]) == 1
    assert open_dataset([source]).eval_neutral[0] == [False, True]


def test_two_folders_of_voc_make_one_data_set(tmp_path):
    sources = [write_voc(tmp_path / year) for year in ("2007", "2012")]
    assert open_dataset(sources).get_dataset_size() == 4


def test_images_of_coco_may_lie_elsewhere(tmp_path):
    source = write_coco(tmp_path, images="somewhere/else")
    with pytest.raises(AnnotationError, match=r"a\.jpg, is not in the usual places"):
        open_dataset([source])
    dataset = open_dataset([source], [tmp_path / "somewhere" / "else"])
    assert dataset.get_image(0).shape == (30, 40, 3)


def test_classes_of_voc_come_in_its_own_order_before_others(tmp_path):
    source = write_voc(tmp_path)
    annotation = tmp_path / "Annotations" / "a.xml"
    text = annotation.read_text().replace("cat", "zebra").replace("dog", "train")
    annotation.write_text(text)
    annotation.with_name("b.xml").write_text(text.replace("zebra", "apple").replace("train", "cat"))
    assert find_class_names([source]) == ["background", "cat", "train", "apple", "zebra"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.txt", "no such file or folder"),
        ("picture.jpg", "no format is known"),
        ("voc", r"name one of them, such as .*train\.txt"),
        ("empty", "the names of the classes are not known"),
    ],
)
def test_what_is_no_source_is_explained(name, message, tmp_path):
    write_voc(tmp_path / "voc")
    write_image(tmp_path / "picture.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match=message) as caught:
        open_dataset([tmp_path / name])
    assert name in str(caught.value)


def test_sources_of_two_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one format"):
        open_dataset([write_voc(tmp_path / "voc"), write_coco(tmp_path / "coco")])
    with pytest.raises(ValueError, match="none"):
        open_dataset([])


def test_a_text_file_that_is_no_image_set_is_explained(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "list.txt").write_text("a\n")
    with pytest.raises(AnnotationError, match="expected an image set"):
        open_dataset([tmp_path / "a" / "b" / "list.txt"], class_names=NAMES)


def test_yolo_without_labels_is_explained(tmp_path):
    write_image(tmp_path / "pictures" / "a.jpg")
    with pytest.raises(AnnotationError, match="no labels of YOLO"):
        open_dataset([tmp_path / "pictures"], class_names=NAMES)


def test_other_categories_than_expected_are_refused(tmp_path):
    source = write_coco(tmp_path)
    with pytest.raises(ValueError, match="has the classes cat, dog; expected dog, cat"):
        open_dataset([source], class_names=["background", "dog", "cat"])


@pytest.mark.parametrize(("text", "count"), [("cat\n\n dog \n", 2), ("background\ncat", 1)])
def test_class_names_of_a_file(text, count, tmp_path):
    (tmp_path / "names.txt").write_text(text)
    assert read_class_names(tmp_path / "names.txt") == NAMES[: count + 1]


@pytest.mark.parametrize("text", ["", "cat\ncat\n"])
def test_a_list_of_classes_must_make_sense(text, tmp_path):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(AnnotationError, match="expected different class names"):
        read_class_names(tmp_path / "names.txt")


def test_fingerprints_tell_data_apart(tmp_path):
    source = write_voc(tmp_path / "one")
    same = write_voc(tmp_path / "two")
    before = fingerprint(open_dataset([source]))
    assert before == fingerprint(open_dataset([same]))
    same.write_text("b\na\n")
    assert before != fingerprint(open_dataset([same]))
    annotation = tmp_path / "one" / "Annotations" / "a.xml"
    annotation.write_text(annotation.read_text().replace("<xmax>20", "<xmax>21"))
    assert before != fingerprint(open_dataset([source]))
