"""Trains one tiny SSD on one device and on several virtual ones, in a process that has so many.

    python distributed_steps.py KIND FILE N_DEVICES

writes losses, metrics and weights to the NPZ file FILE, as `<case>/<number of devices>/<name>`. For
JAX, the environment variable XLA_FLAGS must provide the devices.
"""

from __future__ import annotations

import sys

import keras
import numpy as np

from keras_loss_function.keras_ssd_loss import SSDLoss
from keras_loss_function.metrics import loss_metrics
from misc_utils.batch_statistics import measure_batch_statistics
from misc_utils.distribution import distribution

N_BOXES, N_CLASSES, BATCH_SIZE = 6, 3, 8
# TensorFlow shares the last batch out as 4 and 3 images, or as 2, 2, 2 and 1.
N_IMAGES = {"mirrored": 15, "multi_worker": 15, "data_parallel": 12}
CASES = {
    "hardest of the batch": {"mining": "batch", "neg_pos_ratio": 0.5},
    "hardest of each image": {"mining": "per_image", "neg_pos_ratio": 0.5, "n_neg_min": 1},
}


class Batches(keras.utils.PyDataset):
    """Batches of 8 images; the last one is smaller."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return -(-len(self.x) // BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(index * BATCH_SIZE, (index + 1) * BATCH_SIZE)
        return self.x[part], self.y[part]


def examples(n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Make images and targets; the first half of the first batch is all background."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_images, 4, 4, 2)).astype("float32")
    classes = rng.integers(-1, N_CLASSES, (n_images, N_BOXES))  # -1: neutral
    classes[: BATCH_SIZE // 2] = 0
    y = np.zeros((n_images, N_BOXES, N_CLASSES + 12), "float32")
    y[..., :N_CLASSES] = classes[..., None] == np.arange(N_CLASSES)
    y[..., -12:-8] = rng.normal(size=(n_images, N_BOXES, 4)) * (classes > 0)[..., None]
    return x, y


def tiny_ssd() -> keras.Model:
    """Make a network that has all that an SSD has but the network."""
    keras.utils.set_random_seed(1)
    image = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(3, 3, activation="relu", kernel_regularizer="l2")(image)
    x = keras.layers.Flatten()(x)
    classes = keras.layers.Reshape((N_BOXES, N_CLASSES))(keras.layers.Dense(N_BOXES * N_CLASSES)(x))
    boxes = keras.layers.Reshape((N_BOXES, 12))(keras.layers.Dense(N_BOXES * 12)(x))
    output = [keras.layers.Softmax()(classes), boxes]
    return keras.Model(image, keras.layers.Concatenate(axis=-1)(output))


def train(kind: str, names: list[str] | None, case: dict) -> dict[str, np.ndarray]:
    """Train for two epochs; return what came out."""
    x, y = examples(N_IMAGES[kind])
    with distribution(kind if names else "none", names) as devices:
        loss = SSDLoss(**case)
        with devices.scope():
            model = tiny_ssd()
            model.compile(
                keras.optimizers.SGD(0.05, momentum=0.9), loss=loss, metrics=loss_metrics(loss)
            )
        data = devices.batches(Batches(x, y))
        validation = data if case["mining"] == "batch" else None  # once is enough
        history = model.fit(data, epochs=2, verbose=0, shuffle=False, validation_data=validation)
        results = {name: np.array(values) for name, values in history.history.items()}
        for index, variable in enumerate(model.trainable_variables):
            results[f"weight {index}"] = keras.ops.convert_to_numpy(variable)
    return results


def measure(kind: str, names: list[str] | None) -> dict[str, np.ndarray]:
    """Measure the statistics of batch normalisation; return them."""
    x, _ = examples(2 * BATCH_SIZE)
    with distribution(kind if names else "none", names) as devices:
        with devices.scope():
            keras.utils.set_random_seed(1)
            image = keras.Input((4, 4, 2))
            normalisation = keras.layers.BatchNormalization()
            model = keras.Model(image, normalisation(keras.layers.Conv2D(3, 3)(image)))
        measure_batch_statistics(model, [x[:BATCH_SIZE], x[BATCH_SIZE:]])
        return {
            variable.name: keras.ops.convert_to_numpy(variable)
            for variable in normalisation.non_trainable_variables
        }


def main() -> None:
    """Run all cases."""
    kind, file, n_devices = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if kind == "mirrored":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * n_devices
        tf.config.set_logical_device_configuration(cpu, parts)
    several = [f"cpu:{index}" for index in range(n_devices)]
    results = {}
    for case, settings in CASES.items():
        for names in (None, several):
            for name, values in train(kind, names, settings).items():
                results[f"{case}/{len(names or [''])}/{name}"] = values
    for names in (None, several):
        for name, values in measure(kind, names).items():
            results[f"batch statistics/{len(names or [''])}/{name}"] = values
    np.savez(file, **results)


if __name__ == "__main__":
    main()
