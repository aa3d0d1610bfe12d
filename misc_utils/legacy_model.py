"""Opening full-model files of the original library without running the code that is in them.

`model.save` of Keras 2 stored the preprocessing as Lambda layers: compiled Python code, which works
in one version of Python only and can do anything at all to whoever loads it. So the file is not
loaded here but read: its description says which of the three architectures it is and with which
settings, today's builder makes that model, and the weights are copied by name.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from misc_utils.legacy_h5 import load_legacy_weights
from misc_utils.legacy_structure import LegacyLayer, check_same_structure, layers_of_config
from misc_utils.predictor_heads import PredictorHead, find_predictor_heads
from misc_utils.weights_file import WeightsFile, open_weights_file
from models.keras_ssd7 import build_model
from models.keras_ssd300 import ssd_300
from models.keras_ssd512 import ssd_512
from ssd_encoder_decoder.anchors import anchors_per_cell

# The argument of the builders that each Lambda layer's code held.
_PREPROCESSING = {
    "subtract_mean": "input_mean_normalization",
    "divide_by_stddev": "input_stddev_normalization",
    "swap_channels": "input_channel_swap",
}
_MODES = {"DecodeDetections": "inference", "DecodeDetectionsFast": "inference_fast"}
_DECODING = ("confidence_thresh", "iou_threshold", "top_k", "nms_max_output_size")
_SHARED_BY_ALL_ANCHORS = (
    "two_boxes_for_ar1",
    "clip_boxes",
    "variances",
    "coords",
    "normalize_coords",
)
# No SSD has larger images; it keeps a forged file from asking for terabytes of anchors.
_MAX_PIXELS = 2**26


@dataclass(frozen=True)
class _Architecture:
    """A model of the original library: its builder, and its predictor layers in order."""

    builder: Callable[..., Any]
    classes: tuple[str, ...]
    anchors: tuple[str, ...]


def _vgg_architecture(builder: Callable[..., Any], *sources: str) -> _Architecture:
    return _Architecture(
        builder,
        classes=tuple(f"{source}_mbox_conf" for source in sources),
        anchors=tuple(f"{source}_mbox_priorbox" for source in sources),
    )


_VGG_SOURCES = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")
_ARCHITECTURES = (
    _vgg_architecture(ssd_300, *_VGG_SOURCES),
    _vgg_architecture(ssd_512, *_VGG_SOURCES, "conv10_2"),
    _Architecture(
        build_model,
        classes=tuple(f"classes{stage}" for stage in (4, 5, 6, 7)),
        anchors=tuple(f"anchors{stage}" for stage in (4, 5, 6, 7)),
    ),
)


def load_legacy_model(path: str | os.PathLike, **overrides: Any) -> keras.Model:
    """Open a full-model `.h5` file that the original library saved with Keras 2.

        model = load_legacy_model("ssd7_epoch-26.h5")
        model.save("ssd7.keras")  # from now on: keras.saving.load_model("ssd7.keras")

    The model is built anew by `ssd_300`, `ssd_512` or `build_model` with the settings in the file,
    compared with the file layer by layer, and given its weights. Nothing in the file is executed.
    The optimizer and its state are left behind: compile the model before you go on training.

    Two kinds of settings were not saved as such:

    - The preprocessing constants (`subtract_mean`, `divide_by_stddev`, `swap_channels`) are read
      where the file has them as plain numbers beside the code that used them; if it has not, they
      must be given, for with a wrong one the model detects little and says nothing.
    - `steps` and `offsets` of the anchors are taken to be the builder's defaults, as in all models
      of the original's notebooks. If the model was trained with others, pass them. The builder
      warns of steps that do not fit the image size.

    Arguments:
        path: The file.
        **overrides: Arguments of the builder that replace what the file says, or say what it does
            not: those above, or for instance ``mode='inference'`` for a model that was saved for
            training.

    Returns:
        The model, in the mode it was saved in.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no full model of the original library, is damaged, or lacks a setting
            that must be given.
    """
    path = Path(path)
    if path.is_file() and zipfile.is_zipfile(path):
        raise ValueError(
            f"'{path}' is a Keras 3 archive, not a legacy file: `import models` and open it with "
            "`keras.saving.load_model`."
        )
    with open_weights_file(path) as file:
        layers = _layers(file)
        architecture = _recognised(layers, path)
        heads = find_predictor_heads(file.shapes())
    _check_overrides(overrides, architecture)
    with _form_explained(path):
        arguments = {
            **_model_arguments(architecture, layers, heads, path),
            **_anchor_arguments(architecture, layers, path),
            **_preprocessing_arguments(architecture, layers, overrides, path),
            **overrides,
        }
    model = architecture.builder(**arguments)
    check_same_structure(layers, model, path)
    report = load_legacy_weights(model, path)
    if not report.is_complete:
        raise ValueError(f"'{path}' is not a model that this library can build:\n{report}")
    for name, layer in layers.items():
        if layer.config.get("trainable") is False and layer.cls != "InputLayer":
            model.get_layer(name).trainable = False
    return model


def _layers(file: WeightsFile) -> dict[str, LegacyLayer]:
    if file.model_config is None:
        raise ValueError(
            f"'{file.path}' holds weights only, no description of a model: build the model with "
            "`ssd_300`, `ssd_512` or `build_model` and load the file with "
            "`misc_utils.legacy_h5.load_legacy_weights(model, path)`."
        )
    with _form_explained(file.path):
        try:
            description = json.loads(file.model_config)
        except ValueError as error:
            raise TypeError(f"no JSON: {error}") from error
        return layers_of_config(description["config"])


@contextmanager
def _form_explained(path: Path) -> Iterator[None]:
    """Turn what a description of another form than Keras 2 writes leads to into one error."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"The description of the model in '{path}' (attribute 'model_config') is not one that "
            f"Keras 2 writes for a functional model: {type(error).__name__}: {error}."
        ) from error


