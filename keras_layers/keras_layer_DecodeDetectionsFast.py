"""The layer that decodes predictions with a single NMS."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_layers.decoding import DecodingLayer
from keras_layers.nms import Selection


@keras.saving.register_keras_serializable(package="ssd_keras")
class DecodeDetectionsFast(DecodingLayer):
    """Decodes raw predictions with one NMS over all classes together, as a model's last layer.

    Every box takes part with its most confident class only, and not at all if that is background;
    two objects of different classes in the same place are one. `decode_detections_fast` does the
    same outside of the model, but lets a confidence equal to the threshold pass.
    Arguments, input and output are those of `DecodingLayer`.
    """

    def candidate_scores(self, confidences: Any) -> Any:
        """Let each box compete with its best class, unless background is as good or better."""
        best = ops.max(confidences[..., 1:], axis=-1, keepdims=True)
        return ops.where(best > confidences[..., :1], best, -float("inf"))

    def selected_classes(self, confidences: Any, selection: Selection) -> Any:
        """Look up the best class of the few boxes that were selected."""
        confidences = ops.take_along_axis(confidences, selection.box_ids[..., None], axis=1)
        is_best = ops.equal(confidences, ops.max(confidences, axis=-1, keepdims=True))
        # Of integers, because Keras' argmax of floats needs an operation that LiteRT lacks.
        return ops.argmax(ops.cast(is_best, "int32"), axis=-1)
