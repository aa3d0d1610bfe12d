"""Losses beside each other: the same small detector, trained by each on the same batches.

    python -m benchmarks.losses --data DATA --steps 1000
    python -m benchmarks.losses --data DATA --variants default giou --seeds 0 1 2 --alpha 5

DATA is a folder with JPEGImages, Annotations (Pascal VOC XML), ImageSets/Main/{train,test}.txt and
classes.txt. Each variant trains an SSD7 from scratch, from the same start, on the same batches in
the same order, for the same number of steps; nothing is chosen by looking at the test images.

    default          SSDLoss: softmax cross-entropy, smooth L1, hardest negatives of the batch
    per_image        hardest negatives of each image, as in Caffe
    focal_softmax    SSDFocalLoss, and biases that expect few objects
    focal_sigmoid    the same for a model with independent scores
    giou, diou, ciou the boxes' loss, times --alpha (see keras_loss_function.box_losses)
    label_smoothing  0.1 of a positive's class goes to all classes
    class_weights    rare classes weigh more: the square root of how much rarer they are
    caffe            Caffe's solver and mining (misc_utils.caffe_rules) with a tenth of the rate
                     after 2/3 and 5/6 of the steps; all others have AdamW, a rate that rises and
                     falls along a cosine, and clipped gradients

Measured is the average of the weights over the last hundred steps or so, on the test images, by
Pascal VOC's rule of 2010: mAP at an IoU of 0.5, and at 0.75, where boxes must fit better; and the
average precision of each class at 0.5. The difference between two seeds of one variant says how
large a difference between variants must be to mean something.

Written is a CSV file with a line a run. Runs that it has already are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize
from data_generator.object_detection_2d_photometric_ops import ConvertTo3Channels
from eval_utils.average_precision_evaluator import Evaluator
from keras_loss_function.keras_ssd_focal_loss import SSDFocalLoss
from keras_loss_function.keras_ssd_loss import MultiboxLoss, SSDLoss
from misc_utils.anchor_design import suggest_aspect_ratios, suggest_scales
from misc_utils.caffe_rules import caffe_training
from misc_utils.files import write_text
from misc_utils.prior_bias import set_prior_bias
from misc_utils.resized_labels import labels_of_input_size
from misc_utils.weight_average import WeightAverage
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

COLUMNS = ("variant", "alpha", "seed", "steps", "seconds", "map_50", "map_75", "class_aps_50")
IOU_LOSSES = ("giou", "diou", "ciou")


def losses_of(train: DataGenerator, n_classes: int, alpha: float) -> dict[str, MultiboxLoss]:
    """Return the loss of each variant; `alpha` is the weight of the IoU losses."""
    ids = np.concatenate([np.reshape(labels, (-1, 5))[:, 0] for labels in train.labels])
    counts = np.maximum(np.bincount(ids.astype(int), minlength=n_classes + 1)[1:], 1)
    return {
        "default": SSDLoss(),
        "per_image": SSDLoss(mining="per_image"),
        "focal_softmax": SSDFocalLoss(),
        "focal_sigmoid": SSDFocalLoss(class_activation="sigmoid"),
        **{kind: SSDLoss(box_loss=kind, alpha=alpha) for kind in IOU_LOSSES},
        "label_smoothing": SSDLoss(label_smoothing=0.1),
        "class_weights": SSDLoss(class_weights=[1.0, *np.sqrt(counts.max() / counts)]),
        "caffe": SSDLoss(mining="per_image"),
    }


VARIANTS = (
    "default", "per_image", "focal_softmax", "focal_sigmoid", *IOU_LOSSES, "label_smoothing",
    "class_weights", "caffe",
)  # fmt: skip


def read_split(folder: Path, split: str, classes: list[str], in_memory: bool) -> DataGenerator:
    data = DataGenerator(load_images_into_memory=in_memory, verbose=False)
    data.parse_xml(
        [folder / "JPEGImages"],
        [folder / "ImageSets" / "Main" / f"{split}.txt"],
        [folder / "Annotations"],
        classes=["background", *classes],
        verbose=False,
    )
    return data


def make_model(
    variant: str, loss: MultiboxLoss, anchors: dict, n_classes: int, args: argparse.Namespace
) -> keras.Model:
    """Build and compile the SSD7 of a variant."""
    is_caffe = variant == "caffe"
    model = build_model(
        (*args.image_size, 3),
        n_classes,
        l2_regularization=0.00025 if is_caffe else 0.0,
        variances=(0.1, 0.1, 0.2, 0.2),
        normalize_coords=True,
        subtract_mean=127.5,
        divide_by_stddev=127.5,
        class_activation="sigmoid" if variant == "focal_sigmoid" else "softmax",
        **anchors,
    )
    if isinstance(loss, SSDFocalLoss):
        set_prior_bias(model)
    if is_caffe:
        return caffe_training(model, boundaries=[2 * args.steps // 3, 5 * args.steps // 6])
    warmup = args.steps // 20
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, args.steps - warmup, alpha=0.01, warmup_target=2e-3, warmup_steps=warmup
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-3, global_clipnorm=10.0), loss)
    return model


def train_and_measure(
    model: keras.Model,
    train: DataGenerator,
    test: DataGenerator,
    n_classes: int,
    seed: int,
    args: argparse.Namespace,
) -> tuple[str, ...]:
    """Return what the last columns hold: the seconds of training, and the precisions."""
    augmentation = DataAugmentationConstantInputSize(
        random_flip=0.5,
        random_hue=(10, 0.5),
        random_scale=(0.7, 2.0, 0.5),
        background=(127, 127, 127),
    )
    batches = train.generate(
        args.batch,
        transformations=[ConvertTo3Channels(), Resize(*args.image_size), augmentation],
        label_encoder=SSDInputEncoder.from_model(model, neg_iou_limit=0.5),
        keep_images_without_gt=True,
        seed=seed,
    )
    start = time.perf_counter()
    model.fit(batches, steps_per_epoch=args.steps, verbose=0, callbacks=[WeightAverage(0.99)])
    seconds = time.perf_counter() - start
    evaluator = Evaluator(model, n_classes, test, model_mode="training")
    evaluator.predict_on_dataset(*args.image_size, batch_size=16, verbose=False)
    map_75, map_50 = (
        evaluator.score(
            matching_iou_threshold=iou, average_precision_mode="integrate", verbose=False
        )
        for iou in (0.75, 0.5)
    )
    of_classes = evaluator.average_precisions[1:]  # of the last score, without the background
    return (
        f"{seconds:.1f}",
        *(f"{value:.4f}" for value in (map_50, map_75)),
        " ".join(f"{value:.4f}" for value in of_classes),
    )


def read_lines(path: Path) -> list[dict]:
    if not path.exists():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def write_lines(path: Path, lines: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a folder as described above")
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    add("--seeds", nargs="+", type=int, default=[0], help="of start, order and augmentation")
    add("--steps", type=int, default=1000)
    add("--batch", type=int, default=8)
    # With 3, a box shifted by a tenth of its width costs as much as with smooth L1.
    add("--alpha", type=float, default=3.0, help="weight of the losses giou, diou and ciou")
    add("--image-size", nargs=2, type=int, default=[150, 200], metavar=("HEIGHT", "WIDTH"))
    add("--output", type=Path, default=Path("out/losses.csv"))
    args = parser.parse_args()

    classes = (args.data / "classes.txt").read_text(encoding="utf-8").split()
    train = read_split(args.data, "train", classes, in_memory=True)
    test = read_split(args.data, "test", classes, in_memory=False)
    labels = labels_of_input_size(train, args.image_size)
    ratios = suggest_aspect_ratios(labels)
    _, sizes = build_model((*args.image_size, 3), 1, return_predictor_sizes=True)
    anchors = {
        "scales": suggest_scales(labels, args.image_size, sizes, ratios),
        "aspect_ratios_global": ratios,
    }
    losses = losses_of(train, len(classes), args.alpha)
    lines = read_lines(args.output)
    for seed in args.seeds:
        for variant in args.variants:
            run = {
                "variant": variant,
                "alpha": losses[variant].alpha,
                "seed": seed,
                "steps": args.steps,
            }
            if any(all(line[key] == str(run[key]) for key in run) for line in lines):
                continue
            keras.utils.set_random_seed(seed)
            model = make_model(variant, losses[variant], anchors, len(classes), args)
            values = train_and_measure(model, train, test, len(classes), seed, args)
            lines.append({key: str(value) for key, value in run.items()})
            lines[-1].update(zip(COLUMNS[len(run) :], values, strict=True))
            print(*lines[-1].values(), sep="\t", flush=True)
            # Rewritten each time: an interrupted run leaves what it has.
            write_lines(args.output, lines)
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
