"""Exported models, run in their own runtimes beside the model they were made of."""

from __future__ import annotations

from functools import cache

import cv2
import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported with TensorFlow", allow_module_level=True)

from examples.digit_scenes import draw_scene, load_photographs, split_digits
from misc_utils import export
from misc_utils.export import export_model
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300
from tests.blood_cells import few_images
from tests.runtimes import FILES, load, read_metadata

HEIGHT, WIDTH = 96, 128
N_CLASSES = 4
CLASS_NAMES = ["background", "cat", "dog", "bird", "fish"]
MODES = ("training", "inference", "inference_fast")
N_IMAGES = 3

each_format = pytest.mark.parametrize("format", FILES)
each_mode = pytest.mark.parametrize("mode", MODES)


@cache
def ssd7(mode="training", **arguments):
    """Build an SSD7 whose random weights find many different things in an image."""
    keras.utils.set_random_seed(3)
    settings = {
        "variances": (0.1, 0.1, 0.2, 0.2),
        "normalize_coords": True,
        "subtract_mean": 127.5,
        "divide_by_stddev": 127.5,
        **arguments,
    }
    model = build_model((HEIGHT, WIDTH, 3), N_CLASSES, mode, **settings)
    scale_kernels(model, "classes", 3.0)
    return model


def scale_kernels(model, name, factor):
    for variable in model.weights:
        if name in variable.path and "kernel" in variable.path:
            variable.assign(variable * factor)


def outputs_of(model, images):
    return np.asarray(model.predict_on_batch(images.astype(np.float32)))


def check_output(found, expected, mode):
    if mode == "training":
        np.testing.assert_allclose(found, expected, atol=1e-4)
    else:
        check_detections(found, expected)


def check_detections(found, expected):
    """Check that two runtimes report the same boxes of every image in the same order.

    Convolutions add up in another order in another runtime: confidences differ by some 1e-7 and
    coordinates by some 1e-5 pixels. Hence 1e-4 and 0.01 pixels, and two rows may change places, or
    one take the other's place at the end, only if their confidences are as close as that.
    """
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[..., 1], expected[..., 1], atol=1e-4)
    for ours, theirs in ((found, expected), (expected, found)):
        for row, candidates in zip(ours.reshape(-1, 6), rows_beside(theirs), strict=True):
            is_same = (candidates[:, 0] == row[0]) & (abs(candidates[:, 1] - row[1]) < 1e-4)
            is_same &= (abs(candidates[:, 2:] - row[2:]) < 0.01).all(axis=1)
            is_last = row[1] - candidates[-1, 1] < 1e-4 and candidates[-1, 1] > 0
            assert is_same.any() or is_last, row


def rows_beside(detections):
    """Yield for each row all rows of its image."""
    for rows in detections:
        for _ in rows:
            yield rows


@pytest.fixture(scope="module")
def scenes():
    """Return generated scenes, uint8 `(3, height, width, 3)`."""
    digits, photographs = split_digits()["val"], load_photographs()
    images = [
        draw_scene(np.random.default_rng(i), (HEIGHT, WIDTH), digits, photographs)[0]
        for i in range(N_IMAGES)
    ]
    return np.stack(images)


@pytest.fixture(scope="module")
def cells(real_data):
    """Return real images, uint8 `(3, height, width, 3)`."""
    files = few_images(real_data, N_IMAGES).filenames
    images = [cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB) for file in files]
    return np.stack([cv2.resize(image, (WIDTH, HEIGHT)) for image in images])


# ------------------------------------------------------------------ what the file computes


@each_mode
@each_format
def test_computes_what_the_model_computes(format, mode, scenes, tmp_path):
    model = ssd7(mode)
    path = export_model(model, tmp_path / FILES[format], format)
    run = load(path)
    name = "predictions" if mode == "training" else "detections"
    for images in (scenes, scenes[:1]):  # any batch size
        outputs = run(images.astype(np.float32))
        assert list(outputs) == [name]
        check_output(outputs[name], outputs_of(model, images), mode)


@pytest.mark.slow
@each_mode
@each_format
def test_on_real_images(format, mode, cells, tmp_path):
    model = ssd7(mode)
    run = load(export_model(model, tmp_path / FILES[format], format, batch_size=N_IMAGES))
    (found,) = run(cells.astype(np.float32)).values()
    check_output(found, outputs_of(model, cells), mode)


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_takes_bytes_and_a_fixed_batch(format, scenes, tmp_path):
    model = ssd7("inference_fast")
    path = export_model(model, tmp_path / FILES[format], format, 1, input_dtype="uint8")
    found = load(path)(scenes[:1])["detections"]
    check_detections(found, outputs_of(model, scenes[:1]))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_half_precision_models_become_float32_files(policy, scenes, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = ssd7(l2_regularization=1e-3, max_scale=0.8)
    finally:
        keras.config.set_dtype_policy(before)
    exact = ssd7(max_scale=0.8)
    exact.set_weights(model.get_weights())  # which policy 'bfloat16' has rounded
    ssd7.cache_clear()
    run = load(export_model(model, tmp_path / "ssd.onnx", "onnx"))
    found = run(scenes.astype(np.float32))["predictions"]
    np.testing.assert_allclose(found, outputs_of(exact, scenes), atol=1e-4)


def test_a_loaded_model_with_boxes_in_pixels(scenes, tmp_path):
    model = ssd7(
        "inference", l2_regularization=1e-3, swap_channels=(2, 1, 0), normalize_coords=False
    )
    model.save(tmp_path / "ssd7.keras")
    loaded = keras.models.load_model(tmp_path / "ssd7.keras")
    run = load(export_model(loaded, tmp_path / "ssd.onnx", "onnx"))
    check_detections(run(scenes.astype(np.float32))["detections"], outputs_of(model, scenes))


@pytest.mark.slow
@each_mode
@each_format
def test_ssd300(format, mode, tmp_path):
    keras.utils.set_random_seed(0)
    model = ssd_300((300, 300, 3), 20, mode, scales=SCALES_VOC)
    # An untrained VGG passes pixel values on as they are; a trained one predicts small offsets.
    scale_kernels(model, "mbox_loc", 0.01)
    scale_kernels(model, "mbox_conf", 0.1)
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 300, 3)).astype(np.float32)
    run = load(export_model(model, tmp_path / FILES[format], format))
    (found,) = run(images).values()
    check_output(found, outputs_of(model, images), mode)


