"""Train SSD7 on a data set in Pascal VOC format, evaluate it, and draw what it sees.

    python examples/train_ssd7.py --data VOC_DIR --output DIR --minutes 30

VOC_DIR holds JPEGImages/, Annotations/ and ImageSets/Main/{train,val,test}.txt. The output folder
gets model.keras, history.csv, metrics.json, report.html (what the model does well and badly on the
test images), loss.png, precision_recall.png and detections/*.png.
A run that was interrupted goes on with --resume.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from data_generator.voc_parser import read_image_set, read_voc_annotation
from eval_utils.average_precision_evaluator import Evaluator
from keras_loss_function.keras_ssd_loss import SSDLoss
from misc_utils.anchor_design import (
    share_with_anchor,
    suggest_aspect_ratios,
    suggest_scales,
)
from misc_utils.class_balance import repeat_rare_classes
from misc_utils.detection import detect
from misc_utils.drawing import draw_detections, save_image
from misc_utils.files import atomic_path, write_text
from misc_utils.plotting import plot_history, plot_precision_recall
from misc_utils.training import (
    Budget,
    Checkpoints,
    EpochEnd,
    NamedBatches,
    StopOnNonFiniteLoss,
    WarmupCosine,
    averaged_weights,
    write_history,
)
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.model_settings import read_model_settings
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

MAX_IMAGES_IN_MEMORY = 5000  # 4.6 GB of images of 640 x 480 pixels
HISTORY_COLUMNS = ("epoch", "seconds", "learning_rate", "loss", "val_loss", "val_mAP")


def size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 300x400; got {text!r}")
    return int(height), int(width)


def numbers(text: str) -> tuple[float, ...]:
    """Read comma-separated numbers."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers such as 0.1,0.2; got {text!r}"
        ) from None


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    length = parser.add_mutually_exclusive_group()
    # fmt: off
    add("--data", required=True, type=Path, help="folder in Pascal VOC format")
    add("--output", required=True, type=Path, help="folder for the results")
    length.add_argument("--epochs", type=int, help="how many passes over the training images")
    length.add_argument("--minutes", type=float, help="how many minutes (30 if neither is given)")
    add("--image-size", default="300x300", type=size, metavar="HEIGHTxWIDTH",
        help="of the network's input")
    add("--classes", help="comma-separated class names; by default those in the annotations")
    add("--scales", type=numbers, help="five anchor scales; by default fitted to the boxes")
    add("--aspect-ratios", type=numbers, help="of the anchors; by default fitted to the boxes")
    add("--batch-size", type=int, default=8, help="images a step")
    add("--learning-rate", type=float, default=2e-3, help="peak of the schedule")
    add("--weight-decay", type=float, default=1e-3, help="of AdamW")
    add("--flip", choices=("none", "horizontal", "both"), default="horizontal",
        help="none where left and right matter, both where up and down do not either")
    add("--augmentation", choices=("full", "photometric", "none"), default="full",
        help="full: shift and zoom, too; a large and varied data set may need less")
    add("--no-balance", dest="balance", action="store_false",
        help="show images of rare classes no more often than others")
    add("--precision", choices=("auto", "float32", "mixed_bfloat16"), default="auto",
        help="auto: bfloat16 where the processor computes with it")
    add("--seed", type=int, default=0, help="of weights, order and augmentation")
    add("--pictures", type=int, default=24, help="how many test images to draw")
    add("--resume", action="store_true", help="go on with the run in the output folder")
    # fmt: on
    options = parser.parse_args(arguments)
    if options.epochs is None and options.minutes is None:
        options.minutes = 30.0
    return options


@dataclass
class Splits:
    """The three parts of a data set, and what they share."""

    train: DataGenerator
    val: DataGenerator
    test: DataGenerator
    class_names: list[str]  # the background first


def find_classes(folder: Path) -> list[str]:
    """Return the class names that occur in the annotations, in the order of classes.txt if any."""
    paths = sorted((folder / "Annotations").glob("*.xml"))
    if not paths:
        raise SystemExit(f"No annotations found: {folder / 'Annotations'} has no .xml files.")
    found = {item.name for path in paths for item in read_voc_annotation(path)}
    listed = folder / "classes.txt"
    order = listed.read_text(encoding="utf-8").split("\n") if listed.exists() else []
    return [name.strip() for name in order if name.strip() in found] + sorted(found - set(order))


