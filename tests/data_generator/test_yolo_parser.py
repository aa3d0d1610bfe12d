"""YOLO text files: fractions become pixels of the upright image, and every line is checked."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_generator.errors import AnnotationError
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.yolo_parser import find_images, parse_yolo

CLASSES = ["background", "car", "dog"]


@pytest.fixture
def folders(tmp_path):
    """Make two images, of 20 x 30 and of 16 x 40 pixels, the second in a folder of its own."""
    for name, (height, width) in {"a.png": (20, 30), "more/b.1.jpg": (16, 40)}.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
    (tmp_path / "labels" / "more").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def parse(folders):
    def parse_labels(a: str | bytes | None = None, b: str | None = None, classes=CLASSES, **kwargs):
        for name, text in (("a.txt", a), ("more/b.1.txt", b)):
            if text is not None:
                data = text if isinstance(text, bytes) else text.encode()
                (folders / "labels" / name).write_bytes(data)
        folder = [str(folders / "images")], [str(folders / "labels")]
        return parse_yolo(*folder, classes, **kwargs)

    return parse_labels


def test_pixels_of_each_image(parse, folders):
    dataset = parse("0 0.5 0.5 0.2 0.4\n1 0.25 0.75 0.5 0.5\n", "\ufeff1.0 .5 .5 1 1\r\n\r\n")
    names = [str(Path(name).relative_to(folders / "images")) for name in dataset.filenames]
    assert names == ["a.png", "more/b.1.jpg"]
    assert dataset.image_ids == ["a", "more/b.1"]
    np.testing.assert_allclose(dataset.labels[0], [[1, 12, 6, 18, 14], [2, 0, 10, 15, 20]])
    np.testing.assert_allclose(dataset.labels[1], [[2, 0, 0, 40, 16]])
    assert [labels.dtype for labels in dataset.labels] == [np.float32] * 2
    assert dataset.class_names == CLASSES
    assert dataset.eval_neutral is None


def test_fractions_are_of_the_upright_image(folders, parse):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(np.zeros((16, 40, 3), np.uint8)).save(
        folders / "images/more/b.1.jpg", exif=exif
    )
    dataset = parse(b="0 0.5 0.5 1 1")
    np.testing.assert_allclose(dataset.labels[1], [[1, 0, 0, 16, 40]])


@pytest.mark.parametrize("text", [None, "", "\n \n"], ids=["no-file", "empty", "blank-lines"])
def test_images_without_objects(parse, text):
    dataset = parse(text, "0 0.5 0.5 0.5 0.5")
    assert dataset.labels[0].shape == (0, 5)
    assert dataset.labels[0].dtype == np.float32


def test_classes_in_a_file(parse, folders):
    (folders / "classes.txt").write_text("car\ndog\n\n")
    dataset = parse("1 0.5 0.5 0.5 0.5", classes=str(folders / "classes.txt"))
    assert dataset.class_names == CLASSES
    assert dataset.labels[0][0, 0] == 2


def test_include_and_remap(parse):
    text = "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 1 1\n"
    dataset = parse(text, include_classes=["dog"])
    assert dataset.labels[0][:, 0].tolist() == [2]
    dataset = parse(text, include_classes=[2], remap_classes=True)
    assert dataset.labels[0][:, 0].tolist() == [1]
    assert dataset.class_names == ["background", "dog"]
    assert len(dataset.filenames) == 2


def test_other_order_of_columns(parse):
    order = ("xmin", "ymin", "xmax", "ymax", "class_id")
    dataset = parse("1 0.5 0.5 1 1", labels_output_format=order)
    np.testing.assert_allclose(dataset.labels[0], [[0, 0, 30, 20, 2]])


def test_boxes_without_size(parse):
    text = "0 0.5 0.5 0 0.5\n1 0.5 0.5 1 1\n"
    assert len(parse(text).labels[0]) == 2
    dataset = parse(text, on_invalid_boxes="drop")
    assert len(dataset.labels[0]) == 1
    assert "a.txt, line 1: the box" in dataset.invalid_boxes[0]
    with pytest.raises(AnnotationError, match="a.txt, line 1: the box .* has no size"):
        parse(text, on_invalid_boxes="raise")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.5\n", "line 1: expected 5 values .*got 4: '0 0.5 0.5 0.5'"),
        ("0 .5 .5 .5 .5\n0 .5 .5 .5 .5 .9\n", "line 2: expected 5 values.*got 6.*the confidence"),
        ("0 0 0 1 0 1 1\n", "line 1: expected 5 values.*got 7.*polygon"),
        ("0,0.5,0.5,0.5,0.5\n", "line 1: expected 5 values .*separated by spaces, got 1"),
        ("car 0.5 0.5 0.5 0.5", "line 1: class_id must be a number, got 'car'"),
        ("0.5 0.5 0.5 0.5 0.5", "line 1: class_id must be a whole number, got '0.5'"),
        ("2 0.5 0.5 0.5 0.5", "line 1: there is no class 2; known: 0 'car', 1 'dog'"),
        ("-1 0.5 0.5 0.5 0.5", "line 1: there is no class -1"),
        ("0 x 0.5 0.5 0.5", "line 1: cx must be a number, got 'x'"),
        ("0 0.5 1.5 0.5 0.5", "line 1: cy must be a fraction .*got 1.5. Divide pixels"),
        ("0 0.5 0.5 30 0.5", "line 1: width must be a fraction"),
        ("0 0.5 0.5 0.5 -0.5", "line 1: height must be a fraction"),
        ("0 0.5 0.5 0.5 nan", "line 1: height must be a fraction .*got nan"),
        ("0 0.5 0.5 0.5 1e999", "line 1: height must be a fraction .*got inf"),
        (b"0 0.5 0.5 0.5 \xff", "the label file is not UTF-8"),
    ],
)
def test_broken_lines(parse, text, message):
    with pytest.raises(AnnotationError, match=rf"a\.txt(: |, ){message}"):
        parse(text)


def test_rounded_fractions_are_fine(parse):
    dataset = parse("0 0.5 0.5 1.0004 1\n")
    np.testing.assert_allclose(dataset.labels[0], [[1, 0, 0, 30, 20]], atol=0.02)


def test_an_image_whose_size_cannot_be_read(parse, folders):
    (folders / "images" / "a.png").write_bytes(b"")
    with pytest.raises(AnnotationError, match=r"a\.txt, line 1: .*cannot be read: .*a.png.*empty"):
        parse("0 0.5 0.5 0.5 0.5")
    assert len(parse("", "").filenames) == 2  # without boxes nobody asks for the size


def test_folders(folders, parse):
    with pytest.raises(AnnotationError, match="labels: not one of the 2 images .*would be .*a.txt"):
        parse()
    with pytest.raises(AnnotationError, match="none: no folder, or one without images"):
        find_images(folders / "none")
    both = [str(folders / "images")] * 2
    parse("0 0.5 0.5 0.5 0.5")
    dataset = parse_yolo(both, [str(folders / "labels")] * 2, CLASSES)
    assert len(dataset.filenames) == 4
    assert dataset.image_ids[:2] == dataset.filenames[:2]  # the names alone occur twice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("images", ["labels"], CLASSES), "images_dirs must be a list of paths, got one path"),
        ((["images"], "labels", CLASSES), "labels_dirs must be a list of paths, got one path"),
        ((["a", "b"], ["labels"], CLASSES), "at least one, got 2 and 1"),
        ((["a"], ["b"], ["car", "dog"]), "classes must begin with 'background'.*'car'"),
        ((["a"], ["b"], []), "classes must begin with 'background'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse_yolo(*arguments)


def test_the_method(parse, folders):
    parsed = parse("0 0.5 0.5 0.5 0.5")
    dataset = DataGenerator()
    lists = dataset.parse_yolo(
        [str(folders / "images")], [str(folders / "labels")], CLASSES, ret=True, verbose=False
    )
    assert lists[1:] == (dataset.filenames, dataset.labels, dataset.image_ids)
    assert dataset.filenames == parsed.filenames
    assert dataset.classes == dataset.class_names == CLASSES
    assert dataset.get_image(1).shape == (16, 40, 3)


def test_real_data(real_data, tmp_path):
    """The boxes of a VOC data set, written as YOLO files, come back within rounding."""
    folder = real_data / "bccd"
    classes = ["background", *(folder / "classes.txt").read_text().split()]
    voc = DataGenerator()
    voc.parse_xml(
        [str(folder / "JPEGImages")],
        [str(folder / "ImageSets/Main/val.txt")],
        [str(folder / "Annotations")],
        classes=classes,
        verbose=False,
    )
    (tmp_path / "images").mkdir()
    for path, boxes in zip(voc.filenames, voc.labels, strict=True):
        (tmp_path / "images" / Path(path).name).symlink_to(path)
        height, width = cv2.imread(path).shape[:2]
        lines = [
            f"{c - 1} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
            f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}\n"
            for c, x0, y0, x1, y1 in boxes
        ]
        (tmp_path / f"{Path(path).stem}.txt").write_text("".join(lines))
    yolo = parse_yolo([str(tmp_path / "images")], [str(tmp_path)], str(folder / "classes.txt"))
    expected = dict(zip(voc.image_ids, voc.labels, strict=True))
    assert sorted(yolo.image_ids) == sorted(expected)
    for image_id, labels in zip(yolo.image_ids, yolo.labels, strict=True):
        np.testing.assert_allclose(labels, np.reshape(expected[image_id], (-1, 5)), atol=0.01)
