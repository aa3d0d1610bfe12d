"""Tests of the script that evaluates, as a user runs it."""

import json

import keras
import pytest

from eval_utils.average_precision_evaluator import Evaluator
from examples import evaluate
from examples.digit_scenes import CLASSES
from misc_utils.dataset_sources import open_dataset
from misc_utils.files import write_text
from misc_utils.recipe import Recipe


@pytest.fixture
def image_set(digit_scenes):
    return digit_scenes / "ImageSets" / "Main" / "test.txt"


def run(model, image_set, output, *more):
    arguments = ["--model", model, "--data", image_set, "--output", output, *more]
    return evaluate.main([str(argument) for argument in arguments])


def test_numbers_are_those_of_an_evaluator(detector_file, image_set, tmp_path, capsys):
    metrics = run(detector_file, image_set, tmp_path)
    data = open_dataset([image_set])
    evaluator = Evaluator(keras.saving.load_model(detector_file), 10, data, "training")
    assert metrics["mAP"] == pytest.approx(evaluator(64, 96, 8, verbose=False))
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (tmp_path / "results.json").exists()

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [*CLASSES[1:], "mean"]
    assert lines[-2].split()[2] == f"{metrics['mAP']:.3f}"
    assert lines[-1] == f"the report is in {tmp_path / 'report.html'}"


def test_rules_of_coco(detector_file, image_set, tmp_path, capsys):
    metrics = run(detector_file, image_set, tmp_path, "--rules", "coco")
    assert metrics["coco"]["ap50"] == pytest.approx(metrics["mAP"], abs=1e-6)
    assert "Average Precision  (AP) @[ IoU=0.50:0.95" in capsys.readouterr().out


def test_the_detections_are_written_when_asked_for(detector_file, image_set, tmp_path):
    run(detector_file, image_set, tmp_path, "--predictions", "--top-k", 5)
    names = {path.name for path in (tmp_path / "comp3").iterdir()}
    assert names == {f"comp3_det_test_{name}.txt" for name in CLASSES[1:]}
    entries = json.loads((tmp_path / "results.json").read_text())
    assert len(entries) == 4 * 5
    assert set(entries[0]) == {"image_id", "category_id", "bbox", "score"}
    lines = [line for p in (tmp_path / "comp3").iterdir() for line in p.read_text().splitlines()]
    assert len(lines) == len(entries)


def test_weights_with_a_recipe_are_the_same_model(detector_file, image_set, tmp_path):
    model = keras.saving.load_model(detector_file)
    model.save_weights(tmp_path / "ssd7.weights.h5")
    write_text(tmp_path / "mine.toml", Recipe(backbone="ssd7", image_size=(64, 96)).to_toml())
    arguments = ["--weights", tmp_path / "ssd7.weights.h5", "--preset", tmp_path / "mine.toml"]
    arguments += ["--classes", ",".join(CLASSES[1:]), "--data", image_set, "--output", tmp_path]
    found = evaluate.main([str(argument) for argument in arguments])
    assert found["mAP"] == pytest.approx(run(detector_file, image_set, tmp_path)["mAP"])


def test_bad_input_is_explained_in_one_line(detector_file, image_set, tmp_path, error_of):
    def error(*arguments):
        return error_of(evaluate.main, "--output", tmp_path / "out", "--data", *arguments)

    assert "There is no file 'none.keras'" in error(image_set, "--model", "none.keras")
    assert "there is no such file" in error("none.txt", "--model", detector_file)
    assert "10 classes, but 2 names" in error(
        image_set, "--model", detector_file, "--classes", "cat,dog"
    )
    assert "--weights needs --preset" in error(image_set, "--weights", detector_file)
    (tmp_path / "text.keras").write_text("no model")
    assert error(image_set, "--model", tmp_path / "text.keras")
    assert not (tmp_path / "out").exists()
