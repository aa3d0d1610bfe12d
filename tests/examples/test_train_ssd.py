"""Tests of the training script for all networks, on a few digit scenes."""

import csv
import importlib.util
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from examples import train_ssd
from examples.digit_scenes import CLASSES
from misc_utils.batch_statistics import measure_batch_statistics
from misc_utils.dataset_sources import open_dataset
from misc_utils.detection import detect
from misc_utils.recipe import read_recipe
from ssd_encoder_decoder.class_names import get_class_names
from ssd_encoder_decoder.model_settings import read_model_settings

FOLDER = Path(train_ssd.__file__).parent
KILLED_TRAINING = Path(__file__).with_name("killed_training.py")


@pytest.fixture(scope="module", autouse=True)
def _precision_of_other_tests():
    """The script sets the dtype policy of its process."""
    policy = keras.mixed_precision.dtype_policy()
    yield
    keras.mixed_precision.set_dtype_policy(policy)


def command_line(digit_scenes, output, *more):
    """A tiny SSD7: 10 images in batches of 4 make three steps an epoch, the last one filled up."""
    sets = digit_scenes / "ImageSets" / "Main"
    arguments = ["--preset", "ssd7", "--output", output]
    arguments += ["--train", sets / "train.txt", "--val", sets / "val.txt"]
    arguments += ["--image-size", 64, 96, "--batch-size", 4, "--steps", 5]
    arguments += ["--checkpoint-every", 2, "--validate-every", 4, "--workers", 0]
    return [str(argument) for argument in [*arguments, *more]]


def train(digit_scenes, output, *more):
    train_ssd.main(command_line(digit_scenes, output, *more))


def history(output):
    with open(output / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def results(digit_scenes, tmp_path_factory):
    output = tmp_path_factory.mktemp("results") / "new"
    train(digit_scenes, output, "--fit-anchors")
    return output


def test_all_files_are_written(results):
    assert {path.name for path in results.iterdir()} == {
        "recipe.toml",
        "classes.txt",
        "history.csv",
        "checkpoints",
        "best.weights.h5",
        "model.keras",
    }
    assert (results / "classes.txt").read_text().split() == list(CLASSES[1:])


def test_history_has_losses_and_the_map_of_validated_steps(results):
    rows = history(results)
    assert [row["step"] for row in rows] == ["2", "4", "5"]  # the last round is shorter
    assert [row["val_mAP"] != "" for row in rows] == [False, True, True]
    for row in rows:
        parts = float(row["classification_loss"]) + float(row["localization_loss"])
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-4)
        assert math.isfinite(parts)


def test_the_model_detects_and_computes_in_float32(results):
    model = keras.saving.load_model(results / "model.keras")
    assert model.dtype_policy.name == "float32"
    assert get_class_names(model) == list(CLASSES)
    assert detect(model, np.zeros((50, 70, 3), np.uint8), 0.0, top_k=7)[0].shape == (7, 6)


@pytest.mark.parametrize("n_batches", [0, 2])
def test_statistics_of_batch_normalisation_are_measured_for_what_is_saved(
    n_batches, digit_scenes, tmp_path
):
    train(digit_scenes, tmp_path, "--statistics-batches", n_batches, "--augmentation", "none")
    model = keras.saving.load_model(tmp_path / "model.keras")
    before = model.get_weights()
    recipe = read_recipe([tmp_path / "recipe.toml"])
    batches = open_dataset(recipe.train, (), CLASSES).generate(
        recipe.batch_size,
        transformations=train_ssd.augmentation(recipe),
        returns={"processed_images"},
        seed=recipe.seed,
    )
    assert measure_batch_statistics(model, batches, n_batches=2) == 7
    is_same = [
        np.allclose(a, b, rtol=1e-4) for a, b in zip(model.get_weights(), before, strict=True)
    ]
    assert all(is_same) == (n_batches == 2)


def test_the_recipe_beside_the_results_makes_the_same_recipe(results):
    recipe = read_recipe([results / "recipe.toml"])
    assert (recipe.backbone, recipe.image_size, recipe.steps) == ("ssd7", (64, 96), 5)
    assert recipe.classes == CLASSES[1:]


def test_a_finished_run_resumes_to_its_end(results, digit_scenes, capsys):
    before = history(results)
    train_ssd.main(["--output", str(results), "--resume"])
    assert "resuming after step 5" in capsys.readouterr().out
    assert history(results) == before


