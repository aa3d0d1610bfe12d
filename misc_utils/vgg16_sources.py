"""The weights of VGG-16 from wherever they may be, as the convolutions that SSD starts from.

VGG-16 ends in two layers that are connected to everything: 7 x 7 x 512 inputs, 4096 outputs each.
Seen as convolutions they work on images of any size. SSD thins them out (paper, section 3.1, after
DeepLab, arXiv:1412.7062):

    fc6   7 x 7 x 512 -> 4096   every 3rd tap each way, every 4th output   3 x 3 x 512 -> 1024
    fc7   1 x 1 x 4096 -> 4096  every 4th input, every 4th output          1 x 1 x 1024 -> 1024

The nine taps that stay of fc6 are 3 pixels apart; dilation 6 moves them twice as far, for the map
before it is twice as fine in SSD, whose fifth pool keeps the resolution.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from misc_utils.caffe_weights import caffe_kernel, read_caffemodel
from misc_utils.model_weights import weights_by_layer
from misc_utils.npz_weights import read_npz_weights
from misc_utils.weights_file import read_weights_file

VGG16_CONVOLUTIONS = tuple(
    f"conv{stage}_{index}"
    for stage, n_convolutions in enumerate((2, 2, 3, 3, 3), start=1)
    for index in range(1, n_convolutions + 1)
)
"""The names of the 13 convolutions, conv1_1 to conv5_3."""

_DENSE = ("fc6", "fc7")
_KERAS_NAME = re.compile(r"^block(\d)_conv(\d)$")
_KERAS_DENSE = {"fc1": "fc6", "fc2": "fc7"}
_TAPS, _N_OUTPUTS = 7, 4096
_TAP_STRIDE, _OUTPUT_STRIDE = 3, 4

Weights = dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class Vgg16Weights:
    """VGG-16's weights in the layout of Keras' convolutions.

    Attributes:
        origin: Where they come from.
        layers: {layer name: [kernel, bias]}: conv1_1 to conv5_3 and, if they are there, fc6 and fc7
            as SSD has them.
        decimated: Which of fc6 and fc7 were thinned out from VGG's full layers.
        unused: Other layers that are there.
    """

    origin: str
    layers: Weights
    decimated: tuple[str, ...]
    unused: tuple[str, ...]


def read_vgg16(source: str | os.PathLike | keras.Model) -> Vgg16Weights:
    """Read VGG-16's weights.

    Arguments:
        source: ``'imagenet'`` or ``'imagenet_convolutions'``: `keras.applications.VGG16` with or
            without its fully connected layers, which Keras downloads (528 or 58 MB). Or a model, or
            the path of a file: `.npz`, Keras' `.h5`, `.weights.h5` or `.keras`, or a `.caffemodel`;
            with layers named conv1_1 ... or block1_conv1 ....

    Returns:
        The weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the source lacks one of the 13 convolutions or cannot be read.
    """
    origin = f"model {source.name!r}" if isinstance(source, keras.Model) else f"'{source}'"
    if isinstance(source, str) and source in ("imagenet", "imagenet_convolutions"):
        origin = "keras.applications.VGG16"
        source = keras.applications.VGG16(weights="imagenet", include_top=source == "imagenet")
    if isinstance(source, keras.Model):
        found = _from_keras(weights_by_layer(source))
    elif _is_npz(source):
        found = _from_keras(_listed(read_npz_weights(source)))
    elif h5py.is_hdf5(source) or zipfile.is_zipfile(source):
        found = _from_keras(_listed(read_weights_file(source)))
    else:
        found = _from_caffe(read_caffemodel(source))
    missing = [name for name in VGG16_CONVOLUTIONS if name not in found]
    if missing:
        raise ValueError(
            f"{origin} is no VGG-16: it lacks {', '.join(missing)}. Its layers are "
            f"{', '.join(list(found)[:6])}, ..."
        )
    known = (*VGG16_CONVOLUTIONS, *_DENSE)
    layers = {name: found[name] for name in known if name in found}
    for name in layers:
        if len(layers[name]) != 2:
            raise ValueError(
                f"Layer {name!r} of {origin} must have a kernel and a bias; it has "
                f"{len(layers[name])} weights."
            )
    decimated = tuple(name for name in _DENSE if name in layers and _is_full(name, layers[name][0]))
    for name in decimated:
        layers[name] = decimate(*layers[name], thin_inputs=name == "fc7")
    return Vgg16Weights(
        origin, layers, decimated, unused=tuple(name for name in found if name not in known)
    )


def decimate(kernel: np.ndarray, bias: np.ndarray, thin_inputs: bool) -> list[np.ndarray]:
    """Thin out a layer of VGG-16 as SSD does.

    Arguments:
        kernel: `(height, width, in, out)`.
        bias: `(out,)`.
        thin_inputs: Whether the inputs are thinned out, too, because those outputs of the layer
            before are gone.

    Returns:
        [kernel, bias] with every 3rd tap each way, every 4th output and, if asked, every 4th input.
    """
    input_stride = _OUTPUT_STRIDE if thin_inputs else 1
    kernel = kernel[::_TAP_STRIDE, ::_TAP_STRIDE, ::input_stride, ::_OUTPUT_STRIDE]
    return [np.ascontiguousarray(kernel), bias[::_OUTPUT_STRIDE].copy()]


def _is_full(name: str, kernel: np.ndarray) -> bool:
    """Whether a kernel is that of VGG-16 and not that of SSD yet."""
    taps = _TAPS if name == "fc6" else 1
    return kernel.shape[:2] == (taps, taps) and kernel.shape[-1] == _N_OUTPUTS


def _is_npz(path: str | os.PathLike) -> bool:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no file of weights '{path}'. To download VGG-16 pass 'imagenet'."
        )
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return True  # reading it explains what is wrong


def _listed(layers: Mapping[str, Mapping[str, np.ndarray]]) -> Weights:
    # The kernel first: archives list their members in any order. Files of Keras have no trouble.
    return {
        layer: [arrays[name] for name in sorted(arrays, key=lambda name: name == "bias")]
        for layer, arrays in layers.items()
    }


def _from_keras(weights: Mapping[str, Sequence[np.ndarray]]) -> Weights:
    found = {}
    for layer, arrays in weights.items():
        name = _KERAS_DENSE.get(layer, _KERAS_NAME.sub(r"conv\1_\2", layer))
        found[name] = list(arrays)
        if name in _DENSE and arrays[0].ndim == 2:
            # Keras flattens (height, width, channels).
            taps, inputs = _taps(name, arrays[0])
            found[name][0] = arrays[0].reshape(taps, taps, inputs, -1)
    return found


def _from_caffe(blobs: Mapping[str, Sequence[np.ndarray]]) -> Weights:
    found = {}
    for name, (kernel, *others) in blobs.items():
        if kernel.ndim == 4 and kernel.shape[:2] == (1, 1):
            kernel = kernel[0, 0]  # files of 2014 have four dimensions, always
        if kernel.ndim == 4:
            kernel = caffe_kernel(kernel)
        elif name in _DENSE and kernel.ndim == 2:
            # (out, in), and Caffe flattens (channels, height, width).
            taps, inputs = _taps(name, kernel.T)
            kernel = caffe_kernel(kernel.reshape(-1, inputs, taps, taps))
        found[name] = [kernel, *(array.reshape(-1) for array in others)]
    return found


def _taps(name: str, kernel: np.ndarray) -> tuple[int, int]:
    """Return (side of the map, channels) that the `(in, out)` kernel of a dense layer looks at."""
    taps = _TAPS if name == "fc6" else 1
    inputs, rest = divmod(kernel.shape[0], taps**2)
    if rest:
        raise ValueError(
            f"Layer {name!r} must see {taps} x {taps} pixels of some channels, as VGG-16's does; "
            f"it has {kernel.shape[0]} inputs."
        )
    return taps, inputs
