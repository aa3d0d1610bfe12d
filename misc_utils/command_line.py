"""What the scripts in `examples` share: presets, errors in one line, and opening a detector."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras

import models  # noqa: F401 (makes the layers known to Keras)
from data_generator.errors import DatasetError, DegenerateBatchError
from keras_layers.keras_layer_DecodeDetections import DecodeDetections
from keras_layers.keras_layer_DecodeDetectionsFast import DecodeDetectionsFast
from misc_utils.dataset_sources import BACKGROUND, read_class_names
from misc_utils.recipe import read_recipe
from misc_utils.recipe_network import build_network
from misc_utils.start_weights import load_detector_weights
from misc_utils.weights_registry import PUBLISHED_WEIGHTS
from ssd_encoder_decoder.class_names import get_class_names
from ssd_encoder_decoder.model_settings import read_model_settings

RECIPE_FILE, CLASSES_FILE = "recipe.toml", "classes.txt"

_USER_ERRORS = (ValueError, OSError, ImportError, DatasetError, DegenerateBatchError)
_DECODERS = {"inference": DecodeDetections, "inference_fast": DecodeDetectionsFast}


@dataclass(frozen=True)
class Detector:
    """A trained model and the names of its classes.

    Attributes:
        model: An SSD of any mode.
        class_names: Names by class id, 'background' first.
    """

    model: keras.Model
    class_names: list[str]


@contextmanager
def errors_in_one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Turn errors about what the user gave into one line on the error stream, and exit code 2.

    Arguments:
        parser: That of the script, whose name begins the line.
    """
    try:
        yield
    except _USER_ERRORS as error:
        message = " ".join(str(error).split())
        parser.exit(2, f"{parser.prog}: error: {message}\n")


