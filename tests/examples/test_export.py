"""Tests of the script that exports, as a user runs it."""

import json

import keras
import numpy as np
import pytest

from examples import export
from examples.digit_scenes import CLASSES
from misc_utils.command_line import with_decoding


def run(model, output, *more):
    export.main([str(a) for a in ["--model", model, "--output", output, *more]])


def test_onnx_finds_the_same_boxes_and_knows_the_classes(detector_file, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run(detector_file, tmp_path / "ssd.onnx", "--confidence", 0.1, "--top-k", 7)
    session = onnxruntime.InferenceSession(tmp_path / "ssd.onnx")
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)
    (found,) = session.run(None, {"images": images})
    model = with_decoding(
        keras.saving.load_model(detector_file), "inference", confidence_thresh=0.1, top_k=7
    )
    np.testing.assert_allclose(found, model.predict(images, verbose=0), rtol=1e-3, atol=1e-3)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["ssd_keras.json"])
    assert facts["class_names"] == list(CLASSES)
    assert (facts["mode"], facts["confidence_thresh"], facts["top_k"]) == ("inference", 0.1, 7)


def test_a_saved_model_without_decoding(detector_file, tmp_path):
    run(detector_file, tmp_path / "saved", "--mode", "training", "--uint8", "--batch-size", 1)
    facts = json.loads((tmp_path / "saved" / "assets.extra" / "ssd_keras.json").read_text())
    assert facts["mode"] == "training"


def test_bad_input_is_explained_in_one_line(detector_file, tmp_path, error_of):
    def error(model, output, *more):
        return error_of(export.main, "--model", model, "--output", tmp_path / output, *more)

    assert "No format is known for" in error(detector_file, "ssd.pb")
    assert "There is no file" in error("none.keras", "ssd.onnx")
    decoding = with_decoding(keras.saving.load_model(detector_file), "inference_fast")
    decoding.save(tmp_path / "fast.keras")
    names = ["--classes", ",".join(CLASSES[1:])]
    assert "'inference_fast' and decodes" in error(tmp_path / "fast.keras", "ssd.onnx", *names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fast.keras"]