def load_splits(folder: Path, classes: str | None) -> Splits:
    """Parse train, val and test; classes are those of the annotations unless they are given."""
    if classes is None:
        names = find_classes(folder)
    else:
        names = [name.strip() for name in classes.split(",")]
    class_names = ["background", *names]
    splits = {}
    for split in ("train", "val", "test"):
        image_set = folder / "ImageSets" / "Main" / f"{split}.txt"
        # Decoding a JPEG costs as much as augmenting it; small sets fit into memory decoded.
        in_memory = split == "train" and len(read_image_set(image_set)) <= MAX_IMAGES_IN_MEMORY
        splits[split] = DataGenerator(load_images_into_memory=in_memory, verbose=False)
        splits[split].parse_xml(
            images_dirs=[folder / "JPEGImages"],
            image_set_filenames=[image_set],
            annotations_dirs=[folder / "Annotations"],
            classes=class_names,
            verbose=False,
        )
        n_boxes = sum(len(labels) for labels in splits[split].labels)
        print(f"{split:5}: {splits[split].get_dataset_size()} images, {n_boxes} boxes")
    print(f"{len(names)} classes: {', '.join(names)}")
    return Splits(**splits, class_names=class_names)


def labels_at(dataset: DataGenerator, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the labels of all images in pixels of the network's input."""
    batches = dataset.generate(
        batch_size=32,
        shuffle=False,
        transformations=[ConvertTo3Channels(), Resize(*size)],
        returns={"processed_labels"},
        keep_images_without_gt=True,
    )
    n_batches = math.ceil(dataset.get_dataset_size() / 32)
    return [labels for _ in range(n_batches) for labels in next(batches)[0]]


def choose_anchors(
    options: argparse.Namespace, labels: list[np.ndarray]
) -> tuple[Sequence[float], Sequence[float]]:
    """Return scales and aspect ratios: the given ones, or such as fit the training boxes."""
    ratios = options.aspect_ratios or suggest_aspect_ratios(labels)
    size = options.image_size
    _, predictor_sizes = build_model((*size, 3), n_classes=1, return_predictor_sizes=True)
    scales = options.scales or suggest_scales(labels, size, predictor_sizes, ratios)
    return scales, ratios


def make_ssd7(
    size: tuple[int, int],
    class_names: Sequence[str],
    scales: Sequence[float],
    ratios: Sequence[float],
) -> keras.Model:
    """Make the model that this script trains and saves, in the current dtype policy."""
    return build_model(
        image_size=(*size, 3),
        n_classes=len(class_names) - 1,
        class_names=class_names,
        scales=scales,
        aspect_ratios_global=ratios,
        variances=(0.1, 0.1, 0.2, 0.2),
        normalize_coords=True,
        subtract_mean=127.5,
        divide_by_stddev=127.5,
    )


def build(
    options: argparse.Namespace, class_names: list[str], labels: list[np.ndarray]
) -> keras.Model:
    """Build and compile a fresh model for training labels in pixels of its input."""
    keras.utils.set_random_seed(options.seed)
    scales, ratios = choose_anchors(options, labels)
    model = make_ssd7(options.image_size, class_names, scales, ratios)
    model.compile(
        optimizer=keras.optimizers.AdamW(
            options.learning_rate,
            weight_decay=options.weight_decay,
            global_clipnorm=10.0,
            use_ema=True,
            ema_momentum=0.99,
        ),
        loss=SSDLoss(),
    )
    return model


def report_anchors(encoder: SSDInputEncoder, labels: list[np.ndarray]) -> None:
    """Print the anchor settings, and how many boxes they suit before any augmentation."""
    n_anchors = sum(boxes[..., 0].size for boxes in encoder.boxes_list)
    print(f"image size {encoder.img_height}x{encoder.img_width}, {n_anchors} anchors")
    print(f"scales {encoder.scales.tolist()}, aspect ratios {encoder.aspect_ratios[0]}")
    share = share_with_anchor(encoder, labels, iou_threshold=0.5)
    print(f"{share:.1%} of the training boxes have an anchor with IoU >= 0.5")


def choose_precision(precision: str) -> str:
    """Return the dtype policy: bfloat16 makes steps faster where the hardware computes with it."""
    if precision != "auto":
        return precision
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "float32"
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


class Trainer:
    """One training run: the batches, the budget, validation, and what is written to disk."""

    def __init__(self, options: argparse.Namespace, splits: Splits):
        self.options = options
        self.splits = splits
        self.size = options.image_size
        self.checkpoints = Checkpoints(options.output / "checkpoints")
        self.best_weights = options.output / "best.weights.h5"
        self.state = {"epoch": 0, "seconds": 0.0, "best_mAP": -1.0, "validated": 0.0, "history": []}

        restored = self.checkpoints.load()
        if restored and not options.resume:
            raise SystemExit(
                f"{options.output} holds a training run. Add --resume to go on with it, or choose "
                "another folder."
            )
        if restored:
            self.model, self.state = restored
            self.size = self.model.input_shape[1:3]
            print(f"resuming after epoch {self.state['epoch']}, {self.state['seconds']:.0f} s")
        labels = labels_at(splits.train, self.size)
        if not restored:
            self.model = build(options, splits.class_names, labels)
        # No neutral boxes, as in Caffe: anchors that fit half-way are hard negatives worth having.
        self.encoder = SSDInputEncoder.from_model(self.model, neg_iou_limit=0.5)
        report_anchors(self.encoder, labels)
        self.train = splits.train
        if options.balance:
            self.train = splits.train.subset(repeat_rare_classes(splits.train.labels))
            print(f"{self.train.get_dataset_size()} images an epoch, rare classes repeated")
        self.steps = math.ceil(self.train.get_dataset_size() / options.batch_size)

    def augmentation(self) -> list[Callable]:
        """Return the random transformations that the options ask for."""
        flip, kind = self.options.flip, self.options.augmentation
        if kind == "none":
            return []
        nothing = {} if kind == "full" else {"random_translate": ((0, 0), (0, 0), 0.0)}
        return [
            DataAugmentationConstantInputSize(
                random_flip=0.0 if flip == "none" else 0.5,
                random_flip_vertical=0.5 if flip == "both" else 0.0,
                random_hue=(10, 0.5),
                random_scale=(0.7, 2.0, 0.5 if kind == "full" else 0.0),
                background=(127, 127, 127),
                **nothing,
            )
        ]

    def training_batches(self) -> NamedBatches:
        """Augmented batches, the same in every run with the same seed."""
        return NamedBatches(
            self.train.generate(
                self.options.batch_size,
                shuffle=True,
                transformations=[ConvertTo3Channels(), Resize(*self.size), *self.augmentation()],
                label_encoder=self.encoder,
                returns={"processed_images", "encoded_labels", "filenames"},
                keep_images_without_gt=True,
                seed=self.options.seed,
                start_epoch=self.state["epoch"],
            )
        )

    def run(self) -> None:
        """Train until the budget is used up."""
        options = self.options
        self.budget = Budget(self.steps, options.epochs, options.minutes, self.state["seconds"])
        if self.budget.is_used_up(self.state["epoch"]):
            return
        batches = self.training_batches()
        self.model.fit(
            iter(batches),
            steps_per_epoch=self.steps,
            shuffle=False,  # the generator shuffles
            initial_epoch=self.state["epoch"],
            epochs=options.epochs or 10**6,
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                self.budget,
                WarmupCosine(self.budget, options.learning_rate),
                StopOnNonFiniteLoss(batches),
                EpochEnd(self.after_epoch),
            ],
        )

    def after_epoch(self, epoch: int, logs: dict) -> None:
        """Validate when it is time to, keep the best weights, save a checkpoint."""
        row = {
            "epoch": epoch + 1,
            "seconds": round(self.budget.seconds, 1),
            "learning_rate": float(self.model.optimizer.learning_rate),
            "loss": logs["loss"],
        }
        finished = self.model.stop_training or epoch + 1 == self.options.epochs
        due = self.budget.fraction >= self.state["validated"] + 0.05
        if due or finished:
            self.state["validated"] = self.budget.fraction
            with averaged_weights(self.model):
                row |= self.validate()
                if not row["val_mAP"] < self.state["best_mAP"]:  # also if there is no mAP
                    self.state["best_mAP"] = row["val_mAP"]
                    with atomic_path(self.best_weights) as path:
                        self.model.save_weights(path)
            print(
                f"epoch {epoch + 1}, {row['seconds']:.0f} s: loss {row['loss']:.3f}, "
                f"val_loss {row['val_loss']:.3f}, val_mAP {row['val_mAP']:.3f}"
            )
        self.state["history"].append(row)
        self.state["seconds"] = self.budget.seconds
        if due or finished:
            path = self.options.output / "history.csv"
            write_history(path, self.state["history"], HISTORY_COLUMNS)
            self.checkpoints.save(epoch + 1, self.model, self.state)

    def validate(self) -> dict[str, float]:
        """Compute the loss and the mAP of the validation images."""
        val = self.splits.val
        batches = val.generate(
            self.options.batch_size,
            shuffle=False,
            transformations=[ConvertTo3Channels(), Resize(*self.size)],
            label_encoder=self.encoder,
            keep_images_without_gt=True,
        )
        steps = math.ceil(val.get_dataset_size() / self.options.batch_size)
        loss = self.model.evaluate(batches, steps=steps, verbose=0)
        return {"val_loss": loss, "val_mAP": make_evaluator(self.model, val, self.splits)[1]}