def _recognised(layers: Mapping[str, LegacyLayer], path: Path) -> _Architecture:
    found = {name for name, layer in layers.items() if layer.cls == "AnchorBoxes"}
    for architecture in _ARCHITECTURES:
        if found == set(architecture.anchors):
            return architecture
    raise ValueError(
        f"'{path}' is none of the original library's SSD300, SSD512 and SSD7, which are told by "
        f"the names of their AnchorBoxes layers; it has {sorted(found) or 'none'}. If it is a "
        "model of your own, build it with today's layers and load its weights with "
        "`misc_utils.legacy_h5.load_legacy_weights(model, path)`."
    )


def _check_overrides(overrides: Mapping[str, Any], architecture: _Architecture) -> None:
    known = set(inspect.signature(architecture.builder).parameters) - {"return_predictor_sizes"}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ValueError(
            f"{architecture.builder.__name__}, which builds the model in this file, has no "
            f"arguments {unknown}; it has {sorted(known)}."
        )


def _model_arguments(
    architecture: _Architecture,
    layers: Mapping[str, LegacyLayer],
    heads: Mapping[str, PredictorHead],
    path: Path,
) -> dict:
    """Read image size, classes, regularisation, mode and decoding thresholds."""
    image_size = _image_size(layers, path)
    # The number of classes as the weights have it, which are really there.
    n_classes = {heads[name].n_classes if name in heads else None for name in architecture.classes}
    if len(n_classes) != 1 or None in n_classes:
        raise ValueError(
            f"'{path}' lacks weights of predictor layers, or they have different numbers of "
            f"classes: {n_classes}. The file is damaged."
        )
    for name, anchors in zip(architecture.classes, architecture.anchors, strict=True):
        config = layers[anchors].config
        n_boxes = anchors_per_cell(config["aspect_ratios"], config["two_boxes_for_ar1"])
        if n_boxes != heads[name].n_boxes:
            raise ValueError(
                f"'{path}' contradicts itself: layer {anchors!r} makes {n_boxes} boxes a cell, the "
                f"weights of {name!r} predict {heads[name].n_boxes}."
            )
    arguments = {
        "image_size": image_size,
        "n_classes": n_classes.pop(),
        "l2_regularization": _l2_penalty(layers[architecture.classes[0]]),
        "mode": "training",
    }
    decoding = layers.get("decoded_predictions")
    if decoding is not None:
        arguments["mode"] = _MODES.get(decoding.cls, decoding.cls)
        arguments |= {key: decoding.config[key] for key in _DECODING if key in decoding.config}
    return arguments


