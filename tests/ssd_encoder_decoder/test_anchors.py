"""Anchor boxes: shapes and centres by hand, recorded anchors, settings and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounding_box_utils.bounding_box_utils import BOX_FORMATS, convert_coordinates
from ssd_encoder_decoder.anchors import (
    AnchorSettings,
    anchor_boxes,
    anchor_shapes,
    anchors_per_cell,
    pair_of,
)
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

GOLDEN_CONFIGS = (
    "ssd300_voc", "ssd300_coco", "ssd512_voc", "ssd512_coco", "ssd7", "ssd300_voc_clip",
    "ssd300_voc_corners", "ssd300_voc_minmax_abs", "odd_centroids_abs_clip", "odd_corners",
    "odd_minmax_exclude_abs", "odd_minmax_clip", "single_layer",
)  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "two_boxes", "shapes"),
    [
        ([1], False, [(20, 20)]),
        ([1], True, [(20, 20), (40, 40)]),  # sqrt(0.1 * 0.4) * 200
        ([4, 1, 0.25], True, [(40, 10), (20, 20), (40, 40), (10, 40)]),
        ([4], True, [(40, 10)]),  # no ratio 1, no second box
        ([1, 1], True, [(20, 20), (40, 40), (20, 20), (40, 40)]),
        ([np.float32(1)], True, [(20, 20), (40, 40)]),
    ],
)
def test_shapes_by_hand(ratios, two_boxes, shapes):
    made = anchor_shapes(200, ratios, 0.1, 0.4, two_boxes)
    np.testing.assert_allclose(made, shapes)
    assert anchors_per_cell(ratios, two_boxes) == len(made)
    assert anchors_per_cell(np.array(ratios), two_boxes) == len(made)


@pytest.mark.parametrize(
    ("steps", "offsets", "cy", "cx"),
    [
        (None, None, [25, 75], [25, 75, 125, 175]),
        (40, None, [20, 60], [20, 60, 100, 140]),
        ((50, 40), (0, 0.25), [0, 50], [10, 50, 90, 130]),
        (None, 1, [50, 100], [50, 100, 150, 200]),
    ],
)
def test_centres_by_hand(steps, offsets, cy, cx):
    grid = anchor_boxes(
        (2, 4), (100, 200), [1.0], 0.1, 0.2, False, steps, offsets, normalize_coords=False
    )
    np.testing.assert_allclose(grid.centers[0], cy)
    np.testing.assert_allclose(grid.centers[1], cx)
    assert grid.boxes.shape == (2, 4, 1, 4)
    for row in range(2):
        for column in range(4):
            np.testing.assert_allclose(grid.boxes[row, column, 0], [cx[column], cy[row], 10, 10])


@pytest.mark.parametrize(
    ("scale", "clipped"),
    [
        (3.0, [0, 0, 199, 99]),
        (1.0, [50, 0, 150, 99]),  # an edge at the image's end moves to the last pixel, too
        (0.5, [75, 25, 125, 75]),
    ],
)
def test_clipping_stops_at_the_last_pixel(scale, clipped):
    grid = anchor_boxes(
        (1, 1), (100, 200), [1.0], scale, scale, False, clip_boxes=True, coords="corners",
        normalize_coords=False,
    )  # fmt: skip
    np.testing.assert_array_equal(grid.boxes[0, 0, 0], clipped)
    np.testing.assert_array_equal(grid.shapes, [(100 * scale,) * 2])  # those before clipping


@given(data=st.data())
def test_formats_and_units_describe_the_same_boxes(data):
    height, width = data.draw(st.tuples(*[st.integers(1, 6)] * 2))
    image_size = data.draw(st.tuples(*[st.integers(20, 500)] * 2))
    arguments = {
        "feature_map_size": (height, width),
        "image_size": image_size,
        "aspect_ratios": data.draw(st.lists(st.floats(0.2, 5), min_size=1, max_size=4)),
        "this_scale": data.draw(st.floats(0.05, 1)),
        "next_scale": data.draw(st.floats(0.05, 1.2)),
        "clip_boxes": data.draw(st.booleans()),
    }
    corners = anchor_boxes(**arguments, coords="corners", normalize_coords=False).boxes
    for coords in BOX_FORMATS:
        boxes = anchor_boxes(**arguments, coords=coords, normalize_coords=True).boxes
        if coords != "corners":
            boxes = convert_coordinates(boxes, 0, f"{coords}2corners")
        boxes = boxes * [image_size[1], image_size[0], image_size[1], image_size[0]]
        np.testing.assert_allclose(boxes, corners, atol=1e-9)
    if arguments["clip_boxes"]:
        assert corners.min() >= 0
        assert (corners[..., 2] <= image_size[1]).all()
        assert (corners[..., 3] <= image_size[0]).all()


@pytest.mark.parametrize("config", GOLDEN_CONFIGS)
def test_recorded_anchors(golden, config):
    recorded = golden("encoder_anchors")
    case = next(case for case in recorded.info["cases"] if case["name"] == config)
    encoder = SSDInputEncoder(**case["kwargs"])
    template, centers, shapes, steps, offsets = encoder.generate_encoding_template(1, True)
    assert list(template.shape) == case["template_shape_for_batch_1"]
    assert template.dtype == np.float32
    np.testing.assert_array_equal(template[..., -12:-8], template[..., -8:-4])
    np.testing.assert_allclose(
        template[0, :, -4:], np.tile(encoder.variances, (len(template[0]), 1))
    )

    def array(name: str) -> np.ndarray:
        return recorded.arrays[f"{name}_{config}"]

    # Rows are compared in the encoder's own float64; the template is that, rounded.
    anchors = np.concatenate([boxes.reshape(-1, 4) for boxes in encoder.boxes_list])
    np.testing.assert_allclose(template[0, :, -8:-4], anchors, rtol=1e-6, atol=1e-6)
    unit = 1e-6 if encoder.normalize_coords else 3e-5
    np.testing.assert_allclose(anchors[:: case["row_step"]], array("anchors"), rtol=1e-6, atol=unit)
    np.testing.assert_allclose(anchors.sum(axis=0), array("colsum"), rtol=1e-9)
    np.testing.assert_allclose((anchors**2).sum(axis=0), array("colsumsq"), rtol=1e-9)
    np.testing.assert_allclose(np.concatenate(shapes), array("wh"), rtol=1e-6)
    assert [len(layer) for layer in shapes] == array("wh_len").tolist()
    np.testing.assert_allclose(steps, array("steps"), rtol=1e-6)
    np.testing.assert_allclose(offsets, array("offsets"), rtol=1e-6)
    for i, name in enumerate(("cy", "cx")):
        np.testing.assert_allclose(np.concatenate([c[i] for c in centers]), array(name), rtol=1e-6)
    assert [list(boxes.shape) for boxes in encoder.boxes_list] == case["boxes_list_shapes"]
    np.testing.assert_allclose(encoder.scales, case["scales_attr"])
    assert encoder.n_boxes == case["n_boxes_attr"]
    assert encoder.n_classes == case["n_classes_attr"]


def test_every_recorded_configuration_is_tested(golden):
    names = [case["name"] for case in golden("encoder_anchors").info["cases"]]
    assert sorted(names) == sorted(GOLDEN_CONFIGS)


@pytest.mark.parametrize(
    ("value", "pair"),
    [
        (None, (0.5, 0.5)),
        (8, (8, 8)),
        (np.int64(8), (8, 8)),
        (np.float32(8), (8, 8)),
        (np.array(8), (8, 8)),
        ((8, 16), (8, 16)),
        ([8, 16.5], (8, 16.5)),
        (np.array([8, 16]), (8, 16)),
    ],
)
def test_steps_and_offsets_of_any_kind(value, pair):
    assert pair_of(value, (0.5, 0.5), "offsets") == pair


@pytest.mark.parametrize("value", ["8", (1, 2, 3), [[1, 2]], {}, object()])
def test_other_steps_are_refused_by_name(value):
    with pytest.raises(ValueError, match="`steps`"):
        pair_of(value, (1, 1), "steps")


def settings(**arguments) -> AnchorSettings:
    """Make the settings of three layers, with the defaults of the encoder."""
    defaults = {
        "n_layers": 3,
        "min_scale": 0.1,
        "max_scale": 0.9,
        "scales": None,
        "aspect_ratios_global": [0.5, 1.0, 2.0],
        "aspect_ratios_per_layer": None,
        "two_boxes_for_ar1": True,
        "steps": None,
        "offsets": None,
        "clip_boxes": False,
        "variances": [0.1, 0.1, 0.2, 0.2],
        "coords": "centroids",
        "normalize_coords": True,
    }
    return AnchorSettings.from_arguments(**{**defaults, **arguments})


def test_scales_are_evenly_spaced_and_include_a_last_one():
    np.testing.assert_allclose(settings(min_scale=0.2, max_scale=0.8).scales, [0.2, 0.4, 0.6, 0.8])
    assert settings(scales=[]).scales == settings().scales  # an empty list is "not given"
    assert settings(min_scale=None, max_scale=None, scales=[0.1, 0.2, 0.3, 1.1]).scales[-1] == 1.1


def test_arrays_serve_as_lists():
    as_lists = settings(
        scales=[0.125, 0.25, 0.5, 1.0],
        aspect_ratios_per_layer=[[1.0], [1.0, 2.0], [2.0]],
        steps=[8.0, (16.0, 16.0), None],
        offsets=[0.5, 0.5, 0.25],
    )
    as_arrays = settings(
        scales=np.array([0.125, 0.25, 0.5, 1.0]),
        aspect_ratios_per_layer=[np.array([1.0]), np.array([1.0, 2.0]), (np.float32(2),)],
        steps=[np.int32(8), np.array([16, 16]), None],
        offsets=np.array([0.5, 0.5, 0.25]),
        variances=np.array([0.1, 0.1, 0.2, 0.2]),
    )
    assert as_arrays == as_lists
    assert as_lists.n_layers == 3
    assert as_lists.n_boxes == (2, 3, 1)
    assert as_lists.layer_arguments(1) == {
        "aspect_ratios": (1.0, 2.0),
        "this_scale": 0.25,
        "next_scale": 0.5,
        "two_boxes_for_ar1": True,
        "this_steps": (16.0, 16.0),
        "this_offsets": 0.5,
        "clip_boxes": False,
        "coords": "centroids",
        "normalize_coords": True,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aspect_ratios_global": None}, "`aspect_ratios_global`.*None"),
        ({"min_scale": None}, "`scales`.*`min_scale`"),
        ({"max_scale": None}, "`scales`.*`min_scale`"),
        ({"scales": [0.1, 0.2, 0.3]}, "`scales` must have 4 entries.*got 3"),
        ({"scales": np.array([0.1, 0.2, 0.3])}, "`scales` must have 4 entries.*got 3"),
        ({"scales": [0.1, 0.2, 0, 0.3]}, "scales must be greater than 0"),
        ({"scales": [0.1, 0.2, np.nan, 0.3]}, "scales must be greater than 0"),
        ({"min_scale": 0}, "min_scale=0"),
        ({"min_scale": 0.95}, "min_scale=0.95, max_scale=0.9"),
        ({"aspect_ratios_per_layer": [[1], [1]]}, "`aspect_ratios_per_layer` must have 3.*got 2"),
        ({"aspect_ratios_per_layer": [[1], [1], [-1]]}, "aspect ratios must be greater.*-1"),
        ({"aspect_ratios_per_layer": [[1], [1], []]}, "aspect ratios must be greater"),
        ({"aspect_ratios_global": [0, 1]}, "aspect ratios must be greater"),
        ({"variances": [0.1, 0.1, 0.2]}, "`variances` must have 4 entries.*got 3"),
        ({"variances": [0.1, 0.1, 0.2, 0]}, "variances must be greater than 0"),
        ({"coords": "xyxy"}, "xyxy"),
        ({"steps": [8, 16]}, "`steps` must have 3 entries.*got 2"),
        ({"steps": [8, 16, (1, 2, 3)]}, "`steps`"),
        ({"offsets": [0.5] * 4}, "`offsets` must have 3 entries.*got 4"),
        ({"offsets": [0.5, 0.5, "middle"]}, "`offsets`.*middle"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        settings(**arguments)
