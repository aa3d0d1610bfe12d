"""The weights that a training starts from: those of a detector, of a base network, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from misc_utils.caffe_weights import load_caffe_weights
from misc_utils.class_transfer import transfer_weights
from misc_utils.dataset_sources import read_class_names
from misc_utils.predictor_heads import find_predictor_heads
from misc_utils.pretrained import load_vgg16_weights
from misc_utils.prior_bias import set_prior_bias
from misc_utils.recipe import Recipe
from misc_utils.recipe_network import build_network
from misc_utils.torchvision_weights import load_torchvision_weights
from misc_utils.weights_file import open_weights_file, read_saved_class_names
from misc_utils.weights_registry import PUBLISHED_WEIGHTS, PublishedWeights

_OTHER_READERS = {".caffemodel": load_caffe_weights, ".pth": load_torchvision_weights}


def build_with_start_weights(recipe: Recipe, class_names: Sequence[str]) -> keras.Model:
    """Build the network of a recipe with the weights that its training starts from.

    Arguments:
        recipe: The recipe; its `weights` are ``'none'``; ``'imagenet'``, which are those of the
            base network in `keras.applications` and are downloaded; a file of a detector (see
            `load_detector_weights`); or a file of the base network (`.npz`, `.h5`, `.keras`,
            `.caffemodel` of VGG-16; of others what Keras saves without their classifier).
        class_names: The names of the classes, 'background' first.

    Returns:
        The model in mode 'training', not compiled. What was loaded is printed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The weights do not fit the network, or the file is none of weights.
    """
    n_classes = len(class_names) - 1
    if starts_from_detector(recipe):
        model = build_network(recipe, n_classes)
        print(load_detector_weights(model, recipe.weights, class_names))
        return model
    model = _build_with_base_weights(recipe, n_classes)
    if recipe.prior_bias:
        set_prior_bias(model, recipe.prior_bias)
    return model


def _build_with_base_weights(recipe: Recipe, n_classes: int) -> keras.Model:
    source = recipe.weights
    if source == "none":
        return build_network(recipe, n_classes)
    if recipe.backbone == "vgg16":
        model = build_network(recipe, n_classes)
        print(load_vgg16_weights(model, source))
        return model
    if recipe.backbone == "ssd7":
        raise ValueError(
            f"SSD7 has no base network to give weights to; got '{source}'. It learns from scratch "
            "('none') or goes on from a detector's file."
        )
    return build_network(recipe, n_classes, base_weights=source)


def load_detector_weights(
    model: keras.Model,
    path: str | Path,
    class_names: Sequence[str],
    is_whole: bool = False,
) -> Any:
    """Give a model the weights of a detector of the same kind; nothing changes if they do not fit.

    If the detector's classes have names (those of published weights have, a `.keras` file may hold
    them, others need a `classes.txt` beside the file), classes of equal names are paired and others
    start afresh; without names, all classes of equally many are kept, and none of another number.

    Arguments:
        model: A model in mode 'training'.
        path: `.keras`, `.weights.h5`, `.h5`, `.caffemodel` or `.pth`.
        class_names: The names of the model's classes, 'background' first.
        is_whole: Whether the file must have weights for all layers and classes, because the model
            is not going to be trained.

    Returns:
        A report; print it.

    Raises:
        ValueError: The weights do not fit the model, or the file is none of a detector.
    """
    path = Path(path)
    if not is_detector_file(path):
        raise ValueError(f"'{path}' holds no weights of a detector, at most those of its base.")
    if path.suffix in _OTHER_READERS:
        return _OTHER_READERS[path.suffix](model, path, skip_mismatch=not is_whole)
    classes = _paired_classes(path, class_names)
    if is_whole and len(classes) < len(class_names) - 1:
        missing = [name for n, name in enumerate(class_names) if n and n not in classes]
        raise ValueError(f"'{path}' knows nothing of the classes {', '.join(missing)}.")
    report = transfer_weights(path, model, classes, skip_mismatch=not is_whole)
    if is_whole and report.fresh:
        raise ValueError(f"'{path}' has no weights for the layers {', '.join(report.fresh)}.")
    return report


def starts_from_detector(recipe: Recipe) -> bool:
    """Tell whether the weights of a recipe are those of a whole detector.

    Arguments:
        recipe: The recipe.

    Raises:
        FileNotFoundError: It names a file that does not exist.
        ValueError: The file holds no weights that can be read.
    """
    source = recipe.weights
    if source in ("none", "imagenet"):
        return False
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"There is no file of weights '{source}'. Expected a file, 'imagenet' or 'none'."
        )
    return is_detector_file(source)


def is_detector_file(path: str | Path) -> bool:
    """Tell whether a file has weights of a whole detector, predictor layers included.

    Arguments:
        path: A file of weights.

    Raises:
        ValueError: It holds no weights that can be read.
    """
    path = Path(path)
    entry = _published(path)
    if entry is not None:
        return entry.network != "VGG-16"
    if path.suffix == ".npz":
        return False
    return path.suffix in _OTHER_READERS or _n_classes(path) is not None


def _published(path: Path) -> PublishedWeights | None:
    return next((entry for entry in PUBLISHED_WEIGHTS if path.name in entry.files), None)


def _paired_classes(path: Path, class_names: Sequence[str]) -> dict[int, int]:
    """Return {class id of the model: class id of the file} for what both know."""
    entry = _published(path)
    names = list(entry.class_names) if entry else read_saved_class_names(path) or []
    if not names and (path.parent / "classes.txt").is_file():
        names = read_class_names(path.parent / "classes.txt")
    if not names:
        n_classes = len(class_names) - 1
        return {n: n for n in range(1, n_classes + 1)} if _n_classes(path) == n_classes else {}
    return {n: names.index(name) for n, name in enumerate(class_names) if n and name in names[1:]}


def _n_classes(path: Path) -> int | None:
    with open_weights_file(path) as file:
        heads = find_predictor_heads(file.shapes())
    return next(iter(heads.values())).n_classes if heads else None
