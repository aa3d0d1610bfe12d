"""The gradient of a function of an array, whatever the backend."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np


def gradient_by_prediction(function: Callable, prediction: np.ndarray) -> np.ndarray:
    """Return the gradient of the sum of what a function of one array returns."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensor = tf.constant(prediction)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            total = tf.reduce_sum(function(tensor))
        return tape.gradient(total, tensor).numpy()
    if backend == "jax":
        import jax

        return np.array(jax.grad(lambda x: function(x).sum())(prediction))
    import torch

    tensor = torch.tensor(prediction, requires_grad=True)
    function(tensor).sum().backward()
    return tensor.grad.numpy()
