"""The data generator as a whole: recorded results of the original library, and real use."""

from __future__ import annotations

import inspect
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_generator.batch_generation import RETURNS
from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.image_reading import ImageReadError
from data_generator.object_detection_2d_data_generator import (
    AnnotationError,
    DataGenerator,
    DatasetError,
    DegenerateBatchError,
)
from data_generator.object_detection_2d_geometric_ops import RandomFlip, Resize
from data_generator.object_detection_2d_misc_utils import apply_inverse_transforms
from data_generator.object_detection_2d_photometric_ops import ConvertTo3Channels
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

HERE = Path(__file__).resolve().parent
RECORDED = json.loads((HERE.parent / "golden" / "parsers.json").read_text(encoding="utf-8"))
PARSED = [case for case in RECORDED["cases"] if "result" in case]
# What raised in the original has tests of its own below.
GENERATED = [case for case in RECORDED["generate"] if "batches" in case]
CSV_FORMAT = ["image_name", "xmin", "xmax", "ymin", "ymax", "class_id"]

VOC_SETS = {
    "images_dirs": ["voc/JPEGImages"] * 2,
    "image_set_filenames": ["voc/ImageSets/Main/part1.txt", "voc/ImageSets/Main/part2.txt"],
    "annotations_dirs": ["voc/Annotations"] * 2,
}


@pytest.fixture
def in_golden(golden_dir, monkeypatch):
    """Work in the folder that the recorded paths are relative to."""
    monkeypatch.chdir(golden_dir / "parsers")


@pytest.fixture
def voc(in_golden) -> DataGenerator:
    generator = DataGenerator()
    generator.parse_xml(**VOC_SETS, verbose=False)
    return generator


def make_encoder() -> SSDInputEncoder:
    return SSDInputEncoder(32, 32, 20, predictor_sizes=[[4, 4]], scales=[0.3, 0.6])


def by_id(dictionary: dict) -> dict:
    return {int(key): value for key, value in dictionary.items()}


# ------------------------------------------------------------------ parsers


def recorded_crowds(arguments: dict) -> list[list[bool]]:
    """Look up the crowds, box by box, in the way of the format itself."""
    included = arguments.get("include_classes", "all")
    crowds = []
    for path in arguments["annotations_filenames"]:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        for image in content["images"]:
            crowds.append(
                [
                    bool(entry.get("iscrowd"))
                    for entry in content["annotations"]
                    if entry["image_id"] == image["id"]
                    and (included == "all" or entry["category_id"] in included)
                ]
            )
    return crowds


@pytest.mark.parametrize("case", PARSED, ids=lambda case: case["name"])
def test_recorded_parser_results(in_golden, case):
    generator = DataGenerator(**case.get("constructor", {}))
    returned = getattr(generator, case["method"])(**case["args"], ret=True, verbose=False)
    expected = dict(case["result"])
    if case["method"] == "parse_csv":
        # The original cut the id of 'a.1.png' at the first dot: 'a'.
        expected["image_ids"] = ["a.1", "aa", "b"]
    if case["method"] == "parse_json" and expected["labels"] is not None:
        # The original counted crowds as ordinary objects and knew no neutral boxes here.
        expected["eval_neutral"] = recorded_crowds(case["args"])

    assert generator.filenames == expected["filenames"]
    assert generator.image_ids == expected["image_ids"]
    assert generator.eval_neutral == expected["eval_neutral"]
    assert generator.dataset_size == expected["dataset_size"]
    assert generator.dataset_indices.tolist() == expected["dataset_indices"]
    if expected["labels"] is None:
        assert generator.labels is None
    else:
        found = [np.asarray(labels).tolist() for labels in generator.labels]
        assert found == expected["labels"]
        kinds = [
            f"ndarray/{labels.dtype}" if isinstance(labels, np.ndarray) else type(labels).__name__
            for labels in generator.labels
        ]
        assert kinds == expected["labels_types"]
    assert generator.labels_format == case.get(
        "labels_format", {name: i for i, name in enumerate(generator.labels_output_format)}
    )
    for name in ("cats_to_names", "cats_to_classes", "classes_to_cats"):
        if name in case:
            assert getattr(generator, name) == by_id(case[name])
    if "classes_to_names" in case:
        assert generator.classes_to_names == generator.class_names == case["classes_to_names"]

    lists = [generator.images, generator.filenames, generator.labels, generator.image_ids]
    if case["method"] == "parse_xml":
        lists.append(generator.eval_neutral)
    assert all(a is b for a, b in zip(returned, lists, strict=True))
    assert getattr(generator, case["method"])(**case["args"], verbose=False) is None


