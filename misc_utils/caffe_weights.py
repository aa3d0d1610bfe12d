"""Trained Caffe networks: reading their weights, and giving them to SSD300 and SSD512.

The builders name their layers like the original Caffe networks, so weights find their layers by
name. What differs is the layout:

    convolution   (out, in, height, width) --> (height, width, in, out)
    bias          (1, 1, 1, out) in files of 2014 --> (out,)
    Normalize     a scale a channel, or one for all --> a scale a channel
    heads         channels follow the order of the boxes of a cell (`misc_utils.default_boxes`)

Offsets are the same: Caffe's code CENTER_SIZE is (cx, cy, w, h) divided by the variances, which is
`coords='centroids'` here. So are classes: background first, all classes of a box together.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import keras
import numpy as np

from misc_utils.caffe_file import CaffeFile, read_caffe_file
from misc_utils.default_boxes import box_orders, default_box_differences, reorder_boxes
from misc_utils.legacy_h5 import LoadReport
from misc_utils.model_weights import variables_by_layer
from misc_utils.named_weights import load_named_weights
from ssd_encoder_decoder.model_settings import ModelSettings, read_model_settings

_PRIORS = "_mbox_priorbox"
_HEADS = ("_mbox_loc", "_mbox_conf")


def read_caffemodel(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """Read all arrays of a `.caffemodel`; Caffe is not needed, and nothing is executed.

    Arguments:
        path: The file, with today's layer messages or those of 2014 (V1).

    Returns:
        {layer name: its arrays in Caffe's order and layout}, for layers that have any: a
        convolution's kernel `(out, in, height, width)` and bias `(out,)`, for example.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsFileError: if it holds no weights, is damaged or unreasonable; a ValueError.
    """
    return read_caffe_file(path).blobs


def load_caffe_weights(
    model: keras.Model, path: str | os.PathLike, skip_mismatch: bool = False
) -> LoadReport:
    """Give SSD300 or SSD512 the weights of a trained Caffe network.

        model = ssd_300((300, 300, 3), n_classes=20, scales=SCALES_VOC)
        print(load_caffe_weights(model, "VGG_VOC0712_SSD_300x300_iter_120000.caffemodel"))

    The file may also be that of the VGG-16 that SSD training starts from, reduced to convolutions
    (`VGG_ILSVRC_16_layers_fc_reduced.caffemodel`); then the other layers keep their weights. For
    the VGG-16 with its large fully connected layers use `misc_utils.pretrained`.

    Caffe's networks take BGR images, which the builders' default preprocessing makes of RGB ones.
    If anything is wrong the model stays as it was.

    Arguments:
        model: A built model. Its anchors should be those of the file's network; the file says what
            these are, and a warning says what differs.
        path: The `.caffemodel`.
        skip_mismatch: Whether layers whose weights have other shapes in the file keep their own;
            otherwise they are an error.

    Returns:
        A `LoadReport`; print it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, has no layer of the model, or has other shapes, or
            if the model's boxes are not centroids.
    """
    file = read_caffe_file(path)
    weights = {
        layer: [
            _keras_layout(array, variable)
            for array, variable in zip(file.blobs[layer], variables, strict=False)
        ]
        + file.blobs[layer][len(variables) :]
        for layer, variables in variables_by_layer(model).items()
        if layer in file.blobs
    }
    sources = [
        layer.name.removesuffix(_PRIORS) for layer in model.layers if layer.name.endswith(_PRIORS)
    ]
    if sources:
        _order_boxes(weights, read_model_settings(model), sources, file)
    unused = {layer: arrays for layer, arrays in file.blobs.items() if layer not in weights}
    return load_named_weights(model, {**weights, **unused}, file.path, skip_mismatch)


def caffe_kernel(array: np.ndarray) -> np.ndarray:
    """Bring a convolution kernel from Caffe's layout to that of Keras.

    Arguments:
        array: `(out, in, height, width)`.

    Returns:
        `(height, width, in, out)`.
    """
    return array.transpose(2, 3, 1, 0)


def _keras_layout(array: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """Bring an array to the layout of the variable that it is meant for; sizes stay as they are."""
    if len(variable.shape) == 4 and array.ndim == 4:
        return caffe_kernel(array)
    if len(variable.shape) == 1 and array.size == max(array.shape, default=1):
        # A Normalize layer with `channel_shared` has one scale for all channels.
        shared = array.size == 1 and variable.name.endswith("_gamma")
        return np.full(variable.shape, array.item()) if shared else array.reshape(-1)
    return array


def _order_boxes(
    weights: dict[str, list[np.ndarray]],
    settings: ModelSettings,
    sources: Sequence[str],
    file: CaffeFile,
) -> None:
    """Put the channels of the heads into the order of the model's boxes, in place."""
    if settings.coords != "centroids":
        raise ValueError(
            "Caffe's networks predict offsets of centroids; the model was built with "
            f"coords={settings.coords!r}. Build it with coords='centroids'."
        )
    priors = {name.removesuffix(_PRIORS): each for name, each in file.priors.items()}
    differences = default_box_differences(settings, sources, priors)
    if differences:
        warnings.warn(
            f"The anchors of the model are not those that '{file.path}' was trained with, so its "
            "boxes will be off. Build the model with the file's (`scales`, `steps`, "
            "`aspect_ratios_per_layer`, `variances`), unless you go on to train it.\n  "
            + "\n  ".join(differences),
            stacklevel=3,
        )
    for source, order in box_orders(settings, sources, priors).items():
        for layer in (source + suffix for suffix in _HEADS if source + suffix in weights):
            weights[layer] = reorder_boxes(weights[layer], order)
