"""What pretrained weights bring: SSD300 from VGG-16's weights beside the same from a random start.

    python -m benchmarks.fine_tuning --data DATA --weights vgg16.npz --steps 250
    python -m benchmarks.fine_tuning --data DATA --starts vgg16 vgg16_frozen random --batch 8

DATA is a folder with JPEGImages, Annotations (Pascal VOC XML), ImageSets/Main/{train,test}.txt and
classes.txt. All starts see the same batches in the same order, with the same optimizer, and differ
in nothing else:

    random         all weights drawn at random
    vgg16          conv1_1 to conv5_3 (fc6 and fc7, too, if the source has them) from VGG-16
    vgg16_frozen   the same, and conv1_1 to conv3_3 are not trained

Written is a CSV file with a line every few steps: the start, the step, the seconds of training so
far, the mean loss since the line before, and, where it was measured, the mAP on the test images
(Pascal VOC's rule of 2010, IoU 0.5). Evaluation is not counted in the seconds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from data_generator.data_augmentation_chain_original_ssd import SSDDataAugmentation
from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.average_precision_evaluator import Evaluator
from keras_loss_function.keras_ssd_loss import SSDLoss
from misc_utils.files import write_text
from misc_utils.fine_tuning import freeze
from misc_utils.pretrained import load_vgg16_weights
from models.keras_ssd300 import SCALES_COCO, ssd_300
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

SIDE = 300
STARTS = ("random", "vgg16", "vgg16_frozen")
COLUMNS = ("start", "step", "seconds", "loss", "map")


def read_split(folder: Path, split: str) -> DataGenerator:
    """Read one split of a data set in the format of Pascal VOC."""
    data = DataGenerator(verbose=False)
    data.parse_xml(
        [str(folder / "JPEGImages")],
        [str(folder / "ImageSets" / "Main" / f"{split}.txt")],
        [str(folder / "Annotations")],
        classes=["background", *class_names(folder)],
        verbose=False,
    )
    return data


def class_names(folder: Path) -> list[str]:
    return (folder / "classes.txt").read_text(encoding="utf-8").split()


def make_model(start: str, n_classes: int, weights: str, rate: float, steps: int) -> keras.Model:
    """Build and compile SSD300, with the weights that it starts from."""
    keras.utils.set_random_seed(0)
    model = ssd_300((SIDE, SIDE, 3), n_classes, scales=SCALES_COCO, l2_regularization=0.00025)
    if start != "random":
        print(load_vgg16_weights(model, weights), flush=True)
    if start == "vgg16_frozen":
        freeze(model, "conv3_3")
    # Fresh heads make huge gradients at first: the rate rises over the first tenth of the steps.
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, 9 * steps // 10, alpha=0.01, warmup_target=rate, warmup_steps=steps // 10
    )
    model.compile(keras.optimizers.Adam(schedule, global_clipnorm=10.0), SSDLoss())
    return model


def curve(
    start: str, train: DataGenerator, test: DataGenerator, n_classes: int, args: argparse.Namespace
) -> Iterator[tuple]:
    """Train; yield a line of the CSV file every now and then."""
    model = make_model(start, n_classes, args.weights, args.learning_rate, args.steps)
    batches = train.generate(
        args.batch,
        transformations=[SSDDataAugmentation(SIDE, SIDE)],
        label_encoder=SSDInputEncoder.from_model(model),
        seed=0,
    )
    seconds, losses = 0.0, []
    for step in range(1, args.steps + 1):
        begin = time.perf_counter()
        images, targets = next(batches)
        losses.append(float(model.train_on_batch(images, targets)))
        seconds += time.perf_counter() - begin
        measured = step % args.evaluate_every == 0 or step == args.steps
        if measured or step % args.log_every == 0:
            quality = mean_average_precision(model, test, n_classes, args.batch) if measured else ""
            yield start, step, round(seconds, 1), round(float(np.mean(losses)), 4), quality
            losses = []


def mean_average_precision(
    model: keras.Model, test: DataGenerator, n_classes: int, batch_size: int
) -> float:
    evaluator = Evaluator(model, n_classes, test, model_mode="training")
    value = evaluator(
        SIDE, SIDE, batch_size=batch_size, average_precision_mode="integrate", verbose=False
    )
    return round(float(value), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a folder as described above")
    add("--weights", default="imagenet", help="source of VGG-16 (misc_utils.pretrained)")
    add("--starts", nargs="+", choices=STARTS, default=["vgg16", "random"])
    add("--steps", type=int, default=250)
    add("--batch", type=int, default=8)
    add("--learning-rate", type=float, default=1e-4)
    add("--log-every", type=int, default=10)
    add("--evaluate-every", type=int, default=50)
    add("--images", type=int, help="use only so many test images")
    add("--precision", default="mixed_bfloat16", help="a dtype policy")
    add("--output", type=Path, default=Path("out/fine_tuning.csv"))
    args = parser.parse_args()
    keras.mixed_precision.set_global_policy(args.precision)
    train, test = (read_split(args.data, split) for split in ("train", "test"))
    if args.images:
        test = test.subset(range(min(args.images, test.dataset_size)))
    n_classes = len(class_names(args.data))
    lines = [COLUMNS]
    for start in args.starts:
        for line in curve(start, train, test, n_classes, args):
            lines.append(line)
            print(*line, sep="\t", flush=True)
            # Rewritten each time: an interrupted run leaves what it has.
            write_text(args.output, "".join(",".join(map(str, each)) + "\n" for each in lines))


if __name__ == "__main__":
    main()
