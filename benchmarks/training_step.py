"""Time a training step of SSD7 with the library's batch normalisation and with Keras' own.

    python -m benchmarks.training_step

Batches of 16 random images of 300 x 400 pixels, AdamW; the two models take turns in one process,
and the medians are compared. Then the same with mixed bfloat16.
"""

from __future__ import annotations

import os
import statistics
import time
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keras_loss_function.keras_ssd_loss import SSDLoss
from models import keras_ssd7
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

BATCH, HEIGHT, WIDTH, STEPS, WARM_UP = 16, 300, 400, 8, 2


def make_model(batch_normalization: type) -> keras.Model:
    """Build and compile SSD7 with the given batch normalisation layer."""
    with mock.patch.object(keras_ssd7, "BatchNormalization", batch_normalization):
        model = keras_ssd7.build_model(
            (HEIGHT, WIDTH, 3),
            n_classes=3,
            variances=(0.1, 0.1, 0.2, 0.2),
            normalize_coords=True,
            subtract_mean=127.5,
            divide_by_stddev=127.5,
        )
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=SSDLoss())
    return model


def main() -> None:
    """Print milliseconds a step and the ratio, for each precision."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, HEIGHT, WIDTH, 3)).astype(np.uint8)
    labels = [np.array([[1, 20, 20, 90, 90], [2, 100, 30, 160, 200]])] * BATCH
    print(f"SSD7 training step, {BATCH} images of {HEIGHT} x {WIDTH}, {keras.backend.backend()}")
    for policy in ("float32", "mixed_bfloat16"):
        keras.mixed_precision.set_global_policy(policy)
        models = {
            "library": make_model(keras_ssd7.BatchNormalization),
            "keras": make_model(keras.layers.BatchNormalization),
        }
        targets = SSDInputEncoder.from_model(models["library"])(labels)
        times = {name: [] for name in models}
        for _ in range(WARM_UP + STEPS):
            for name, model in models.items():
                start = time.perf_counter()
                model.train_on_batch(images, targets)
                times[name].append(time.perf_counter() - start)
        ours, theirs = (1e3 * statistics.median(times[name][WARM_UP:]) for name in models)
        print(
            f"{policy:15} {ours:6.0f} ms with this library's layer, {theirs:6.0f} ms with Keras' "
            f"own: {theirs / ours:.2f} times as long"
        )


if __name__ == "__main__":
    main()
