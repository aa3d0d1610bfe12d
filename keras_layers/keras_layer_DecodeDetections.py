"""The layer that decodes predictions the way the SSD paper evaluates them."""

from __future__ import annotations

from typing import Any

import keras

from keras_layers.decoding import DecodingLayer
from keras_layers.nms import Selection


@keras.saving.register_keras_serializable(package="ssd_keras")
class DecodeDetections(DecodingLayer):
    """Decodes raw predictions with NMS within each class, as the last layer of a model.

    One anchor box may be reported for several classes. `decode_detections` does the same outside of
    the model. Arguments, input and output are those of `DecodingLayer`.
    """

    def candidate_scores(self, confidences: Any) -> Any:
        """Let every class compete within itself; leave the background out."""
        return confidences[..., 1:]

    def selected_classes(self, confidences: Any, selection: Selection) -> Any:
        """Count the background, which did not enter, as class 0."""
        return selection.class_ids + 1
