"""A training recipe: every setting that decides what comes out of a training, in one place.

A recipe is a `Recipe`, read from a TOML file (a preset, or that of an earlier run), changed on the
command line, and written beside the results:

    recipe = read_recipe(["examples/presets/voc0712-ssd300.toml"], {"batch_size": 16})
    print(recipe.to_toml())
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from keras_loss_function.box_losses import BOX_LOSSES

NETWORKS = ("ssd300", "ssd512")
BACKBONES = ("vgg16", "ssd7", "mobilenet_v2", "resnet50", "densenet121", "inception_resnet_v2")
AUGMENTATIONS = ("ssd", "ssd-caffe", "constant", "none")
SCHEDULES = ("steps", "cosine")
OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def _setting(default: Any, help: str, choices: tuple = ()) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Recipe:
    """All settings of a training. `help` of each field says what it is.

    Raises:
        ValueError: naming the setting whose type or value is not as described.
    """

    # fmt: off
    network: str = _setting("ssd300", "the network of the paper: what follows VGG-16", NETWORKS)
    backbone: str = _setting("vgg16", "base network; others than VGG-16 are followed by as many "
                             "stages as the image needs, and ssd7 is a whole network", BACKBONES)
    image_size: tuple = _setting((300, 300), "height and width of its input in pixels")
    scales: tuple = _setting((), "anchor scales in fractions of the shorter side; empty: the "
                             "network's own for Pascal VOC")
    aspect_ratios: tuple = _setting((), "aspect ratios of the anchors, one list a predictor layer; "
                                    "empty: the network's own")
    class_activation: str = _setting("softmax", "classes compete, or are scored one by one",
                                     ("softmax", "sigmoid"))
    caffe_network: bool = _setting(False, "VGG-16 networks: fresh kernels and weight decay as in "
                                   "the original")
    frozen_statistics: bool = _setting(False, "other backbones: batch normalisation keeps those "
                                       "of its start weights")

    train: tuple = _setting((), "training data: image sets of VOC (FOLDER/ImageSets/Main/NAME.txt),"
                            " .json files of COCO, a .csv file, or image folders of YOLO")
    train_images: tuple = _setting((), "folders of their images, for COCO and CSV; empty: looked "
                                   "for beside the annotations")
    val: tuple = _setting((), "validation data, likewise")
    val_images: tuple = _setting((), "likewise")
    classes: tuple = _setting((), "class names without the background; empty: those of the "
                              "training data")
    difficult: bool = _setting(True, "train on objects that VOC marks as difficult")
    crowds: bool = _setting(False, "train on boxes that COCO marks as crowds")
    empty_images: bool = _setting(True, "train on images without objects, too")

    augmentation: str = _setting("ssd", "ssd: the paper's, as the Keras port has it; ssd-caffe: as "
                                 "the original has it; constant: for objects of one size; none",
                                 AUGMENTATIONS)
    flip: bool = _setting(True, "mirror half of the images; not where left and right matter")
    neg_iou_limit: float = _setting(0.5, "anchors that overlap an object by less are negatives")

    weights: str = _setting("none", "start: 'imagenet' for the base network's, a file, or 'none'; "
                            "for a detector, take its recipe.toml as a preset: its predictors "
                            "know their anchors only")
    prior_bias: float = _setting(0.0, "what fresh predictors take for the probability of an "
                                 "object; focal loss wants 0.01; 0: whatever comes out")
    freeze: str = _setting("", "layer up to which the network is not trained, such as conv3_3")

    batch_size: int = _setting(32, "images a step")
    steps: int = _setting(120000, "steps in all")
    optimizer: str = _setting("sgd", "the optimizer", OPTIMIZERS)
    learning_rate: float = _setting(0.001, "the highest learning rate")
    momentum: float = _setting(0.9, "of SGD")
    weight_decay: float = _setting(0.0005, "as in Caffe: its gradient is this times the weight; of "
                                   "adamw, decoupled from the loss")
    bias_rate: float = _setting(1.0, "learning rate of biases, times that of the kernels")
    schedule: str = _setting("steps", "how the learning rate falls", SCHEDULES)
    decay_at: tuple = _setting((80000, 100000), "schedule 'steps': when it is multiplied by "
                               "decay_factor. If steps is changed alone, these change with it")
    decay_factor: float = _setting(0.1, "schedule 'steps': the factor")
    warmup_steps: int = _setting(0, "steps in which the learning rate rises from 0; change with "
                                "steps, too")
    clip_norm: float = _setting(0.0, "largest norm of all gradients together; 0: any")
    average: float = _setting(0.0, "momentum of a moving average of the weights, which is what is "
                              "validated and saved; 0: none")
    statistics_batches: int = _setting(50, "batches on which batch normalisation's statistics are "
                                       "measured for validation; 0: their running averages")

    loss: str = _setting("ssd", "hard negative mining, or focal loss", ("ssd", "focal"))
    mining: str = _setting("batch", "hard negatives of the whole batch, or of each image as in "
                           "Caffe", ("batch", "per_image"))
    neg_pos_ratio: float = _setting(3.0, "hard negatives for each positive")
    class_weights: tuple = _setting((), "loss 'ssd': a factor a class, the background first")
    label_smoothing: float = _setting(0.0, "loss 'ssd': share of a positive's class given to all")
    focal_gamma: float = _setting(2.0, "loss 'focal': how fast certain anchors lose weight")
    focal_alpha: float = _setting(0.25, "loss 'focal': factor of objects; the background has the "
                                  "rest to 1")
    alpha: float = _setting(1.0, "weight of the localisation loss")
    box_loss: str = _setting("smooth_l1", "localisation loss", tuple(BOX_LOSSES))

    precision: str = _setting("float32", "dtype policy", PRECISIONS)
    jit: bool = _setting(False, "compile the training step with XLA")
    seed: int = _setting(0, "of fresh weights, order and augmentation")

    checkpoint_every: int = _setting(1000, "steps from one checkpoint to the next")
    validate_every: int = _setting(5000, "steps from one validation to the next")
    ap_rule: str = _setting("voc2007", "average precision: 11 points, or the area under the curve",
                            ("voc2007", "voc2010"))
    confidence_thresh: float = _setting(0.01, "detections with a lower confidence are dropped")
    iou_threshold: float = _setting(0.45, "overlap above which the lower of two detections goes")
    top_k: int = _setting(200, "detections of an image at most")
    max_candidates: int = _setting(0, "detections of a class that compete at most (Caffe: 400); "
                                   "0: all")
    # fmt: on

    def __post_init__(self):
        types = get_type_hints(type(self))
        for setting in dataclasses.fields(self):
            value = _checked(setting, types[setting.name], getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)
        _check_ranges(self)

    def to_toml(self) -> str:
        """Return the text of a file that `read_recipe` reads; each setting with its meaning."""
        lines = []
        for setting in dataclasses.fields(self):
            # JSON is TOML but for one control character, which only the latter wants escaped.
            value = json.dumps(getattr(self, setting.name), ensure_ascii=False)
            value = value.replace("\x7f", "\\u007f")
            lines += [f"# {setting.metadata['help']}", f"{setting.name} = {value}", ""]
        return "\n".join(lines)

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some settings changed."""
        return dataclasses.replace(self, **changes)

    def differences(self, other: Recipe, ignored: Iterable[str] = ()) -> list[str]:
        """List what differs, one line a setting, this recipe's value first."""
        return [
            f"{setting.name}: {getattr(self, setting.name)!r} -> {getattr(other, setting.name)!r}"
            for setting in dataclasses.fields(self)
            if setting.name not in ignored
            and getattr(self, setting.name) != getattr(other, setting.name)
        ]


