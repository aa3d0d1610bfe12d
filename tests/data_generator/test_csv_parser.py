"""CSV files: headers, decimals, images without objects, and clear words for the rest."""

from __future__ import annotations

import os

import numpy as np
import pytest

from data_generator.csv_parser import CSV_COLUMNS, parse_csv
from data_generator.errors import AnnotationError, EmptyAnnotationsError

HEADER = "image_name,xmin,xmax,ymin,ymax,class_id\n"
CLASSES = ["background", "car", "dog"]


@pytest.fixture
def parse(tmp_path):
    def parse_text(text: str | bytes, input_format=CSV_COLUMNS, **kwargs):
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return parse_csv("images", str(path), input_format, **kwargs)

    return parse_text


def boxes(dataset) -> dict:
    return {
        os.path.relpath(name, "images"): labels.tolist()
        for name, labels in zip(dataset.filenames, dataset.labels, strict=True)
    }


def test_columns_order_and_types(parse):
    dataset = parse(HEADER + "b.png,1,3,2,4,2\na.jpg,5,7,6,8,1\nb.png, 0 ,3,2,4,1\n")
    assert boxes(dataset) == {
        "a.jpg": [[1, 5, 6, 7, 8]],
        "b.png": [[1, 0, 2, 3, 4], [2, 1, 2, 3, 4]],
    }
    assert dataset.image_ids == ["a", "b"]
    assert {labels.dtype for labels in dataset.labels} == {np.dtype(np.int64)}
    assert dataset.eval_neutral is None
    assert dataset.class_names is None


def test_decimals_make_all_labels_float32(parse):
    dataset = parse(HEADER + "a.jpg,1.5,3,2,4,2.0\nb.jpg,5,7,6,8,1\n")
    assert boxes(dataset) == {"a.jpg": [[2, 1.5, 2, 3, 4]], "b.jpg": [[1, 5, 6, 7, 8]]}
    assert {labels.dtype for labels in dataset.labels} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "a.jpg,1,3,2,4,1\n",
        "a.jpg,1,3,2,4,1\n",  # without a header no box is lost
        "\ufeff" + HEADER + "a.jpg,1,3,2,4,1",
        "\ufeffa.jpg,1,3,2,4,1",
        "\n\n" + HEADER + "\n  \na.jpg,1,3,2,4,1\r\n,,,,,\n\n",
        'frame,l,r,t,b,c,more\n"a.jpg",1,3,2,4,1,ignored\n',
    ],
    ids=["header", "no-header", "bom", "bom-no-header", "blank-lines", "quotes-more-columns"],
)
def test_ways_to_write_the_same(parse, text):
    assert boxes(parse(text)) == {"a.jpg": [[1, 1, 2, 3, 4]]}


TENSORFLOW_HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


@pytest.mark.parametrize("input_format", [None, "header"])
@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        (HEADER + "a.jpg,1,3,2,4,1\nb.jpg,,,,,\n", ","),
        ("\ufeff" + HEADER + "a.jpg,1,3,2,4,1\nb.jpg,,,,,\n", ","),
        ("Class_ID, YMIN ,ymax,xmin,xmax,Image_Name\n1,2,4,1,3,a.jpg\n,,,,,b.jpg\n", ","),
        (TENSORFLOW_HEADER + 'a.jpg,64,48,car,1,2,3,4\n"b.jpg",64,48,,,,,\n', ","),
        (HEADER.replace(",", ";") + "a.jpg;1;3;2;4;car\nb.jpg;;;;;\n", ";"),
        (HEADER.replace(",", "\t") + "a.jpg\t1\t3\t2\t4\tcar\nb.jpg\t\t\t\t\t\n", "\t"),
    ],
    ids=["plain", "bom", "other-order", "tensorflow", "semicolons", "tabs"],
)
def test_columns_named_by_the_header(parse, text, delimiter, input_format):
    dataset = parse(text, input_format, delimiter=delimiter, classes=CLASSES)
    assert boxes(dataset) == {"a.jpg": [[1, 1, 2, 3, 4]], "b.jpg": []}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,1,3,2,4,1\n", "line 1: expected a header.*image_name, xmin,.*list its columns in"),
        ("filename,xmin,ymin,xmax,ymax\n", "class_id is missing from"),
        ("path,frame,xmin,ymin,xmax,ymax,class\n", "two columns for 'image_name', 'path' and 'fr"),
        (HEADER.replace(",", ";"), "pass delimiter=';'"),
        (HEADER + "a.jpg,1,3,2,4\n", "line 2: expected 6 cells"),
        ("", "the CSV file is empty"),
    ],
)
def test_headers_that_do_not_name_the_columns(parse, text, message):
    with pytest.raises(AnnotationError, match=f"labels.csv(: |, ).*{message}"):
        parse(text, None)


