"""Training steps compiled by XLA do what TensorFlow's own do."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_loss_function.keras_ssd_loss import SSDLoss
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX always compiles, and PyTorch has no such option",
)


def small_ssd7() -> keras.Model:
    return build_model((64, 96, 3), 2, normalize_coords=True, divide_by_stddev=255.0)


def small_ssd300() -> keras.Model:
    return ssd_300((257, 257, 3), 2, scales=SCALES_VOC, steps=None)


@pytest.mark.parametrize("make", [small_ssd7, pytest.param(small_ssd300, marks=pytest.mark.slow)])
def test_compiled_training_is_the_same_training(make):
    keras.utils.set_random_seed(0)
    models = [make() for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    height, width, _ = models[0].input_shape[1:]
    x = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.float32)
    encoder = SSDInputEncoder.from_model(models[0])
    y = encoder(
        [
            [[1, 0.1 * width, 0.1 * height, 0.5 * width, 0.6 * height]],
            [[2, 0.3 * width, 0.2 * height, 0.9 * width, 0.9 * height]],
        ]
    )
    losses = []
    for model, jit_compile in zip(models, (True, False), strict=True):
        model.compile(keras.optimizers.SGD(1e-6), SSDLoss(), jit_compile=jit_compile)
        losses.append([float(model.train_on_batch(x, y)) for _ in range(2)])
    # The second loss depends on the gradients of the first step.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert losses[0][1] < losses[0][0]