def read_recipe(paths: Iterable[str | Path], changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from TOML files, of which each changes what it names, and change it further.

    If the number of steps is changed, `decay_at` and `warmup_steps` keep their shares of it unless
    they are changed, too. If the network is changed, the anchors are its own, likewise.

    Arguments:
        paths: TOML files; settings that none of them names have their defaults.
        changes: {setting: value} on top of that.

    Returns:
        The recipe.

    Raises:
        ValueError: A file is no TOML, or names an unknown setting or value; the file is named.
        FileNotFoundError: There is no such file.
    """
    settings: dict[str, Any] = {}
    for path in paths:
        settings = _on_top(settings, _read_toml(Path(path)), str(path))
    return Recipe(**_on_top(settings, changes or {}, "changed settings"))


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting of a recipe to a command line, without default values.

    Arguments:
        parser: What gets the options; of those that are used, `recipe_changes` makes a dict.
    """
    group = parser.add_argument_group(
        "settings of the recipe", "each wins over the presets; the defaults are in brackets"
    )
    types = get_type_hints(Recipe)
    for setting in dataclasses.fields(Recipe):
        kind, default = types[setting.name], setting.default
        values = default if kind is tuple else (default,)
        shown = " ".join(json.dumps(value).strip('"') for value in values) or "empty"  # as typed
        options: dict[str, Any] = {
            "help": f"{setting.metadata['help']} [{shown}]".replace("%", "%%"),
            "default": argparse.SUPPRESS,
            "dest": f"recipe.{setting.name}",
        }
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif kind is tuple:
            options |= {"nargs": "*", "metavar": "VALUE"}
        else:
            options |= {"type": kind, "metavar": kind.__name__.upper()}
            if setting.metadata["choices"]:
                options |= {"choices": setting.metadata["choices"], "metavar": None}
        group.add_argument("--" + setting.name.replace("_", "-"), **options)


def recipe_changes(options: argparse.Namespace) -> dict[str, Any]:
    """Return {setting: value} of the options of `add_recipe_options` that were used.

    Lists are given as `--scales 0.1 0.2`, lists of lists as JSON, `--aspect-ratios [1,2] [1,2,3]`.

    Raises:
        ValueError: A number is none.
    """
    types = get_type_hints(Recipe)
    used = {
        name.removeprefix("recipe."): value
        for name, value in vars(options).items()
        if name.startswith("recipe.")
    }
    for name, value in used.items():
        if types[name] is tuple and not isinstance(_default(name), str):
            used[name] = [_parsed(text) if name in _NUMBERS else text for text in value]
    return used


# The lists of numbers; all other lists are of texts, which may look like numbers ("7").
_NUMBERS = ("image_size", "scales", "aspect_ratios", "decay_at", "class_weights")


def _default(name: str) -> Any:
    return next(s.default for s in dataclasses.fields(Recipe) if s.name == name)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"Expected a number, or a list such as [1,2,0.5]; got {text!r}.") from None


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe '{path}'.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is no TOML file: {error}.") from error
    return content