def test_recorded_images_in_memory(in_golden):
    (case,) = (case for case in RECORDED["cases"] if case["name"] == "voc images in memory")
    generator = DataGenerator(**case["constructor"], verbose=False)
    generator.parse_xml(**case["args"], verbose=False)
    assert [list(image.shape) for image in generator.images] == case["images_shapes"]
    assert {str(image.dtype) for image in generator.images} == {case["images_dtype"]}


def test_parsers_remember_what_they_were_given(in_golden):
    generator = DataGenerator()
    generator.parse_csv("csv/images", "csv/labels.csv", CSV_FORMAT, include_classes=[2, 3])
    assert generator.images_dir == "csv/images"
    assert generator.labels_filename == "csv/labels.csv"
    assert generator.input_format == CSV_FORMAT
    assert generator.include_classes == [2, 3]
    assert generator.classes is generator.class_names is None
    names = ["background", "a", "b", "c"]
    generator.parse_csv("csv/images", "csv/labels.csv", CSV_FORMAT, classes=names)
    assert generator.classes == generator.class_names == names
    generator.parse_xml(**VOC_SETS, verbose=False)
    assert generator.images_dirs == VOC_SETS["images_dirs"]
    assert generator.image_set_filenames == VOC_SETS["image_set_filenames"]
    assert generator.annotations_dirs == VOC_SETS["annotations_dirs"]
    assert generator.classes[15] == "person"


def test_csv_arguments_that_must_be_given():
    with pytest.raises(ValueError, match="labels_filename must be given"):
        DataGenerator().parse_csv("images", None, CSV_FORMAT)


