"""Tests of the script that detects, as a user runs it."""

import json
import signal

import cv2
import numpy as np
import pytest

from data_generator.image_reading import read_image
from examples import detect
from examples.digit_scenes import CLASSES


def run(model, output, *inputs):
    arguments = ["--model", model, "--output", output, "--confidence", 0.1, "--top-k", 3]
    detect.main([str(argument) for argument in [*arguments, *inputs]])
    return json.loads((output / "detections.json").read_text())


@pytest.fixture
def film(digit_scenes, tmp_path):
    """Five frames of 96 x 128 pixels at 10 frames a second."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 96))
    for image in sorted((digit_scenes / "JPEGImages").iterdir())[:5]:
        writer.write(cv2.imread(str(image)))
    writer.release()
    return path


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count, capture.get(cv2.CAP_PROP_FPS)


def test_images_and_a_folder(detector_file, digit_scenes, tmp_path, capsys):
    images = sorted((digit_scenes / "JPEGImages").iterdir())
    entries = run(detector_file, tmp_path, images[0], digit_scenes / "JPEGImages")
    assert [entry["file"] for entry in entries] == [str(images[0]), *map(str, images)]
    assert "57 detections in 19 images" in capsys.readouterr().out
    first = entries[0]
    assert (first["width"], first["height"], len(first["detections"])) == (128, 96, 3)
    for found in first["detections"]:
        assert found["class"] == CLASSES[found["class_id"]]
        xmin, ymin, xmax, ymax = found["box"]
        assert 0 <= xmin <= xmax <= 128
        assert 0 <= ymin <= ymax <= 96
    assert entries[1]["detections"] == first["detections"]
    # Small pictures are enlarged, so that names can be read; the original is left alone.
    assert read_image(tmp_path / images[0].name).shape == (384, 512, 3)
    assert read_image(tmp_path / "JPEGImages" / images[1].name).shape == (384, 512, 3)


def test_a_broken_image_does_not_cost_the_others(detector_file, digit_scenes, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    image = next((digit_scenes / "JPEGImages").iterdir()).read_bytes()
    for name in "acd":
        (folder / f"{name}.jpg").write_bytes(image)
    (folder / "b.jpg").write_bytes(image[:500])
    entries = run(detector_file, tmp_path / "out", folder, "--batch-size", 2)
    assert [entry["file"] for entry in entries] == [str(folder / f"{name}.jpg") for name in "acd"]
    assert {path.stem for path in tmp_path.glob("out/photos/*")} == set("acd")
    printed = capsys.readouterr()
    assert "9 detections in 3 images" in printed.out
    assert f"left out: {folder / 'b.jpg'}: " in printed.err


@pytest.mark.parametrize(("options", "count"), [([], 5), (["--seconds", 0.25], 3)])
def test_a_video(options, count, detector_file, film, tmp_path):
    entries = run(detector_file, tmp_path / "out", film, "--batch-size", 2, *options)
    assert [entry["frame"] for entry in entries] == list(range(count))
    assert all(len(entry["detections"]) == 3 for entry in entries)
    assert frames_of(tmp_path / "out" / "film.mp4") == (count, 10)


def test_pictures_can_be_left_out(detector_file, digit_scenes, film, tmp_path):
    image = next((digit_scenes / "JPEGImages").iterdir())
    run(detector_file, tmp_path / "out", image, film, "--no-pictures")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["detections.json"]


class Webcam:
    """An endless camera; at its third picture the user presses Ctrl-C."""

    def __init__(self, number):
        assert number == 0
        self.n_read = 0

    def isOpened(self):  # noqa: N802 (OpenCV's name)
        return True

    def get(self, _):
        return 0.0  # it does not say how many frames a second

    def read(self):
        self.n_read += 1
        if self.n_read == 3:
            signal.raise_signal(signal.SIGINT)
        return True, np.full((96, 128, 3), 10 * self.n_read, np.uint8)

    def release(self):
        pass


def test_ctrl_c_ends_a_webcam_and_keeps_what_was_seen(detector_file, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "VideoCapture", Webcam)
        entries = run(detector_file, tmp_path, "0")
    assert [entry["frame"] for entry in entries] == [0, 1]
    assert frames_of(tmp_path / "webcam0.mp4") == (2, detect.FRAMES_A_SECOND)
    assert signal.getsignal(signal.SIGINT) is before


def test_bad_input_is_explained_in_one_line(detector_file, digit_scenes, tmp_path, error_of):
    def error(*arguments):
        return error_of(
            detect.main, "--model", detector_file, "--output", tmp_path / "out", *arguments
        )

    assert "There is no file, folder or webcam 'nothing.jpg'" in error("nothing.jpg")
    (tmp_path / "empty").mkdir()
    assert "without images" in error(tmp_path / "empty")
    (tmp_path / "text.txt").write_text("no video")
    assert "OpenCV cannot open" in error(tmp_path / "text.txt")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    assert "broken.jpg" in error(tmp_path / "broken.jpg")
    image = next((digit_scenes / "JPEGImages").iterdir())
    assert "Several inputs would be written" in error(image, image)
    assert not (tmp_path / "out" / "detections.json").exists()
    assert not list(tmp_path.glob("out/*"))