@pytest.mark.parametrize("delimiter", ["", ";;", "\n", '"', None])
def test_wrong_delimiter(parse, delimiter):
    with pytest.raises(ValueError, match="delimiter must be one character .*got"):
        parse(HEADER, delimiter=delimiter)


def test_quoted_cells_may_hold_the_delimiter(parse):
    dataset = parse(HEADER + '"a, ""b"".jpg","1",3,2,4,1\n')
    assert boxes(dataset) == {'a, "b".jpg': [[1, 1, 2, 3, 4]]}


@pytest.mark.parametrize("header", [HEADER, ""], ids=["header", "no-header"])
def test_images_without_objects(parse, header):
    dataset = parse(header + "none.jpg,,,,,\na.jpg,1,3,2,4,1\na.jpg,,,,,\n")
    assert boxes(dataset) == {"a.jpg": [[1, 1, 2, 3, 4]], "none.jpg": []}
    assert dataset.labels[1].shape == (0, 5)


def test_image_ids_are_names_without_suffix(parse):
    names = ["frame.0001.jpg", "frame.0002.jpg", "v1.0/a.png", "v1.0/a.jpg", "nosuffix"]
    dataset = parse(HEADER + "".join(f"{name},1,3,2,4,1\n" for name in names))
    ids = dict(zip(dataset.filenames, dataset.image_ids, strict=True))
    assert {name: ids[os.path.join("images", name)] for name in names} == {
        "frame.0001.jpg": "frame.0001",
        "frame.0002.jpg": "frame.0002",
        "v1.0/a.png": "v1.0/a.png",  # both would be 'v1.0/a'
        "v1.0/a.jpg": "v1.0/a.jpg",
        "nosuffix": "nosuffix",
    }


def test_class_names_in_the_class_column(parse):
    dataset = parse(HEADER + "a.jpg,1,3,2,4,dog\nb.jpg,1,3,2,4,1\n", classes=CLASSES)
    assert boxes(dataset) == {"a.jpg": [[2, 1, 2, 3, 4]], "b.jpg": [[1, 1, 2, 3, 4]]}
    assert dataset.class_names == CLASSES


def test_include_and_remap(parse):
    text = HEADER + "a.jpg,1,3,2,4,5\nb.jpg,1,3,2,4,9\nc.jpg,1,3,2,4,7\nnone.jpg,,,,,\n"
    kept = parse(text, include_classes=[9, 5])
    assert boxes(kept) == {"a.jpg": [[5, 1, 2, 3, 4]], "b.jpg": [[9, 1, 2, 3, 4]], "none.jpg": []}
    remapped = parse(text, include_classes=[9, 5], remap_classes=True)
    assert boxes(remapped)["b.jpg"] == [[2, 1, 2, 3, 4]]
    text = text.replace(",5\n", ",car\n").replace(",9\n", ",dog\n").replace(",7\n", ",dog\n")
    named = parse(text, classes=CLASSES, include_classes=["dog"], remap_classes=True)
    assert boxes(named) == {"b.jpg": [[1, 1, 2, 3, 4]], "c.jpg": [[1, 1, 2, 3, 4]], "none.jpg": []}
    assert named.class_names == ["background", "dog"]


def test_rows_left_out_by_class_may_have_any_id(parse):
    dataset = parse(HEADER + "a.jpg,1,3,2,4,0\nb.jpg,1,3,2,4,1\n", include_classes=[1])
    assert boxes(dataset) == {"b.jpg": [[1, 1, 2, 3, 4]]}