# ----------------------------------------------------------------------- what travels along


@each_format
def test_facts_travel_along(format, tmp_path):
    path = tmp_path / FILES[format]
    model = ssd7("inference_fast", top_k=30)
    assert export_model(model, path, format, class_names=CLASS_NAMES) == path
    facts = read_metadata(path)
    assert facts["class_names"] == CLASS_NAMES
    assert (facts["image_height"], facts["image_width"], facts["image_channels"]) == (96, 128, 3)
    assert facts["mode"] == "inference_fast"
    assert facts["columns"] == ["class_id", "confidence", "xmin", "ymin", "xmax", "ymax"]
    assert (facts["confidence_thresh"], facts["iou_threshold"], facts["top_k"]) == (0.01, 0.45, 30)


def test_the_names_that_the_model_knows_travel_along(tmp_path):
    model = ssd7(class_names=tuple(CLASS_NAMES))
    path = export_model(model, tmp_path / "ssd.onnx", "onnx")
    assert read_metadata(path)["class_names"] == CLASS_NAMES
    others = ["nothing", *CLASS_NAMES[1:]]
    path = export_model(model, tmp_path / "ssd.onnx", "onnx", class_names=others)
    assert read_metadata(path)["class_names"] == others


def test_raw_facts_tell_how_to_decode(tmp_path):
    path = export_model(ssd7(), tmp_path / "ssd.onnx", "onnx")
    facts = read_metadata(path)
    assert facts["class_names"] is None
    assert sum(facts["columns"].values()) == N_CLASSES + 1 + 12
    assert (facts["coords"], facts["normalize_coords"]) == ("centroids", True)


def test_dynamic_and_fixed_batches_are_named_in_the_signature(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = ssd7("inference_fast")
    for batch_size, expected in ((None, "batch"), (2, 2)):
        path = export_model(model, tmp_path / "ssd.onnx", "onnx", batch_size)
        session = runtime.InferenceSession(path)
        (images,), (detections,) = session.get_inputs(), session.get_outputs()
        assert (images.name, images.shape) == ("images", [expected, HEIGHT, WIDTH, 3])
        assert (detections.name, detections.shape) == ("detections", [expected, 200, 6])


# ------------------------------------------------------------------------ files and refusals


def test_replaces_an_older_export_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "models" / "ssd"
    for class_names in (None, CLASS_NAMES):
        export_model(ssd7(), path, "tf_saved_model", class_names=class_names)
    assert read_metadata(path)["class_names"] == CLASS_NAMES
    assert list(path.parent.iterdir()) == [path]


def test_keeps_a_folder_of_something_else(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(FileExistsError, match="something else than a SavedModel"):
        export_model(ssd7(), tmp_path, "tf_saved_model")
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


@pytest.mark.parametrize(
    ("file", "format", "arguments", "message"),
    [
        ("ssd.onnx", "caffe", {}, "must be one of tf_saved_model, onnx, litert; got 'caffe'"),
        ("ssd.tflite", "onnx", {}, r"must end with '\.onnx'; got '.*ssd\.tflite'"),
        ("ssd", "litert", {}, r"must end with '\.tflite'"),
        ("ssd.keras", "tf_saved_model", {}, r"is a folder, and '.*ssd\.keras' is the name of a f"),
        ("ssd.onnx", "onnx", {"batch_size": 0}, "positive integer or None; got 0"),
        ("ssd.onnx", "onnx", {"batch_size": 1.5}, "positive integer or None; got 1.5"),
        ("ssd.onnx", "onnx", {"input_dtype": "int8"}, "one of float32, uint8; got 'int8'"),
        ("ssd.onnx", "onnx", {"class_names": ["cat"]}, "the 4 classes, 5 names in all; got 1: cat"),
    ],
)
def test_refusals(file, format, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_model(ssd7(), tmp_path / file, format, **arguments)
    assert not list(tmp_path.iterdir())


def test_refuses_other_models(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match="no AnchorBoxes layers"):
        export_model(model, tmp_path / "ssd.onnx", "onnx")


def test_names_the_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_ONNX_PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ImportError, match=r"needs no_such_package: pip install 'ssd-keras\[exp"):
        export_model(ssd7(), tmp_path / "ssd.onnx", "onnx")


def test_says_what_to_do_on_another_backend(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="is 'jax'. Save the model .* KERAS_BACKEND=tensorflow"):
        export._check_means("litert")
