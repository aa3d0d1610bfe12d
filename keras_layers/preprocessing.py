"""Input preprocessing as layers of the model, so that a saved model takes plain RGB images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


class _ChannelArithmetic(keras.layers.Layer):
    """What the two normalisation layers share: a constant, a number or one value a channel.

    Pixel values minus a mean need nine bits; bfloat16 has eight. Hence float32 by default.
    """

    def __init__(self, value: float | Sequence[float], **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.value = np.asarray(value, dtype=np.float32).tolist()

    def build(self, input_shape: tuple) -> None:
        """Check that there is a value for every channel, or one for all."""
        image_shape, shape = tuple(input_shape[1:]), np.shape(self.value)
        matches = zip(reversed(shape), reversed(image_shape), strict=False)
        if len(shape) > len(image_shape) or any(n not in (1, size) for n, size in matches):
            raise ValueError(
                f"Layer {self.name!r} needs one number, or one a channel of the input "
                f"{image_shape}; got values of shape {shape}: {self.value}."
            )
        self.built = True

    def _constant(self) -> Any:
        return ops.convert_to_tensor(np.asarray(self.value, dtype=np.float32))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {**super().get_config(), "value": self.value}


@keras.saving.register_keras_serializable(package="ssd_keras")
class MeanSubtraction(_ChannelArithmetic):
    """Subtracts `value`, a number or one number a channel in the order of the input image."""

    def call(self, x: Any) -> Any:
        """Return `x - value`, for `x` of shape `(batch, height, width, channels)`."""
        return x - self._constant()


@keras.saving.register_keras_serializable(package="ssd_keras")
class StddevDivision(_ChannelArithmetic):
    """Divides by `value`, a number or one number a channel in the order of the input image."""

    def call(self, x: Any) -> Any:
        """Return `x / value`, for `x` of shape `(batch, height, width, channels)`."""
        return x / self._constant()


@keras.saving.register_keras_serializable(package="ssd_keras")
class ChannelSwap(keras.layers.Layer):
    """Reorders the channels: `order=(2, 1, 0)` turns RGB into the BGR that Caffe's VGG expects."""

    def __init__(self, order: Sequence[int], **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.order = [int(channel) for channel in order]

    def build(self, input_shape: tuple) -> None:
        """Check that the order names channels that the input has."""
        channels = input_shape[-1]
        if any(not 0 <= channel < channels for channel in self.order):
            raise ValueError(
                f"`swap_channels` must name channels 0..{channels - 1} of the input image; "
                f"got {self.order}. Pass None to keep the channels as they are."
            )
        self.built = True

    def call(self, x: Any) -> Any:
        """Return the reordered `(batch, height, width, len(order))` image."""
        return ops.stack([x[..., channel] for channel in self.order], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the input's shape with `len(order)` channels."""
        return (*input_shape[:-1], len(self.order))

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {**super().get_config(), "order": self.order}
