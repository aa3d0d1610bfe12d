"""Time what `MeanAveragePrecision` adds to an epoch, and the report, on 100 images.

    python -m benchmarks.training_evaluation
    python -m benchmarks.training_evaluation --models ssd7 ssd300 --repetitions 5

Beside the callback the same images are only predicted: read, resized and put through
`model.predict` in the same batches. Both take turns in one process; printed are minima. As in
`benchmarks.networks`, the weights are random, but the background's bias lets as many scores pass
the confidence threshold as in a trained SSD300, which decoding and scoring depend on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from benchmarks.networks import background_bias
from benchmarks.timing import seconds
from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.prediction import input_transformations, quiet_predict
from eval_utils.training_callback import MeanAveragePrecision
from examples.digit_scenes import CLASSES, make_digit_scenes
from models.keras_ssd7 import build_model
from models.keras_ssd300 import ssd_300

N_IMAGES, BATCH_SIZE, SIZE = 100, 32, (300, 300, 3)
IMAGES = {"processed_images"}
BUILDERS = {"ssd7": build_model, "ssd300": ssd_300}
SCALES = {"ssd7": [0.1, 0.2, 0.4, 0.6, 0.9], "ssd300": [0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05]}


def make_data(folder: str) -> DataGenerator:
    """Make pictures in files."""
    scenes = make_digit_scenes(f"{folder}/scenes", 0, 0, n_test=N_IMAGES)
    data = DataGenerator(verbose=False)
    data.parse_xml(
        [scenes / "JPEGImages"],
        [scenes / "ImageSets" / "Main" / "test.txt"],
        [scenes / "Annotations"],
        classes=CLASSES,
        verbose=False,
    )
    return data


def make_model(name: str, data: DataGenerator) -> keras.Model:
    """Build a model with as many confident scores as a trained one."""
    keras.utils.set_random_seed(0)
    n_classes = len(CLASSES) - 1
    model = BUILDERS[name](SIZE, n_classes, scales=SCALES[name], normalize_coords=True)
    images = next(
        data.generate(4, False, input_transformations("resize", *SIZE[:2]), returns=IMAGES)
    )[0]
    bias = background_bias(model.predict(images, verbose=0)[..., : n_classes + 1])
    for layer in model.layers:
        if layer.name.endswith("_mbox_conf") or layer.name in {f"classes{i}" for i in (4, 5, 6, 7)}:
            kernel, values = layer.get_weights()
            values[:: n_classes + 1] += bias
            layer.set_weights([kernel, values])
    return model


def callback_of(
    model: keras.Model, data: DataGenerator, decode_in_graph: bool
) -> MeanAveragePrecision:
    """Make a callback that is ready to evaluate."""
    callback = MeanAveragePrecision(data, batch_size=BATCH_SIZE, decode_in_graph=decode_in_graph)
    callback.set_model(model)
    return callback


def benchmark(name: str, data: DataGenerator, repetitions: int) -> None:
    """Time a model and print a line for each contender."""
    model = make_model(name, data)
    callback, in_graph = (callback_of(model, data, choice) for choice in (False, True))
    predict = quiet_predict(model)

    def only_predict() -> None:
        transformations = input_transformations("resize", *SIZE[:2])
        batches = data.generate(BATCH_SIZE, False, transformations, returns=IMAGES)
        for _ in range(-(-N_IMAGES // BATCH_SIZE)):
            predict(next(batches)[0])

    contenders = {
        "predicting only": only_predict,
        "the callback": callback.evaluate,
        "the callback, decode_in_graph": in_graph.evaluate,
    }
    times = {contender: [] for contender in contenders}
    for work in contenders.values():
        work()  # warm up
    for _ in range(repetitions):
        for contender, work in contenders.items():
            start = time.perf_counter()
            work()
            times[contender].append(time.perf_counter() - start)
    base = min(times["predicting only"])
    print(f"{name}, {N_IMAGES} images, minima of {repetitions}:")
    for contender, values in times.items():
        print(f"  {contender:30} {min(values):7.2f} s   ({min(values) / base:.2f} times as long)")
    with tempfile.TemporaryDirectory() as folder:
        report = min(seconds(lambda: callback.evaluator.report(f"{folder}/r.html"), repetitions))
    print(f"  {'the report':30} {report:7.2f} s")


def main() -> None:
    """Run the benchmark of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=BUILDERS, default=list(BUILDERS))
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(folder)
        for name in options.models:
            benchmark(name, data, options.repetitions)


if __name__ == "__main__":
    main()
