"""Caffe's solver, step by step in NumPy, and what its rules ask of a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_loss_function.keras_ssd_loss import SSDLoss
from misc_utils.caffe_rules import caffe_training
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300

REPOSITORY = Path(__file__).resolve().parents[2]
N_BOXES, N_CLASSES = 6, 3  # with the background
X = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)


def small_model(penalty: float = 0.25) -> keras.Model:
    """A model that is linear in its box offsets, with the layout of a prediction tensor."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    dense = keras.layers.Dense(
        N_BOXES * (N_CLASSES + 12), kernel_regularizer=keras.regularizers.L2(penalty), name="all"
    )
    x = keras.layers.Reshape((N_BOXES, N_CLASSES + 12))(dense(inputs))
    classes = keras.layers.Softmax()(x[..., :N_CLASSES])
    return keras.Model(inputs, keras.layers.Concatenate()([classes, x[..., N_CLASSES:]]))


def targets() -> np.ndarray:
    """All boxes are positives of class 1 with offsets beyond reach: smooth L1 is linear there."""
    y_true = np.zeros((2, N_BOXES, N_CLASSES + 12), np.float32)
    y_true[..., 1] = 1
    y_true[..., N_CLASSES : N_CLASSES + 4] = 1000
    return y_true


def gradients(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient of the loss without decay, by the rules of the softmax and of smooth L1.

    Caffe divides by the number of matches: all boxes of both images.
    """
    logits = (X @ kernel + bias).reshape(2, N_BOXES, -1)[..., :N_CLASSES].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    by_output = np.zeros((2, N_BOXES, N_CLASSES + 12))
    by_output[..., :N_CLASSES] = p - [0, 1, 0]
    by_output[..., N_CLASSES : N_CLASSES + 4] = -1
    by_output = by_output.reshape(2, -1) / (2 * N_BOXES)
    return X.T @ by_output, by_output.sum(axis=0)


not_on_pytorch = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="its compiler warns of what Keras does"
)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=not_on_pytorch)])
def test_steps_are_those_of_caffes_solver(jit_compile):
    model = caffe_training(small_model(), 0.1, boundaries=[3, 5], weight_decay=0.5)
    model.jit_compile = jit_compile
    kernel, bias = (w.astype(np.float64) for w in model.get_weights())
    kernel_step, bias_step = np.zeros_like(kernel), np.zeros_like(bias)
    for rate in (0.1, 0.1, 0.1, 0.01, 0.01, 0.001):
        # SGDSolver: decay enters the gradient, the multiplied rate the momentum.
        by_kernel, by_bias = gradients(kernel, bias)
        kernel_step = 0.9 * kernel_step + rate * (by_kernel + 0.5 * kernel)
        bias_step = 0.9 * bias_step + 2 * rate * by_bias
        kernel, bias = kernel - kernel_step, bias - bias_step
    model.fit(X, targets(), batch_size=2, epochs=6, verbose=0)
    made_kernel, made_bias = model.get_weights()
    np.testing.assert_allclose(made_kernel, kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made_bias, bias, rtol=1e-4, atol=1e-5)


def test_training_goes_on_from_a_file(tmp_path):
    model = caffe_training(small_model(), 0.1, weight_decay=0.5, warmup_steps=3)
    model.fit(X, targets(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.loss, SSDLoss)
    assert loaded.loss.mining == "per_image"
    for each in (model, loaded):
        each.fit(X, targets(), epochs=2, verbose=0)
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


def test_a_fresh_process_needs_only_the_models(tmp_path):
    model = caffe_training(small_model(), weight_decay=0.5, warmup_steps=3)
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, models, keras\n"
        "rates = keras.saving.load_model(sys.argv[1]).optimizer.optimizer.get_config()\n"
        "print(rates['learning_rate']['registered_name'])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, tmp_path / "model.keras"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.stdout.strip() == "ssd_keras>Warmup", result.stderr[-2000:]


def test_departures_are_named():
    model = caffe_training(
        small_model(), 0.1, weight_decay=None, warmup_steps=10, global_clipnorm=1e-6
    )
    before = model.get_weights()[1]
    model.fit(X, targets(), verbose=0)
    # The first step has a thousandth of the rate, and the gradient of all weights the length 1e-6.
    np.testing.assert_allclose(model.get_weights()[1], before, atol=1e-9)
    assert model.get_metrics_result().keys() >= {"classification_loss", "localization_loss"}


def test_another_weight_decay_is_told_of():
    with pytest.raises(ValueError, match=r"all/kernel has L2\(0.0005\).*caffe_faithful=True"):
        caffe_training(small_model(penalty=0.0005))
    caffe_training(small_model(penalty=0.0005), weight_decay=0.001)
    model = build_model((64, 96, 3), 2, l2_regularization=0.00025)
    assert caffe_training(model) is model


def test_networks_that_start_and_decay_as_in_caffe():
    keras.utils.set_random_seed(0)
    model = ssd_300(
        (257, 257, 3), 2, "inference", scales=SCALES_VOC, steps=None, caffe_faithful=True
    )
    kernels = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights if w.ndim == 4}
    assert len(kernels) == 23 + 12
    for path, kernel in kernels.items():
        limit = np.sqrt(3 / np.prod(kernel.shape[:3]))
        assert np.abs(kernel).max() <= limit * (1 + 1e-6), path
        np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.03, err_msg=path)
    same_shape = [kernels[f"conv{i}/kernel"] for i in ("5_1", "5_2", "5_3")]
    assert not np.array_equal(same_shape[0], same_shape[1])  # drawn anew for each layer
    penalties = {
        w.path: None if w.regularizer is None else float(w.regularizer.l2) for w in model.weights
    }
    assert {p for path, p in penalties.items() if path in kernels} == {0.00025}
    assert penalties["conv4_3_norm/conv4_3_norm_gamma"] == 0.00025
    assert {p for path, p in penalties.items() if path.endswith("bias")} == {None}
    assert model.get_layer("decoded_predictions").max_candidates_per_class == 400
    caffe_training(model)
