"""SSD300 and SSD512: the recorded structure and output, sizes, channels, settings, refusals."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from models import keras_ssd300, keras_ssd512, vgg16_ssd
from models.keras_ssd300 import ssd_300
from models.keras_ssd512 import ssd_512
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
from tests.recorded_models import (
    check_detections,
    check_predictions,
    check_structure,
    recorded_image,
    set_recorded_weights,
)

BUILDERS = {"ssd300": ssd_300, "ssd512": ssd_512}
SMALL = (257, 257, 3)  # the least size for both
SCALES = {"ssd300": keras_ssd300.SCALES_VOC, "ssd512": keras_ssd512.SCALES_VOC}
both = pytest.mark.parametrize("name", ["ssd300", "ssd512"])


def build(name: str, image_size=SMALL, n_classes: int = 2, **arguments):
    """Build a network with VOC scales and evenly spaced anchors, unless told otherwise."""
    settings = {"scales": SCALES[name], "steps": None, **arguments}
    return BUILDERS[name](image_size, n_classes, **settings)


def images_of(size, n: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *size)).astype(np.float32)


# ---------------------------------------------------------------------------- recorded models


@both
def test_recorded_structure_and_output(golden, name):
    recorded = golden(f"models/{name}")
    model, sizes = BUILDERS[name](**recorded.info["kwargs"], return_predictor_sizes=True)
    np.testing.assert_array_equal(sizes, recorded.info["predictor_sizes"])
    assert np.issubdtype(sizes.dtype, np.integer)
    check_structure(model, recorded.info)
    set_recorded_weights(model, recorded.info)
    y_pred = model.predict(recorded_image(recorded.info), verbose=0)
    assert y_pred.dtype == np.float32
    check_predictions(y_pred, recorded)


@pytest.mark.parametrize("mode", ["inference", "inference_fast"])
def test_recorded_detections(golden, mode):
    recorded = golden("models/ssd300")
    facts = recorded.info["modes"][mode]
    model = ssd_300(**facts["kwargs"], mode=mode)
    last = model.layers[-1]
    assert [last.name, type(last).__name__] == facts["last_layer"]
    assert list(model.output_shape) == facts["output_shape"]
    set_recorded_weights(model, recorded.info)
    detections = model.predict(recorded_image(recorded.info), verbose=0)
    check_detections(detections, recorded.arrays[f"y_{mode}"])


def test_number_of_parameters_with_the_classes_of_coco():
    model = ssd_300((300, 300, 3), 80, scales=keras_ssd300.SCALES_COCO)
    assert model.count_params() == 34_305_206


# ---------------------------------------------------------------------------- the interface


def test_arguments_and_their_defaults():
    parameters = inspect.signature(ssd_300).parameters
    assert list(parameters) == list(inspect.signature(ssd_512).parameters)
    # The shared builder takes what the public ones take, and knows no defaults of its own.
    shared = dict(inspect.signature(vgg16_ssd.build_vgg_ssd).parameters)
    del shared["network"]
    assert list(shared) == list(parameters)
    assert all(parameter.default is parameter.empty for parameter in shared.values())
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    ratios = {3: [1.0, 2.0, 0.5], 5: [1.0, 2.0, 0.5, 3.0, 1 / 3]}
    assert [list(r) for r in defaults.pop("aspect_ratios_per_layer")] == [
        ratios[n] for n in (3, 5, 5, 5, 3, 3)
    ]
    assert defaults == {
        "mode": "training",
        "l2_regularization": 0.0005,
        "min_scale": None,
        "max_scale": None,
        "scales": None,
        "aspect_ratios_global": None,
        "two_boxes_for_ar1": True,
        "steps": (8, 16, 32, 64, 100, 300),
        "offsets": None,
        "clip_boxes": False,
        "variances": (0.1, 0.1, 0.2, 0.2),
        "coords": "centroids",
        "normalize_coords": True,
        "subtract_mean": (123, 117, 104),
        "divide_by_stddev": None,
        "swap_channels": (2, 1, 0),
        "confidence_thresh": 0.01,
        "iou_threshold": 0.45,
        "top_k": 200,
        "nms_max_output_size": 400,
        "return_predictor_sizes": False,
        "max_candidates_per_class": None,
        "class_activation": "softmax",
        "class_names": None,
        "caffe_faithful": False,
    }
    others = {
        name: parameter.default
        for name, parameter in inspect.signature(ssd_512).parameters.items()
        if parameter.default != parameters[name].default
    }
    assert set(others) == {"steps", "aspect_ratios_per_layer"}
    assert others["steps"] == (8, 16, 32, 64, 128, 256, 512)
    assert [list(r) for r in others["aspect_ratios_per_layer"]] == [
        ratios[n] for n in (3, 5, 5, 5, 5, 3, 3)
    ]


@both
def test_settings_arrive_in_layers(name):
    model = build(
        name,
        mode="inference_fast",
        l2_regularization=0.25,
        min_scale=0.2,
        max_scale=0.9,
        scales=None,
        aspect_ratios_per_layer=None,
        aspect_ratios_global=[1.0, 3.0],
        two_boxes_for_ar1=False,
        clip_boxes=True,
        variances=np.array([0.1, 0.2, 0.3, 0.4]),
        normalize_coords=False,
        confidence_thresh=0.125,
        iou_threshold=0.25,
        top_k=7,
        nms_max_output_size=9,
        max_candidates_per_class=5,
        class_names=["background", "cat", "dog"],
    )
    assert model.get_layer("predictions").class_names == ("background", "cat", "dog")
    anchors = [layer for layer in model.layers if type(layer).__name__ == "AnchorBoxes"]
    n_layers = len(SCALES[name]) - 1
    assert len(anchors) == n_layers
    scales = [layer.this_scale for layer in anchors] + [anchors[-1].next_scale]
    np.testing.assert_allclose(scales, np.linspace(0.2, 0.9, n_layers + 1))
    for layer in anchors:
        assert layer.aspect_ratios == [1.0, 3.0]
        assert layer.n_boxes == 2
        assert layer.clip_boxes
        assert layer.variances == [0.1, 0.2, 0.3, 0.4]
        assert not layer.normalize_coords
    decoder = model.get_layer("decoded_predictions")
    assert (decoder.confidence_thresh, decoder.iou_threshold) == (0.125, 0.25)
    assert (decoder.top_k, decoder.nms_max_output_size) == (7, 9)
    assert decoder.max_candidates_per_class == 5
    assert not decoder.normalize_coords
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert {float(layer.kernel_regularizer.l2) for layer in convolutions} == {0.25}


@both
def test_numpy_arrays_are_taken_everywhere(name):
    n_layers = len(SCALES[name]) - 1
    model = build(
        name,
        np.array([300, 260, 3]),
        np.int64(2),
        scales=np.array(SCALES[name]),
        aspect_ratios_per_layer=np.array([[1.0, 2.0]] * n_layers),
        steps=np.full((n_layers, 2), 7),
        offsets=np.full(n_layers, 0.25),
        variances=np.array([0.1, 0.1, 0.2, 0.2]),
        subtract_mean=np.array([123, 117, 104]),
        divide_by_stddev=np.array([2.0, 3.0, 4.0]),
        swap_channels=np.array([2, 1, 0]),
    )
    as_lists = keras.Model.from_config(model.get_config())
    assert as_lists.output_shape == model.output_shape


# ---------------------------------------------------------------------------- image sizes


@pytest.mark.parametrize(
    ("name", "size", "predictor_sizes"),
    [
        ("ssd300", (257, 257, 3), [(33, 33), (17, 17), (9, 9), (5, 5), (3, 3), (1, 1)]),
        ("ssd300", (301, 403, 1), [(38, 51), (19, 26), (10, 13), (5, 7), (3, 5), (1, 3)]),
        ("ssd512", (257, 400, 4), [(33, 50), (17, 25), (9, 13), (5, 7), (3, 4), (2, 2), (1, 1)]),
    ],
)
def test_images_of_any_size_and_number_of_channels(name, size, predictor_sizes):
    model, sizes = build(
        name, size, 1, subtract_mean=127.5, swap_channels=None, return_predictor_sizes=True
    )
    np.testing.assert_array_equal(sizes, predictor_sizes)
    y_pred = model.predict(images_of(size), verbose=0)
    n_boxes = sum(
        h * w * n for (h, w), n in zip(sizes, [4, *[6] * (len(sizes) - 3), 4, 4], strict=True)
    )
    assert y_pred.shape == (1, n_boxes, 2 + 12)
    np.testing.assert_allclose(y_pred[..., :2].sum(axis=-1), 1, rtol=1e-5)
    template = SSDInputEncoder.from_model(model).generate_encoding_template(1)
    np.testing.assert_array_equal(y_pred[..., -8:], template[..., -8:])
    # All centres lie in the image (the anchors are centroids, in fractions of it).
    assert 0 < y_pred[..., -8:-6].min() < y_pred[..., -8:-6].max() < 1


@both
def test_images_too_small_are_refused(name):
    for size in ((256, 300, 3), (300, 256, 3)):
        with pytest.raises(ValueError, match=r"at least 257 pixels.*\(\d+, \d+, 3\)"):
            build(name, size)


def test_steps_of_another_image_size_are_told_of():
    with pytest.warns(UserWarning, match=r"layer 4.*400 x 400.*5 cells, 100 pixels.*steps=None"):
        ssd_300((400, 400, 3), 2, scales=keras_ssd300.SCALES_VOC)


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aspect_ratios_per_layer": None}, "`aspect_ratios_global`"),
        ({"aspect_ratios_per_layer": [[1.0]] * 5}, "`aspect_ratios_per_layer` must have 6.*got 5"),
        ({"scales": None}, "`scales` or both `min_scale` and `max_scale`"),
        ({"scales": None, "min_scale": 0.1}, "`scales` or both"),
        ({"scales": np.array([0.1, 0.2])}, "`scales` must have 7.*got 2"),
        ({"variances": [0.1, 0.1, 0.2]}, "`variances` must have 4.*got 3"),
        ({"variances": [0.1, 0.1, 0.2, -0.2]}, "variances must be greater than 0"),
        ({"steps": [8, 16]}, "`steps` must have 6.*got 2"),
        ({"offsets": [0.5] * 7}, "`offsets` must have 6.*got 7"),
        ({"mode": "evaluation"}, "training, inference, inference_fast; got 'evaluation'"),
        # The mode is looked at last.
        ({"mode": "evaluation", "offsets": [0.5]}, "`offsets`"),
        ({"mode": "inference", "coords": "corners"}, "centroids"),
        ({"n_classes": 0}, "`n_classes` must be.*positive integer.*got 0"),
        (
            {"image_size": (300, 300, 1)},
            "`subtract_mean` must be.*1 channels.*123.*`swap_channels`",
        ),
        ({"image_size": (300, 300, 1), "subtract_mean": 127}, "`swap_channels`.*got.*None"),
        ({"image_size": (300, 300, 4)}, "`subtract_mean` must be.*4 channels"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    defaults = {"image_size": (300, 300, 3), "n_classes": 2, "scales": keras_ssd300.SCALES_VOC}
    with pytest.raises(ValueError, match=message):
        ssd_300(**{**defaults, **arguments})