def test_a_run_is_not_overwritten(results, digit_scenes, error_of):
    assert "--resume" in error_of(train_ssd.main, *command_line(digit_scenes, results))


def test_another_setting_is_refused(results, digit_scenes, error_of):
    arguments = command_line(digit_scenes, results, "--resume", "--learning-rate", 0.5)
    assert "learning_rate: 0.002 -> 0.5" in error_of(train_ssd.main, *arguments)


def test_other_data_are_refused(results, digit_scenes, error_of):
    other = digit_scenes / "ImageSets" / "Main" / "test.txt"
    arguments = ["--resume", "--fit-anchors", "--train", other]
    arguments = command_line(digit_scenes, results, *arguments)
    assert "other training data" in error_of(train_ssd.main, *arguments)


def test_a_run_of_another_script_is_left_alone(digit_scenes, tmp_path, error_of):
    (tmp_path / "checkpoints").mkdir()
    assert "another script" in error_of(train_ssd.main, *command_line(digit_scenes, tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "voc"], "Known are caffe-faithful, coco-ssd300"),
        (["--train", "nowhere.txt"], "nowhere.txt: there is no such file"),
        ([], "Name the training data"),
        (["--image-size", "300x300"], "Expected a number"),
        (["--image-size", "300"], "`image_size` must be height and width"),
        (["--decay-at", "20", "10"], "`decay_at` must ascend"),
        (["--validate-every", "1500"], "multiple of `checkpoint_every`"),
        (["--steps", "0"], "`steps` must be at least 1"),
        (["--fit-anchors", "--scales", "0.1"], "leave out either it or --scales."),
    ],
)
def test_bad_options_are_explained_in_one_line(options, message, tmp_path, error_of):
    output = tmp_path / "out"
    assert message in error_of(train_ssd.main, "--output", output, *options)
    assert not output.exists()


def test_bad_weights_are_explained_in_one_line(digit_scenes, tmp_path, error_of):
    output = tmp_path / "out"
    arguments = command_line(digit_scenes, output, "--weights", tmp_path / "none.h5")
    assert "There is no file of weights" in error_of(train_ssd.main, *arguments)
    assert not output.exists()


def test_an_image_that_cannot_be_read_is_named_in_one_line(digit_scenes, tmp_path, capsys):
    data = shutil.copytree(digit_scenes, tmp_path / "data")
    name = (data / "ImageSets" / "Main" / "train.txt").read_text().split()[0]
    next((data / "JPEGImages").glob(f"{name}.*")).write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        train(data, tmp_path / "out")
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name}." in line
    assert line.endswith("Then go on with --resume.")


def test_trained_weights_are_a_start_and_a_loss_of_nan_names_its_images(
    results, digit_scenes, tmp_path, capsys
):
    arguments = ["--weights", results / "model.keras", "--optimizer", "sgd", "--warmup-steps", 0]
    with pytest.raises(SystemExit) as stopped:
        train(digit_scenes, tmp_path, *arguments, "--learning-rate", 1e30, "--clip-norm", 0)
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert "class 10 <- 10" in printed.out
    assert "JPEGImages" in printed.err


def test_the_model_has_the_anchors_that_were_fitted_and_written(results):
    recipe = read_recipe([results / "recipe.toml"])
    assert len(recipe.scales) == 1 + len(recipe.aspect_ratios) == 5
    anchors = read_model_settings(keras.saving.load_model(results / "model.keras")).anchors
    assert (anchors.scales, anchors.aspect_ratios) == (recipe.scales, recipe.aspect_ratios)


def test_the_same_command_goes_on_with_the_anchors_it_found(results, digit_scenes, capsys):
    recipe = read_recipe([results / "recipe.toml"])
    train(digit_scenes, results, "--fit-anchors", "--resume")
    printed = capsys.readouterr().out
    assert "resuming after step 5" in printed
    assert "fitted" not in printed
    assert read_recipe([results / "recipe.toml"]) == recipe


