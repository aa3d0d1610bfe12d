"""Tests of what the scripts share; the scripts' own tests are in tests/examples."""

import argparse

import numpy as np
import pytest

from data_generator.errors import DatasetError
from misc_utils.command_line import (
    add_detector_options,
    add_threshold_options,
    at_least,
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


class TestOpening:
    """Which file is meant."""

    RECIPE = Recipe(backbone="ssd7", image_size=(64, 96))

    def open(self, folder, *arguments):
        parser = argparse.ArgumentParser()
        add_detector_options(parser, folder)
        return open_detector(parser.parse_args([str(a) for a in arguments]), folder)

    def test_weights_take_the_recipe_that_lies_beside_them(self, tmp_path):
        model = build_network(self.RECIPE, n_classes=2)
        path = tmp_path / "best.weights.h5"
        model.save_weights(path)
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
        with pytest.raises(ValueError, match="needs --preset"):
            self.open(tmp_path, "--weights", path)
        (tmp_path / "recipe.toml").write_text(self.RECIPE.to_toml())
        opened = self.open(tmp_path, "--weights", path).model
        for a, b in zip(opened.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_a_preset_that_is_named_wins(self, tmp_path):
        path = tmp_path / "best.weights.h5"
        build_network(self.RECIPE, n_classes=2).save_weights(path)
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
        (tmp_path / "recipe.toml").write_text("backbone = 'no such'")
        (tmp_path / "right.toml").write_text(self.RECIPE.to_toml())
        assert self.open(tmp_path, "--weights", path, "--preset", "right")

    def test_what_is_no_file_of_a_model_is_said(self, tmp_path):
        with pytest.raises(ValueError, match=r"is a folder\. .* \(there is none\)"):
            self.open(tmp_path, "--model", tmp_path)
        (tmp_path / "model.keras").touch()
        with pytest.raises(ValueError, match=r"is a folder\. .*model\.keras"):
            self.open(tmp_path, "--model", tmp_path)
        with pytest.raises(FileNotFoundError, match="no file"):
            self.open(tmp_path, "--model", tmp_path / "other.keras")
        (tmp_path / "x.weights.h5").touch()
        with pytest.raises(ValueError, match="weights only: name it by --weights"):
            self.open(tmp_path, "--model", tmp_path / "x.weights.h5")


@pytest.mark.parametrize("text", ["-0.1", "1.5", "nan", "half"])
@pytest.mark.parametrize("option", ["--confidence", "--iou"])
def test_thresholds_are_shares(option, text, capsys):
    parser = argparse.ArgumentParser()
    add_threshold_options(parser, confidence=0.5)
    assert parser.parse_args([option, "1", "--top-k", "7"]).top_k == 7
    with pytest.raises(SystemExit):
        parser.parse_args([f"{option}={text}"])
    assert f"argument {option}: expected a number from 0 to 1; got '{text}'" in (
        capsys.readouterr().err
    )


def test_whole_numbers_have_a_minimum():
    assert at_least(0)("0") == 0
    for text in ("0", "-1", "1.5", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"from 1 on; got '{text}'"):
            at_least(1)(text)


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
