r"""Train any SSD of this library on any data set it can read, and go on after any interruption.

    python examples/train_ssd.py --preset voc0712-ssd300 --weights imagenet --output out/voc300 \
        --train VOC2007/ImageSets/Main/trainval.txt VOC2012/ImageSets/Main/trainval.txt \
        --val VOC2007/ImageSets/Main/test.txt

A preset (examples/presets/*.toml) has all settings, and every one can be changed by an option. Its
anchors are the paper's; --fit-anchors finds such as fit the objects of your own data. The output
folder gets recipe.toml with the settings used, classes.txt, history.csv, and model.keras with the
best weights; checkpoints/ and best.weights.h5 are for going on.

After an interruption (at any moment, kill -9 included) the same command with --resume, or just
`--output DIR --resume`, goes on from the last checkpoint with the same batches in the same order,
and ends with the same weights.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.data_augmentation_chain_original_ssd import SSDDataAugmentation
from data_generator.errors import DegenerateBatchError
from data_generator.image_reading import ImageReadError
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize
from data_generator.object_detection_2d_photometric_ops import ConvertTo3Channels
from eval_utils.training_callback import MeanAveragePrecision
from misc_utils.batch_statistics import measure_batch_statistics
from misc_utils.command_line import (
    CLASSES_FILE,
    RECIPE_FILE,
    add_preset_option,
    at_least,
    errors_in_one_line,
    find_presets,
)
from misc_utils.dataset_sources import BACKGROUND, find_class_names, fingerprint, open_dataset
from misc_utils.distribution import KINDS, Devices, distribution
from misc_utils.files import atomic_path, write_text
from misc_utils.fitted_anchors import fit_anchors
from misc_utils.recipe import Recipe, add_recipe_options, read_recipe, recipe_changes
from misc_utils.recipe_network import build_network, compile_network
from misc_utils.start_weights import build_with_start_weights
from misc_utils.training import (
    Checkpoints,
    EpochEnd,
    NonFiniteLossError,
    StopOnNonFiniteLoss,
    averaged_weights,
    write_history,
)
from misc_utils.training_stream import TrainingStream
from ssd_encoder_decoder.class_names import set_class_names
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

PRESETS = Path(__file__).resolve().parent / "presets"
# Where the data lie may change between an interruption and the rest of a run; what they are may
# not, and that is checked by their content.
_MAY_CHANGE = ("train", "train_images", "val", "val_images")
_ANCHORS = ("scales", "aspect_ratios")


def parse_arguments(
    arguments: list[str] | None = None,
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    # fmt: off
    add("--output", required=True, type=Path, help="folder for the results")
    add("--resume", action="store_true", help="go on with the run in the output folder")
    add_preset_option(parser, PRESETS)
    add("--caffe-faithful", action="store_true", help="put the preset caffe-faithful on top")
    add("--fit-anchors", action="store_true",
        help="look for the scales and aspect ratios that fit the training boxes best, and write "
             "them into the recipe; only for scales if --weights names a whole detector, whose "
             "predictors were trained for anchors of certain shapes")
    add("--print-config", action="store_true", help="print all settings as TOML, and end")
    add("--workers", type=at_least(0), default=min(8, (os.cpu_count() or 1) - 1), metavar="INT",
        help="processes that prepare batches; changes no result [one core less than there are]")
    add("--distribute", choices=KINDS, default="none",
        help="how several devices share the work; batch_size is that of all of them [none]")
    add("--tensorboard", action="store_true", help="write logs for TensorBoard, too")
    # fmt: on
    add_recipe_options(parser)
    return parser, parser.parse_args(arguments)


def resolve_recipe(options: argparse.Namespace) -> Recipe:
    """Put presets and options together; a run that goes on has the settings it began with."""
    presets = [*options.preset, *(["caffe-faithful"] if options.caffe_faithful else [])]
    changes = recipe_changes(options)
    given = [name for name in _ANCHORS if name in changes]
    if options.fit_anchors and given:
        names = " and ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(
            f"--fit-anchors finds the anchors by itself: leave out either it or {names}."
        )
    written = options.output / RECIPE_FILE
    if not written.is_file() and (options.output / "checkpoints").exists():
        raise ValueError(f"{options.output} holds a run of another script. Choose another folder.")
    if not written.is_file():
        return read_recipe(find_presets(presets, PRESETS), changes)
    if not options.resume:
        raise ValueError(
            f"{options.output} holds a training run. Add --resume to go on with it, or choose "
            "another folder."
        )
    before = read_recipe([written])
    recipe = read_recipe(find_presets(presets, PRESETS) if presets else [written], changes)
    for name in ("classes", *_MAY_CHANGE):  # what was not said again is as it was
        if not getattr(recipe, name):
            recipe = recipe.replace(**{name: getattr(before, name)})
    if options.fit_anchors:  # which is done
        recipe = recipe.replace(**{name: getattr(before, name) for name in _ANCHORS})
    differences = before.differences(recipe, ignored=_MAY_CHANGE)
    if differences:
        raise ValueError(
            f"The run in {options.output} began with other settings ({'; '.join(differences)}). "
            f"To go on with it, --output {options.output} --resume is enough. To start from its "
            f"weights, choose another folder, and add --preset {written} --weights "
            f"{options.output / 'model.keras'}"
        )
    return recipe


class TrainingRun:
    """One training: the data, the model, the state, and what is written to disk.

    What decides the result is the recipe, the data and the state in the last checkpoint. `fit`
    counts in rounds of `checkpoint_every` steps instead of epochs, so that a checkpoint always
    falls on the end of one of them.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        recipe: Recipe,
        devices: Devices,
        fits_anchors: bool = False,
    ):
        """Open the data, fit anchors to them if wanted, and build or load the model."""
        self.devices = devices
        self.output: Path = options.output
        self.checkpoints = Checkpoints(self.output / "checkpoints")
        self.best_weights = self.output / "best.weights.h5"
        if not recipe.train:
            raise ValueError("Name the training data: --train. See --help.")
        if not recipe.classes:
            recipe = recipe.replace(classes=find_class_names(recipe.train)[1:])
        self.recipe = recipe
        self.class_names = [BACKGROUND, *recipe.classes]
        self.train = self._open(
            "train", recipe.train, recipe.train_images, recipe.difficult, recipe.crowds
        )
        self.val = self._open("val", recipe.val, recipe.val_images) if recipe.val else None

        self.state = {
            "step": 0,
            "seconds": 0.0,
            "best_mAP": -1.0,
            "data": fingerprint(self.train),
            "history": [],
        }
        with devices.scope():
            restored = self.checkpoints.load()
        if restored:
            self.model, state = restored
            self._check_data(state)
            self.state = state
            print(f"resuming after step {state['step']}")
        else:
            if fits_anchors:
                self.recipe, suggestion = fit_anchors(self.recipe, self.train)
                print(f"anchors fitted to the training boxes\n{suggestion}")
            self.model = self._fresh_model()
        self.encoder = SSDInputEncoder.from_model(self.model, neg_iou_limit=recipe.neg_iou_limit)
        self.validation = self._make_validation()

    def _open(
        self, part: str, sources: tuple, images: tuple, difficult: bool = True, crowds: bool = True
    ) -> DataGenerator:
        dataset = open_dataset(sources, images, self.class_names, difficult, crowds)
        n_boxes = sum(map(len, dataset.labels))
        print(f"{part:5}: {dataset.get_dataset_size()} images, {n_boxes} boxes")
        return dataset

    def _check_data(self, state: dict) -> None:
        if state["data"] != self.state["data"]:
            raise ValueError(
                f"The run in {self.output} began with other training data: images, boxes or their "
                "order differ. Name the same data, or start another run."
            )

    def _fresh_model(self) -> keras.Model:
        keras.utils.set_random_seed(self.recipe.seed)
        with self.devices.scope():
            model = build_with_start_weights(self.recipe, self.class_names)
            set_class_names(model, self.class_names)
            compile_network(self.recipe, model)
        return model

    def _make_validation(self) -> MeanAveragePrecision | None:
        """Prepare the evaluation. Keras does not call it: it would evaluate at other steps."""
        if self.val is None:
            return None
        recipe = self.recipe
        callback = MeanAveragePrecision(
            self.val,
            batch_size=recipe.batch_size,
            decoding_confidence_thresh=recipe.confidence_thresh,
            decoding_iou_threshold=recipe.iou_threshold,
            decoding_top_k=recipe.top_k,
            average_precision_mode="sample" if recipe.ap_rule == "voc2007" else "integrate",
        )
        callback.set_model(self.model)
        return callback

    def run(self, workers: int, tensorboard: bool) -> None:
        """Train from where the state is to the end."""
        recipe, step = self.recipe, self.state["step"]
        if step >= recipe.steps:
            return
        batches = TrainingStream(
            self.train,
            recipe.batch_size,
            augmentation(recipe),
            self.encoder,
            seed=recipe.seed,
            first_step=step,
            workers=workers,
            keep_images_without_gt=recipe.empty_images,
        )
        per_round = min(recipe.checkpoint_every, recipe.steps)
        times = recipe.steps * recipe.batch_size / self.train.get_dataset_size()
        print(
            f"{recipe.steps} steps, which show every image {times:.1f} times; what is called an "
            f"epoch below are {per_round} steps"
        )
        self._seconds_before, self._start = self.state["seconds"], time.monotonic()
        callbacks = [
            StopAtStep(recipe.steps, recipe.checkpoint_every),
            StopOnNonFiniteLoss(batches),
            EpochEnd(self._after_round),
        ]
        if tensorboard and self.devices.is_chief:  # behind what adds the mAP to the logs
            folder = self.output / "tensorboard"
            callbacks.append(keras.callbacks.TensorBoard(folder, write_graph=False))
        try:
            self.model.fit(
                self.devices.batches(batches),
                steps_per_epoch=per_round,
                shuffle=False,  # the batches are shuffled
                initial_epoch=step // recipe.checkpoint_every,
                epochs=-(-recipe.steps // recipe.checkpoint_every),
                verbose=1 if sys.stdout.isatty() else 2,
                callbacks=callbacks,
            )
        except Exception:
            if batches.failure is None:
                raise
            raise batches.failure from None
        finally:
            batches.close()

    def _after_round(self, number: int, logs: dict) -> None:
        """Validate when it is time to, keep the best weights, and save a checkpoint."""
        recipe, state = self.recipe, self.state
        step = min((number + 1) * recipe.checkpoint_every, recipe.steps)
        row = {"step": step, "learning_rate": float(self.model.optimizer.learning_rate), **logs}
        if step % recipe.validate_every == 0 or step == recipe.steps:
            with averaged_weights(self.model):
                self._measure_batch_statistics()
                if self.validation is not None:
                    row |= self.validation.evaluate()
                    logs["val_mAP"] = row["val_mAP"]  # for callbacks and the line that is printed
                # Without validation data, the last weights are the best that is known.
                if not row.get("val_mAP", 1.0) < state["best_mAP"]:
                    state["best_mAP"] = row.get("val_mAP", state["best_mAP"])
                    if self.devices.is_chief:
                        with atomic_path(self.best_weights) as path:
                            self.model.save_weights(path)
        state["step"] = step
        state["seconds"] = self._seconds_before + time.monotonic() - self._start
        row["seconds"] = round(state["seconds"], 1)
        state["history"].append(
            {name: float(value) for name, value in row.items()} | {"step": step}
        )
        if not self.devices.is_chief:
            return
        self.checkpoints.save(step, self.model, state)
        columns = dict.fromkeys(name for row in state["history"] for name in row)
        write_history(self.output / "history.csv", state["history"], list(columns))

    def _measure_batch_statistics(self) -> None:
        """Measure what the weights that count now make of the training images.

        The running averages of a short training, or of weights that are averages, do not fit them.
        """
        recipe = self.recipe
        if recipe.statistics_batches:
            batches = self.train.generate(
                recipe.batch_size,
                transformations=augmentation(recipe),
                returns={"processed_images"},
                keep_images_without_gt=recipe.empty_images,
                seed=recipe.seed,  # always the same batches, so that a run can be resumed
            )
            measure_batch_statistics(self.model, batches, recipe.statistics_batches)

    def finish(self) -> None:
        """Save the model with its best weights, which computes in float32 everywhere."""
        keras.mixed_precision.set_global_policy("float32")
        model = build_network(self.recipe, n_classes=len(self.class_names) - 1)
        model.load_weights(self.best_weights)
        set_class_names(model, self.class_names)
        with atomic_path(self.output / "model.keras") as path:
            model.save(path)
        if self.val is not None:
            print(f"best mAP on the validation images: {self.state['best_mAP']:.3f}")
        print(f"the model is in {self.output / 'model.keras'}")


class StopAtStep(keras.callbacks.Callback):
    """Ends training after a number of steps, which may lie within a round."""

    def __init__(self, steps: int, steps_per_round: int):
        super().__init__()
        self._steps = steps
        self._steps_per_round = steps_per_round
        self._before = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note where training is."""
        self._before = epoch * self._steps_per_round

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop after the last step."""
        if self._before + batch + 1 >= self._steps:
            self.model.stop_training = True


def augmentation(recipe: Recipe) -> list[Callable]:
    """Return the transformations of the training images, which all get the network's size."""
    height, width = recipe.image_size
    to_size = [ConvertTo3Channels(), Resize(height, width)]
    flip = 0.5 if recipe.flip else 0.0
    if recipe.augmentation == "none":
        return to_size
    if recipe.augmentation == "constant":
        return [
            *to_size,
            DataAugmentationConstantInputSize(random_flip=flip, background=(127, 127, 127)),
        ]
    variant = "caffe" if recipe.augmentation == "ssd-caffe" else "port"
    chain = SSDDataAugmentation(height, width, variant=variant)
    chain.random_flip.prob = flip
    return [chain]


def check_tensorboard() -> None:
    """Raise an ImportError that says what TensorBoard's logs need and lack."""
    missing = [
        name for name in ("tensorflow", "tensorboard") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f"--tensorboard needs {' and '.join(missing)}: pip install {' '.join(missing)}. "
            "history.csv has the same numbers."
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the whole job."""
    parser, options = parse_arguments(arguments)
    with errors_in_one_line(parser):
        recipe = resolve_recipe(options)
        fits_anchors = options.fit_anchors and not (options.output / RECIPE_FILE).is_file()
        if options.print_config:
            if fits_anchors:
                print("# --fit-anchors will put other scales and aspect_ratios here.\n")
            print(recipe.to_toml())
            return
        if options.tensorboard:
            check_tensorboard()
        keras.mixed_precision.set_global_policy(recipe.precision)
    with contextlib.ExitStack() as stack:
        with errors_in_one_line(parser):
            devices = stack.enter_context(distribution(options.distribute))
            run = TrainingRun(options, recipe, devices, fits_anchors)
            if devices.is_chief:
                write_text(options.output / RECIPE_FILE, run.recipe.to_toml())
                write_text(options.output / CLASSES_FILE, "\n".join(run.recipe.classes) + "\n")
        try:
            run.run(options.workers, options.tensorboard)
        except (NonFiniteLossError, DegenerateBatchError) as error:
            parser.exit(1, f"{parser.prog}: error: {error}\n")
        except ImageReadError as error:
            parser.exit(1, f"{parser.prog}: error: {error}. Then go on with --resume.\n")
    if devices.is_chief:
        run.finish()


if __name__ == "__main__":
    main()
