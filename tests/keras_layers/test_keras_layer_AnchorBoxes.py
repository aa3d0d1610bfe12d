"""The anchor layer: recorded anchors, any dtype policy, and nothing lost in a file."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_layers.keras_layer_AnchorBoxes import AnchorBoxes
from ssd_encoder_decoder.anchors import anchor_boxes

SETTINGS = {"img_height": 60, "img_width": 90, "this_scale": 0.2, "next_scale": 0.4}


def test_recorded_anchors(golden):
    recorded = golden("anchor_l2_layers")
    cases = [case for case in recorded.info["cases"] if case["cls"] == "AnchorBoxes"]
    for case in cases:
        layer = AnchorBoxes(**case["kwargs"])
        boxes = keras.ops.convert_to_numpy(layer(np.zeros(case["input_shape"], np.float32)))
        expected = recorded.arrays[case["output"]]
        assert list(boxes.shape) == case["output_shape"]
        assert boxes.dtype == np.float32
        for image in boxes:
            np.testing.assert_allclose(image, expected, rtol=1e-6, atol=1e-4)
        assert layer.n_boxes == case["n_boxes_attr"]
        assert layer.weights == []
        symbolic = layer.compute_output_shape((None, *case["input_shape"][1:]))
        assert list(symbolic) == case["compute_output_shape"]
        # Recorded from a defect: `this_steps` and `this_offsets` were lost.
        lost = {"this_steps", "this_offsets"}
        assert set(case["config_keys"]) | lost <= set(layer.get_config())
    assert len(cases) == 4


def test_anchors_are_those_of_the_encoder():
    layer = AnchorBoxes(**SETTINGS, this_steps=(10, 12), this_offsets=0.25, normalize_coords=True)
    grid = anchor_boxes(
        (3, 4), (60, 90), [0.5, 1.0, 2.0], 0.2, 0.4, this_steps=(10, 12), this_offsets=0.25
    )
    (output,) = keras.ops.convert_to_numpy(layer(np.zeros((1, 3, 4, 7))))
    np.testing.assert_array_equal(output[..., :4], grid.boxes.astype(np.float32))
    np.testing.assert_array_equal(
        output[..., 4:], np.broadcast_to(np.float32([0.1, 0.1, 0.2, 0.2]), (3, 4, 4, 4))
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_anchors_are_float32_under_any_policy(policy):
    full = AnchorBoxes(**SETTINGS)(np.zeros((2, 3, 4, 7)))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        half = AnchorBoxes(**SETTINGS)(np.zeros((2, 3, 4, 7)))
    finally:
        keras.config.set_dtype_policy(before)
    assert keras.backend.standardize_dtype(half.dtype) == "float32"
    np.testing.assert_array_equal(half, full)


@pytest.mark.parametrize(
    "arguments",
    [
        {"this_steps": 16, "this_offsets": 0.25},
        {"this_steps": (16, 20.5), "this_offsets": [0.4, 0.6]},
        {"this_steps": np.array([16, 20]), "this_offsets": np.float32(0.5)},
        {"this_scale": np.float32(0.25), "img_height": np.int64(60)},
        {"aspect_ratios": np.array([1.0, 3.0]), "variances": (1, 2, 3, 4), "coords": "minmax"},
        {"two_boxes_for_ar1": False, "clip_boxes": True, "normalize_coords": True},
    ],
)
def test_a_saved_layer_makes_the_same_anchors(arguments, tmp_path):
    inputs = keras.Input((3, 4, 2))
    layer = AnchorBoxes(**{**SETTINGS, **arguments}, name="anchors")
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").get_layer("anchors")
    image = np.zeros((1, 3, 4, 2), np.float32)
    np.testing.assert_array_equal(loaded(image), layer(image))
    assert loaded.get_config() == layer.get_config()


def test_batch_size_may_be_unknown():
    inputs = keras.Input((3, 4, 2))
    model = keras.Model(inputs, AnchorBoxes(**SETTINGS)(inputs))
    assert model.output_shape == (None, 3, 4, 4, 8)
    assert model.predict(np.zeros((5, 3, 4, 2)), verbose=0).shape == (5, 3, 4, 4, 8)


def test_feature_map_size_must_be_known():
    with pytest.raises(ValueError, match="known height and width.*None"):
        AnchorBoxes(**SETTINGS)(keras.Input((None, None, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"this_scale": -0.1}, "this_scale=-0.1"),
        ({"this_scale": 1.1}, "this_scale=1.1"),
        ({"next_scale": -1}, "next_scale=-1"),
        ({"variances": [1, 1, 1]}, "`variances`"),
        ({"variances": [1, 1, 1, 0]}, "variances"),
        ({"aspect_ratios": [1, -2]}, "aspect ratios"),
        ({"coords": "yolo"}, "yolo"),
        ({"this_steps": "8"}, "`steps`"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnchorBoxes(**{**SETTINGS, **arguments})


def test_the_next_scale_may_exceed_the_image():
    assert AnchorBoxes(**{**SETTINGS, "next_scale": 1.05}).next_scale == 1.05
