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
from misc_utils.torchvision_weights import load_torchvision_weights
from misc_utils.weights_file import open_weights_file
from misc_utils.weights_registry import PUBLISHED_WEIGHTS

_OTHER_READERS = {".caffemodel": load_caffe_weights, ".pth": load_torchvision_weights}


def load_start_weights(
    model: keras.Model, source: str, class_names: Sequence[str], is_whole: bool = False
) -> Any:
    """Load weights to start a training from; nothing changes if they do not fit.

    A detector's weights are given to layers of the same names. If its classes have names (those of
    published weights have; others need a `classes.txt` beside the file), classes of equal names are
    paired and others start afresh; without names, all classes of equally many are kept, and none of
    another number.

    Arguments:
        model: A model in mode 'training'.
        source: ``'imagenet'``: VGG-16 of `keras.applications`, which is downloaded. Or a file: of a
            detector (`.keras`, `.weights.h5`, `.h5`, `.caffemodel`, `.pth`), or of VGG-16 (those
            and `.npz`).
        class_names: The names of the model's classes, 'background' first.
        is_whole: Whether the file must have weights for all layers and classes, because the model
            is not going to be trained.

    Returns:
        A report; print it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The weights do not fit the model, or the file is none of weights.
    """
    if source == "imagenet":
        return load_vgg16_weights(model)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file of weights '{path}'. Expected a file, 'imagenet' or 'none'."
        )
    entry = next((each for each in PUBLISHED_WEIGHTS if path.name in each.files), None)
    is_detector = entry.network != "VGG-16" if entry else _is_detector(path)
    if is_whole and not is_detector:
        raise ValueError(f"'{path}' holds no weights of a detector, at most those of its base.")
    if not is_detector:
        return load_vgg16_weights(model, path)
    if path.suffix in _OTHER_READERS:
        return _OTHER_READERS[path.suffix](model, path, skip_mismatch=not is_whole)
    classes = _paired_classes(path, class_names, list(entry.class_names) if entry else None)
    if is_whole and len(classes) < len(class_names) - 1:
        missing = [name for n, name in enumerate(class_names) if n and n not in classes]
        raise ValueError(f"'{path}' knows nothing of the classes {', '.join(missing)}.")
    report = transfer_weights(path, model, classes, skip_mismatch=not is_whole)
    if is_whole and report.fresh:
        raise ValueError(f"'{path}' has no weights for the layers {', '.join(report.fresh)}.")
    return report


def _paired_classes(
    path: Path, class_names: Sequence[str], source_names: Sequence[str] | None
) -> dict[int, int]:
    """Return {class id of the model: class id of the file} for what both know."""
    if source_names is None and (path.parent / "classes.txt").is_file():
        source_names = read_class_names(path.parent / "classes.txt")
    if source_names is None:
        n_classes = len(class_names) - 1
        return {n: n for n in range(1, n_classes + 1)} if _n_classes(path) == n_classes else {}
    names = list(source_names)
    return {n: names.index(name) for n, name in enumerate(class_names) if n and name in names[1:]}


def _is_detector(path: Path) -> bool:
    if path.suffix == ".npz":
        return False
    return path.suffix in _OTHER_READERS or _n_classes(path) is not None


def _n_classes(path: Path) -> int | None:
    with open_weights_file(path) as file:
        heads = find_predictor_heads(file.shapes())
    return next(iter(heads.values())).n_classes if heads else None
