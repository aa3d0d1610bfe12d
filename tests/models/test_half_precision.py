"""Mixed precision: what stays float32, what training does, and how near the detections are.

The convolutions, those of the predictor heads among them, compute in half precision. Rounding the
heads' outputs adds little to what the base network has already rounded (see `build_ssd`).
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_loss_function.keras_ssd_loss import SSDLoss
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300
from ssd_encoder_decoder.box_coder import decode_boxes, to_corners
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
from tests.recorded_models import recorded_image, set_recorded_weights

SIZE = (64, 96, 3)
policies = pytest.mark.parametrize(
    "half_precision", ["mixed_bfloat16", "mixed_float16"], indirect=True
)


@pytest.fixture
def half_precision(request):
    """Use a half precision policy for the models of one test; return its name."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def images_of(size=SIZE, n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *size)).astype(np.float32)


def small_ssd7(mode: str = "training") -> keras.Model:
    return build_model(
        SIZE, 2, mode, normalize_coords=True, subtract_mean=127.5, divide_by_stddev=127.5
    )


def small_ssd300(mode: str = "training") -> keras.Model:
    return ssd_300((257, 257, 3), 2, mode, scales=SCALES_VOC, steps=None)


@policies
@pytest.mark.parametrize("make", [small_ssd7, small_ssd300])
def test_predictions_are_float32_and_their_anchors_exact(make, half_precision):
    model = make()
    compute_dtype = half_precision.removeprefix("mixed_")
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in convolutions} == {compute_dtype}
    assert {w.dtype for w in model.weights} == {"float32"}
    y_pred = model.predict(images_of(model.input_shape[1:], 1), verbose=0)
    assert y_pred.dtype == np.float32
    # A softmax in half precision would not sum up to 1.
    np.testing.assert_allclose(y_pred[..., :3].sum(axis=-1), 1, rtol=1e-5)
    # Half precision would have moved anchors by pixels.
    template = SSDInputEncoder.from_model(model).generate_encoding_template(1)
    np.testing.assert_array_equal(y_pred[..., -8:], template[..., -8:])


@policies
@pytest.mark.parametrize("mode", ["inference", "inference_fast"])
def test_detections_are_float32(half_precision, mode):
    detections = small_ssd7(mode).predict(images_of(), verbose=0)
    assert detections.dtype == np.float32
    assert detections.shape == (2, 200, 6)


@policies
def test_training_reduces_the_loss(half_precision):
    keras.utils.set_random_seed(0)
    model = small_ssd7()
    encoder = SSDInputEncoder.from_model(model)
    x, y = images_of(), encoder([[[1, 5, 5, 40, 50]], [[2, 20, 10, 90, 60], [1, 50, 30, 80, 60]]])
    model.compile(keras.optimizers.Adam(1e-3), SSDLoss())
    # Gradients would underflow in float16; Keras multiplies the loss for it, and divides again.
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (half_precision == "mixed_float16")
    losses = [float(model.train_on_batch(x, y)) for _ in range(10)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]
    assert all(np.isfinite(array).all() for array in model.get_weights())


def decoded(y_pred: np.ndarray) -> np.ndarray:
    """Return the boxes of all anchors, (n_boxes, 4) corners in fractions of the image."""
    (rows,) = y_pred
    boxes = decode_boxes(rows[:, -12:-8], rows[:, -8:-4], rows[:, -4:], "centroids")
    return to_corners(boxes, "centroids")


def iou_of_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    shared = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.prod(np.maximum(shared, 0), axis=-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (a, b)]
    return shared / (areas[0] + areas[1] - shared)


@pytest.mark.parametrize(
    ("half_precision", "least_iou", "largest_difference"),
    [("mixed_bfloat16", 0.96, 0.1), ("mixed_float16", 0.99, 0.02)],
    indirect=["half_precision"],
)
def test_ssd300_finds_what_it_finds_in_float32(
    golden, half_precision, least_iou, largest_difference
):
    """Compare all boxes with a confidence above 0.3, for the recorded weights and image."""
    recorded = golden("models/ssd300")
    image = recorded_image(recorded.info)
    half = ssd_300(**recorded.info["kwargs"])
    keras.config.set_dtype_policy("float32")
    full = ssd_300(**recorded.info["kwargs"])
    set_recorded_weights(full, recorded.info)
    half.set_weights(full.get_weights())
    expected, made = (model.predict(image, verbose=0) for model in (full, half))
    confidence = expected[0, :, 1:-12].max(axis=-1)
    found = confidence > 0.3
    assert found.sum() > 1000
    differences = np.abs(made - expected)[0, found, :-12]
    assert differences.max() < largest_difference
    iou = iou_of_pairs(decoded(made)[found], decoded(expected)[found])
    assert iou.min() > least_iou
    # The same class is the best one, except where two are as good as each other.
    ranked = np.sort(expected[0, found, :-12], axis=-1)
    is_clear = ranked[:, -1] - ranked[:, -2] > 2 * largest_difference
    same = made[0, found, :-12].argmax(axis=-1) == expected[0, found, :-12].argmax(axis=-1)
    assert same[is_clear].all()
