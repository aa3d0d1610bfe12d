"""Tests of the script that draws the README's figures: with an untrained model it draws, too."""

import cv2
import numpy as np
import pytest

from examples import make_figures
from examples.digit_scenes import make_digit_scenes
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder


@pytest.fixture(scope="module")
def model():
    return build_model(
        image_size=(96, 128, 3),
        n_classes=10,
        scales=(0.2, 0.35, 0.5, 0.7, 1.0),
        variances=(0.1, 0.1, 0.2, 0.2),
        normalize_coords=True,
    )


def test_all_figures_are_drawn(model, tmp_path, monkeypatch):
    demo = tmp_path / "demo"
    make_digit_scenes(demo / "digit_scenes", n_train=0, n_val=0, n_test=6)
    (demo / "ssd7").mkdir()
    model.save(demo / "ssd7" / "model.keras")
    scenes = make_figures.load_test_scenes(demo / "digit_scenes")
    scene = next(index for index, labels in enumerate(scenes.labels) if len(labels) > 1)
    for name, draw in make_figures.FIGURES.items():
        drawn = with_scene(draw, scene)
        monkeypatch.setitem(make_figures.FIGURES, name, drawn)

    make_figures.main(["--demo", str(demo), "--output", str(tmp_path / "images")])
    for name in make_figures.FIGURES:
        picture = cv2.imread(str(tmp_path / "images" / f"{name}.png"))
        assert picture.shape[1] > 800
        assert picture.std() > 10


def with_scene(draw, scene):
    """The default scenes are chosen for the demo, which has more of them."""
    return lambda model, dataset: draw(model, dataset, scene=scene)


def test_the_anchor_of_the_offsets_matches_its_box(model):
    encoder = SSDInputEncoder.from_model(model)
    box = np.array([60.0, 50.0, 40.0, 52.0])
    anchor = make_figures.farthest_matched_anchor(encoder, box, (96, 128))
    low = np.maximum(anchor[:2] - anchor[2:] / 2, box[:2] - box[2:] / 2)
    high = np.minimum(anchor[:2] + anchor[2:] / 2, box[:2] + box[2:] / 2)
    intersection = np.prod(high - low)
    union = np.prod(anchor[2:]) + np.prod(box[2:]) - intersection
    assert intersection / union >= 0.5


def test_without_a_demo_it_says_what_to_do(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        make_figures.main(["--demo", str(tmp_path)])
    assert stop.value.code == 2
    assert "make demo" in capsys.readouterr().err
