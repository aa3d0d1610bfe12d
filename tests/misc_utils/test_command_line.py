"""Tests of what the scripts share; the scripts' own tests are in tests/examples."""

import argparse

import numpy as np
import pytest

from data_generator.errors import DatasetError
from misc_utils.command_line import (
    errors_in_one_line,
    find_presets,
    open_detector,
    with_decoding,
)
from misc_utils.recipe import Recipe
from misc_utils.recipe_network import build_network
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.model_settings import read_model_settings


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, ImportError, DatasetError])
def test_errors_of_the_user_take_one_line(error, capsys):
    parser = argparse.ArgumentParser(prog="script.py")
    with pytest.raises(SystemExit) as stopped, errors_in_one_line(parser):
        raise error("this\n  is wrong")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "script.py: error: this is wrong\n"


def test_errors_of_the_program_keep_their_traceback():
    with pytest.raises(KeyError), errors_in_one_line(argparse.ArgumentParser()):
        raise KeyError("a defect")


def test_presets_are_found_by_name_and_by_path(tmp_path):
    (tmp_path / "one.toml").write_text("")
    path = tmp_path / "one.toml"
    assert find_presets(["one", str(path)], tmp_path) == [path, path]
    with pytest.raises(ValueError, match="no preset 'two'. Known are one"):
        find_presets(["two"], tmp_path)


@pytest.mark.parametrize(
    ("of_model", "beside", "given", "expected"),
    [
        (["background", "cat", "dog"], "tom\nrex", "a, b", ["background", "a", "b"]),
        (["background", "cat", "dog"], "tom\nrex", None, ["background", "cat", "dog"]),
        (None, "tom\nrex", None, ["background", "tom", "rex"]),
        (None, None, None, ["background", "class 1", "class 2"]),
    ],
)
def test_names_of_a_detector(of_model, beside, given, expected, tmp_path):
    build_model((64, 96, 3), 2, class_names=of_model).save(tmp_path / "model.keras")
    if beside:
        (tmp_path / "classes.txt").write_text(beside)
    options = argparse.Namespace(
        model=tmp_path / "model.keras", weights=None, preset=[], classes=given
    )
    assert open_detector(options, tmp_path).class_names == expected


@pytest.mark.parametrize("mode", ["inference", "inference_fast"])
def test_decoding_behind_a_trained_model_is_that_of_the_builder(mode):
    recipe = Recipe(backbone="ssd7", image_size=(64, 96), confidence_thresh=0.1, top_k=9)
    trained = build_network(recipe, n_classes=2)
    built = build_network(recipe, n_classes=2, mode=mode)
    built.set_weights(trained.get_weights())
    found = with_decoding(trained, mode, confidence_thresh=0.1, top_k=9)
    assert read_model_settings(found).mode == mode
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)
    expected = built.predict(images, verbose=0)
    assert expected.any()
    np.testing.assert_allclose(found.predict(images, verbose=0), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="decodes already"):
        with_decoding(found, mode)