def add_preset_option(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Add the option `--preset`.

    Arguments:
        parser: What gets the option.
        folder: Where the presets lie.
    """
    known = ", ".join(sorted(path.stem for path in folder.glob("*.toml")))
    parser.add_argument(
        "--preset",
        nargs="+",
        default=[],
        metavar="PRESET",
        help=f"recipes, each on top of those before it: {known}, or a .toml file",
    )


def find_presets(names: Sequence[str], folder: Path) -> list[Path]:
    """Find the files of presets.

    Arguments:
        names: Names of presets, or paths of TOML files.
        folder: Where the presets lie.

    Returns:
        Paths.

    Raises:
        ValueError: There is no such preset.
    """
    paths = []
    for name in names:
        path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
        if not path.is_file():
            known = ", ".join(sorted(each.stem for each in folder.glob("*.toml")))
            raise ValueError(f"There is no preset '{name}'. Known are {known}, and .toml files.")
        paths.append(path)
    return paths


def add_detector_options(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Add the options that say which model to use: `open_detector` reads them.

    Arguments:
        parser: What gets the options.
        folder: Where the presets lie.
    """
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--model", type=Path, help="a .keras file, such as train_ssd.py writes")
    group.add_argument(
        "--weights",
        type=Path,
        help=f"a file of weights; needs --preset, unless a {RECIPE_FILE} lies beside it",
    )
    add_preset_option(parser, folder)
    parser.add_argument(
        "--classes",
        metavar="FILE_OR_NAMES",
        help="class names without the background: a text file with one a line, or a list with "
        "commas; by default those that the model knows, or of classes.txt beside it",
    )


def add_threshold_options(parser: argparse.ArgumentParser, confidence: float) -> None:
    """Add the options that say which boxes become detections.

    Arguments:
        parser: What gets the options.
        confidence: The default of `--confidence`.
    """
    add = parser.add_argument
    # fmt: off
    add("--confidence", type=_share, default=confidence, metavar="FLOAT",
        help=f"detections with a lower confidence are dropped [{confidence}]")
    add("--iou", type=_share, default=0.45, metavar="FLOAT",
        help="of two boxes of a class that overlap by more, the better one stays [0.45]")
    add("--top-k", type=at_least(1), default=200, metavar="INT",
        help="detections of an image at most [200]")
    # fmt: on


def open_detector(options: argparse.Namespace, folder: Path) -> Detector:
    """Open the model that the options of `add_detector_options` name.

    Arguments:
        options: The command line.
        folder: Where the presets lie.

    Returns:
        The detector, which computes in float32 unless its file says otherwise.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no model of this library, or names and classes do not go together.
    """
    path = options.model or options.weights
    _check_file(path, is_model=bool(options.model))
    presets = options.preset
    if not presets and (path.parent / RECIPE_FILE).is_file():
        presets = [str(path.parent / RECIPE_FILE)]
    names = _class_names(options.classes, path)
    if options.model:
        model = keras.saving.load_model(path, compile=False)
        if not options.classes:
            names = get_class_names(model) or names
    elif not presets:
        raise ValueError("--weights needs --preset, which says what network they are for.")
    elif names is None:
        raise ValueError(f"--weights needs --classes, or a {CLASSES_FILE} beside the file.")
    else:
        model = build_network(read_recipe(find_presets(presets, folder)), len(names) - 1)
        load_detector_weights(model, path, names, is_whole=True)
    n_classes = read_model_settings(model).n_classes
    names = names or [BACKGROUND, *(f"class {n}" for n in range(1, n_classes + 1))]
    if len(names) != n_classes + 1:
        raise ValueError(
            f"The model has {n_classes} classes, but {len(names) - 1} names are given: "
            f"{', '.join(names[1:])}."
        )
    return Detector(model, names)


def with_decoding(
    model: keras.Model,
    mode: str,
    confidence_thresh: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 200,
) -> keras.Model:
    """Put a decoding layer behind a model in mode 'training'; the weights are shared.

    Arguments:
        model: The model.
        mode: ``'inference'`` or ``'inference_fast'``.
        confidence_thresh: As in `DecodeDetections`, like those that follow.
        iou_threshold: Likewise.
        top_k: Likewise.

    Returns:
        A model in that mode.

    Raises:
        ValueError: if the model decodes already.
    """
    settings = read_model_settings(model)
    if settings.mode != "training":
        raise ValueError(f"The model is in mode '{settings.mode}', so it decodes already.")
    decode = _DECODERS[mode](
        confidence_thresh=confidence_thresh,
        iou_threshold=iou_threshold,
        top_k=top_k,
        nms_max_output_size=max(400, top_k),
        coords=settings.coords,
        normalize_coords=settings.normalize_coords,
        img_height=settings.img_height,
        img_width=settings.img_width,
        name="decoded_predictions",
    )
    return keras.Model(model.inputs, decode(model.outputs[0]))


def at_least(minimum: int) -> Callable[[str], int]:
    """Return a `type` of an option: a whole number that is not below a minimum.

    Arguments:
        minimum: 0 or more.
    """

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            message = f"expected a whole number from {minimum} on; got '{text}'"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return read


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1; got '{text}'")
    return value


def _check_file(path: Path, is_model: bool) -> None:
    """Raise an error if a model's file is none, as the folder of a training is."""
    if path.is_dir():
        files = ", ".join(sorted(str(file) for file in path.glob("*.keras"))) or "there is none"
        raise ValueError(f"'{path}' is a folder. Name a .keras file in it ({files}).")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    if is_model and path.name.endswith(".weights.h5"):
        raise ValueError(f"'{path}' holds weights only: name it by --weights instead of --model.")


def _class_names(given: str | None, path: Path) -> list[str] | None:
    """Return the names that are given, lie beside the model, or are known of published weights."""
    if given and Path(given).is_file():
        return read_class_names(given)
    if given:
        return [BACKGROUND, *(name.strip() for name in given.split(","))]
    if (path.parent / CLASSES_FILE).is_file():
        return read_class_names(path.parent / CLASSES_FILE)
    entry = next((each for each in PUBLISHED_WEIGHTS if path.name in each.files), None)
    return list(entry.class_names) if entry and entry.class_names else None
