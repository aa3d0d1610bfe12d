"""The layer that decodes predictions with a single NMS."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_layers.decoding import DecodingLayer


@keras.saving.register_keras_serializable(package="ssd_keras")
class DecodeDetectionsFast(DecodingLayer):
    """Decodes raw predictions with one NMS over all classes together, as a model's last layer.

    Every box takes part with its most confident class only, and not at all if that is background;
    two objects of different classes in the same place are one. `decode_detections_fast` does the
    same outside of the model, but lets a confidence equal to the threshold pass.
    Arguments, input and output are those of `DecodingLayer`.
    """

    def candidates(self, confidences: Any) -> tuple[Any, Any | None]:
        """Let each box compete with its best class; the first one, hence background, if equal."""
        class_ids = ops.argmax(confidences, axis=-1)
        scores = ops.where(class_ids == 0, -float("inf"), ops.max(confidences, axis=-1))
        return scores[..., None], class_ids
