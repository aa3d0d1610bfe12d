"""Ten thousand damaged annotation files: each is read, or refused with an error that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_generator.annotations import CLASS_ID_LIMIT, COORDINATE_LIMIT, ParsedDataset, label_array
from data_generator.coco_parser import parse_coco
from data_generator.csv_parser import CSV_COLUMNS, parse_csv
from data_generator.errors import AnnotationError
from data_generator.voc_parser import parse_voc
from data_generator.yolo_parser import parse_yolo

CLASSES = ("background", "car", "dog")

VOC = """<?xml version="1.0" encoding="utf-8"?>
<annotation><folder>a</folder><filename>a.jpg</filename>
<size><width>30</width><height>20</height><depth>3</depth></size>
<object><name>car</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>13</xmax><ymax>14.5</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>18</ymax></bndbox>
<part><name>head</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
</part></object></annotation>
"""
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": "b", "file_name": "b.png", "width": 30}],
        "categories": [{"id": 1, "name": "car"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [1, 2.5, 10, 12], "iscrowd": 0},
            {"image_id": "b", "category_id": 1, "bbox": [3, 4, 5, 6], "iscrowd": 1, "id": 4},
        ],
    }
)
CSV = (
    "image_name,xmin,xmax,ymin,ymax,class_id\n"
    "a.png,1,12,3,14,1\n"
    '"b.png",2.5,12,3,14,dog\n'
    "none.png,,,,,\n"
    "a.png, 3,15,4,16,2\n"
)
YOLO = "0 0.5 0.5 0.25 0.75\n1 0.3 0.4 0.1 0.2\n\n1 .5 .5 1 1e-1\n"

READERS: dict[str, tuple[str, Callable[[Path], ParsedDataset]]] = {
    "voc": (VOC, lambda f: parse_voc([f], [f / "set.txt"], [f], classes=CLASSES)),
    "image-set": ("a\n", lambda f: parse_voc([f], [f / "fuzzed"], [f], classes=CLASSES)),
    "coco": (COCO, lambda f: parse_coco([f], [f / "fuzzed"], ground_truth_available=True)[0]),
    "csv": (CSV, lambda f: parse_csv(f, f / "fuzzed", CSV_COLUMNS, classes=CLASSES)),
    "csv-header": (CSV, lambda f: parse_csv(f, f / "fuzzed", classes=CLASSES)),
    "csv-ids": (CSV.replace("dog", "2"), lambda f: parse_csv(f, f / "fuzzed", CSV_COLUMNS)),
    "yolo": (YOLO, lambda f: parse_yolo([f / "images"], [f], CLASSES)),
    "yolo-classes": ("car\ndog\n", lambda f: parse_yolo([f / "images"], [f], f / "fuzzed")),
}
# Where the reader looks for its file, if it cannot be told.
FILE_NAMES = {"voc": "a.xml", "yolo": "a.txt"}

TOKENS = [
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n\n", b",", b";", b'"', b"'"),
    *(b"<", b">", b"&a;", b"<!--", b"]]>", b"<![CDATA[", b"<?x?>", b"{", b"}", b"[", b"]", b":"),
    *(b"-1", b"0", b"1e999", b"-1e300", b"nan", b"-Infinity", b"NaN", b"0x10", b"1_0", b"1.5"),
    *(b"9" * 30, b"9" * 5000, b"2147483648", b"true", b"null", b'"a"', b"{}", b"[]", b"\\ud800"),
    *("²".encode(), "١٢".encode(), "猫".encode(), b"\t", b" ", b"../../etc/passwd", b"x" * 200_000),
]


def flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)


def change_byte(data: bytearray, rng: np.random.Generator) -> None:
    data[rng.integers(len(data))] = rng.integers(256)


def delete_piece(data: bytearray, rng: np.random.Generator) -> None:
    start = rng.integers(len(data))
    del data[start : start + rng.integers(1, 30)]


def repeat_piece(data: bytearray, rng: np.random.Generator) -> None:
    start = rng.integers(len(data))
    piece = data[start : start + rng.integers(1, 80)]
    data[start:start] = piece * int(rng.choice([1, 1, 2, 500]))


def move_piece(data: bytearray, rng: np.random.Generator) -> None:
    start, target = rng.integers(len(data), size=2)
    piece = data[start : start + 20]
    del data[start : start + 20]
    data[target:target] = piece


def insert_token(data: bytearray, rng: np.random.Generator) -> None:
    place = rng.integers(len(data) + 1)
    data[place:place] = TOKENS[rng.integers(len(TOKENS))]


def replace_value(data: bytearray, rng: np.random.Generator) -> None:
    """Put a token in the place of what stands between two separators."""
    separators = [i for i, byte in enumerate(data) if byte in b'<>,: \n"[]{}']
    if separators:
        start = separators[rng.integers(len(separators))] + 1
        end = min((i for i in separators if i >= start), default=len(data))
        data[start:end] = TOKENS[rng.integers(len(TOKENS))]


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[rng.integers(len(data)) :]


MUTATORS = (
    flip_bits,
    change_byte,
    delete_piece,
    repeat_piece,
    move_piece,
    insert_token,
    replace_value,
    replace_value,
    truncate,
)


def mutated(text: str, rng: np.random.Generator) -> bytes:
    data = bytearray(text.encode())
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        if data:
            MUTATORS[rng.integers(len(MUTATORS))](data, rng)
    return bytes(data)


@pytest.fixture
def folder(tmp_path):
    """Make a folder in which all formats find what they need beside the damaged file."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "set.txt").write_text("a\n")
    (tmp_path / "a.xml").write_text(VOC)
    (tmp_path / "a.txt").write_text(YOLO)
    return tmp_path