def test_csv_columns_named_by_the_header(in_golden):
    by_format, by_header = DataGenerator(), DataGenerator()
    by_format.parse_csv("csv/images", "csv/labels.csv", CSV_FORMAT)
    by_header.parse_csv("csv/images", "csv/labels.csv")
    assert by_header.filenames == by_format.filenames
    for found, expected in zip(by_header.labels, by_format.labels, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_failed_parse_leaves_the_data_set(voc, tmp_path):
    before = [list(entries) for entries in voc.get_dataset()]
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(AnnotationError):
        voc.parse_json(["images"], [str(tmp_path / "broken.json")])
    assert [list(entries) for entries in voc.get_dataset()] == before


def test_existence_check(in_golden):
    arguments = VOC_SETS | {"images_dirs": ["voc/JPEGImages", "elsewhere"]}
    generator = DataGenerator()
    with pytest.raises(AnnotationError, match="1 of 4 image files do not exist, .*elsewhere"):
        generator.parse_xml(**arguments, verbose=False, check_images=True)
    generator.parse_xml(**VOC_SETS, verbose=False, check_images=True)
    generator.parse_csv("csv/images", "csv/labels.csv", CSV_FORMAT, check_images=True)
    with pytest.raises(AnnotationError, match="3 of 3"):
        generator.parse_csv("elsewhere", "csv/labels.csv", CSV_FORMAT, check_images=True)
    with pytest.raises(AnnotationError, match="3 of 3"):
        generator.parse_json(["elsewhere"], ["coco/instances.json"], check_images=True)


def test_three_formats_of_one_data_set_agree(real_data):
    folder = real_data / "bccd"
    images = str(folder / "JPEGImages")
    names = ["background", *(folder / "classes.txt").read_text().split()[-3:]]
    from_xml, from_json, from_csv = DataGenerator(), DataGenerator(), DataGenerator()
    from_xml.parse_xml(
        [images],
        [str(folder / "ImageSets/Main/train.txt")],
        [str(folder / "Annotations")],
        classes=names,
        verbose=False,
    )
    from_json.parse_json([images], [str(folder / "coco/train.json")], True, verbose=False)
    from_csv.parse_csv(images, str(folder / "csv/train.csv"), CSV_FORMAT, check_images=True)
    assert from_xml.dataset_size == 205
    assert sum(map(len, from_xml.labels)) == 2805
    assert from_json.class_names == names
    assert from_json.labels == from_xml.labels
    assert from_json.filenames == from_xml.filenames
    assert len(from_xml.invalid_boxes) == len(from_csv.invalid_boxes) == 1
    expected = dict(zip(from_xml.filenames, map(sorted, from_xml.labels), strict=True))
    found = [labels.tolist() for labels in from_csv.labels]
    assert dict(zip(from_csv.filenames, found, strict=True)) == expected


# ------------------------------------------------------------------ HDF5


def hdf5_source(case: dict) -> DataGenerator:
    """Load the data set that the name of a recorded case speaks of."""
    generator, name = DataGenerator(), case["name"]
    if name.startswith("csv"):
        generator.parse_csv("csv/images", "csv/labels.csv", CSV_FORMAT)
    elif name.startswith("coco"):
        generator.parse_json(["coco/images"], ["coco/instances.json"], True, verbose=False)
        generator.eval_neutral = None  # the original knew no marks of crowds
        if "image_ids=None" in name:
            generator.image_ids = None
    else:
        n_sets = 2 if len(case["image_ids"]) == 4 else 1
        sets = {key: value[:n_sets] for key, value in VOC_SETS.items()}
        generator.parse_xml(**sets, verbose=False)
    return generator


@pytest.mark.parametrize("case", RECORDED["hdf5"], ids=lambda case: case["name"])
def test_recorded_hdf5_files(in_golden, tmp_path, case):
    source = hdf5_source(case)
    original_labels = [np.array(labels).reshape(-1, 5) for labels in source.labels]
    sizes = [source.get_image(i).shape for i in range(source.dataset_size)]
    source.create_hdf5_dataset(tmp_path / "a.h5", **case["args"], verbose=False)
    file = source.hdf5_dataset
    if "raises" in case:  # integer ids and fractions were refused; see below for what comes now
        assert source.image_ids == [139, 42, 7000]
    else:
        check_recorded_file(file, case)

    reloaded = DataGenerator(hdf5_dataset_path=tmp_path / "a.h5")
    assert reloaded.filenames is None
    assert reloaded.dataset_size == source.dataset_size
    assert reloaded.image_ids == source.image_ids  # the original gave bytes
    assert reloaded.eval_neutral == source.eval_neutral
    assert reloaded.class_names == source.class_names
    assert reloaded.classes == source.classes
    for name in ("cats_to_names", "classes_to_names", "cats_to_classes", "classes_to_cats"):
        assert getattr(reloaded, name) == getattr(source, name)
    for labels, original, size in zip(reloaded.labels, original_labels, sizes, strict=True):
        # The original cut COCO's fractions off, left boxes as they were when it resized
        # images, and gave labels of shape (0, 0) for images without objects.
        expected = original.astype(float)
        if case["args"].get("resize"):
            height, width = case["args"]["resize"]
            scale = np.array([width / size[1], height / size[0]] * 2)
            expected[:, 1:] = np.rint(expected[:, 1:] * scale)
        np.testing.assert_allclose(labels, expected, rtol=1e-6)
        assert labels.shape[1] == 5
        assert labels.dtype == (np.float32 if case["name"].startswith("coco") else np.int32)


def check_recorded_file(file, case: dict) -> None:
    for name, value in case["attrs"].items():
        assert file.attrs[name] == value
    for name, facts in case["datasets"].items():
        assert file[name].shape == tuple(facts["shape"])
        assert file[name].maxshape == tuple(facts["maxshape"])
    assert set(file) == set(case["datasets"])
    assert file["image_shapes"][:].tolist() == case["image_shapes"]
    rows = [[count, 5] for count, _ in case["label_shapes"]]  # (0, 0) there is (0, 5) here
    assert file["label_shapes"][:].tolist() == rows
    if "eval_neutral" in case:
        assert [marks.tolist() for marks in file["eval_neutral"][:]] == case["eval_neutral"]


# ------------------------------------------------------------------ batches


TRANSFORMATIONS = {"ConvertTo3Channels": ConvertTo3Channels, "Resize": lambda: Resize(32, 32)}


@pytest.mark.parametrize("case", GENERATED, ids=lambda case: case["name"])
def test_recorded_batches(voc, case):
    arguments = dict(case["args"])
    names = arguments.get("transformations", [])
    arguments["transformations"] = [TRANSFORMATIONS[name]() for name in names]
    if "returns" in arguments:
        arguments["returns"] = set(arguments["returns"])
    if "label_encoder" in arguments:
        arguments["label_encoder"] = make_encoder()
    if case["name"] == "labels None":
        voc.labels = voc.eval_neutral = None
    batches = voc.generate(**arguments)
    first = case["batches"][0]
    if case["warnings"] == ["UserWarning"]:
        with pytest.warns(UserWarning, match="gives None for"):
            check_batch(next(batches), first)
    else:
        check_batch(next(batches), first)
    for expected in case["batches"][1:]:
        check_batch(next(batches), expected)


def check_batch(batch: tuple, expected: list[dict]) -> None:
    assert type(batch) is tuple  # the original gave lists, which Keras takes for several inputs
    assert len(batch) == len(expected)
    for part, facts in zip(batch, expected, strict=True):
        assert type(part).__name__ == facts["type"]
        if part is not None:
            assert len(part) == facts["len"]
        if facts["shape"] is not None and facts["dtype"] == "uint8":
            assert part.shape == tuple(facts["shape"])
            assert part.dtype == np.uint8
        elif facts["shape"] is not None:
            assert part.shape[::2] == tuple(facts["shape"])[::2]  # the encoder here has 64 anchors
        if facts["value"] is not None:
            assert part == facts["value"]


def test_images_without_objects_can_be_kept(voc):
    """The original raised IndexError: labels [] had no second axis."""
    batches = voc.generate(
        4,
        shuffle=False,
        transformations=[Resize(32, 32), RandomFlip()],
        label_encoder=make_encoder(),
        returns={"processed_labels", "encoded_labels"},
        keep_images_without_gt=True,
    )
    encoded, labels = next(batches)
    assert [boxes.shape for boxes in labels] == [(3, 5), (1, 5), (0, 5), (2, 5)]
    assert (encoded[2, :, 1:-12] == 0).all()
    assert encoded[0, :, 1:-12].any()


def test_batch_of_images_without_objects(voc):
    batches = voc.generate(1, shuffle=False, returns={"processed_images"})
    next(batches)
    next(batches)
    with pytest.raises(DegenerateBatchError, match="All 1 images of a batch were dropped"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def test_no_data_set():
    batches = DataGenerator().generate()  # nothing happens before the first batch is asked for
    with pytest.raises(DatasetError, match="No data set is loaded"):
        next(batches)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size(voc, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        next(voc.generate(batch_size, returns={"processed_images"}))


def test_the_default_batch_is_what_fit_wants(voc):
    voc.labels[2] = [[1, 2, 3, 10, 12]]
    voc.eval_neutral[2] = [False]
    batches = voc.generate(3, transformations=[Resize(32, 32)], label_encoder=make_encoder())
    images, targets = next(batches)
    assert images.shape == (3, 32, 32, 3)
    assert targets.shape[0] == 3
    assert len(next(batches)[0]) == 1, "the last batch of a pass is shorter"
    assert len(next(batches)[0]) == 3


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_every_pass_has_every_image_once_and_lists_stay_as_they_are(voc, batch_size):
    before = [list(entries) for entries in voc.get_dataset()]
    returns = {"image_ids", "filenames", "original_labels"}
    batches = voc.generate(batch_size, returns=returns, keep_images_without_gt=True, seed=0)
    n_batches = -(-4 // batch_size)
    labels_of = dict(zip(voc.image_ids, voc.labels, strict=True))
    for _ in range(3):
        seen = []
        for filenames, ids, labels in itertools.islice(batches, n_batches):
            seen += ids
            for filename, image_id, boxes in zip(filenames, ids, labels, strict=True):
                assert filename == f"voc/JPEGImages/{image_id}.jpg"
                assert boxes.tolist() == labels_of[image_id]
        assert sorted(seen) == sorted(voc.image_ids)
    assert [list(entries) for entries in voc.get_dataset()] == before


def take(generator: DataGenerator, n_batches: int, **options) -> list:
    """Take batches with an augmentation that draws many random numbers."""
    chain = DataAugmentationConstantInputSize()
    options = {"batch_size": 2, "keep_images_without_gt": True} | options
    batches = generator.generate(
        transformations=[chain, Resize(32, 32)],
        returns={"processed_images", "processed_labels", "image_ids"},
        **options,
    )
    return list(itertools.islice(batches, n_batches))


def assert_same(batches: list, others: list) -> None:
    assert len(batches) == len(others)
    for (images, labels, ids), (images2, labels2, ids2) in zip(batches, others, strict=True):
        assert ids == ids2
        np.testing.assert_array_equal(images, images2)
        for boxes, boxes2 in zip(labels, labels2, strict=True):
            np.testing.assert_array_equal(boxes, boxes2)


def test_the_same_seed_gives_the_same_batches(voc):
    batches = take(voc, 8, seed=5)
    assert_same(batches, take(voc, 8, seed=5))
    other = take(voc, 8, seed=6)
    assert any((a[0] != b[0]).any() for a, b in zip(batches, other, strict=True))


def test_the_seed_decides_for_every_source_of_images(voc, tmp_path):
    expected = take(voc, 4, seed=5)
    in_memory = DataGenerator(load_images_into_memory=True)
    in_memory.parse_xml(**VOC_SETS, verbose=False)
    voc.create_hdf5_dataset(tmp_path / "a.h5", verbose=False)
    from_hdf5 = DataGenerator(hdf5_dataset_path=tmp_path / "a.h5")
    for generator in (in_memory, voc, from_hdf5):
        assert_same(take(generator, 4, seed=5), expected)


def test_a_training_that_continues_gets_the_batches_of_the_uninterrupted_one(voc):
    batches = take(voc, 6, seed=5)
    assert_same(take(voc, 2, seed=5, start_epoch=2), batches[4:])


def test_inverse_transforms_take_boxes_back(voc):
    batches = voc.generate(
        2,
        transformations=[RandomFlip(prob=0.5), Resize(20, 90)],
        returns={"processed_labels", "inverse_transform", "original_labels"},
        seed=0,
    )
    voc.labels = [np.array(boxes, np.float32).reshape(-1, 5) for boxes in voc.labels]
    for _ in range(4):
        processed, inverters, original = next(batches)
        predictions = [np.insert(boxes, 1, 0.5, axis=1) for boxes in processed]
        back = apply_inverse_transforms(predictions, inverters)
        for found, expected in zip(back, original, strict=True):
            np.testing.assert_allclose(np.delete(found, 1, axis=1), expected, atol=1e-4)


@pytest.mark.parametrize("damage", ["missing", "cut off", "text"])
def test_damaged_images(in_golden, tmp_path, damage):
    shutil.copytree("voc", tmp_path / "voc")
    path = tmp_path / "voc" / "JPEGImages" / "2008_000345.jpg"
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "cut off" else b"not found")
    generator = DataGenerator()
    generator.parse_xml(
        [str(tmp_path / "voc/JPEGImages")],
        VOC_SETS["image_set_filenames"][:1],
        VOC_SETS["annotations_dirs"][:1],
        verbose=False,
    )
    options = {
        "transformations": [Resize(32, 32)],
        "returns": {"processed_images", "image_ids"},
        "keep_images_without_gt": True,
    }
    with pytest.raises(ImageReadError, match="2008_000345.jpg: "):
        next(generator.generate(3, **options))
    images, ids = next(generator.generate(3, on_image_error="skip", **options))
    assert sorted(ids) == ["000007", "000012"]
    assert len(images) == 2
    assert list(generator.skipped_images) == [str(path)]


def test_grayscale_and_colour_in_one_batch(tmp_path):
    paths = [str(tmp_path / "gray.png"), str(tmp_path / "colour.png")]
    cv2.imwrite(paths[0], np.full((8, 9), 100, np.uint8))
    cv2.imwrite(paths[1], np.full((8, 9, 3), (30, 20, 10), np.uint8))
    generator = DataGenerator(filenames=paths)
    (images,) = next(generator.generate(2, shuffle=False, returns={"processed_images"}))
    assert images[:, 0, 0].tolist() == [[100, 100, 100], [10, 20, 30]]


def test_signatures_start_as_in_the_original():
    expected = {
        "__init__": "load_images_into_memory hdf5_dataset_path filenames filenames_type images_dir "
        "labels image_ids eval_neutral labels_output_format verbose",
        "load_hdf5_dataset": "verbose",
        "parse_csv": "images_dir labels_filename input_format include_classes random_sample ret "
        "verbose",
        "parse_xml": "images_dirs image_set_filenames annotations_dirs classes include_classes "
        "exclude_truncated exclude_difficult ret verbose",
        "parse_json": "images_dirs annotations_filenames ground_truth_available include_classes "
        "ret verbose",
        "create_hdf5_dataset": "file_path resize variable_image_size verbose",
        "generate": "batch_size shuffle transformations label_encoder returns "
        "keep_images_without_gt degenerate_box_handling",
        "save_dataset": "filenames_path labels_path image_ids_path eval_neutral_path",
    }
    for method, names in expected.items():
        found = list(inspect.signature(getattr(DataGenerator, method)).parameters)[1:]
        assert found[: len(names.split())] == names.split()
    defaults = inspect.signature(DataGenerator.generate).parameters
    assert defaults["returns"].default == {"processed_images", "encoded_labels"}
    assert set(RETURNS) >= defaults["returns"].default


def test_no_deep_learning_framework_is_imported():
    code = (
        "import sys, data_generator.object_detection_2d_data_generator;"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
