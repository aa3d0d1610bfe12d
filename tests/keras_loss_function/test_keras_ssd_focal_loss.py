"""Focal loss: worked cases, a slow reference, its kinship with the cross-entropy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_loss_function.keras_ssd_focal_loss import SSDFocalLoss
from keras_loss_function.keras_ssd_loss import SSDLoss
from keras_loss_function.metrics import loss_metrics
from tests.gradients import gradient_by_prediction
from tests.slow_loss import slow_focal_class_loss

N_CLASSES = 4  # with the background
ACTIVATIONS = ["softmax", "sigmoid"]


def value(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def random_batch(
    rng: np.random.Generator, class_activation: str = "softmax"
) -> tuple[np.ndarray, np.ndarray]:
    """Draw targets of positives, negatives and neutral boxes, and predictions."""
    y_true = np.zeros((3, 20, N_CLASSES + 12), np.float32)
    classes = rng.integers(-1, N_CLASSES, (3, 20))  # -1: neutral
    y_true[..., :N_CLASSES] = classes[..., np.newaxis] == np.arange(N_CLASSES)
    y_true[..., -12:-8] = rng.normal(size=(3, 20, 4)) * (classes > 0)[..., np.newaxis]
    logits = rng.normal(0, 2, (3, 20, N_CLASSES))
    if class_activation == "softmax":
        scores = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    else:
        scores = 1 / (1 + np.exp(-logits))
    rest = rng.normal(0, 1.5, (3, 20, 12))
    return y_true, np.concatenate([scores, rest], axis=-1).astype(np.float32)


def one_box(true_class: int, scores: list[float]) -> tuple[np.ndarray, np.ndarray]:
    y_true = np.zeros((1, 1, len(scores) + 12), np.float32)
    y_true[..., true_class] = 1
    return y_true, np.float32([[scores + [0] * 12]])


@pytest.mark.parametrize(
    ("class_activation", "focal_alpha", "true_class", "expected"),
    [
        ("softmax", None, 0, 0.4**2 * -np.log(0.6)),
        ("softmax", None, 1, 0.7**2 * -np.log(0.3)),
        ("softmax", 0.25, 0, 0.75 * 0.4**2 * -np.log(0.6)),
        ("softmax", 0.25, 1, 0.25 * 0.7**2 * -np.log(0.3)),
        ("softmax", [2, 3, 5], 2, 5 * 0.9**2 * -np.log(0.1)),
        # Two questions an anchor: class 1? (0.3) class 2? (0.1) The background's score is unused.
        ("sigmoid", None, 0, 0.3**2 * -np.log(0.7) + 0.1**2 * -np.log(0.9)),
        ("sigmoid", None, 1, 0.7**2 * -np.log(0.3) + 0.1**2 * -np.log(0.9)),
        ("sigmoid", 0.25, 1, 0.25 * 0.7**2 * -np.log(0.3) + 0.75 * 0.1**2 * -np.log(0.9)),
        ("sigmoid", [2, 3, 5], 2, 5 * 0.9**2 * -np.log(0.1) + 2 * 0.3**2 * -np.log(0.7)),
    ],
)
def test_by_hand(class_activation, focal_alpha, true_class, expected):
    loss = SSDFocalLoss(2, focal_alpha, class_activation)
    made = value(loss.compute_loss(*one_box(true_class, [0.6, 0.3, 0.1])))
    np.testing.assert_allclose(made, [expected], rtol=1e-5)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    gamma=st.sampled_from([0, 0.5, 1, 2, 5]),
    focal_alpha=st.sampled_from([None, 0.25, 1, [0.5, 1.0, 2.0, 4.0]]),
    class_activation=st.sampled_from(ACTIVATIONS),
)
def test_losses_are_those_of_the_slow_reference(seed, gamma, focal_alpha, class_activation):
    y_true, y_pred = random_batch(np.random.default_rng(seed), class_activation)
    factors = focal_alpha
    if not isinstance(factors, list):
        factors = [1.0] * 4 if factors is None else [1 - factors] + [factors] * 3
    loss = SSDFocalLoss(gamma, focal_alpha, class_activation)
    made = value(loss.classification_loss(y_true, y_pred))
    expected = slow_focal_class_loss(y_true, y_pred, gamma, factors, class_activation)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        value(loss.localization_loss(y_true, y_pred)),
        value(SSDLoss().localization_loss(y_true, y_pred)),
    )


def test_at_gamma_0_it_is_the_cross_entropy():
    y_true, y_pred = random_batch(np.random.default_rng(0))
    y_pred[0, :5, :N_CLASSES] = [1, 0, 0, 0]
    made = value(SSDFocalLoss(gamma=0, focal_alpha=None).compute_loss(y_true, y_pred))
    every_negative = SSDLoss(neg_pos_ratio=1000)
    np.testing.assert_allclose(made, value(every_negative.compute_loss(y_true, y_pred)), rtol=1e-6)


@pytest.mark.parametrize("class_activation", ACTIVATIONS)
def test_neutral_boxes_have_no_gradient(class_activation):
    y_true, y_pred = random_batch(np.random.default_rng(0), class_activation)
    loss = SSDFocalLoss(class_activation=class_activation)
    slope = gradient_by_prediction(lambda p: loss.compute_loss(y_true, p), y_pred)
    neutral = ~y_true[..., :N_CLASSES].any(axis=-1)
    np.testing.assert_array_equal(slope[neutral], 0)
    assert slope[~neutral].any(axis=-1).all()
    if class_activation == "sigmoid":
        np.testing.assert_array_equal(slope[..., 0], 0)  # the background's score plays no role


@pytest.mark.parametrize("class_activation", ACTIVATIONS)
@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_extreme_predictions_give_finite_losses_and_gradients(class_activation, gamma):
    y_true, y_pred = random_batch(np.random.default_rng(0), class_activation)
    y_pred[:, ::2, :N_CLASSES] = [0, 1, 1e-38, 1 - 6e-8]
    y_pred[:, ::3, :N_CLASSES] = [1, 0, 0, 0]
    loss = SSDFocalLoss(gamma, class_activation=class_activation)
    assert np.isfinite(value(loss.compute_loss(y_true, y_pred))).all()
    slope = gradient_by_prediction(lambda p: loss.compute_loss(y_true, p), y_pred)
    assert np.isfinite(slope).all()


def test_half_precision_is_computed_in_float32():
    half = [keras.ops.cast(t, "bfloat16") for t in random_batch(np.random.default_rng(0))]
    rounded = [keras.ops.cast(t, "float32") for t in half]
    losses = SSDFocalLoss().compute_loss(*half)
    assert keras.backend.standardize_dtype(losses.dtype) == "float32"
    np.testing.assert_array_equal(value(losses), value(SSDFocalLoss().compute_loss(*rounded)))


@pytest.mark.parametrize("class_activation", ACTIVATIONS)
def test_the_parts_that_metrics_report_add_up(class_activation):
    y_true, y_pred = random_batch(np.random.default_rng(0), class_activation)
    loss = SSDFocalLoss(class_activation=class_activation, alpha=2.5, box_loss="smooth_l1")
    classes, boxes, _ = loss_metrics(loss)
    classes.update_state(y_true, y_pred)
    boxes.update_state(y_true, y_pred)
    total = float(classes.result()) + 2.5 * float(boxes.result())
    np.testing.assert_allclose(total, value(loss(y_true, y_pred)), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -1}, "`gamma`.*-1"),
        ({"focal_alpha": 1.5}, r"`focal_alpha`.*in \[0, 1\]; got 1.5"),
        ({"focal_alpha": [0.5, -1]}, "`focal_alpha` must hold one number a class"),
        ({"class_activation": "relu"}, "softmax, sigmoid; got 'relu'"),
        ({"alpha": -1}, "`alpha`.*-1"),
        ({"box_loss": "iou"}, "giou.*'iou'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SSDFocalLoss(**arguments)


def test_factors_for_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match="`focal_alpha`.*4 for this model; got 3"):
        SSDFocalLoss(focal_alpha=[1, 2, 3]).compute_loss(*random_batch(np.random.default_rng(0)))