def check_data_set(dataset: ParsedDataset) -> None:
    n_images = len(dataset.filenames)
    assert len(dataset.labels) == len(dataset.image_ids) == n_images
    for index, boxes in enumerate(dataset.labels):
        labels = label_array(boxes, "here")  # complains, too, of what is no row of five numbers
        assert labels.shape[1] == 5
        assert np.abs(labels).max(initial=0) <= COORDINATE_LIMIT
        assert (labels[:, 0] >= 1).all()
        assert (labels[:, 0] < CLASS_ID_LIMIT).all()
        if dataset.eval_neutral is not None:
            assert len(dataset.eval_neutral[index]) == len(labels)


def fuzz(name: str, folder: Path, n: int, seed: int) -> int:
    """Read `n` damaged files, and return how many were refused."""
    text, read = READERS[name]
    path = folder / FILE_NAMES.get(name, "fuzzed")
    rng = np.random.default_rng(seed)
    n_refused = 0
    for number in range(n):
        data = mutated(text, rng)
        path.write_bytes(data)
        try:
            check_data_set(read(folder))
        except AnnotationError as error:
            n_refused += 1
            message = str(error)
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}, number {number}: {data[:500]!r}") from error
        else:
            continue
        assert str(folder) in message, f"{name} {number}: the file is not named: {message}"
        assert len(message) < 2100, f"{name} {number}: {len(message)} characters"
    return n_refused


@pytest.mark.parametrize("name", READERS)
def test_undamaged_files_are_read(folder, name):
    text, read = READERS[name]
    (folder / FILE_NAMES.get(name, "fuzzed")).write_text(text)
    check_data_set(read(folder))


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(folder, name):
    n_refused = fuzz(name, folder, 150, seed=0)
    assert 15 < n_refused < 150, "the damage must neither be harmless nor complete"


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_very_many_damaged_files(folder, name):
    fuzz(name, folder, 1250, seed=1)


DEEP = 200_000
ENTITIES = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 30))
BOMBS = {
    "entities": (
        "voc",
        f'<!DOCTYPE x [<!ENTITY a0 "ha">{ENTITIES}]><annotation>&a29;</annotation>',
    ),
    "quadratic": (
        "voc",
        f'<!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]><annotation>{"&a;" * 50_000}</annotation>',
    ),
    "other-file": (
        "voc",
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>',
    ),
    "parameter-entity": (
        "voc",
        '<!DOCTYPE x [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]><annotation/>',
    ),
    "deep-xml": ("voc", "<annotation>" * DEEP),
    "closed-deep-xml": ("voc", "<annotation>" * DEEP + "</annotation>" * DEEP),
    "wide-attribute": ("voc", f'<annotation a="{"x" * 20_000_000}"/>'),
    "deep-lists": ("coco", "[" * DEEP),
    "deep-objects": ("coco", '{"a":' * DEEP),
    "long-number": ("coco", '{"images":[' + "9" * 1_000_000 + "]}"),
    "open-quote": ("csv", CSV + '"' + "a,\n" * 300_000),
    "long-line": ("csv", "a" * 5_000_000),
    "binary": ("csv", "\0" * 1_000_000),
    "many-columns": ("yolo", "0 " * 500_000),
    "long-number-in-yolo": ("yolo", "0 0.5 0.5 0.5 " + "9" * 1_000_000),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_do_not_go_off(folder, name):
    kind, content = BOMBS[name]
    (folder / FILE_NAMES.get(kind, "fuzzed")).write_text(content)
    with pytest.raises(AnnotationError) as caught:
        READERS[kind][1](folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 2100
    assert "root:" not in str(caught.value)
