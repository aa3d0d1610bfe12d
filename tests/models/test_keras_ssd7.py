"""SSD7: the recorded structure and output, what it refuses, half precision, files, training."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from data_generator.object_detection_2d_geometric_ops import Resize
from keras_loss_function.keras_ssd_loss import SSDLoss
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
from tests.blood_cells import few_images
from tests.recorded_models import (
    check_detections,
    check_predictions,
    check_structure,
    recorded_image,
    set_recorded_weights,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = (64, 96, 3)


@pytest.fixture
def half_precision():
    """Use mixed bfloat16 for the models of one test."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def images_of(size=SIZE, n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *size)).astype(np.float32)


# ---------------------------------------------------------------------------- recorded models


def test_recorded_structure_and_output(golden):
    recorded = golden("models/ssd7")
    model, sizes = build_model(**recorded.info["kwargs"], return_predictor_sizes=True)
    np.testing.assert_array_equal(sizes, recorded.info["predictor_sizes"])
    assert np.issubdtype(sizes.dtype, np.integer)
    check_structure(model, recorded.info)
    set_recorded_weights(model, recorded.info)
    y_pred = model.predict(recorded_image(recorded.info), verbose=0)
    assert y_pred.dtype == np.float32
    check_predictions(y_pred, recorded)


@pytest.mark.parametrize("mode", ["inference", "inference_fast"])
def test_recorded_detections(golden, mode):
    recorded = golden("models/ssd7")
    facts = recorded.info["modes"][mode]
    model = build_model(**facts["kwargs"], mode=mode)
    last = model.layers[-1]
    assert [last.name, type(last).__name__] == facts["last_layer"]
    assert list(model.output_shape) == facts["output_shape"]
    set_recorded_weights(model, recorded.info)
    detections = model.predict(recorded_image(recorded.info), verbose=0)
    check_detections(detections, recorded.arrays[f"y_{mode}"])


# ---------------------------------------------------------------------------- sizes and settings


@pytest.mark.parametrize(
    ("size", "predictor_sizes"),
    [
        ((64, 64, 1), [(8, 8), (4, 4), (2, 2), (1, 1)]),
        ((64, 128, 3), [(8, 16), (4, 8), (2, 4), (1, 2)]),
        ((130, 71, 4), [(16, 8), (8, 4), (4, 2), (2, 1)]),
        ([64, 64, 5], [(8, 8), (4, 4), (2, 2), (1, 1)]),
    ],
)
def test_images_of_any_size_and_number_of_channels(size, predictor_sizes):
    model, sizes = build_model(size, 2, return_predictor_sizes=True)
    np.testing.assert_array_equal(sizes, predictor_sizes)
    y_pred = model.predict(images_of(size, 1), verbose=0)
    n_boxes = 4 * sum(height * width for height, width in predictor_sizes)
    assert y_pred.shape == (1, n_boxes, 3 + 12)
    np.testing.assert_allclose(y_pred[..., :3].sum(axis=-1), 1, rtol=1e-5)
    template = SSDInputEncoder.from_model(model).generate_encoding_template(1)
    np.testing.assert_array_equal(y_pred[..., -8:], template[..., -8:])


def test_a_single_box_and_repeated_ratios():
    for ratios, per_cell in (([1.0], 1), ([1.0, 1.0], 2)):
        model = build_model(SIZE, 1, aspect_ratios_global=ratios, two_boxes_for_ar1=False)
        assert model.output_shape == (None, per_cell * (8 * 12 + 4 * 6 + 2 * 3 + 1), 14)
    model = build_model(SIZE, 1, aspect_ratios_global=[1.0, 1.0])
    assert model.predict(images_of(), verbose=0).shape[1] == 4 * (8 * 12 + 4 * 6 + 2 * 3 + 1)


def test_preprocessing_is_there_only_if_asked_for():
    names = [layer.name for layer in build_model(SIZE, 2).layers]
    assert names[1:3] == ["identity_layer", "conv1"]
    model = build_model(
        SIZE,
        2,
        subtract_mean=[123, 117, 104],
        divide_by_stddev=np.array([2, 4, 8]),
        swap_channels=np.array([2, 1, 0]),
    )
    names = [layer.name for layer in model.layers]
    assert names[1:6] == [
        "identity_layer",
        "input_mean_normalization",
        "input_stddev_normalization",
        "input_channel_swap",
        "conv1",
    ]
    normalised = keras.Model(model.inputs, model.get_layer("input_channel_swap").output)
    expected = ((images_of() - [123, 117, 104]) / [2, 4, 8])[..., ::-1]
    np.testing.assert_allclose(normalised.predict(images_of(), verbose=0), expected, rtol=1e-6)


