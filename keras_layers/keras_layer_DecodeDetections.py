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

    Example:
        An encoded target has the layout of a prediction, so decoding it gives the object back:

        >>> import keras
        >>> import numpy as np
        >>> from keras_layers.keras_layer_DecodeDetections import DecodeDetections
        >>> from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
        >>> encoder = SSDInputEncoder(100, 200, n_classes=2, predictor_sizes=[(6, 12), (3, 6)])
        >>> targets = encoder([np.array([[2, 20, 30, 60, 80]])])
        >>> detections = DecodeDetections(img_height=100, img_width=200)(keras.ops.array(targets))
        >>> keras.ops.convert_to_numpy(detections)[0, :2].round(2)
        array([[ 2.,  1., 20., 30., 60., 80.],
               [ 0.,  0.,  0.,  0.,  0.,  0.]], dtype=float32)
    """

    def candidate_scores(self, confidences: Any) -> Any:
        """Let every class compete within itself; leave the background out."""
        return confidences[..., 1:]

    def selected_classes(self, confidences: Any, selection: Selection) -> Any:
        """Count the background, which did not enter, as class 0."""
        return selection.class_ids + 1