def _on_top(settings: dict, changes: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return settings with changes, and what depends on those, unless that is changed as well."""
    unknown = sorted(set(changes) - {setting.name for setting in dataclasses.fields(Recipe)})
    if unknown:
        raise ValueError(f"{origin}: a recipe has no settings {', '.join(unknown)}.")
    changed = {**settings, **changes}
    if any(changed.get(name) != settings.get(name) for name in ("network", "backbone")):
        # The anchors of one network, a list a predictor layer, do not suit another one.
        changed |= {name: changes.get(name, ()) for name in ("scales", "aspect_ratios")}
    if changed.get("steps") != settings.get("steps"):
        with contextlib.suppress(TypeError, ZeroDivisionError):  # wrong values are named later
            changed |= _with_shares_kept(settings, changed["steps"]) | changes
    return changed


def _with_shares_kept(settings: dict, steps: int) -> dict[str, Any]:
    """Return the settings that count steps, for another number of these in all."""
    before, warmup, places = (
        settings.get(name, _default(name)) for name in ("steps", "warmup_steps", "decay_at")
    )
    moved = (round(place * steps / before) for place in places)
    return {
        "warmup_steps": round(warmup * steps / before),
        "decay_at": sorted({place for place in moved if place > 0}),
    }


def _checked(setting: dataclasses.Field, kind: type, value: Any) -> Any:
    """Return a value in its own type, tuples all through."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list | tuple):
        value = tuple(tuple(v) if isinstance(v, list | tuple) else v for v in value)
    choices = setting.metadata["choices"]
    if type(value) is not kind or (choices and value not in choices):
        expected = f"one of {', '.join(choices)}" if choices else _NAMES[kind]
        raise ValueError(f"`{setting.name}` must be {expected}; got {value!r}.")
    return value


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text",
          tuple: "a list"}  # fmt: skip


def _check_ranges(recipe: Recipe) -> None:
    at_least_one = ("batch_size", "steps", "checkpoint_every", "validate_every", "top_k")
    for name in at_least_one:
        if getattr(recipe, name) < 1:
            raise ValueError(f"`{name}` must be at least 1; got {getattr(recipe, name)}.")
    not_negative = ("learning_rate", "momentum", "weight_decay", "bias_rate", "warmup_steps",
                    "clip_norm", "average", "statistics_batches", "neg_pos_ratio",
                    "alpha")  # fmt: skip
    for name in not_negative:
        if not getattr(recipe, name) >= 0:
            raise ValueError(f"`{name}` must not be negative; got {getattr(recipe, name)}.")
    shares = ("neg_iou_limit", "prior_bias", "label_smoothing", "focal_alpha", "confidence_thresh",
              "iou_threshold")  # fmt: skip
    for name in shares:
        if not 0 <= getattr(recipe, name) <= 1:
            raise ValueError(f"`{name}` must be from 0 to 1; got {getattr(recipe, name)}.")
    for name in _NUMBERS:
        values = getattr(recipe, name)
        flat = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
        if any(isinstance(v, bool) or not isinstance(v, int | float) or v <= 0 for v in flat):
            raise ValueError(f"`{name}` must be a list of positive numbers; got {values}.")
    if len(recipe.image_size) != 2 or not all(isinstance(n, int) for n in recipe.image_size):
        raise ValueError(f"`image_size` must be height and width; got {recipe.image_size}.")
    if list(recipe.decay_at) != sorted(set(recipe.decay_at)):
        raise ValueError(f"`decay_at` must ascend; got {recipe.decay_at}.")
    if recipe.validate_every % recipe.checkpoint_every:
        raise ValueError(
            "`validate_every` must be a multiple of `checkpoint_every`, because training goes on "
            "from a checkpoint as if nothing had happened; got "
            f"{recipe.validate_every} and {recipe.checkpoint_every}."
        )
