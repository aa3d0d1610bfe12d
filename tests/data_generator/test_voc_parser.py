"""Pascal VOC: what real files look like, and every way in which they are broken."""

from __future__ import annotations

import pytest

from data_generator.errors import AnnotationError
from data_generator.voc_parser import (
    IMAGE_SUFFIXES,
    VOC_CLASSES,
    find_image,
    parse_voc,
    read_image_set,
    read_voc_annotation,
)

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"


def voc_object(name: str = "dog", box: str = BOX, more: str = "") -> str:
    return f"<object><name>{name}</name>{more}{box}</object>"


@pytest.fixture
def annotation(tmp_path):
    def write(content: str | bytes, name: str = "a.xml") -> str:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


@pytest.fixture
def parse(tmp_path):
    """Parse a data set of one image 'a' with the given objects."""

    def parse_objects(objects: str, **kwargs):
        (tmp_path / "set.txt").write_text("a\n")
        (tmp_path / "a.xml").write_text(f"<annotation>{objects}</annotation>")
        folder = [str(tmp_path)]
        return parse_voc(folder, [str(tmp_path / "set.txt")], folder, **kwargs)

    return parse_objects


def test_only_name_and_box_are_needed(annotation):
    (item,) = read_voc_annotation(annotation(f"<annotation>{voc_object()}</annotation>"))
    assert item[:4] == ("dog", (1, 2, 30, 40), False, False)


@pytest.mark.parametrize(
    ("text", "flag"),
    [("1", True), ("0", False), (" 1 ", True), ("", False), ("True", True), ("Unspecified", False)],
)
@pytest.mark.parametrize("tag", ["truncated", "difficult"])
def test_flags(annotation, tag, text, flag):
    content = f"<annotation>{voc_object(more=f'<{tag}>{text}</{tag}>')}</annotation>"
    (item,) = read_voc_annotation(annotation(content))
    assert getattr(item, tag) is flag
    assert item.truncated + item.difficult == flag


def test_integers_stay_integers_and_decimals_are_read(annotation):
    box = BOX.replace("30", " 30.5 ").replace("40", "4e1")
    (item,) = read_voc_annotation(annotation(f"<annotation>{voc_object(box=box)}</annotation>"))
    assert item.box == (1, 2, 30.5, 40.0)
    assert [type(value) for value in item.box] == [int, int, float, float]


def test_parts_of_objects_are_left_alone(annotation):
    part = f"<part><name>head</name>{BOX.replace('30', '7')}</part>"
    for content in (voc_object(more=part), voc_object(box=BOX + part)):
        (item,) = read_voc_annotation(annotation(f"<annotation>{content}</annotation>"))
        assert item[:2] == ("dog", (1, 2, 30, 40))


def test_byte_order_mark_and_other_encodings(annotation):
    content = f"<annotation>{voc_object('Straße')}</annotation>"
    latin = "<?xml version='1.0' encoding='ISO-8859-1'?>" + content
    for data in (content.encode("utf-8-sig"), latin.encode("latin-1"), content.encode("utf-16")):
        assert read_voc_annotation(annotation(data))[0].name == "Straße"


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (f"<object>{BOX}</object>", "object 1: the tag <name> is missing or empty"),
        (voc_object() + voc_object(""), "object 2: the tag <name> is missing or empty"),
        (voc_object(box=""), r"object 1 \('dog'\): the tag <bndbox> is missing"),
        (
            voc_object(box=BOX.replace("ymax", "y2")),
            r"object 1 \('dog'\): the tag <ymax> is missing in <bndbox>",
        ),
        (
            voc_object() + voc_object(box=BOX.replace("30", "wide")),
            r"object 2 \('dog'\): <xmax> must be a number, got 'wide'",
        ),
        (voc_object(box=BOX.replace("30", "")), "<xmax> must be a number, got ''"),
        (
            voc_object(more="<difficult>maybe</difficult>"),
            "<difficult> must be 0 or 1, got 'maybe'",
        ),
    ],
)
def test_broken_objects(annotation, objects, message):
    with pytest.raises(AnnotationError, match=rf"a\.xml, {message}|a\.xml, .*: {message}"):
        read_voc_annotation(annotation(f"<annotation>{objects}</annotation>"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not well-formed XML: "),
        ("{}", "not well-formed XML: "),
        ("<annotation><object>", "not well-formed XML: .*line 1"),
        (b"<annotation>\xff</annotation>", "not well-formed XML: "),
    ],
)
def test_broken_xml(annotation, content, message):
    with pytest.raises(AnnotationError, match=rf"a\.xml: {message}"):
        read_voc_annotation(annotation(content))


