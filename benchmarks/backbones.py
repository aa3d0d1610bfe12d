"""SSDs on other base networks beside SSD7: what each learns in the same time, its size, its speed.

    python -m benchmarks.backbones --data DATA --minutes 15

DATA is a folder with JPEGImages, Annotations (Pascal VOC XML), ImageSets/Main/{train,test}.txt and
classes.txt. All networks start at random weights (nothing is downloaded: with ImageNet's weights
MobileNetV2 would start far ahead), see the same images in the same order with the same random
changes, have the same optimizer and schedule, anchors fitted to the same boxes, and the same time:

    ssd7            the small network of this library
    mobilenet       SSDLite on MobileNetV2, predicting from strides 16 and 32 as in the paper
    mobilenet_fine  the same, predicting from stride 8, too, as SSD7 does

Written is a CSV file with a line for each network: the mAP on the test images (Pascal VOC's rule of
2010, IoU 0.5) with the averaged weights at the end and batch normalisation's statistics measured
for them (`misc_utils.batch_statistics`), and the mAP with its running averages instead; the size of
the model and of its file, the images a second in training (making the batches included) and in
detection (forward pass, decoding and non-maximum suppression), and how many steps the time was
enough for.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from benchmarks.fine_tuning import class_names, read_split
from benchmarks.timing import seconds
from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize
from data_generator.object_detection_2d_photometric_ops import ConvertTo3Channels
from eval_utils.average_precision_evaluator import Evaluator
from keras_loss_function.keras_ssd_loss import SSDLoss
from misc_utils.anchor_design import share_with_anchor, suggest_aspect_ratios, suggest_scales
from misc_utils.batch_statistics import measure_batch_statistics
from misc_utils.files import write_text
from misc_utils.resized_labels import labels_of_input_size
from misc_utils.training import Budget, WarmupCosine, averaged_weights
from models.backbone_ssd import ssd_from_backbone
from models.keras_ssd7 import build_model
from models.keras_ssd_mobilenet_v2 import FEATURE_LAYERS, ssd_mobilenet_v2
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

NETWORKS = ("ssd7", "mobilenet", "mobilenet_fine")
COLUMNS = (
    "network",
    "map",
    "map_with_running_statistics",
    "parameters",
    "megabytes",
    "training_images_per_s",
    "detection_images_per_s_batch_8",
    "detection_images_per_s_batch_1",
    "steps",
    "anchors",
    "boxes_with_anchor",
)
PREPROCESSING = {"subtract_mean": 127.5, "divide_by_stddev": 127.5}


def make_model(network: str, args: argparse.Namespace, mode: str = "training", **settings):
    """Build one of the networks; `settings` are those of its anchors."""
    size = (*args.image_size, 3)
    settings = {**PREPROCESSING, **settings}
    if network == "ssd7":
        settings = {"variances": (0.1, 0.1, 0.2, 0.2), "normalize_coords": True, **settings}
        return build_model(size, args.n_classes, mode, **settings)
    if network == "mobilenet":
        return ssd_mobilenet_v2(size, args.n_classes, mode, alpha=args.alpha, **settings)
    backbone = keras.applications.MobileNetV2(
        input_shape=size, include_top=False, weights=None, alpha=args.alpha
    )
    features = ("block_6_expand_relu", *FEATURE_LAYERS)  # strides 8, 16, 32
    settings = {"separable": True, "batch_normalization_momentum": 0.99, **settings}
    return ssd_from_backbone(backbone, features, size, args.n_classes, mode, **settings)


def fitted_anchors(network: str, args: argparse.Namespace, labels: list[np.ndarray]) -> dict:
    """Return the anchor settings of a network that fit the training boxes."""
    ratios = suggest_aspect_ratios(labels)
    _, sizes = make_model(network, args, return_predictor_sizes=True)
    scales = suggest_scales(labels, args.image_size, sizes, ratios)
    return {"scales": scales, "aspect_ratios_global": ratios}


def train(model: keras.Model, data: DataGenerator, args: argparse.Namespace) -> tuple[int, float]:
    """Train for the given time; return (steps, images a second)."""
    model.compile(
        keras.optimizers.AdamW(
            args.learning_rate,
            weight_decay=1e-3,
            global_clipnorm=10.0,
            use_ema=True,
            ema_momentum=0.99,
        ),
        SSDLoss(),
    )
    steps = -(-data.get_dataset_size() // args.batch)
    budget = Budget(steps, minutes=args.minutes)
    encoder = SSDInputEncoder.from_model(model, neg_iou_limit=0.5)
    # A step with a tiny learning rate first: tracing a large network is not part of its time.
    model.optimizer.learning_rate = 1e-3 * args.learning_rate
    model.fit(make_batches(data, encoder, args), steps_per_epoch=1, shuffle=False, verbose=0)
    begin = time.perf_counter()
    model.fit(
        make_batches(data, encoder, args),
        steps_per_epoch=steps,
        epochs=10**6,
        shuffle=False,  # the generator shuffles
        verbose=0,
        callbacks=[budget, WarmupCosine(budget, args.learning_rate)],
    )
    done = int(model.optimizer.iterations) - 1
    return done, done * args.batch / (time.perf_counter() - begin)


def make_batches(data: DataGenerator, encoder: SSDInputEncoder, args: argparse.Namespace):
    """Return augmented batches: always the same images in the same order."""
    return data.generate(
        args.batch,
        transformations=[
            ConvertTo3Channels(),
            Resize(*args.image_size),
            DataAugmentationConstantInputSize(background=(127, 127, 127)),
        ],
        label_encoder=encoder,
        keep_images_without_gt=True,
        seed=0,
    )


def mean_average_precision(
    model: keras.Model, test: DataGenerator, args: argparse.Namespace
) -> float:
    """Evaluate a model on the test images."""
    evaluator = Evaluator(model, args.n_classes, test, model_mode="training")
    return float(
        evaluator(*args.image_size, batch_size=8, average_precision_mode="integrate", verbose=False)
    )


def measure(network: str, args: argparse.Namespace, data: DataGenerator, test: DataGenerator):
    """Train and measure one network; return a line of the table."""
    keras.utils.set_random_seed(0)
    labels = labels_of_input_size(data, args.image_size)
    anchors = fitted_anchors(network, args, labels)
    model = make_model(network, args, **anchors)
    n_parameters = model.count_params()
    encoder = SSDInputEncoder.from_model(model)
    steps, training_speed = train(model, data, args)
    with averaged_weights(model):
        with_running_statistics = mean_average_precision(model, test, args)
        measure_batch_statistics(model, make_batches(data, encoder, args))
        value = mean_average_precision(model, test, args)
        decoding = make_model(network, args, "inference", **anchors)
        decoding.set_weights(model.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (8, *args.image_size, 3)).astype(np.float32)
    speeds = []
    for n in (8, 1):
        batch = images[:n]
        times = seconds(lambda batch=batch: decoding.predict_on_batch(batch), args.repetitions)
        speeds.append(round(n / float(np.median(times)), 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        decoding.save(path)
        megabytes = path.stat().st_size / 1e6
    return (  # in the order of COLUMNS
        network,
        round(value, 4),
        round(with_running_statistics, 4),
        n_parameters,
        round(megabytes, 2),
        round(training_speed, 1),
        *speeds,
        steps,
        model.output_shape[1],
        round(share_with_anchor(encoder, labels), 3),
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a folder as described above")
    add("--minutes", type=float, default=15.0, help="of training, for each network")
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--alpha", type=float, default=0.35, help="width of MobileNetV2")
    add("--image-size", nargs=2, type=int, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    add("--batch", type=int, default=8)
    add("--learning-rate", type=float, default=2e-3)
    add("--images", type=int, help="use only so many test images")
    add("--repetitions", type=int, default=30, help="of timing detection")
    add("--precision", default="float32", help="a dtype policy")
    add("--output", type=Path, default=Path("out/backbones.csv"))
    args = parser.parse_args()
    args.image_size = tuple(args.image_size)
    args.n_classes = len(class_names(args.data))
    return args


def main() -> None:
    args = parse_arguments()
    keras.mixed_precision.set_global_policy(args.precision)
    data, test = (read_split(args.data, split) for split in ("train", "test"))
    if args.images:
        test = test.subset(range(args.images))
    lines = [COLUMNS]
    for network in args.networks:
        lines.append(measure(network, args, data, test))
        print(*(f"{name} {value}" for name, value in zip(*lines[:1], lines[-1], strict=True)))
        # Rewritten each time: an interrupted run leaves what it has.
        write_text(args.output, "".join(",".join(map(str, each)) + "\n" for each in lines))


if __name__ == "__main__":
    main()
