"""Batch normalisation that uses TensorFlow's fused kernel where there is one.

Keras writes batch normalisation as a chain of elementary operations, each of which reads and writes
the whole feature map. On a small network such as SSD7 those passes cost more time than the
convolutions. TensorFlow has one kernel for it, which also takes half-precision maps as they are;
`benchmarks/training_step.py` measures what that brings. On JAX and PyTorch the layer is Keras' own.
"""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="ssd_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`: same arguments, weights and results, only faster."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise `inputs`, `(batch, height, width, channels)` or any other shape Keras takes."""
        rank = len(inputs.shape)
        fusable = (
            keras.backend.backend() == "tensorflow"
            and rank == 4
            and self.axis in (3, -1)
            and self.scale
            and self.center
            and mask is None
            and not self.renorm
            and not self.synchronized
        )
        if not fusable:
            return super().call(inputs, training=training, mask=mask)
        return self._fused_call(inputs, bool(training and self.trainable))

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
