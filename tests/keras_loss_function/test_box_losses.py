"""Losses of boxes: worked cases, a slow reference, and what must always hold."""

from __future__ import annotations

import math
from itertools import product

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_loss_function.box_losses import BOX_LOSSES, box_losses, iou_losses
from ssd_encoder_decoder.box_coder import encode_boxes
from tests.gradients import gradient_by_prediction

IOU_FAMILY = BOX_LOSSES[1:]
VARIANCES = np.array([0.1, 0.1, 0.2, 0.2], np.float32)


def value(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def slow_iou_loss(kind: str, truth: np.ndarray, box: np.ndarray) -> float:
    """Compare two boxes (xmin, ymin, xmax, ymax) with an area, with Python's numbers."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = truth.tolist(), box.tolist()
    intersection = max(0, min(a1, c1) - max(a0, c0)) * max(0, min(b1, d1) - max(b0, d0))
    union = (a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - intersection
    iou = intersection / union
    width, height = max(a1, c1) - min(a0, c0), max(b1, d1) - min(b0, d0)
    if kind == "giou":
        return 1 - iou + (width * height - union) / (width * height)
    distance = math.hypot((a0 + a1 - c0 - c1) / 2, (b0 + b1 - d0 - d1) / 2)
    loss = 1 - iou + distance**2 / (width**2 + height**2)
    if kind == "diou":
        return loss
    angles = [math.atan((x1 - x0) / (y1 - y0)) for x0, y0, x1, y1 in (truth, box)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return loss + (v * v / (1 - iou + v) if v else 0)


UNIT = [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("box", "giou", "diou", "ciou"),
    [
        (UNIT, 0, 0, 0),
        # Half of it: IoU 2 / 6, hull 3 x 2 = union; centres 1 apart, diagonal^2 = 13.
        ([1, 0, 3, 2], 2 / 3, 2 / 3 + 1 / 13, 2 / 3 + 1 / 13),
        # Beside it, touching: IoU 0, hull 4 x 2 = union; centres 2 apart, diagonal^2 = 20.
        ([2, 0, 4, 2], 1, 1 + 4 / 20, 1 + 4 / 20),
        # Away: hull 6 x 2 = 12, union 8; centres 4 apart, diagonal^2 = 40.
        ([4, 0, 6, 2], 1 + 4 / 12, 1 + 16 / 40, 1 + 16 / 40),
        # In it, half as large: IoU 1 / 4, same centre, same shape.
        ([0.5, 0.5, 1.5, 1.5], 3 / 4, 3 / 4, 3 / 4),
        # No area: IoU 0; the hull is the true box; the centre is right.
        ([1, 0, 1, 2], 1, 1, None),
        # Ends swapped: no area, but a hull of 3 x 2; the centre is 1 away.
        ([3, 0, 1, 2], 1 + 2 / 6, 1 + 1 / 13, None),
    ],
)
def test_by_hand(box, giou, diou, ciou):
    for kind, expected in zip(IOU_FAMILY, (giou, diou, ciou), strict=True):
        if expected is not None:
            made = value(iou_losses(kind, np.float32([UNIT]), np.float32([box])))
            np.testing.assert_allclose(made, [expected], rtol=1e-6, atol=1e-7, err_msg=kind)


def test_the_scale_beside_smooth_l1():
    # The example of the module: a tenth of the width at a variance of 0.1.
    anchor = np.float32([0.5, 0.5, 0.2, 0.4])
    truth = np.concatenate([np.zeros(4, np.float32), anchor, VARIANCES])[np.newaxis]
    shifted = truth.copy()
    shifted[:, 0] = 1.0
    for kind, expected in (("smooth_l1", 0.5), ("giou", 1 - 0.9 / 1.1)):
        made = value(box_losses(kind, truth, shifted, "centroids"))
        np.testing.assert_allclose(made, [expected], rtol=1e-5)


corners = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.05, 3), st.floats(0.05, 3)).map(
    lambda b: np.float32([b[0], b[1], b[0] + b[2], b[1] + b[3]])
)


@given(kind=st.sampled_from(IOU_FAMILY), truth=corners, box=corners)
def test_the_slow_reference_says_the_same(kind, truth, box):
    made = value(iou_losses(kind, truth[np.newaxis], box[np.newaxis]))
    expected = slow_iou_loss(kind, truth.astype(np.float64), box.astype(np.float64))
    np.testing.assert_allclose(made, [expected], rtol=1e-4, atol=1e-4)
    assert -1e-6 <= made[0] <= (3 if kind == "ciou" else 2)


def random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    starts = rng.uniform(0, 0.6, (n, 2))
    return np.concatenate([starts, starts + rng.uniform(0.1, 0.4, (n, 2))], -1).astype(np.float32)


ORDER = {"corners": [0, 1, 2, 3], "minmax": [0, 2, 1, 3]}


def in_format(boxes: np.ndarray, coords: str) -> np.ndarray:
    if coords != "centroids":
        return boxes[..., ORDER[coords]]
    starts, ends = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(starts + ends) / 2, ends - starts], axis=-1)


@pytest.mark.parametrize("coords", ["centroids", "corners", "minmax"])
@pytest.mark.parametrize("kind", IOU_FAMILY)
def test_boxes_are_decoded_from_their_offsets(kind, coords):
    rng = np.random.default_rng(0)
    truth, box, anchor = (random_boxes(rng, 30) for _ in range(3))
    rows = [
        np.concatenate(
            [
                encode_boxes(in_format(each, coords), in_format(anchor, coords), VARIANCES, coords),
                in_format(anchor, coords),
                np.broadcast_to(VARIANCES, (30, 4)),
            ],
            axis=-1,
        ).astype(np.float32)
        for each in (truth, box)
    ]
    expected = [slow_iou_loss(kind, *pair) for pair in zip(truth, box, strict=True)]
    np.testing.assert_allclose(value(box_losses(kind, *rows, coords)), expected, rtol=1e-3)
    # What stands behind the predicted offsets is the model's business, not the loss's.
    rows[1][..., 4:] = rng.normal(size=(30, 8))
    np.testing.assert_allclose(value(box_losses(kind, *rows, coords)), expected, rtol=1e-3)


@pytest.mark.parametrize("kind", IOU_FAMILY)
def test_a_step_against_the_gradient_comes_nearer(kind):
    # Also where the boxes do not touch: a plain IoU would have no gradient there.
    rng = np.random.default_rng(0)
    anchors = np.tile(np.float32([0.5, 0.5, 0.3, 0.3, *VARIANCES]), (200, 1))
    truth = np.concatenate([np.zeros((200, 4), np.float32), anchors], axis=-1)
    offsets = rng.normal(0, [15, 15, 3, 3], (200, 4)).astype(np.float32)
    prediction = np.concatenate([offsets, anchors], axis=-1)

    def loss(rows):
        return box_losses(kind, truth, rows, "centroids")

    slope = gradient_by_prediction(loss, prediction)
    np.testing.assert_array_equal(slope[:, 4:], 0)
    length = np.linalg.norm(slope, axis=-1, keepdims=True)
    assert (length > 0).all()
    assert (value(loss(prediction - 0.003 * slope / length)) < value(loss(prediction))).all()


EXTREME = [0, 1, -1, 1e-30, 1e4, -1e4, 1e30, -1e30, 65504, float("inf")]
ANCHORS = [[0.5, 0.5, 0.2, 0.2], [150, 150, 300, 20], [0, 0, 0, 0], [0.1, 0.1, 0.1, 0.9]]


@pytest.mark.parametrize("coords", ["centroids", "corners", "minmax"])
@pytest.mark.parametrize("kind", IOU_FAMILY)
def test_any_prediction_gives_a_finite_loss_and_gradient(kind, coords):
    offsets = np.float32(list(product(EXTREME, repeat=4)))
    anchors = np.float32(ANCHORS)[np.arange(len(offsets)) % 4]
    columns = [anchors, np.broadcast_to(VARIANCES, offsets.shape)]
    prediction = np.concatenate([offsets, *columns], axis=-1)
    true_offsets = np.random.default_rng(0).normal(0, 3, offsets.shape).astype(np.float32)
    truth = np.concatenate([true_offsets, *columns], axis=-1)
    made = value(box_losses(kind, truth, prediction, coords))
    assert np.isfinite(made).all()
    slope = gradient_by_prediction(lambda p: box_losses(kind, truth, p, coords), prediction)
    assert np.isfinite(slope).all()
    if coords == "centroids":  # in other formats, a true box may have its ends swapped here
        assert made.min() >= -1e-5
        assert made.max() <= 3
