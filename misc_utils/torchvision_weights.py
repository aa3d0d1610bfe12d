"""Giving SSD300 the weights of torchvision's `ssd300_vgg16`, and its outputs with them.

torchvision's SSD300 is the network of the paper with other names. What differs:

- Images are RGB, minus the mean, not swapped to BGR: `torchvision_ssd300_settings()`.
- Default boxes are no wider and no higher than the image. On the coarsest map the boxes of ratio 2
  and 1/2 would be (0.87 sqrt(2) = 1.23 times the image), and are, in Caffe and here. The weights
  are made up for it: with k = our width / theirs,

      cx = anchor cx + 0.1 dx w,   w = exp(0.2 dw) w        both libraries
      dx -> dx / k,  dw -> dw - ln(k) / 0.2                  and their boxes come out of our anchors

- After decoding, torchvision clips boxes to the image before non-maximum suppression; the decoding
  layers here do not, so that boxes at the edges may differ a little in the end.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from misc_utils.caffe_weights import caffe_kernel
from misc_utils.default_boxes import (
    box_orders,
    default_box_differences,
    default_boxes,
    model_anchor_shapes,
    reorder_boxes,
)
from misc_utils.legacy_h5 import LoadReport
from misc_utils.named_weights import load_named_weights
from ssd_encoder_decoder.model_settings import ModelSettings, read_model_settings

_SIZE = 300
_SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
_STEPS = (8, 16, 32, 64, 100, 300)
_VARIANCES = (0.1, 0.1, 0.2, 0.2)
_MEAN_RGB = (0.48235, 0.45882, 0.40784)
_FEW, _MANY = (1.0, 2.0, 0.5), (1.0, 2.0, 0.5, 3.0, 1 / 3)
_RATIOS = (_FEW, _MANY, _MANY, _MANY, _FEW, _FEW)
_SOURCES = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")
# Numbers in torchvision's list of layers, activations and pools included.
_FEATURES = {
    "1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12, "3_3": 14,
    "4_1": 17, "4_2": 19, "4_3": 21,
}  # fmt: skip
_LAYERS = {
    **{f"conv{name}": f"backbone.features.{number}" for name, number in _FEATURES.items()},
    **{f"conv5_{index}": f"backbone.extra.0.{2 * index - 1}" for index in (1, 2, 3)},
    "fc6": "backbone.extra.0.7.1",
    "fc7": "backbone.extra.0.7.3",
    **{
        f"conv{5 + stage}_{index}": f"backbone.extra.{stage}.{2 * index - 2}"
        for stage in (1, 2, 3, 4)
        for index in (1, 2)
    },
    **{
        f"{source}_mbox_{ours}": f"head.{theirs}_head.module_list.{number}"
        for number, source in enumerate(_SOURCES)
        for ours, theirs in (("conf", "classification"), ("loc", "regression"))
    },
}
_SCALE = "backbone.scale_weight"


def torchvision_ssd300_settings(n_classes: int = 90) -> dict[str, Any]:
    """Return the arguments with which `ssd_300` is torchvision's `ssd300_vgg16`.

        model = ssd_300(**torchvision_ssd300_settings(), mode="inference")
        load_torchvision_weights(model, "ssd300_vgg16_coco-b556d3b4.pth")

    Images are RGB with values 0 to 255.

    Arguments:
        n_classes: Classes without the background: torchvision's `num_classes` - 1. Its published
            weights have 90; the ids are COCO's category ids, of which ten do not occur.

    Returns:
        {argument: value}.
    """
    return {
        "image_size": (_SIZE, _SIZE, 3),
        "n_classes": n_classes,
        "scales": _SCALES,
        "aspect_ratios_per_layer": _RATIOS,
        "steps": _STEPS,
        "variances": _VARIANCES,
        # (x / 255 - mean) / (1 / 255) = x - 255 mean
        "subtract_mean": tuple(255 * mean for mean in _MEAN_RGB),
        "swap_channels": None,
        "confidence_thresh": 0.01,
        "iou_threshold": 0.45,
        "top_k": 200,
        "nms_max_output_size": 400,
    }


def load_torchvision_weights(
    model: keras.Model,
    state_dict: Mapping[str, Any] | str | os.PathLike,
    skip_mismatch: bool = False,
) -> LoadReport:
    """Give SSD300 the weights of torchvision's `ssd300_vgg16`.

    The model should be built with `torchvision_ssd300_settings()`. One that swaps its channels to
    BGR is fine, too: the first kernel is swapped to match. If anything is wrong the model stays as
    it was.

    Arguments:
        model: An `ssd_300`.
        state_dict: {name: tensor or array}, as `state_dict()` of torchvision's model returns it, or
            the path of a `.pth` file of it. Reading a file takes PyTorch; objects other than
            tensors are refused in it (`weights_only=True`), so nothing in it is executed.
        skip_mismatch: Whether layers whose weights have other shapes keep their own, the class
            scores of another number of classes for example; otherwise they are an error.

    Returns:
        A `LoadReport`; print it.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if a file is given and PyTorch is not installed.
        ValueError: if the weights are not those of `ssd300_vgg16`, or do not fit the model.
    """
    path = Path("state_dict") if isinstance(state_dict, Mapping) else Path(state_dict)
    tensors = _arrays(state_dict if isinstance(state_dict, Mapping) else _read(path), path)
    prefixes = {prefix: layer for layer, prefix in _LAYERS.items()}
    missing = [prefix for prefix in prefixes if f"{prefix}.weight" not in tensors]
    if missing or _SCALE not in tensors:
        raise ValueError(
            f"'{path}' does not hold torchvision's ssd300_vgg16: it lacks "
            f"{', '.join((missing or [_SCALE])[:3])}; it has {', '.join(list(tensors)[:3])}, ..."
        )
    weights = {}
    for prefix, layer in prefixes.items():
        kernel = tensors.pop(f"{prefix}.weight")
        kernel = caffe_kernel(kernel) if kernel.ndim == 4 else kernel
        bias = tensors.pop(f"{prefix}.bias", None)
        weights[layer] = [kernel] if bias is None else [kernel, bias]
    weights["conv4_3_norm"] = [tensors.pop(_SCALE)]
    _fit_channels(weights, model)
    _fit_boxes(weights, read_model_settings(model))
    weights.update({name: [array] for name, array in tensors.items()})  # to be reported
    return load_named_weights(model, weights, path, skip_mismatch)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights '{path}'.")
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "Reading PyTorch's files takes PyTorch (`pip install torch`). Without it, pass the "
            "weights as {name: array}."
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"'{path}' cannot be read as a file of tensors: {str(error).splitlines()[0]} If it is "
            "one, it is damaged; if it holds other objects, save the `state_dict()` alone."
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"'{path}' holds no state dict but a {type(content).__name__}.")
    return content


def _arrays(tensors: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    """Turn tensors into float32 arrays; checkpoints of training scripts have them under 'model'."""
    if isinstance(tensors.get("model"), Mapping):
        tensors = tensors["model"]
    arrays = {}
    for name, tensor in tensors.items():
        # A tensor with a gradient, or on a GPU, is no array before it is freed of both.
        tensor = tensor.detach().cpu().float() if hasattr(tensor, "detach") else tensor
        array = np.asarray(tensor)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"Entry {name!r} of '{path}' must be a tensor; got {type(tensor)}.")
        # Models that were trained on several devices have 'module.' before every name.
        arrays[str(name).removeprefix("module.")] = array.astype(np.float32)
    return arrays


def _fit_channels(weights: dict[str, list[np.ndarray]], model: keras.Model) -> None:
    """Put the first kernel's inputs, which are RGB, into the order that the model sees them in."""
    layers = {layer.name: layer for layer in model.layers}
    swap = layers.get("input_channel_swap")
    kernel = weights["conv1_1"][0]
    if swap is not None and sorted(swap.order) == list(range(kernel.shape[2])):
        weights["conv1_1"][0] = kernel[:, :, swap.order]
    mean = layers.get("input_mean_normalization")
    expected = 255 * np.array(_MEAN_RGB)
    is_off = mean is None or not np.allclose(mean.value, expected, atol=5)
    if is_off or "input_stddev_normalization" in layers:
        warnings.warn(
            f"torchvision's weights expect RGB images minus {expected.round().tolist()}, not "
            "divided by anything, which is not what the model computes. Build it with "
            "`torchvision_ssd300_settings()`.",
            stacklevel=3,
        )


