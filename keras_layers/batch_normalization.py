"""Batch normalisation that uses TensorFlow's fused kernel where there is one.

Keras writes batch normalisation as a chain of elementary operations, each of which reads and writes
the whole feature map. On a small network such as SSD7 those passes cost more time than the
convolutions. TensorFlow has one kernel for it, which also takes half-precision maps as they are;
`benchmarks/training_step.py` measures what that brings. On JAX and PyTorch the layer is Keras' own.
"""

from __future__ import annotations

from typing import Any

import keras

_KERNEL_DTYPES = ("float32", "bfloat16", "float16")
# cuDNN's kernel takes no smaller one (CUDNN_BN_MIN_EPSILON).
_LEAST_EPSILON = 1.001e-5


@keras.saving.register_keras_serializable(package="ssd_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`: same arguments, weights and results, only faster."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise `inputs`, `(batch, height, width, channels)` or any other shape Keras takes."""
        if mask is None and self._is_fusable(len(inputs.shape)):
            return self._fused_call(inputs, bool(training and self.trainable))
        return super().call(inputs, training=training, mask=mask)

    def _is_fusable(self, rank: int) -> bool:
        """Whether TensorFlow's kernel does what this layer was asked for."""
        return (
            keras.backend.backend() == "tensorflow"
            and rank == 4
            and self.axis in (3, -1)
            and self.scale
            and self.center
            and not self.renorm
            and not self.synchronized
            and self.compute_dtype in _KERNEL_DTYPES
            and self.variable_dtype == "float32"
            and self.epsilon >= _LEAST_EPSILON
        )

    def _fused_call(self, inputs: Any, use_batch_statistics: bool) -> Any:
        import tensorflow as tf

        # In inference the kernel takes the moving statistics; in training it wants none.
        nothing = tf.zeros((0,), tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=nothing if use_batch_statistics else self.moving_mean,
            variance=nothing if use_batch_statistics else self.moving_variance,
            epsilon=self.epsilon,
            is_training=use_batch_statistics,
        )
        if use_batch_statistics:
            # The kernel reports the unbiased variance, n / (n - 1) times the one Keras averages.
            n = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
            variance = variance * (n - 1.0) / n
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return outputs