def make_evaluator(
    model: keras.Model, dataset: DataGenerator, splits: Splits
) -> tuple[Evaluator, float]:
    """Evaluate a model in training mode; return the evaluator with all its results, and mAP."""
    evaluator = Evaluator(
        model,
        n_classes=len(splits.class_names) - 1,
        data_generator=dataset,
        model_mode="training",
        class_names=splits.class_names,
    )
    mean = evaluator(*model.input_shape[1:3], batch_size=16, verbose=False)
    return evaluator, mean


def finish(options: argparse.Namespace, splits: Splits, trained: keras.Model) -> float:
    """Save the model with its best weights; test it; draw. Return the test mAP."""
    trained.load_weights(options.output / "best.weights.h5")
    # Training may have used half precision; the saved model computes in float32 everywhere.
    keras.mixed_precision.set_global_policy("float32")
    anchors = read_model_settings(trained).anchors
    model = make_ssd7(
        trained.input_shape[1:3],
        splits.class_names,
        anchors.scales,
        anchors.aspect_ratios[0],  # the same on all layers
    )
    model.set_weights(trained.get_weights())
    with atomic_path(options.output / "model.keras") as path:
        model.save(path)
    write_text(options.output / "classes.txt", "\n".join(splits.class_names[1:]) + "\n")

    evaluator, mean_average_precision = make_evaluator(model, splits.test, splits)
    summary = {**evaluator.summary(), "split": "test", "images": splits.test.get_dataset_size()}
    write_text(options.output / "metrics.json", json.dumps(summary, indent=2) + "\n")
    evaluator.report(
        options.output / "report.html",
        title="SSD7 on the test images",
        object_sizes="terciles",  # whatever the size of the images
    )
    plot_history(options.output / "history.csv", options.output / "loss.png")
    plot_precision_recall(
        evaluator.cumulative_precisions,
        evaluator.cumulative_recalls,
        evaluator.average_precisions,
        splits.class_names,
        options.output / "precision_recall.png",
    )
    draw_test_images(options, splits, model)
    for name, precision in summary["average_precisions"].items():
        print(f"  {name:20} AP {'n/a' if precision is None else f'{precision:.3f}'}")
    return mean_average_precision


def draw_test_images(options: argparse.Namespace, splits: Splits, model: keras.Model) -> None:
    """Draw detections and ground truth of some test images."""
    test = splits.test
    chosen = np.linspace(0, test.get_dataset_size() - 1, options.pictures).astype(int)
    for index in sorted(set(chosen.tolist())):
        image = test.get_image(index)
        drawn = draw_detections(
            image,
            detect(model, image)[0],
            class_names=splits.class_names,
            ground_truth=np.array(test.labels[index]).reshape(-1, 5),
            min_size=400,  # small images are enlarged, so that the names can be read
        )
        save_image(options.output / "detections" / f"{test.image_ids[index]}.png", drawn)


def main(arguments: list[str] | None = None) -> float:
    """Run the whole job; the last line printed is the mAP on the test images."""
    options = parse_arguments(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    precision = choose_precision(options.precision)
    keras.mixed_precision.set_global_policy(precision)
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, {precision}")

    splits = load_splits(options.data, options.classes)
    trainer = Trainer(options, splits)
    trainer.run()
    mean_average_precision = finish(options, splits, trainer.model)
    print(f"mAP@0.5 = {mean_average_precision:.3f}")
    return mean_average_precision


if __name__ == "__main__":
    main()
