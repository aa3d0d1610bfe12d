"""The published weights: what is said of them, and what is checked when they are loaded."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from misc_utils import weights_registry
from misc_utils.model_weights import weights_by_layer
from misc_utils.weights_registry import (
    COCO_CLASSES,
    PUBLISHED_WEIGHTS,
    describe_weights,
    find_published_weights,
    load_published_weights,
)
from models.keras_ssd300 import SCALES_COCO, SCALES_VOC, ssd_300
from models.keras_ssd512 import ssd_512
from tests.caffe_files import write_caffemodel
from tests.legacy_files import keras2_weights, write_keras2_weights

VOC_FILE = "VGG_VOC0712_SSD_300x300_iter_120000.h5"


def write_h5(path, model):
    with h5py.File(path, "w") as file:
        write_keras2_weights(file, keras2_weights(model))
    return path


@pytest.fixture(scope="module")
def voc_model():
    return ssd_300((300, 300, 3), n_classes=20, scales=SCALES_VOC)


@pytest.fixture(scope="module")
def voc_file(voc_model, tmp_path_factory):
    return write_h5(tmp_path_factory.mktemp("weights") / VOC_FILE, voc_model)


def test_names_and_files_are_unique():
    names = [entry.name for entry in PUBLISHED_WEIGHTS]
    files = [file for entry in PUBLISHED_WEIGHTS for file in entry.files]
    assert len(set(names)) == len(names) == 12
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("entry", PUBLISHED_WEIGHTS, ids=lambda entry: entry.name)
def test_entries_are_found_and_described(entry):
    for name in (entry.name, *entry.files, f"/some/folder/{entry.files[0]}"):
        assert find_published_weights(name) is entry
    text = describe_weights(entry.name)
    assert entry.files[0] in text
    assert text in describe_weights()
    assert entry.class_names == () or len(entry.class_names) == entry.n_classes + 1


@pytest.mark.parametrize(
    ("name", "n_classes", "anchors", "smallest"),
    [
        ("ssd300_voc0712", 20, "VOC", 0.1),
        ("ssd300_voc0712plus", 20, "VOC", 0.1),
        # Fine-tuned on VOC, with the anchors of COCO.
        ("ssd300_voc0712_coco", 20, "COCO", 0.07),
        ("ssd512_voc0712plus_coco", 20, "COCO", 0.04),
        ("ssd300_coco", 80, "COCO", 0.07),
        ("ssd512_voc0712", 20, "VOC", 0.07),
        ("torchvision_ssd300_coco", 90, "COCO", 0.07),
    ],
)
def test_entries_say_how_to_build_the_model(name, n_classes, anchors, smallest):
    entry = find_published_weights(name)
    assert entry.n_classes == n_classes
    assert entry.anchors == anchors
    assert entry.settings["scales"][0] == smallest
    assert f"n_classes={n_classes}" in describe_weights(name)


def test_the_described_settings_build_a_model():
    for name, builder, n_boxes in (("ssd512_voc0712", ssd_512, 24564),):
        model = builder(**find_published_weights(name).settings)
        assert model.output_shape == (None, n_boxes, 33)


def test_the_classes_of_coco_are_those_of_its_files(real_data):
    (path,) = sorted((real_data / "coco_cc" / "annotations").glob("*val*.json"))[:1]
    categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
    names = [category["name"] for category in sorted(categories, key=lambda c: c["id"])]
    assert list(COCO_CLASSES) == ["background", *names]


def test_unknown_weights_are_an_error_that_lists_all():
    with pytest.raises(ValueError, match="'my.h5'.* ssd300_voc0712, .*load_legacy_weights"):
        find_published_weights("my.h5")


def test_a_missing_file_says_where_it_was_published(voc_model, tmp_path):
    with pytest.raises(FileNotFoundError, match="published at https"):
        load_published_weights(voc_model, tmp_path / VOC_FILE)


def test_a_file_is_loaded_into_the_model_built_for_it(voc_model, voc_file):
    before = weights_by_layer(voc_model)["fc7"][0]
    voc_model.get_layer("fc7").kernel.assign(np.zeros_like(before))
    assert load_published_weights(voc_model, voc_file).is_complete
    np.testing.assert_array_equal(weights_by_layer(voc_model)["fc7"][0], before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": SCALES_COCO}, "conv4_3_norm: boxes of 30x30.*, of 21x21"),
        ({"steps": None}, "conv4_3_norm: step 8"),
        (
            {
                "aspect_ratios_per_layer": [[1, 2, 0.5], *[[1, 2, 0.5, 3, 1 / 3]] * 3]
                + [[1, 2, 0.5], [2, 1, 0.5]]
            },
            "conv9_2: the same boxes in another order",
        ),
    ],
)
def test_a_model_with_other_anchors_is_a_warning(voc_file, settings, message):
    model = ssd_300(
        **{"image_size": (300, 300, 3), "n_classes": 20, "scales": SCALES_VOC} | settings
    )
    with pytest.warns(UserWarning, match=message):
        load_published_weights(model, voc_file)


def test_weights_of_another_network_are_refused(voc_model, tmp_path):
    kernel, bias = np.zeros((4, 4, 128, 256)), np.zeros(256)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_keras2_weights(
            file, {"conv9_2": {"conv9_2/kernel:0": kernel, "conv9_2/bias:0": bias}}
        )
    with (
        pytest.warns(UserWarning, match="7 predictor layers in the file, 6 in the model"),
        pytest.raises(ValueError, match="does not fit"),
    ):
        load_published_weights(voc_model, tmp_path / "x.h5", name="ssd512_voc0712")


def test_caffe_and_vgg_files_are_told_apart(voc_model, tmp_path):
    path = tmp_path / "VGG_coco_SSD_300x300_iter_400000.caffemodel"
    bias = np.arange(256, dtype=np.float32)
    write_caffemodel(path, {"conv8_2": [np.zeros((256, 128, 3, 3)), bias]})
    report = load_published_weights(voc_model, path)
    assert report.loaded == ("conv8_2",)
    path = path.with_name("VGG_ILSVRC_16_layers_fc_reduced.caffemodel")
    write_caffemodel(path, {"conv1_1": [np.zeros((64, 3, 3, 3)), np.zeros(64)]})
    with pytest.raises(ValueError, match="is no VGG-16: it lacks conv1_2"):
        load_published_weights(voc_model, path)


def test_a_known_sha256_is_checked(voc_model, tmp_path, monkeypatch):
    path = tmp_path / "ssd300_vgg16_coco-b556d3b4.pth"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected b556d3b4"):
        load_published_weights(voc_model, path)
    # With the right one it goes on to the file, which is none.
    monkeypatch.setattr(weights_registry, "load_torchvision_weights", lambda *arguments: "loaded")
    path.write_bytes(b"")
    monkeypatch.setattr(
        weights_registry,
        "find_published_weights",
        lambda name: type("Entry", (), {"sha256": "e3b0c442", "network": "SSD300"}),
    )
    assert load_published_weights(voc_model, path) == "loaded"
