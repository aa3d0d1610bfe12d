"""Loading weights by name: recorded files, reports, what does not fit, all or nothing."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from misc_utils.legacy_h5 import load_legacy_weights
from misc_utils.model_weights import weights_by_layer
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300
from tests.legacy_files import keras2_weights, write_keras2_model, write_keras2_weights
from tests.recorded_models import check_predictions, recorded_image

SIZE = (64, 96, 3)


def write(path, weights, **attributes):
    with h5py.File(path, "w") as file:
        write_keras2_weights(file, weights)
        for name, value in attributes.items():
            file.attrs[name] = value
    return path


def same_weights(model, expected):
    weights = weights_by_layer(model)
    assert list(weights) == list(expected)
    return all(
        np.array_equal(array, other)
        for layer, arrays in weights.items()
        for array, other in zip(arrays, expected[layer], strict=True)
    )


@pytest.fixture(scope="module")
def trained():
    """A stand-in for a trained model, with 5 classes."""
    return build_model(SIZE, 5)


@pytest.fixture
def trained_file(tmp_path, trained):
    return write(tmp_path / "trained.h5", keras2_weights(trained))


# ---------------------------------------------------------------------------- recorded files


@pytest.mark.parametrize("name", ["ssd7_keras2_weights", "ssd7_keras216_weights"])
def test_recorded_files_give_the_recorded_output(golden, golden_dir, name):
    recorded = golden("models/ssd7")
    model = build_model(**recorded.info["kwargs"])
    report = load_legacy_weights(model, golden_dir / "models" / f"{name}.h5")
    assert report.is_complete
    assert len(report.loaded) == 22
    check_predictions(model.predict(recorded_image(recorded.info), verbose=0), recorded)


def test_keras_loads_the_same(golden, golden_dir):
    arguments = golden("models/ssd7").info["kwargs"]
    path = golden_dir / "models" / "ssd7_keras216_weights.h5"
    ours, theirs = build_model(**arguments), build_model(**arguments)
    load_legacy_weights(ours, path)
    theirs.load_weights(path, by_name=True)
    assert same_weights(ours, weights_by_layer(theirs))


def test_recorded_layout_of_ssd300(golden_dir, tmp_path):
    """A file with the names and shapes that Keras 2.1.6 wrote for SSD300, filled with numbers."""
    layout = golden_dir / "models" / "ssd300_keras216_h5_layout.json"
    layout = json.loads(layout.read_text(encoding="utf-8"))
    weight_names, shapes = {}, {}
    for name, kind, facts, *_ in layout["tree"]:
        if kind == "dataset":
            shapes[name] = facts
        else:
            weight_names[name] = facts.get("weight_names", [])
    # Numbers that tell the weights apart.
    number = iter(range(1, 1000))
    weights = {
        layer: {
            name: np.full(shapes[f"{layer}/{name}"], next(number) / 1000, np.float32)
            for name in weight_names.get(layer, [])
        }
        for layer in layout["root_attrs"]["layer_names"]
    }
    path = write(tmp_path / "ssd300.h5", weights)
    model = ssd_300((300, 300, 3), 20, scales=SCALES_VOC)
    report = load_legacy_weights(model, path)
    assert report.is_complete, report
    for layer, arrays in weights_by_layer(model).items():
        for array, expected in zip(arrays, weights[layer].values(), strict=True):
            assert array.min() == array.max() == expected.flat[0], layer


# ---------------------------------------------------------------------------- what is loaded


def test_by_name_whatever_the_order(tmp_path, trained):
    weights = keras2_weights(trained)
    path = write(tmp_path / "w.h5", dict(reversed(list(weights.items()))))
    model = build_model(SIZE, 5)
    assert load_legacy_weights(model, path).is_complete
    assert same_weights(model, weights_by_layer(trained))


def test_by_order_whatever_the_names(tmp_path, trained):
    weights = {
        f"layer_{number}": {f"layer_{number}/{key}": array for key, array in arrays.items()}
        for number, arrays in enumerate(keras2_weights(trained).values())
    }
    path = write(tmp_path / "w.h5", weights)
    model = build_model(SIZE, 5)
    assert load_legacy_weights(model, path, by_name=False).is_complete
    assert same_weights(model, weights_by_layer(trained))


def test_full_model_files_and_todays_files(tmp_path, trained):
    write_keras2_model(tmp_path / "full.h5", trained)
    trained.save(tmp_path / "full.keras")
    trained.save_weights(tmp_path / "only.weights.h5")
    for name in ("full.h5", "full.keras", "only.weights.h5"):
        model = build_model(SIZE, 5)
        assert load_legacy_weights(model, tmp_path / name).is_complete, name
        assert same_weights(model, weights_by_layer(trained)), name


def test_partial_files_are_reported(tmp_path, trained):
    weights = keras2_weights(trained)
    weights = {name: weights[name] for name in ("conv1", "bn1", "elu1")}
    weights["fc8"] = {"fc8/kernel:0": np.zeros((1, 2)), "fc8/bias:0": np.zeros(2)}
    model = build_model(SIZE, 5)
    before = weights_by_layer(model)
    report = load_legacy_weights(model, write(tmp_path / "base.h5", weights))
    assert report.loaded == ("conv1", "bn1")
    assert report.unused == ("fc8",)
    assert report.missing[:2] == ("conv2", "bn2")
    assert len(report.missing) == 20
    assert not report.is_complete
    text = str(report)
    assert "2 of 22 layers loaded" in text
    assert "not in the file: conv2, bn2" in text
    assert "only in the file: fc8" in text
    after = weights_by_layer(model)
    assert np.array_equal(after["conv2"][0], before["conv2"][0])
    assert np.array_equal(after["conv1"][0], weights["conv1"]["conv1/kernel:0"])


def test_skipping_layers_of_other_shapes(trained, trained_file):
    model = build_model(SIZE, 2)
    before = weights_by_layer(model)
    report = load_legacy_weights(model, trained_file, skip_mismatch=True)
    heads = [f"classes{stage}" for stage in (4, 5, 6, 7)]
    assert list(report.skipped) == heads
    assert report.skipped["classes4"] == (
        "(3, 3, 64, 24) + (24,) in the file, (3, 3, 64, 12) + (12,) in the model"
    )
    assert "other shapes, not loaded:\n  classes4: (3, 3, 64, 24)" in str(report)
    assert len(report.loaded) == 18
    after, source = weights_by_layer(model), weights_by_layer(trained)
    for layer, arrays in after.items():
        expected = before if layer in heads else source
        assert all(map(np.array_equal, arrays, expected[layer])), layer


def test_a_frozen_model_is_no_different(trained, trained_file):
    model = build_model(SIZE, 5)
    for layer in model.layers:
        layer.trainable = False
    assert load_legacy_weights(model, trained_file).is_complete
    assert same_weights(model, weights_by_layer(trained))


# ---------------------------------------------------------------------------- what is refused


def check_refused(model, path, message, **arguments):
    before = weights_by_layer(model)
    with pytest.raises(ValueError, match=message):
        load_legacy_weights(model, path, **arguments)
    assert same_weights(model, before), "the model changed although loading failed"


def test_another_number_of_classes_is_explained(trained_file):
    check_refused(
        build_model(SIZE, 2),
        trained_file,
        r"(?s)classes4: \(3, 3, 64, 24\) .*model has 5 classes, yours 2 .*transfer_weights.*"
        r"skip_mismatch=True.*n_classes=5",
    )


def test_other_aspect_ratios_are_explained(trained_file):
    model = build_model(SIZE, 5, aspect_ratios_global=[1.0, 2.0])
    check_refused(model, trained_file, "'classes4' the file's model predicts 4 boxes a cell, yours")


def test_other_image_channels(trained_file):
    model = build_model((64, 96, 1), 5)
    check_refused(
        model, trained_file, r"conv1: \(5, 5, 3, 32\) \+ \(32,\) in the file, \(5, 5, 1, 32\)"
    )


def test_nothing_in_common(tmp_path):
    path = write(tmp_path / "resnet.h5", {"res2a": {"res2a/kernel:0": np.zeros((1, 1))}})
    check_refused(build_model(SIZE, 5), path, "No layer .* the file has res2a. Is it a file of an")


def test_by_order_with_another_number_of_layers(tmp_path, trained):
    weights = keras2_weights(trained)
    del weights["conv3"]
    path = write(tmp_path / "w.h5", weights)
    check_refused(build_model(SIZE, 5), path, "has 21, the model 22", by_name=False)


def test_weights_of_a_diverged_training(tmp_path, trained):
    weights = keras2_weights(trained)
    weights["classes7"]["classes7/bias:0"] = np.full(24, np.nan, np.float32)
    path = write(tmp_path / "w.h5", weights)
    check_refused(build_model(SIZE, 5), path, "'classes7' .* are not finite")


def test_kernels_of_theano(tmp_path, trained):
    path = write(tmp_path / "w.h5", keras2_weights(trained), backend=b"theano")
    check_refused(build_model(SIZE, 5), path, "backend Theano")


def test_a_file_that_is_cut_off(trained_file):
    content = trained_file.read_bytes()
    trained_file.write_bytes(content[: len(content) - 1000])
    check_refused(build_model(SIZE, 5), trained_file, "damaged")
