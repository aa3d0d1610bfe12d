"""The decoding layers: recorded outputs, their NumPy twins, and life inside a model."""

from __future__ import annotations

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_layers import nms
from keras_layers.keras_layer_DecodeDetections import DecodeDetections
from keras_layers.keras_layer_DecodeDetectionsFast import DecodeDetectionsFast
from ssd_encoder_decoder.ssd_output_decoder import decode_detections, decode_detections_fast
from tests.raw_predictions import GOLDEN, golden_predictions

LAYERS = {layer.__name__: layer for layer in (DecodeDetections, DecodeDetectionsFast)}
CASES = json.loads((GOLDEN / "decode_layers.json").read_text(encoding="utf-8"))["cases"]
SIZE = {"img_height": 300, "img_width": 300}
SETTINGS = {
    "confidence_thresh": 0.2,
    "iou_threshold": 0.3,
    "top_k": 7,
    "nms_max_output_size": 5,
    "coords": "centroids",
    "normalize_coords": False,
    "img_height": 90,
    "img_width": 70,
    "max_candidates_per_class": 50,
}

each_layer = pytest.mark.parametrize("layer_class", LAYERS.values(), ids=LAYERS)


@pytest.fixture(scope="module")
def inputs():
    return golden_predictions()


@pytest.mark.parametrize("implementation", ["backend", "portable"])
@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_recorded_detections(case, implementation, inputs, golden, monkeypatch):
    if implementation == "portable":
        if keras.backend.backend() == "jax":
            pytest.skip("on JAX this is the backend's own, compiled")
        monkeypatch.setattr("keras_layers.decoding.greedy_nms", nms.portable_nms)
    layer = LAYERS[case["cls"]](**case["args"])
    detections = ops.convert_to_numpy(layer(inputs[case["input"]]))
    expected = golden("decode_layers").arrays[case["case"]]
    n_stored = expected.shape[1]  # all rows behind these are zero

    assert list(detections.shape) == case["out_shape"]
    assert detections.dtype == np.float32
    np.testing.assert_array_equal(detections[:, :n_stored, :2], expected[..., :2])
    np.testing.assert_allclose(detections[:, :n_stored, 2:], expected[..., 2:], atol=2e-3)
    assert not detections[:, n_stored:].any()


@pytest.mark.parametrize("levels", [30, 10**6])
@pytest.mark.parametrize("caffe_cut", [None, 40])
def test_equals_the_numpy_decoder_also_among_equal_confidences(inputs, levels, caffe_cut):
    y_pred = inputs["B"].copy()
    y_pred[..., :-12] = np.round(y_pred[..., :-12] * levels) / levels
    settings = {"top_k": 50, "max_candidates_per_class": caffe_cut, **SIZE}
    detections = ops.convert_to_numpy(DecodeDetections(**settings)(y_pred))
    expected = np.array(decode_detections(y_pred, **settings))
    assert expected.shape == (2, 50, 6), "the two sort alike only where top_k cuts"
    np.testing.assert_array_equal(detections[..., :2], expected[..., :2].astype(np.float32))
    np.testing.assert_allclose(detections[..., 2:], expected[..., 2:], atol=2e-3)


def test_equals_the_fast_numpy_decoder(inputs):
    detections = ops.convert_to_numpy(DecodeDetectionsFast(0.05, **SIZE)(inputs["B"]))
    for rows, expected in zip(
        detections, decode_detections_fast(inputs["B"], 0.05, **SIZE), strict=True
    ):
        np.testing.assert_allclose(rows[: len(expected)], expected, rtol=1e-6, atol=2e-3)
        assert not rows[len(expected) :].any()


@each_layer
def test_batch_equals_single_images(layer_class, inputs):
    layer = layer_class(**SIZE)
    together = ops.convert_to_numpy(layer(inputs["B"]))
    alone = [ops.convert_to_numpy(layer(inputs["B"][i : i + 1]))[0] for i in range(2)]
    np.testing.assert_array_equal(together, alone)


@each_layer
def test_in_a_model_with_any_batch_size(layer_class, inputs):
    y_pred = inputs["A_centroids"]
    layer = layer_class(top_k=20, **SIZE)
    x = keras.Input(y_pred.shape[1:])
    model = keras.Model(x, layer(x))
    assert model.output_shape == (None, 20, 6)
    expected = ops.convert_to_numpy(layer(y_pred))
    for repeats in (1, 3):
        batch = np.concatenate([y_pred] * repeats)
        detections = model.predict(batch, verbose=0)
        np.testing.assert_allclose(detections, np.concatenate([expected] * repeats), atol=1e-3)


@each_layer
def test_within_an_xla_compilation(layer_class, inputs, monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends compile the portable version anyway")
    import tensorflow as tf

    portable_nms = nms.portable_nms
    used = []
    monkeypatch.setattr(
        nms, "portable_nms", lambda *args: used.append(1) or portable_nms(*args)
    )  # XLA has no kernel for the other one
    layer = layer_class(**SIZE)
    y_pred = inputs["A_centroids"]
    expected = layer(y_pred)
    assert not used
    compiled = tf.function(lambda y_pred: layer(y_pred), jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(y_pred)), expected, atol=1e-3)
    in_a_loop = tf.function(
        lambda y_pred: tf.map_fn(lambda row: layer(row[None])[0], y_pred), jit_compile=True
    )
    np.testing.assert_allclose(in_a_loop(tf.constant(y_pred)), expected, atol=1e-3)
    assert len(used) >= 2


