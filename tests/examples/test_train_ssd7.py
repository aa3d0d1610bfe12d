"""Tests of the training script, on a few digit scenes."""

import contextlib
import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from examples import train_ssd7
from examples.digit_scenes import make_digit_scenes
from misc_utils.detection import detect
from misc_utils.training import NonFiniteLossError
from ssd_encoder_decoder.class_names import get_class_names


@pytest.fixture(scope="module", autouse=True)
def _precision_of_other_tests():
    """The script sets the dtype policy of its process."""
    policy = keras.mixed_precision.dtype_policy()
    yield
    keras.mixed_precision.set_dtype_policy(policy)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "digits"
    return make_digit_scenes(folder, n_train=10, n_val=4, n_test=4, image_size=(96, 128))


def train(scenes, output, *more):
    arguments = ["--data", scenes, "--output", output, "--image-size", "96x128", "--batch-size", 4]
    return train_ssd7.main([str(a) for a in [*arguments, "--pictures", 2, *more]])


@pytest.fixture(scope="module")
def results(scenes, tmp_path_factory):
    output = tmp_path_factory.mktemp("results")
    names = "zero,one,two,three,four,five,six,seven,eight,nine"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        score = train(scenes, output, "--epochs", 2, "--classes", names)
    assert printed.getvalue().splitlines()[-1] == f"mAP@0.5 = {score:.3f}"
    return output, score


def test_all_files_are_written(results):
    output, score = results
    for name in ("model.keras", "classes.txt", "report.html", "loss.png", "precision_recall.png"):
        assert (output / name).stat().st_size > 0
    assert len(list((output / "detections").glob("*.png"))) == 2
    assert not list(output.glob("*.tmp*"))

    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["mAP"] == pytest.approx(score)
    assert set(metrics["average_precisions"]) <= set((output / "classes.txt").read_text().split())

    with open(output / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert 0 <= float(rows[-1]["val_mAP"]) <= 1


def test_the_saved_model_detects(results):
    output, _ = results
    model = keras.saving.load_model(output / "model.keras")
    assert model.dtype_policy.name == "float32"
    (rows,) = detect(model, np.zeros((50, 70, 3), np.uint8), confidence_thresh=0.01)
    assert rows.shape[1] == 6
    listed = (output / "classes.txt").read_text().split()
    assert get_class_names(model) == ["background", *listed]


def test_resume_goes_on_where_it_was(results, scenes, capsys):
    output, _ = results
    train(scenes, output, "--epochs", 3, "--resume")
    assert "resuming after epoch 2" in capsys.readouterr().out
    with open(output / "history.csv", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_a_run_is_not_overwritten(results, scenes):
    output, _ = results
    before = (output / "history.csv").read_bytes()
    with pytest.raises(SystemExit, match="--resume"):
        train(scenes, output, "--epochs", 2)
    assert (output / "history.csv").read_bytes() == before


def test_a_loss_that_is_not_finite_names_its_images(scenes, tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"JPEGImages.*\.jpg"):
        train(scenes, tmp_path, "--epochs", 3, "--learning-rate", "1e30")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", "96"], "HEIGHTxWIDTH"),
        (["--epochs", "1", "--minutes", "1"], "not allowed with"),
        (["--scales", "0.1,x"], "--scales"),
    ],
)
def test_bad_options_are_explained(options, message, capsys):
    with pytest.raises(SystemExit):
        train_ssd7.parse_arguments(["--data", "d", "--output", "o", *options])
    assert message in capsys.readouterr().err


def test_a_folder_without_annotations_is_explained(tmp_path):
    with pytest.raises(SystemExit, match="No annotations"):
        train_ssd7.main(["--data", str(tmp_path), "--output", str(tmp_path / "out")])


def test_a_class_that_is_not_listed_is_explained(scenes, tmp_path):
    with pytest.raises(ValueError, match="zero|one"):
        train(scenes, tmp_path, "--epochs", 1, "--classes", "cat,dog")


@pytest.mark.slow
def test_a_killed_run_goes_on(scenes, tmp_path):
    script = Path(train_ssd7.__file__)
    command = [sys.executable, script, "--data", scenes, "--output", tmp_path / "out"]
    command += ["--image-size", "96x128", "--batch-size", "4", "--epochs", "12", "--pictures", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not list((tmp_path / "out" / "checkpoints").glob("checkpoint-*")):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.05)
        process.kill()
    finished = subprocess.run(
        [*command, "--resume"], check=True, capture_output=True, text=True, timeout=500
    )
    assert "resuming after epoch" in finished.stdout
    assert finished.stdout.splitlines()[-1].startswith("mAP@0.5 = ")
    with open(tmp_path / "out" / "history.csv", encoding="utf-8") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(1, 13))
