"""Independent scores: their definition, their kinship with a softmax, and how they are decoded."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_layers.class_scores import SigmoidScores
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.ssd_output_decoder import decode_detections, decode_detections_fast

LOGITS = np.random.default_rng(0).normal(0, 3, (2, 5, 4)).astype(np.float32)
SIZE = (64, 96, 3)


def scores_of(logits: np.ndarray, **arguments) -> np.ndarray:
    return keras.ops.convert_to_numpy(SigmoidScores(**arguments)(logits))


def test_by_hand():
    made = scores_of(np.float32([[[1, 1, 3, 0]]]))
    half, likely, unlikely = 0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))
    np.testing.assert_allclose(made, [[[1 - likely, half, likely, unlikely]]], rtol=1e-6)


def test_a_class_and_the_background_alone_are_a_softmax():
    made = scores_of(LOGITS)
    e = np.exp(LOGITS.astype(np.float64))
    np.testing.assert_allclose(made[..., 1:], e[..., 1:] / (e[..., 1:] + e[..., :1]), rtol=1e-5)
    np.testing.assert_allclose(made[..., 0], 1 - made[..., 1:].max(axis=-1), atol=1e-6)


def test_huge_logits_are_certain():
    made = scores_of(np.float32([[[-1e30, 1e30, -1e30], [1e30, -1e30, 5]]]))
    np.testing.assert_array_equal(made, [[[0, 1, 0.5], [1, 0, 0]]])


def test_half_precision_does_not_round_scores():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = scores_of(LOGITS)
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(half, scores_of(LOGITS))


def trained_alike(mode: str, class_activation: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_model(
        SIZE,
        3,
        mode,
        class_activation=class_activation,
        subtract_mean=127.5,
        divide_by_stddev=127.5,
        confidence_thresh=0.6,
        top_k=20,
    )


def image() -> np.ndarray:
    return np.random.default_rng(2).uniform(0, 255, (1, *SIZE)).astype(np.float32)


def test_models_differ_in_their_scores_only():
    soft, independent = (
        trained_alike("training", kind).predict(image(), verbose=0)
        for kind in ("softmax", "sigmoid")
    )
    np.testing.assert_array_equal(soft[..., 4:], independent[..., 4:])
    against_background = soft[..., 1:4] / (soft[..., 1:4] + soft[..., :1])
    np.testing.assert_allclose(independent[..., 1:4], against_background, rtol=1e-4)


@pytest.mark.parametrize(
    ("mode", "decode"),
    [("inference", decode_detections), ("inference_fast", decode_detections_fast)],
)
def test_decoding_within_and_without_the_model(mode, decode, tmp_path):
    model = trained_alike(mode, "sigmoid")
    raw = trained_alike("training", "sigmoid").predict(image(), verbose=0)
    (expected,) = decode(raw, confidence_thresh=0.6, top_k=20, normalize_coords=False)
    detections = model.predict(image(), verbose=0)[0]
    found = detections[detections[:, 0] > 0]
    assert len(found) == len(expected) > 0
    order = np.argsort(-expected[:, 1], kind="stable")
    np.testing.assert_allclose(np.sort(found[:, 1])[::-1], expected[order, 1], rtol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(image(), verbose=0)[0], detections)
    assert "classes_sigmoid" in [layer.name for layer in loaded.layers]


def test_other_activations_are_refused():
    with pytest.raises(ValueError, match="`class_activation`.*softmax, sigmoid; got 'relu'"):
        build_model(SIZE, 3, class_activation="relu")