@each_layer
def test_models_that_ask_for_compilation(layer_class, inputs):
    y_pred = inputs["A_centroids"]
    x = keras.Input(y_pred.shape[1:])
    model = keras.Model(x, layer_class(**SIZE)(x))
    if keras.backend.backend() == "tensorflow":
        with pytest.warns(UserWarning, match="Proceeding with `jit_compile=False`"):
            model.compile(jit_compile=True)
    elif keras.backend.backend() == "jax":
        model.compile(jit_compile=True)
    else:
        pytest.skip("torch.compile takes minutes and needs a C++ compiler")
    detections = model.predict(y_pred, verbose=0)
    np.testing.assert_allclose(
        detections, ops.convert_to_numpy(layer_class(**SIZE)(y_pred)), atol=1e-3
    )


@each_layer
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_computes_in_float32_under_any_policy(layer_class, policy, inputs):
    expected = ops.convert_to_numpy(layer_class(**SIZE)(inputs["B"]))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layers = [layer_class(**SIZE), layer_class(**SIZE, dtype=policy)]
    finally:
        keras.config.set_dtype_policy(before)
    for layer in layers:
        detections = layer(ops.convert_to_tensor(inputs["B"]))
        assert keras.backend.standardize_dtype(detections.dtype) == "float32"
        np.testing.assert_array_equal(ops.convert_to_numpy(detections), expected)
        assert layer(keras.KerasTensor((None, 10, 33), "float16")).dtype == "float32"


@each_layer
def test_half_precision_input(layer_class, inputs):
    half = inputs["B"].astype(np.float16)
    detections = layer_class(**SIZE)(ops.convert_to_tensor(half))
    expected = layer_class(**SIZE)(half.astype(np.float32))
    np.testing.assert_array_equal(ops.convert_to_numpy(detections), ops.convert_to_numpy(expected))


@each_layer
def test_pixel_models_need_no_image_size(layer_class, inputs):
    y_pred = inputs["A_centroids_abs"]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer_class(normalize_coords=False)(y_pred)),
        ops.convert_to_numpy(layer_class(normalize_coords=False, **SIZE)(y_pred)),
    )


@each_layer
def test_rectangular_images(layer_class, inputs):
    # An image of another shape changes no IoU, so the same boxes survive.
    square = ops.convert_to_numpy(layer_class(img_height=1, img_width=1)(inputs["B"]))
    wide = ops.convert_to_numpy(layer_class(img_height=200, img_width=400)(inputs["B"]))
    np.testing.assert_allclose(wide, square * [1, 1, 400, 200, 400, 200], rtol=1e-5, atol=1e-4)


@each_layer
def test_nothing_found(layer_class):
    y_pred = np.zeros((2, 9, 33), np.float32)
    y_pred[..., 0] = 1
    assert not ops.convert_to_numpy(layer_class(top_k=4, **SIZE)(y_pred)).any()


@each_layer
def test_every_argument_survives_the_config(layer_class):
    parameters = inspect.signature(layer_class.__init__).parameters
    named = {name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert named - {"self"} == set(SETTINGS)
    layer = layer_class(**SETTINGS, name="decoder")
    assert {name: getattr(layer, name) for name in SETTINGS} == SETTINGS
    config = layer.get_config()
    assert config.items() >= SETTINGS.items()
    assert layer_class.from_config(config).get_config() == config


@each_layer
def test_saved_models_load_without_custom_objects(layer_class, inputs, tmp_path):
    y_pred = inputs["A_centroids"]
    x = keras.Input(y_pred.shape[1:])
    model = keras.Model(x, layer_class(**SETTINGS | SIZE | {"normalize_coords": True})(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    np.testing.assert_array_equal(
        loaded.predict(y_pred, verbose=0), model.predict(y_pred, verbose=0)
    )


@each_layer
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`img_height` and `img_width` are needed.*got None and None"),
        ({"img_height": 300}, "got 300 and None"),
        ({"coords": "corners", **SIZE}, "`coords='centroids'` only; got 'corners'"),
        ({"iou_threshold": 45, **SIZE}, "`iou_threshold`.*got 45"),
        ({"iou_threshold": None, **SIZE}, "`iou_threshold` must be a number.*got None"),
        ({"confidence_thresh": "0.5", **SIZE}, "`confidence_thresh` must be a number; got '0.5'"),
        ({"confidence_thresh": np.nan, **SIZE}, "`confidence_thresh` must be a number; got nan"),
        ({"top_k": 0, **SIZE}, "`top_k`.*got 0"),
        ({"top_k": "all", **SIZE}, "`top_k` must be a positive integer; got 'all'"),
        ({"top_k": np.inf, **SIZE}, "`top_k` must be a positive integer; got inf"),
        ({"nms_max_output_size": 2.5, **SIZE}, "`nms_max_output_size`.*got 2.5"),
        ({"max_candidates_per_class": 0, **SIZE}, "`max_candidates_per_class`.*got 0"),
    ],
)
def test_arguments_are_checked(layer_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer_class(**arguments)


@each_layer
@pytest.mark.parametrize("shape", [(None, 10, 13), (None, 33), (None, 200, 6)])
def test_shapes_are_checked(layer_class, shape):
    with pytest.raises(ValueError, match="raw predictions of the shape") as error:
        layer_class(**SIZE)(keras.KerasTensor(shape))
    assert str(shape) in str(error.value)