def _fit_boxes(weights: dict[str, list[np.ndarray]], settings: ModelSettings) -> None:
    """Make up for another order of boxes and for boxes larger than the image."""
    if settings.coords != "centroids" or len(settings.predictor_sizes) != len(_SOURCES):
        raise ValueError(
            "torchvision's ssd300_vgg16 is `ssd_300` with coords='centroids'; the model has "
            f"{len(settings.predictor_sizes)} predictor layers and coords={settings.coords!r}."
        )
    each = default_boxes(_SIZE, _RATIOS, _SCALES, _STEPS, _VARIANCES)
    boxes = dict(zip(_SOURCES, each, strict=True))
    differences = default_box_differences(settings, _SOURCES, boxes)
    if differences:
        warnings.warn(
            "The anchors of the model are not torchvision's, so its boxes will be off. Build it "
            "with `torchvision_ssd300_settings()`, unless you go on to train it.\n  "
            + "\n  ".join(differences),
            stacklevel=3,
        )
    orders = box_orders(settings, _SOURCES, boxes)
    size = min(settings.img_height, settings.img_width)
    for source, shapes in zip(_SOURCES, model_anchor_shapes(settings), strict=True):
        loc, conf = f"{source}_mbox_loc", f"{source}_mbox_conf"
        if source in orders:
            weights[conf] = reorder_boxes(weights[conf], orders[source])
            weights[loc] = reorder_boxes(weights[loc], orders[source])
            weights[loc] = _for_larger_boxes(weights[loc], np.maximum(shapes / size, 1))


def _for_larger_boxes(arrays: list[np.ndarray], factors: np.ndarray) -> list[np.ndarray]:
    """Change the predictor of offsets so that anchors larger by `factors` give the same boxes.

    Arguments:
        arrays: Kernel `(3, 3, in, n_boxes * 4)` and bias.
        factors: `(n_boxes, 2)`: our width / theirs, our height / theirs.

    Returns:
        The changed arrays, or the same ones if they are not of such shapes.
    """
    n_boxes = len(factors)
    if len(arrays) != 2 or any(array.shape[-1:] != (4 * n_boxes,) for array in arrays):
        return arrays
    scale = np.concatenate([1 / factors, np.ones_like(factors)], axis=1)
    shift = np.concatenate([np.zeros_like(factors), -np.log(factors) / _VARIANCES[2:]], axis=1)
    kernel, bias = arrays
    return [
        (kernel * scale.reshape(-1)).astype(np.float32),
        (bias * scale.reshape(-1) + shift.reshape(-1)).astype(np.float32),
    ]
