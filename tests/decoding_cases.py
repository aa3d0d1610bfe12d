"""Predictions at which decoders of other runtimes may go astray, with the layer that decodes them.

Each case is a function that returns (y_pred, decoding layer).
"""

from __future__ import annotations

from functools import partial

import keras
import numpy as np

from keras_layers.keras_layer_DecodeDetections import DecodeDetections
from keras_layers.keras_layer_DecodeDetectionsFast import DecodeDetectionsFast
from tests.raw_predictions import golden_predictions

N_CLASSES = 3  # without the background
LAYERS = {"full": DecodeDetections, "fast": DecodeDetectionsFast}


def pass_through(y_pred: np.ndarray) -> keras.Model:
    """Return a network that predicts what it is given."""
    images = keras.Input(y_pred.shape[1:], name="images")
    return keras.Model(images, {"predictions": keras.layers.Identity()(images)})


def detections_of(layer: keras.layers.Layer, y_pred: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(y_pred))


def of_boxes(boxes: list, scores: list) -> np.ndarray:
    """Return predictions `(1, n, 16)` of corner boxes, with confidences (background first)."""
    boxes = np.array(boxes, np.float32)
    y_pred = np.zeros((1, len(boxes), N_CLASSES + 1 + 12), np.float32)
    y_pred[0, :, : N_CLASSES + 1] = scores
    y_pred[0, :, -8:-6] = (boxes[:, :2] + boxes[:, 2:]) / 2
    y_pred[0, :, -6:-4] = boxes[:, 2:] - boxes[:, :2]
    y_pred[0, :, -4:] = 0.1
    return y_pred


def predictions() -> np.ndarray:
    """Return two images with a few boxes for many classes."""
    return golden_predictions()["B"]


def usual(layer_class):
    return predictions(), layer_class(img_height=300, img_width=300)


def few_candidates(layer_class):
    return predictions(), layer_class(
        img_height=300, img_width=200, top_k=50, max_candidates_per_class=40
    )


def few_in_a_class(layer_class):
    return predictions(), layer_class(normalize_coords=False, nms_max_output_size=3, top_k=30)


def nothing_at_all(layer_class):
    return predictions(), layer_class(normalize_coords=False, confidence_thresh=0.999999)


def more_rows_than_boxes(layer_class):
    y_pred = of_boxes([[0, 0, 4, 4], [10, 0, 14, 4]], [[0.1, 0.7, 0.2, 0], [0.2, 0, 0, 0.8]])
    return y_pred, layer_class(normalize_coords=False, top_k=9)


def equal_scores(layer_class):
    """Forty boxes in a row, each overlapping its neighbours, of equal scores in all classes."""
    boxes = [[2 * i, 0, 2 * i + 4, 8] for i in range(40)]
    y_pred = of_boxes(boxes, [[0.1, 0.3, 0.3, 0.3]] * 40)
    return y_pred, layer_class(normalize_coords=False, iou_threshold=0.3, top_k=35)


def coarse_scores(layer_class):
    """Ties among some boxes, in a crowd."""
    y_pred = predictions().copy()
    y_pred[..., :-12] = np.round(y_pred[..., :-12] * 30) / 30
    return y_pred, layer_class(img_height=300, img_width=300, top_k=60)


def iou_equal_to_threshold(layer_class):
    """The smaller box is half of the larger one: IoU exactly 0.5, which survives."""
    y_pred = of_boxes([[0, 0, 2, 1], [0, 0, 1, 1]], [[0.1, 0.9, 0, 0], [0.2, 0.8, 0, 0]])
    return y_pred, layer_class(normalize_coords=False, iou_threshold=0.5)


def iou_threshold_zero(layer_class):
    """Disjoint boxes have the IoU 0, which is not greater than 0."""
    boxes = [[0, 0, 2, 2], [5, 5, 6, 6], [1, 1, 3, 3]]
    y_pred = of_boxes(boxes, [[0.1, 0.9, 0, 0], [0.2, 0.8, 0, 0], [0.3, 0.7, 0, 0]])
    return y_pred, layer_class(normalize_coords=False, iou_threshold=0.0)


def iou_threshold_one(layer_class):
    """No IoU is greater than 1, not even that of a box with itself."""
    y_pred = of_boxes([[0, 0, 2, 2], [0, 0, 2, 2]], [[0.1, 0.9, 0, 0], [0.2, 0.8, 0, 0]])
    return y_pred, layer_class(normalize_coords=False, iou_threshold=1.0)


def confidence_equal_to_threshold(layer_class):
    boxes = [[0, 0, 4, 4], [10, 0, 14, 4]]
    y_pred = of_boxes(boxes, [[0.25, 0.5, 0.25, 0], [0.2, 0.8, 0, 0]])
    return y_pred, layer_class(normalize_coords=False, confidence_thresh=0.5)


def background_as_good_as_a_class(layer_class):
    boxes = [[0, 0, 4, 4], [10, 0, 14, 4]]
    y_pred = of_boxes(boxes, [[0.5, 0.5, 0, 0], [0.4, 0.0, 0.3, 0.3]])
    return y_pred, layer_class(normalize_coords=False)


def boxes_without_area(layer_class):
    boxes = [[3, 3, 3, 3], [3, 3, 3, 3], [0, 0, 0, 5]]
    y_pred = of_boxes(boxes, [[0.1, 0.9, 0, 0], [0.2, 0.8, 0, 0], [0.3, 0.7, 0, 0]])
    return y_pred, layer_class(normalize_coords=False)


# Where the two layers differ: which candidates enter, and what their classes are.
_FOR_BOTH_LAYERS = (usual, few_candidates, equal_scores, background_as_good_as_a_class)
# NMS and what follows it are the same for both.
_FOR_ONE_LAYER = (
    few_in_a_class,
    nothing_at_all,
    more_rows_than_boxes,
    coarse_scores,
    iou_equal_to_threshold,
    iou_threshold_zero,
    iou_threshold_one,
    confidence_equal_to_threshold,
    boxes_without_area,
)
CASES = {
    f"{make.__name__}-{name}": partial(make, layer_class)
    for make in (*_FOR_BOTH_LAYERS, *_FOR_ONE_LAYER)
    for name, layer_class in LAYERS.items()
    if make in _FOR_BOTH_LAYERS or name == "full"
}
