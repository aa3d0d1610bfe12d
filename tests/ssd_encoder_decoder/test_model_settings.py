"""What a model says about itself: freshly built, loaded, and in every mode."""

from __future__ import annotations

import dataclasses

import keras
import pytest

from models.keras_ssd7 import build_model
from ssd_encoder_decoder.anchors import AnchorSettings
from ssd_encoder_decoder.model_settings import read_model_settings

SCALES = [0.1, 0.2, 0.4, 0.8, 1.05]
RATIOS = [[1.0], [1.0, 2.0], [0.5, 1.0, 2.0], [3.0]]
STEPS = [8.0, (16.0, 15.0), None, 64.0]
OFFSETS = [0.5, None, (0.4, 0.6), 0.25]


def model_of(mode: str, **arguments) -> keras.Model:
    return build_model(
        (64, 128, 4),
        5,
        mode,
        scales=SCALES,
        aspect_ratios_per_layer=RATIOS,
        steps=STEPS,
        offsets=OFFSETS,
        variances=[0.1, 0.1, 0.2, 0.2],
        **arguments,
    )


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("mode", ["training", "inference", "inference_fast"])
def test_everything_is_read_back(mode, loaded, tmp_path):
    model = model_of(
        mode,
        two_boxes_for_ar1=False,
        clip_boxes=True,
        normalize_coords=True,
        confidence_thresh=0.2,
        iou_threshold=0.4,
        top_k=30,
    )
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    settings = read_model_settings(model)
    assert (settings.img_height, settings.img_width, settings.img_channels) == (64, 128, 4)
    assert settings.n_classes == 5
    assert settings.mode == mode
    assert settings.predictor_sizes == ((8, 16), (4, 8), (2, 4), (1, 2))
    assert settings.coords == "centroids"
    assert settings.normalize_coords is True
    assert settings.anchors == AnchorSettings(
        scales=tuple(SCALES),
        aspect_ratios=tuple(map(tuple, RATIOS)),
        two_boxes_for_ar1=False,
        steps=tuple(STEPS),
        offsets=tuple(OFFSETS),
        clip_boxes=True,
        variances=(0.1, 0.1, 0.2, 0.2),
        coords="centroids",
        normalize_coords=True,
    )
    decoding = (settings.confidence_thresh, settings.iou_threshold, settings.top_k)
    assert decoding == ((None,) * 3 if mode == "training" else (0.2, 0.4, 30))


def test_the_other_values_are_read_back_too():
    settings = read_model_settings(model_of("training", coords="minmax"))
    assert settings.coords == "minmax"
    assert settings.normalize_coords is False
    assert settings.anchors.two_boxes_for_ar1 is True
    assert settings.anchors.clip_boxes is False


def test_settings_cannot_be_changed():
    settings = read_model_settings(model_of("training"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.n_classes = 3


def test_models_of_another_kind_are_refused_by_name():
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="'classifier' has no AnchorBoxes layers"):
        read_model_settings(keras.Model(inputs, inputs, name="classifier"))

    model = model_of("training")
    headless = keras.Model(model.inputs, model.get_layer("anchors4").output, name="headless")
    with pytest.raises(ValueError, match="'headless' has no layer named 'predictions'"):
        read_model_settings(headless)
