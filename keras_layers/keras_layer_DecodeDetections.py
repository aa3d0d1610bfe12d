"""The layer that decodes predictions the way the SSD paper evaluates them."""

from __future__ import annotations

from typing import Any

import keras

from keras_layers.decoding import DecodingLayer


@keras.saving.register_keras_serializable(package="ssd_keras")
class DecodeDetections(DecodingLayer):
    """Decodes raw predictions with NMS within each class, as the last layer of a model.

    One anchor box may be reported for several classes. `decode_detections` does the same outside of
    the model. Arguments, input and output are those of `DecodingLayer`.
    """

    def candidates(self, confidences: Any) -> tuple[Any, Any | None]:
        """Let every class compete within itself; leave the background out."""
        return confidences[..., 1:], None