def test_entities_are_refused(annotation):
    lines = ['<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10)]
    bomb = f"<!DOCTYPE x [{''.join(lines)}]><annotation>{voc_object('&a9;')}</annotation>"
    with pytest.raises(AnnotationError, match="a.xml: .*(declares XML entities|amplification)"):
        read_voc_annotation(annotation(bomb))
    harmless = '<!DOCTYPE x [<!ENTITY name "dog">]>'
    with pytest.raises(AnnotationError, match="a.xml: the file declares XML entities"):
        read_voc_annotation(annotation(f"{harmless}<annotation>{voc_object()}</annotation>"))


@pytest.mark.parametrize(
    "declaration",
    ['<!DOCTYPE x [<!ENTITY secret SYSTEM "secret.txt">]>', '<!DOCTYPE x SYSTEM "secret.dtd">'],
)
def test_no_other_file_is_read(annotation, tmp_path, declaration):
    (tmp_path / "secret.txt").write_text("dog")
    (tmp_path / "secret.dtd").write_text('<!ENTITY secret "dog">')
    content = f"{declaration}<annotation>{voc_object('&secret;')}</annotation>"
    with pytest.raises(AnnotationError, match=r"declares XML entities|<name> is missing or empty"):
        read_voc_annotation(annotation(content))


def test_image_set(annotation):
    path = annotation(b"\xef\xbb\xbf000001\r\n\r\n  000002  \n", "set.txt")
    assert read_image_set(path) == [(1, "000001"), (3, "000002")]
    with pytest.raises(AnnotationError, match="set.txt: the image set file is empty"):
        read_image_set(annotation(" \n", "set.txt"))
    with pytest.raises(AnnotationError, match="none.txt: cannot read the image set file"):
        read_image_set("none.txt")


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".JPG", ".PNG"])
def test_any_image_suffix_is_found(tmp_path, suffix):
    (tmp_path / f"a.1{suffix}").touch()
    assert find_image(tmp_path, "a.1") == str(tmp_path / f"a.1{suffix}")


def test_jpg_comes_first_and_is_the_default(tmp_path):
    assert find_image(tmp_path, "a") == str(tmp_path / "a.jpg")
    (tmp_path / "a.png").touch()
    (tmp_path / "a.jpg").touch()
    assert find_image(tmp_path, "a") == str(tmp_path / "a.jpg")


def test_class_ids_are_positions(parse):
    dataset = parse(voc_object("cat") + voc_object("dog"), classes=("background", "dog", "cat"))
    assert dataset.labels == [[[2, 1, 2, 30, 40], [1, 1, 2, 30, 40]]]
    assert dataset.class_names == ["background", "dog", "cat"]


def test_remapped_classes(parse):
    objects = "".join(map(voc_object, ("person", "dog", "cat")))
    dataset = parse(objects, include_classes=["person", "cat"], remap_classes=True)
    assert dataset.labels == [[[2, 1, 2, 30, 40], [1, 1, 2, 30, 40]]]
    assert dataset.class_names == ["background", "cat", "person"]
    # The call that failed for users: one class, an encoder for one class.
    dataset = parse(objects, include_classes=[15], remap_classes=True)
    assert dataset.labels == [[[1, 1, 2, 30, 40]]]
    assert VOC_CLASSES[15] == "person"


def test_unknown_class(parse):
    message = r"a.xml, object 1 \('erythrocyte'\): .* not in classes; known: .*20 'tvmonitor'. Pass"
    with pytest.raises(AnnotationError, match=message):
        parse(voc_object("erythrocyte"))


def test_classes_without_background(parse):
    message = r"object 1 \('dog'\): class id 0 is not .* must begin with 'background'"
    with pytest.raises(AnnotationError, match=message):
        parse(voc_object("dog"), classes=["dog", "cat"])


def test_invalid_boxes(parse):
    objects = voc_object("cat", BOX.replace("30", "1")) + voc_object("dog")
    dataset = parse(objects)
    assert len(dataset.labels[0]) == len(dataset.eval_neutral[0]) == 2
    assert "a.xml, object 1 ('cat'): the box" in dataset.invalid_boxes[0]
    dataset = parse(objects, on_invalid_boxes="drop")
    assert dataset.labels == [[[12, 1, 2, 30, 40]]]
    assert dataset.eval_neutral == [[False]]
    assert len(dataset.invalid_boxes) == 1
    with pytest.raises(AnnotationError, match="object 1 .* = .1, 2, 1, 40. has no size"):
        parse(objects, on_invalid_boxes="raise")


@pytest.mark.parametrize("tag", ["truncated", "difficult"])
def test_boxes_that_are_left_out_may_be_invalid(parse, tag):
    objects = voc_object("cat", BOX.replace("30", "nan"), f"<{tag}>1</{tag}>") + voc_object("dog")
    with pytest.raises(AnnotationError, match="object 1 .* is not finite"):
        parse(objects)
    dataset = parse(objects, on_invalid_boxes="raise", **{f"exclude_{tag}": True})
    assert dataset.labels == [[[12, 1, 2, 30, 40]]]
    assert dataset.invalid_boxes == []


def test_missing_annotation(tmp_path):
    (tmp_path / "set.txt").write_text("000012  1\n")
    message = "000012  1.xml: this .*set.txt, line 1, lists .*'000012  1'.*second column"
    with pytest.raises(AnnotationError, match=message):
        parse_voc([str(tmp_path)], [str(tmp_path / "set.txt")], [str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("images", ["set.txt"]), "images_dirs must be a list of paths, got one path: 'images'"),
        ((["images"], "set.txt"), "image_set_filenames must be a list of paths"),
        ((["images"], ["a.txt", "b.txt"]), "one entry per image set, got .*1.*2"),
        ((["images"], ["a.txt"], ["x", "y"]), "one entry per image set, got .*'annotations_dirs'"),
    ],
)
def test_lists_of_paths(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse_voc(*arguments)