def test_a_run_that_ended_before_its_first_checkpoint_keeps_its_anchors(
    digit_scenes, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(train_ssd.TrainingRun, "run", lambda *_: None)
    monkeypatch.setattr(train_ssd.TrainingRun, "finish", lambda _: None)
    train(digit_scenes, tmp_path, "--fit-anchors")
    assert "Boxes with an anchor of IoU >= 0.5: " in capsys.readouterr().out
    recipe = read_recipe([tmp_path / "recipe.toml"])
    recipe = recipe.replace(scales=tuple(0.9 * scale for scale in recipe.scales))
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    train(digit_scenes, tmp_path, "--fit-anchors", "--resume")
    assert "fitted" not in capsys.readouterr().out
    assert read_recipe([tmp_path / "recipe.toml"]) == recipe


def test_print_config_says_that_anchors_are_going_to_be_fitted(tmp_path, capsys):
    arguments = ["--output", str(tmp_path / "out"), "--print-config"]
    train_ssd.main([*arguments, "--fit-anchors"])
    fitted = capsys.readouterr().out
    train_ssd.main(arguments)
    assert fitted.endswith(capsys.readouterr().out)
    assert fitted.startswith("# --fit-anchors")


def test_print_config_prints_and_does_nothing_else(tmp_path, capsys):
    output = tmp_path / "out"
    train_ssd.main(["--output", str(output), "--preset", "coco-ssd512", "--print-config"])
    printed = tmp_path / "printed.toml"
    printed.write_text(capsys.readouterr().out)
    recipe = read_recipe([printed])
    assert recipe == read_recipe([FOLDER / "presets" / "coco-ssd512.toml"])
    assert not output.exists()


@pytest.mark.slow
def test_killed_runs_end_with_the_weights_of_one_that_was_not(digit_scenes, tmp_path):
    settings = ["--steps", 12, "--checkpoint-every", 2, "--validate-every", 6]
    train(digit_scenes, tmp_path / "whole", *settings)
    killed = tmp_path / "killed"
    arguments = command_line(digit_scenes, killed, *settings)

    # First from outside, at a moment of chance after the first checkpoint, ...
    command = [sys.executable, FOLDER / "train_ssd.py", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not list((killed / "checkpoints").glob("checkpoint-*")):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 0.5))
        process.kill()
    # ... then between two checkpoints, and then with half a checkpoint written.
    for moment in ("step=1", "checkpoint=1"):
        before = sorted(path.name for path in (killed / "checkpoints").glob("checkpoint-*"))
        result = subprocess.run(
            [sys.executable, KILLED_TRAINING, moment, *arguments, "--resume", "--workers", "1"],
            capture_output=True,
            text=True,
        )
        assert result.returncode == -signal.SIGKILL, result.stderr[-2000:]
        assert "resuming after step" in result.stdout
        after = sorted(path.name for path in (killed / "checkpoints").glob("checkpoint-*"))
        assert after == before
    assert list((killed / "checkpoints").glob("unfinished-*"))  # which nobody takes for a whole one

    train_ssd.main([*arguments, "--resume"])
    one, two = (keras.saving.load_model(tmp_path / n / "model.keras") for n in ("whole", "killed"))
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    rows = zip(history(tmp_path / "whole"), history(killed), strict=True)
    for expected, found in rows:
        assert expected["step"] == found["step"]
        assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)
    last = [json.loads(next((tmp_path / n).rglob("state.json")).read_text()) for n in
            ("whole", "killed")]  # fmt: skip
    assert last[0]["step"] == last[1]["step"] == 12
    assert last[0]["best_mAP"] == pytest.approx(last[1]["best_mAP"], abs=1e-3)


def test_tensorboard_says_what_it_lacks(digit_scenes, tmp_path, error_of, monkeypatch):
    find = importlib.util.find_spec
    missing = {"tensorflow", "tensorboard"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find(name)
    )
    line = error_of(train_ssd.main, *command_line(digit_scenes, tmp_path, "--tensorboard"))
    assert "--tensorboard needs tensorflow and tensorboard" in line


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs TensorFlow")
def test_tensorboard_gets_the_losses_and_the_map(digit_scenes, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(digit_scenes, tmp_path / "out", "--tensorboard")
    names = {}
    for part in ("train", "validation"):
        events = EventAccumulator(str(tmp_path / "out" / "tensorboard" / part))
        events.Reload()
        names[part] = set(events.Tags()["tensors"])
    assert {"epoch_loss", "epoch_classification_loss"} <= names["train"]
    assert "epoch_mAP" in names["validation"]
