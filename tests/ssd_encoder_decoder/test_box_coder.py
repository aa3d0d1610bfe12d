"""The box coder: the paper's formulas by hand, and encoding undone by decoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounding_box_utils.bounding_box_utils import BOX_FORMATS, convert_coordinates
from ssd_encoder_decoder.box_coder import decode_boxes, encode_boxes, to_corners

VARIANCES = np.array([0.1, 0.1, 0.2, 0.2])


@pytest.mark.parametrize(
    ("coords", "box", "anchor", "offsets"),
    [
        # The centre moves by (4, -3) in units of the anchor's (20, 10), the size is (e, 1/e) times.
        (
            "centroids",
            [54, 47, 20 * np.e, 10 / np.e],
            [50, 50, 20, 10],
            [4 / 20 / 0.1, -3 / 10 / 0.1, 1 / 0.2, -1 / 0.2],
        ),
        # Every coordinate moves on its own, in units of the anchor's width 20 and height 10.
        ("corners", [44, 42, 60, 57], [40, 45, 60, 55], [2.0, -3.0, 0.0, 1.0]),
        ("minmax", [44, 60, 42, 57], [40, 60, 45, 55], [2.0, 0.0, -1.5, 1.0]),
    ],
)
def test_cases_by_hand(coords, box, anchor, offsets):
    box, anchor = np.array(box, float), np.array(anchor, float)
    np.testing.assert_allclose(encode_boxes(box, anchor, VARIANCES, coords), offsets, atol=1e-12)
    np.testing.assert_allclose(decode_boxes(np.array(offsets), anchor, VARIANCES, coords), box)


@pytest.mark.parametrize("coords", BOX_FORMATS)
def test_no_offset_is_the_anchor_itself(coords):
    anchors = np.array([[10.0, 20, 30, 40], [1, 2, 3, 4]])
    np.testing.assert_array_equal(encode_boxes(anchors, anchors, VARIANCES, coords), 0)
    np.testing.assert_array_equal(
        decode_boxes(np.zeros((2, 4)), anchors, VARIANCES, coords), anchors
    )


@given(data=st.data(), coords=st.sampled_from(BOX_FORMATS))
def test_decoding_undoes_encoding(data, coords):
    def boxes() -> np.ndarray:
        position, side = st.floats(-100, 400), st.floats(1, 300)
        box = st.tuples(position, position, side, side)
        drawn = np.array(data.draw(st.lists(box, min_size=3, max_size=3)))
        return (
            drawn if coords == "centroids" else convert_coordinates(drawn, 0, f"centroids2{coords}")
        )

    variances = np.array(data.draw(st.tuples(*[st.floats(0.05, 2)] * 4)))
    given_boxes, anchors = boxes(), boxes()
    offsets = encode_boxes(given_boxes, anchors, variances, coords)
    decoded = decode_boxes(offsets, anchors, np.broadcast_to(variances, (3, 4)), coords)
    np.testing.assert_allclose(decoded, given_boxes, atol=1e-9)


@pytest.mark.parametrize("coords", BOX_FORMATS)
def test_to_corners_is_convert_coordinates_in_the_dtype_of_the_boxes(coords):
    boxes = np.array([[[10, 20, 30, 50]], [[1, 5, 2, 9]]], np.float32)
    corners = to_corners(boxes, coords)
    assert corners.dtype == np.float32
    expected = boxes if coords == "corners" else convert_coordinates(boxes, 0, f"{coords}2corners")
    np.testing.assert_array_equal(corners, expected)


def test_backend_tensors_are_coded_like_arrays():
    from keras import ops

    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(2, 3, 4)).astype(np.float32)
    anchors = rng.uniform(1, 2, (2, 3, 4)).astype(np.float32)
    variances = VARIANCES.astype(np.float32)
    tensors = [ops.convert_to_tensor(array) for array in (offsets, anchors, variances)]
    for coords in BOX_FORMATS:
        decoded = decode_boxes(*tensors, coords, exp=ops.exp, stack=ops.stack)
        expected = decode_boxes(offsets, anchors, variances, coords)
        np.testing.assert_allclose(ops.convert_to_numpy(decoded), expected, rtol=1e-5)
        encoded = encode_boxes(decoded, *tensors[1:], coords, log=ops.log, stack=ops.stack)
        np.testing.assert_allclose(ops.convert_to_numpy(encoded), offsets, rtol=1e-3, atol=1e-3)
        corners = to_corners(decoded, coords, stack=ops.stack)
        np.testing.assert_allclose(
            ops.convert_to_numpy(corners), to_corners(expected, coords), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("function", [encode_boxes, decode_boxes])
def test_an_unknown_format_is_named(function):
    with pytest.raises(ValueError, match="xyxy"):
        function(np.ones(4), np.ones(4), VARIANCES, "xyxy")
    with pytest.raises(ValueError, match="xyxy"):
        to_corners(np.ones(4), "xyxy")
