"""Telling predictor layers by name and shape, and the channels of a class."""

from __future__ import annotations

import numpy as np
import pytest

from misc_utils.model_weights import weights_by_layer
from misc_utils.predictor_heads import PredictorHead, find_predictor_heads
from models.keras_ssd7 import build_model


def shapes_of(n_conf: int, n_loc: int, conf="fc7_mbox_conf", loc="fc7_mbox_loc") -> dict:
    return {
        "conv1_1": [(3, 3, 3, 64), (64,)],
        conf: [(3, 3, 1024, n_conf), (n_conf,)],
        loc: [(3, 3, 1024, n_loc), (n_loc,)],
    }


@pytest.mark.parametrize(
    ("names", "n_conf", "n_loc", "n_boxes", "n_classes"),
    [
        (("fc7_mbox_conf", "fc7_mbox_loc"), 126, 24, 6, 20),
        (("fc7_mbox_conf", "fc7_mbox_loc"), 486, 24, 6, 80),
        (("classes4", "boxes4"), 24, 16, 4, 5),
        (("classes4", "boxes4"), 2, 4, 1, 1),
    ],
)
def test_heads_are_found(names, n_conf, n_loc, n_boxes, n_classes):
    heads = find_predictor_heads(shapes_of(n_conf, n_loc, *names))
    assert heads == {names[0]: PredictorHead(*names, n_boxes, n_classes)}


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        shapes_of(126, 24, conf="fc7_conf"),
        shapes_of(126, 24, loc="fc7_loc"),
        shapes_of(126, 25),
        shapes_of(125, 24),
        shapes_of(0, 24),
        shapes_of(126, 0),
        {**shapes_of(126, 24), "fc7_mbox_loc": []},
        {**shapes_of(126, 24), "fc7_mbox_conf": [()]},
    ],
)
def test_what_is_no_head(shapes):
    assert find_predictor_heads(shapes) == {}


def test_channels_are_where_the_model_expects_them():
    """Raising the bias of one class of one box raises that score of that box, in every cell."""
    model = build_model((64, 96, 3), 3)
    arrays = weights_by_layer(model)
    shapes = {layer: [array.shape for array in each] for layer, each in arrays.items()}
    head = find_predictor_heads(shapes)["classes5"]
    assert (head.n_boxes, head.n_classes, head.n_scores) == (4, 3, 4)

    bias = arrays["classes5"][1]
    head.by_box_and_class(bias)[2, 3] = 50.0
    model.get_layer("classes5").set_weights([arrays["classes5"][0], bias])
    scores = model.predict(np.zeros((1, 64, 96, 3)), verbose=0)[0, :, :4]
    (rows,) = np.nonzero(scores[:, 3] > 0.99)
    first = 8 * 12 * 4  # the boxes of the finer feature map come before
    np.testing.assert_array_equal(rows, first + np.arange(4 * 6) * 4 + 2)
