"""The layer that scales a feature map to unit length over its channels."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# Below this a pixel's squared length counts as this, so that an all-zero pixel stays zero.
_LEAST_SQUARED_NORM = 1e-12


@keras.saving.register_keras_serializable(package="ssd_keras")
class L2Normalization(keras.layers.Layer):
    """Divides every pixel by the length of its channel vector, then scales each channel.

        y = gamma * x / sqrt(max(sum of x^2 over the channels, 1e-12))

    SSD predicts from feature maps of very different depth. Those of `conv4_3` are so much larger
    in magnitude than the others that they would drown them in training; normalised, with a learned
    scale for each channel, they do not (ParseNet, arXiv:1506.04579, section 3.3; SSD paper,
    section 3.1).

    Input: `(batch, height, width, channels)`, or any shape whose last axis are the channels.

    Output: the same shape. The sum over the channels is float32 under any dtype policy: the
    squares of a few hundred activations exceed what float16 can hold.

    One weight, `<layer name>_gamma`, of shape `(channels,)`.

    Example:
        >>> import keras
        >>> from keras_layers.keras_layer_L2Normalization import L2Normalization
        >>> pixel = [[[[3.0, 4.0]]]]  # one pixel with two channels, of length 5
        >>> keras.ops.convert_to_numpy(L2Normalization(gamma_init=20)(keras.ops.array(pixel)))
        array([[[[12., 16.]]]], dtype=float32)
    """

    def __init__(self, gamma_init: float = 20, gamma_regularizer: Any = None, **kwargs: Any):
        """Keep the settings.

        Arguments:
            gamma_init: The scale that every channel starts with.
            gamma_regularizer: A Keras regularizer, or None. Caffe's SSD decays the scale as it does
                kernels.
            **kwargs: Arguments of every Keras layer, such as `name`.
        """
        super().__init__(**kwargs)
        self.gamma_init = gamma_init
        self.gamma_regularizer = keras.regularizers.get(gamma_regularizer)

    def build(self, input_shape: tuple) -> None:
        """Make the scale: one number a channel."""
        if input_shape[-1] is None:
            raise ValueError(
                f"{self.name} has one weight for each channel, so it needs to know how many there "
                f"are; got the input shape {tuple(input_shape)}."
            )
        self.gamma = self.add_weight(
            # The layer's name comes twice in the weight's path: trained weight files have it so.
            name=f"{self.name}_gamma",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.gamma_init),
            regularizer=self.gamma_regularizer,
        )
        self.built = True

    def call(self, x: Any) -> Any:
        """Return the normalised and scaled `x`, in the layer's compute dtype."""
        x = ops.cast(x, "float32")
        squared_norm = ops.sum(ops.square(x), axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.maximum(squared_norm, _LEAST_SQUARED_NORM))
        return ops.cast(x * ops.cast(self.gamma, "float32"), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {
            **super().get_config(),
            "gamma_init": self.gamma_init,
            "gamma_regularizer": keras.regularizers.serialize(self.gamma_regularizer),
        }