def _image_size(layers: Mapping[str, LegacyLayer], path: Path) -> tuple[int, int, int]:
    shapes = [
        layer.config.get("batch_input_shape")
        for layer in layers.values()
        if layer.cls == "InputLayer"
    ]
    match shapes:
        case [[_, int(height), int(width), int(channels)]]:
            if 0 < height * width <= _MAX_PIXELS:
                return height, width, channels
    raise ValueError(
        f"'{path}' must have one input of a fixed size [batch, height, width, channels], of at "
        f"most {_MAX_PIXELS} pixels; it has {shapes}."
    )


def _l2_penalty(layer: LegacyLayer) -> float:
    regularizer = layer.config.get("kernel_regularizer")
    return 0.0 if regularizer is None else float(regularizer["config"]["l2"])


def _anchor_arguments(
    architecture: _Architecture, layers: Mapping[str, LegacyLayer], path: Path
) -> dict:
    """Read the anchor settings back from the AnchorBoxes layers, one a predictor layer."""
    configs = [layers[name].config for name in architecture.anchors]
    scales = [config["this_scale"] for config in configs] + [configs[-1]["next_scale"]]
    if [config["next_scale"] for config in configs] != scales[1:]:
        raise ValueError(
            f"In '{path}' the scales of the AnchorBoxes layers do not follow from each other; "
            "no list of `scales` describes them."
        )
    shared = [{key: config[key] for key in _SHARED_BY_ALL_ANCHORS} for config in configs]
    if any(settings != shared[0] for settings in shared):
        raise ValueError(
            f"In '{path}' the AnchorBoxes layers differ in one of {_SHARED_BY_ALL_ANCHORS}, which "
            "all predictor layers of a model share."
        )
    arguments = {
        "scales": scales,
        "aspect_ratios_per_layer": [config["aspect_ratios"] for config in configs],
        **shared[0],
    }
    # The original's files never say these; those of its descendants that mended it do.
    for argument in ("steps", "offsets"):
        if all(f"this_{argument}" in config for config in configs):
            arguments[argument] = [config[f"this_{argument}"] for config in configs]
    return arguments


def _preprocessing_arguments(
    architecture: _Architecture,
    layers: Mapping[str, LegacyLayer],
    overrides: Mapping[str, Any],
    path: Path,
) -> dict:
    """Find out what the Lambda layers computed, without their code."""
    arguments = {}
    parameters = inspect.signature(architecture.builder).parameters
    for argument, name in _PREPROCESSING.items():
        constant = _constant_of(layers[name]) if name in layers else None
        if name in layers and constant is None and argument not in overrides:
            raise ValueError(
                f"The model in '{path}' has the layer {name!r}, but its constant is hidden in "
                f"compiled code, which is not executed. Pass `{argument}=...` as in training; the "
                f"default of {architecture.builder.__name__} is {parameters[argument].default}."
            )
        given = overrides.get(argument, constant)
        if constant is not None and not np.array_equal(given, constant):
            warnings.warn(
                f"'{path}' was saved with `{argument}` {constant}; using the given "
                f"{given} instead.",
                stacklevel=3,
            )
        arguments[argument] = constant
    return arguments


def _constant_of(layer: LegacyLayer) -> Any:
    """Return the number or numbers that a Lambda layer's function used, None if not readable.

    Keras 2 wrote a function as [compiled code, default arguments, contents of the closure]. The
    original library's functions use one variable of the builder around them, which therefore is
    all that the closure holds, in plain JSON.
    """
    function = layer.config.get("function")
    if isinstance(function, dict):  # how later versions wrote a tuple
        function = function.get("items")
    match function:
        case [_, _, [constant]] if _is_numeric(constant):
            return constant
    return None


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) > 0 and all(_is_numeric(item) for item in value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