def test_nothing_left(parse):
    text = HEADER + "a.jpg,1,3,2,4,1\n"
    with pytest.raises(EmptyAnnotationsError, match=r"no image is left: .*include_classes=\[2\]"):
        parse(text, include_classes=[2])
    with pytest.raises(IndexError):  # what the original library raises
        parse(text, include_classes=[2])
    with pytest.raises(EmptyAnnotationsError):
        parse(HEADER)


def test_random_sample(parse):
    text = HEADER + "".join(f"{i:04}.jpg,1,3,2,4,1\n" for i in range(1000))
    sample = parse(text, random_sample=0.3, seed=1)
    assert 230 < len(sample.filenames) < 370
    assert len(sample.labels) == len(sample.image_ids) == len(sample.filenames)
    assert sample.filenames == parse(text, random_sample=0.3, seed=1).filenames
    assert sample.filenames != parse(text, random_sample=0.3, seed=2).filenames
    assert len(parse(text, random_sample=1.0).filenames) == 1000
    with pytest.raises(EmptyAnnotationsError, match="random_sample=1e-09 kept none of 1000"):
        parse(text, random_sample=1e-9, seed=1)
    with pytest.raises(ValueError, match=r"random_sample must be False or in \(0, 1\], got 20"):
        parse(text, random_sample=20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the CSV file is empty"),
        ("\n\n", "the CSV file is empty"),
        (HEADER + "a.jpg,1,3,2,4\n", r"line 2: expected 6 cells .*separated by ',', got 5"),
        (HEADER + "a.jpg;1;3;2;4;1\n", "line 2: expected 6 cells .*got 1: .*pass delimiter=';'"),
        (HEADER + "a.jpg,1,3,two,4,1\n", "line 2: ymin must be a number, got 'two'"),
        (HEADER + "a.jpg,1,,2,4,1\n", "line 2: xmax must be a number, got ''"),
        (HEADER + "a.jpg,1,3,2,4,\n", "line 2: class_id must be a number, got ''"),
        (HEADER + "a.jpg,1,3,2,4,dog\n", r"class_id must be a number, got 'dog'.*pass classes=\["),
        (HEADER + "a.jpg,1,3,2,4,1.5\n", "line 2: class_id must be a whole number, got '1.5'"),
        (HEADER + "a.jpg,1,3,2,4,0\n", "line 2: class id 0 is not the id of an object"),
        (HEADER + "a.jpg,1,3,2,4,9" + "9" * 40 + "\n", "class_id must be a whole number below"),
        (HEADER + "a.jpg,1,1_0,2,4,1\n", "line 2: xmax must be a number, got '1_0'"),
        (HEADER + "a.jpg,1,1e300,2,4,1\n", "line 2: the box .* beyond any image"),
        (HEADER + "a.jpg,1,3" + "0" * 5000 + ",2,4,1\n", "line 2: the box .* beyond any image"),
        (HEADER + "\na.jpg,nan,3,2,4,1\n", "line 3: the box .* is not finite"),
        (HEADER + ",1,3,2,4,1\n", "line 2: the image name is empty"),
        ("frame,xmin,ymin,xmax,ymax,class_id\n", "column 3 'ymin', but input_format says 'xmax'"),
        (b"caf\xe9.jpg,1,3,2,4,1\n", "the CSV file is not UTF-8 text"),
        (HEADER + '"' + "x" * 200_000 + '"\n', "line 2: not CSV: field larger than"),
    ],
)
def test_broken_files(parse, text, message):
    with pytest.raises(AnnotationError, match=f"labels.csv(: |, ).*{message}"):
        parse(text)


@pytest.mark.parametrize("name", ["cat", "3", "1.5"])
def test_unknown_class(parse, name):
    with pytest.raises(AnnotationError, match=f"line 2: '{name}' is neither .*known: .*2 'dog'"):
        parse(HEADER + f"a.jpg,1,3,2,4,{name}\n", classes=CLASSES)


@pytest.mark.parametrize(
    "input_format", [CSV_COLUMNS[:5], [*CSV_COLUMNS, "more"], ["x", *CSV_COLUMNS[1:]]]
)
def test_wrong_input_format(parse, input_format):
    with pytest.raises(ValueError, match="input_format must list the names .*got"):
        parse(HEADER, input_format)


def test_missing_file():
    with pytest.raises(AnnotationError, match="none.csv: cannot read the CSV file"):
        parse_csv("images", "none.csv", CSV_COLUMNS)
