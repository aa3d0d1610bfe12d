"""The layer that makes independent scores of a model's class outputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="ssd_keras")
class SigmoidScores(keras.layers.Layer):
    """Scores each class by itself: how likely it is this class rather than background.

        score of class c    = sigmoid(logit of c - logit of the background)
        score of background = 1 - the highest score of a class

    A softmax makes the classes compete: their probabilities and that of the background add up to 1.
    Here each class asks its own yes-or-no question, as RetinaNet does (arXiv:1708.02002), and a box
    may be both a person and a rider. RetinaNet has no background logit. Here it is what the
    others are measured from, so that the predictor layers are those of a softmax model, and its
    weights mean the same: sigmoid(a - b) is the softmax of a and b alone.

    No loss is computed from the background's score; decoders that take the best class of a box ask
    whether it beats the background, which here means a score above a half.

    Input: `(batch, n_boxes, n_classes + 1)` logits, background first.

    Output: the same shape, in the layer's dtype, float32 under any dtype policy unless another one
    is asked for.
    """

    def __init__(self, **kwargs: Any):
        """Make the layer; it has no weights.

        Arguments:
            **kwargs: Arguments of every Keras layer, such as `name`.
        """
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def call(self, logits: Any) -> Any:
        """Turn logits into scores."""
        scores = ops.sigmoid(logits[..., 1:] - logits[..., :1])
        background = 1.0 - ops.max(scores, axis=-1, keepdims=True)
        return ops.concatenate([background, scores], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the input."""
        return input_shape
