"""Time exported models in their runtimes beside the Keras model, on the same images.

    python -m benchmarks.export

Random weights with enlarged class scores, so that decoding has thousands of boxes to suppress, as
at the confidence of 0.01 that evaluation asks for. One image at a time on one thread, in processor
time, which other programs on the machine disturb least.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from misc_utils.export import export_model
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300
from tests.runtimes import FILES, load

REPETITIONS = 7
RANDOM_SCORES = {"SSD7": "classes", "SSD300": "mbox_conf"}
MODES = ("training", "inference", "inference_fast")


def make_model(name: str, mode: str) -> keras.Model:
    """Build SSD7 for 300 x 480 pixels and 5 classes, or SSD300 for Pascal VOC."""
    keras.utils.set_random_seed(0)
    if name == "SSD300":
        model = ssd_300((300, 300, 3), 20, mode, scales=SCALES_VOC)
    else:
        model = build_model(
            (300, 480, 3),
            5,
            mode,
            variances=(0.1, 0.1, 0.2, 0.2),
            normalize_coords=True,
            subtract_mean=127.5,
            divide_by_stddev=127.5,
        )
    for variable in model.weights:
        if RANDOM_SCORES[name] in variable.path and "kernel" in variable.path:
            variable.assign(variable * 3.0)
    return model


def megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 2**20


def report(title: str, size: float, start: Callable[[], Callable], images: np.ndarray) -> None:
    """Print the size, the time until the first result, and the time of an image."""
    begin = time.process_time()
    run = start()
    run(images)
    first = time.process_time() - begin
    times = []
    for _ in range(REPETITIONS):
        begin = time.process_time()
        run(images)
        times.append(1000 * (time.process_time() - begin))
    median, least = statistics.median(times), min(times)
    print(f"{title:46s}{size:8.1f}{first:8.2f}{median:10.1f}{least:8.1f}", flush=True)


def main() -> None:
    """Export to each format and time it."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(f"{'one image at a time':46s}{'MiB':>8s}{'first s':>8s}{'median ms':>10s}{'least':>8s}")
    with tempfile.TemporaryDirectory() as folder:
        for name in RANDOM_SCORES:
            for mode in MODES:
                model = make_model(name, mode)
                _, *size = model.input_shape
                images = np.random.default_rng(0).integers(0, 256, (1, *size)).astype(np.float32)
                model.save(Path(folder) / "ssd.keras")
                report(
                    f"{name}, {mode}, Keras",
                    megabytes(Path(folder) / "ssd.keras"),
                    lambda model=model: model.predict_on_batch,
                    images,
                )
                for format, file in FILES.items():
                    path = export_model(model, Path(folder) / file, format, batch_size=1)
                    title = f"{name}, {mode}, {format}"
                    report(title, megabytes(path), partial(load, path, n_threads=1), images)


if __name__ == "__main__":
    main()
