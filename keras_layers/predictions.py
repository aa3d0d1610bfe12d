"""The layer that puts a model's predictions together, and knows what its classes are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="ssd_keras")
class Predictions(keras.layers.Concatenate):
    """`keras.layers.Concatenate` with a place for class names.

    A model's prediction tensor is [class scores | offsets | anchors | variances]; the first columns
    are what the names belong to. Every SSD model has this layer once, in every mode, and so its
    names are in its configuration, in its `.keras` file and in whatever is made of it.

    Input: a list of tensors `(batch, n_boxes, n)`.

    Output: `(batch, n_boxes, sum of all n)` in the layer's dtype, float32 under any dtype policy
    unless another one is asked for.
    """

    def __init__(self, axis: int = -1, class_names: Sequence[str] | None = None, **kwargs: Any):
        """Make the layer; it has no weights.

        Arguments:
            axis: The axis along which the inputs are put together.
            class_names: Names by class id, 'background' first, or None. To change those of a model
                use `ssd_encoder_decoder.class_names.set_class_names`, which checks them.
            **kwargs: Arguments of every Keras layer, such as `name`.
        """
        kwargs.setdefault("dtype", "float32")
        super().__init__(axis=axis, **kwargs)
        self.class_names = None if class_names is None else tuple(class_names)

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        names = None if self.class_names is None else list(self.class_names)
        return {**super().get_config(), "class_names": names}