def test_no_lambda_layer():
    model = build_model(
        SIZE, 2, "inference", subtract_mean=1, divide_by_stddev=2, swap_channels=[0]
    )
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model.layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aspect_ratios_global": None}, "`aspect_ratios_global`"),
        ({"aspect_ratios_per_layer": [[1.0]] * 3}, "`aspect_ratios_per_layer` must have 4.*got 3"),
        ({"min_scale": None}, "`min_scale`"),
        ({"max_scale": None}, "`max_scale`"),
        ({"scales": [0.1, 0.2, 0.3, 0.4]}, "`scales` must have 5.*got 4"),
        ({"scales": np.array([0.1, 0.2])}, "`scales` must have 5.*got 2"),
        ({"variances": [1.0, 1.0, 1.0]}, "`variances` must have 4.*got 3"),
        ({"variances": [1.0, 1.0, 1.0, 0.0]}, "variances must be greater than 0"),
        ({"steps": [8, 16]}, "`steps` must have 4.*got 2"),
        ({"offsets": [0.5] * 5}, "`offsets` must have 4.*got 5"),
        ({"coords": "yolo"}, "yolo"),
        ({"mode": "evaluation"}, "training, inference, inference_fast; got 'evaluation'"),
        ({"mode": "inference", "coords": "corners"}, "centroids"),
        ({"image_size": (64, 96)}, r"`image_size` must be \(height, width, channels\)"),
        ({"image_size": (None, None, 3)}, r"`image_size`.*all known"),
        ({"image_size": (32, 96, 3)}, "at least 64 pixels"),
        ({"image_size": (64, 96, 1), "subtract_mean": [123, 117, 104]}, "one a channel"),
        ({"swap_channels": True}, "`swap_channels`"),
        ({"swap_channels": [3, 1, 0]}, "`swap_channels` must name channels 0..2"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**{"image_size": SIZE, "n_classes": 2, **arguments})


# ---------------------------------------------------------------------------- half precision


def test_half_precision_keeps_predictions_and_anchors_in_float32(half_precision):
    model = build_model(SIZE, 2, subtract_mean=127.5)
    assert model.get_layer("conv1").compute_dtype == "bfloat16"
    y_pred = model.predict(images_of(), verbose=0)
    assert y_pred.dtype == np.float32
    np.testing.assert_allclose(y_pred[..., :3].sum(axis=-1), 1, rtol=1e-5)
    # bfloat16 would have moved anchors by up to half a pixel here, by several in a large image.
    template = SSDInputEncoder.from_model(model).generate_encoding_template(2)
    np.testing.assert_array_equal(y_pred[..., -8:], template[..., -8:])


@pytest.mark.parametrize("mode", ["inference", "inference_fast"])
def test_half_precision_detections_are_float32(half_precision, mode):
    model = build_model(SIZE, 2, mode, top_k=7)
    detections = model.predict(images_of(), verbose=0)
    assert detections.dtype == np.float32
    assert detections.shape == (2, 7, 6)


# ---------------------------------------------------------------------------- training and files


def test_one_step_on_real_images_changes_every_weight(real_data):
    size = (96, 128, 3)
    scales = [0.1, 0.2, 0.3, 0.45, 0.6]  # so that each layer has positives among these cells
    model = build_model(size, 3, scales=scales, normalize_coords=True, subtract_mean=127.5)
    encoder = SSDInputEncoder.from_model(model)
    images, targets = next(
        few_images(real_data, 4).generate(
            4, transformations=[Resize(*size[:2])], label_encoder=encoder, seed=0
        )
    )
    assert images.shape == (4, *size)
    before = {w.path: w.numpy() for w in model.trainable_weights}
    model.compile(keras.optimizers.Adam(1e-3), SSDLoss())
    loss = model.train_on_batch(images, targets)
    assert np.isfinite(loss)
    unchanged = {
        w.path
        for w in model.trainable_weights
        # The biases before a batch normalisation change only by rounding: it takes them out again.
        if np.array_equal(w.numpy(), before[w.path])
    }
    assert unchanged == set()
    heads = [w for w in model.trainable_weights if w.path.startswith(("classes", "boxes"))]
    assert len(heads) == 16
    for w in heads:  # a learning rate of 1e-3 is what Adam's first step changes a weight by
        assert np.abs(w.numpy() - before[w.path]).max() > 5e-4, w.path


FRESH_PROCESS = textwrap.dedent(
    """
    import sys
    import keras, numpy as np
    import models

    folder = sys.argv[1]
    model = keras.saving.load_model(f"{folder}/model.keras", safe_mode=True)
    batch = np.load(f"{folder}/batch.npz")
    y_pred = model.predict(batch["x"], verbose=0)
    losses = [float(model.train_on_batch(batch["x"], batch["y"])) for _ in range(2)]
    np.savez(f"{folder}/result.npz", y_pred=y_pred, losses=losses,
             iterations=model.optimizer.iterations.numpy())
    """
)


def test_a_fresh_process_goes_on_with_a_saved_model(tmp_path):
    model = build_model(
        SIZE, 2, normalize_coords=True, subtract_mean=127.5, swap_channels=[2, 1, 0]
    )
    encoder = SSDInputEncoder.from_model(model)
    x, y = images_of(), encoder([[[1, 5, 5, 40, 50]], [[2, 20, 10, 90, 60], [1, 50, 30, 80, 60]]])
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-3), SSDLoss(alpha=0.5))
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    y_pred = model.predict(x, verbose=0)
    losses = [float(model.train_on_batch(x, y)) for _ in range(2)]

    np.savez(tmp_path / "batch.npz", x=x, y=y)
    command = [sys.executable, "-W", "ignore", "-c", FRESH_PROCESS, str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    with np.load(tmp_path / "result.npz") as result:
        np.testing.assert_array_equal(result["y_pred"], y_pred)
        # The second of these depends on the optimizer's moments, which the first step used.
        np.testing.assert_allclose(result["losses"], losses, rtol=1e-5)
        assert result["iterations"] == 5
