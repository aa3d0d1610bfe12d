from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_generator.label_boxes import (
    LABELS_FORMAT,
    BoxMap,
    Inverter,
    as_label_array,
    box_columns,
    move_labels,
)

scales = st.floats(0.1, 10).flatmap(lambda scale: st.sampled_from([scale, -scale]))
shifts = st.floats(-1000, 1000)
maps = st.builds(BoxMap, scales, shifts, scales, shifts, st.booleans())
boxes = st.lists(
    st.tuples(*[st.floats(0, 500)] * 2, *[st.floats(0.1, 500)] * 2).map(
        lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
    ),
    max_size=5,
).map(lambda rows: np.array(rows, np.float64).reshape(-1, 4))


@given(maps, boxes)
def test_inverse_undoes(box_map, boxes):
    np.testing.assert_allclose(box_map.inverse()(box_map(boxes)), boxes, atol=1e-6)


@given(maps, boxes)
def test_corners_move_like_points_and_keep_their_order(box_map, boxes):
    """An independent reference: map the four corner points of each box and enclose them."""
    for box, moved in zip(boxes, box_map(boxes), strict=True):
        corners = []
        for x, y in ((box[0], box[1]), (box[2], box[3])):
            if box_map.transpose:
                x, y = y, x
            corners.append(
                (x * box_map.x_scale + box_map.x_shift, y * box_map.y_scale + box_map.y_shift)
            )
        expected = [*np.min(corners, axis=0), *np.max(corners, axis=0)]
        np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_degenerate_boxes_stay_degenerate():
    """A label with xmin > xmax shall not turn into a fine box unnoticed."""
    moved = BoxMap(x_scale=-1, x_shift=10)(np.array([[5.0, 0, 2, 4]]))
    assert moved.tolist() == [[8, 0, 5, 4]]


def test_columns():
    assert box_columns(LABELS_FORMAT) == [1, 2, 3, 4]
    assert box_columns(LABELS_FORMAT, shift=1) == [2, 3, 4, 5]
    assert box_columns({"class_id": 4, "xmin": 3, "ymin": 2, "xmax": 1, "ymax": 0}) == [3, 2, 1, 0]


def test_label_arrays():
    labels = np.ones((2, 6))
    assert as_label_array(labels, LABELS_FORMAT) is labels
    for empty in ([], np.zeros(0), np.zeros((0, 4)), np.zeros((1, 0))):
        assert as_label_array(empty, LABELS_FORMAT).shape == (0, 5)
    assert as_label_array([[1, 2, 3, 4, 5]], LABELS_FORMAT).tolist() == [[1, 2, 3, 4, 5]]
    with pytest.raises(ValueError, match=r"shape \(n, 5\) or more columns.* got \(5,\)"):
        as_label_array([1, 2, 3, 4, 5], LABELS_FORMAT)


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        *((dtype, np.int64) for dtype in ("uint8", "uint16", "uint32", "int8", "int16", "int64")),
        ("int32", np.int32),
        ("float32", np.float32),
    ],
)
def test_boxes_may_leave_the_range_of_narrow_integers(dtype, becomes):
    labels = as_label_array(np.array([[1, 10, 20, 60, 80]], dtype), LABELS_FORMAT)
    assert labels.dtype == becomes
    moved = move_labels(labels, BoxMap(x_shift=-30, y_scale=500), [1, 2, 3, 4])
    assert moved.tolist() == [[1, -20, 10_000, 30, 40_000]]


def test_only_the_box_moves_and_integers_are_rounded():
    labels = np.array([[7, 1, 3, 5, 9, 11]])
    moved = move_labels(labels, BoxMap(0.5, 0, 0.5, 0), [1, 2, 3, 4])
    assert moved.tolist() == [[7, 0, 2, 2, 4, 11]]
    assert moved.dtype == labels.dtype


def test_inverter_never_rounds_integer_predictions():
    inverter = Inverter(BoxMap(0.5, 0, 0.5, 0), (2, 3, 4, 5))
    assert inverter(np.array([[1, 1, 1, 3, 5, 7]])).tolist() == [[1, 1, 0.5, 1.5, 2.5, 3.5]]
    assert inverter(np.ones((1, 6), np.float32)).dtype == np.float32
