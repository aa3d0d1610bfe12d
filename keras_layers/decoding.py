"""What the decoding layers share: raw predictions in, a fixed number of detections out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_layers.nms import Selection, greedy_nms
from ssd_encoder_decoder.box_coder import decode_boxes, to_corners

# Behind the class confidences: 4 offsets, 4 anchor coordinates, 4 variances.
_N_BOX_COLUMNS = 12


class DecodingLayer(keras.layers.Layer):
    """Base of the layers that turn raw predictions into detections.

    A subclass says which scores enter NMS and which class a selected box has, and nothing else.

    Input: `(batch, n_boxes, n_classes + 1 + 12)`: confidences (background first) | 4 offsets |
    4 anchor coordinates | 4 variances, boxes as centroids.

    Output: float32 `(batch, top_k, 6)` with rows (class_id, confidence, xmin, ymin, xmax, ymax) in
    descending order of confidence, all zero where there are fewer than `top_k` detections.

    The layer has no weights and computes in float32 under any dtype policy: in half precision a
    coordinate of a 300 pixel wide image would be off by up to a pixel.
    """

    def __init__(
        self,
        confidence_thresh: float = 0.01,
        iou_threshold: float = 0.45,
        top_k: int = 200,
        nms_max_output_size: int = 400,
        coords: str = "centroids",
        normalize_coords: bool = True,
        img_height: float | None = None,
        img_width: float | None = None,
        max_candidates_per_class: int | None = None,
        **kwargs: Any,
    ):
        """Check and keep the settings.

        Arguments:
            confidence_thresh: A box counts if its confidence is greater than this.
            iou_threshold: A box whose IoU with a better one is greater than this is dropped
                (equality survives).
            top_k: Number of rows in the output: the best detections of an image.
            nms_max_output_size: At most this many boxes survive a single NMS.
            coords: The box format of the model; only ``'centroids'``.
            normalize_coords: Whether the model works in fractions of the image; the detections are
                then multiplied by the image's size. Otherwise they keep the model's unit (pixels).
            img_height: Height of the image in pixels; not needed if `normalize_coords` is False.
            img_width: Width of the image in pixels; not needed if `normalize_coords` is False.
            max_candidates_per_class: Let only this many of the best boxes of each class into NMS.
                The original Caffe SSD uses 400. None cuts nothing off; the memory that NMS takes
                does not depend on it.
            **kwargs: Arguments of every Keras layer, such as `name`.

        Raises:
            ValueError: naming the argument that is not as described.
        """
        kwargs.setdefault("dtype", "float32")
        # Casting to a half precision policy's dtype happens before `call`, and would be too late to
        # undo there.
        super().__init__(autocast=False, **kwargs)
        # An XLA compilation would replace TensorFlow's NMS kernel by a far slower one.
        self.supports_jit = keras.backend.backend() != "tensorflow"

        if coords != "centroids":
            raise ValueError(
                f"{type(self).__name__} decodes models with `coords='centroids'` only; got "
                f"{coords!r}. decode_detections decodes all formats outside of the model."
            )
        if normalize_coords and (img_height is None or img_width is None):
            raise ValueError(
                "With `normalize_coords=True` boxes are fractions of the image, and `img_height` "
                f"and `img_width` are needed to turn them into pixels; got {img_height} and "
                f"{img_width}."
            )
        if not _is_number(iou_threshold) or not 0 <= iou_threshold <= 1:
            raise ValueError(f"`iou_threshold` must be a number in [0, 1]; got {iou_threshold!r}.")
        if not _is_number(confidence_thresh):
            raise ValueError(f"`confidence_thresh` must be a number; got {confidence_thresh!r}.")
        counts = {"top_k": top_k, "nms_max_output_size": nms_max_output_size}
        if max_candidates_per_class is not None:
            counts["max_candidates_per_class"] = max_candidates_per_class
        for name, count in counts.items():
            if not _is_number(count) or count < 1 or not float(count).is_integer():
                raise ValueError(f"`{name}` must be a positive integer; got {count!r}.")

        self.confidence_thresh = confidence_thresh
        self.iou_threshold = iou_threshold
        self.top_k = top_k
        self.nms_max_output_size = nms_max_output_size
        self.coords = coords
        self.normalize_coords = normalize_coords
        self.img_height = img_height
        self.img_width = img_width
        self.max_candidates_per_class = max_candidates_per_class

    def candidate_scores(self, confidences: Any) -> Any:
        """Choose the scores that enter NMS.

        Arguments:
            confidences: float32 `(batch, n_boxes, n_classes + 1)`, background first.

        Returns:
            float32 `(batch, n_boxes, n)`: one NMS for each of the n columns.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `candidate_scores`.")

    def selected_classes(self, confidences: Any, selection: Selection) -> Any:
        """Name the classes of the boxes that NMS selected.

        Arguments:
            confidences: float32 `(batch, n_boxes, n_classes + 1)`, background first.
            selection: What NMS made of `candidate_scores`.

        Returns:
            int32 `(batch, top_k)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `selected_classes`.")

    def call(self, y_pred: Any) -> Any:
        """Decode, suppress, and keep the best."""
        y_pred = ops.cast(y_pred, "float32")
        # Only the boxes that NMS looks at are decoded.
        nms = partial(greedy_nms, decode=self._corners)
        return self._detections(y_pred, y_pred[..., -_N_BOX_COLUMNS:], nms)

    def decode(self, y_pred: Any, nms: Callable[..., Selection]) -> Any:
        """Do what the layer does, with an NMS of one's own: a deployment runtime has another one.

        Arguments:
            y_pred: The layer's input.
            nms: Takes the arguments of `keras_layers.nms.greedy_nms` up to
                `max_candidates_per_class` and follows the same rule.

        Returns:
            The layer's output.
        """
        y_pred = ops.cast(y_pred, "float32")
        return self._detections(y_pred, self._corners(y_pred[..., -_N_BOX_COLUMNS:]), nms)

    def _detections(self, y_pred: Any, boxes: Any, nms: Callable[..., Selection]) -> Any:
        """Suppress among boxes, and arrange what is left."""
        confidences = y_pred[..., :-_N_BOX_COLUMNS]  # (batch, n_boxes, n_classes + 1)
        selection = nms(
            boxes,
            self.candidate_scores(confidences),
            iou_threshold=float(self.iou_threshold),
            score_threshold=float(self.confidence_thresh),
            max_per_class=int(self.nms_max_output_size),
            max_total=int(self.top_k),
            max_candidates_per_class=self.max_candidates_per_class,
        )
        class_ids = self.selected_classes(confidences, selection)
        detections = ops.concatenate(
            [
                ops.cast(class_ids, "float32")[..., None],
                selection.scores[..., None],
                selection.boxes,
            ],
            axis=-1,
        )
        return ops.where(selection.is_valid[..., None], detections, 0.0)  # (batch, top_k, 6)

    def _corners(self, box_columns: Any) -> Any:
        """Decode `(batch, n, 12)` offsets, anchors and variances to corners.

        They are in pixels if the image's size is known.
        """
        boxes = decode_boxes(
            box_columns[..., :4],
            box_columns[..., 4:8],
            box_columns[..., 8:],
            self.coords,
            exp=ops.exp,
            stack=ops.stack,
        )
        boxes = to_corners(boxes, self.coords, stack=ops.stack)
        if not self.normalize_coords:
            return boxes
        return ops.multiply(boxes, np.array([self.img_width, self.img_height] * 2, np.float32))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return `(batch, top_k, 6)`."""
        n_columns = input_shape[-1]
        if len(input_shape) != 3 or n_columns is None or n_columns < 2 + _N_BOX_COLUMNS:
            raise ValueError(
                f"{type(self).__name__} expects raw predictions of the shape (batch, n_boxes, "
                "n_classes + 1 + 12) with at least one class besides the background; got "
                f"{tuple(input_shape)}."
            )
        return (input_shape[0], int(self.top_k), 6)

    def compute_output_spec(self, y_pred: Any) -> keras.KerasTensor:
        """Return the symbolic output: float32 under any dtype policy."""
        return keras.KerasTensor(self.compute_output_shape(y_pred.shape), dtype="float32")

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {
            **super().get_config(),
            "confidence_thresh": self.confidence_thresh,
            "iou_threshold": self.iou_threshold,
            "top_k": self.top_k,
            "nms_max_output_size": self.nms_max_output_size,
            "coords": self.coords,
            "normalize_coords": self.normalize_coords,
            "img_height": self.img_height,
            "img_width": self.img_width,
            "max_candidates_per_class": self.max_candidates_per_class,
        }


def _is_number(value: Any) -> bool:
    try:
        return not math.isnan(value)
    except TypeError:  # None, or a text
        return False
