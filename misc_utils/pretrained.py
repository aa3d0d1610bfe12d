"""Starting SSD300 and SSD512 from a VGG-16 that was trained on ImageNet, as the original was.

VGG-16's weights expect BGR images minus the mean (104, 117, 123), not scaled. The default
preprocessing of `ssd_300` and `ssd_512` makes just that of RGB images, and the VGG-16 of
`keras.applications` was trained elsewhere on the same: no source needs its channels swapped.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from misc_utils.model_weights import assign_weights, variables_by_layer
from misc_utils.vgg16_sources import VGG16_CONVOLUTIONS, Vgg16Weights, read_vgg16

_FIRST = "conv1_1"
_FIRST_KERNELS = ("average", "tile")
_BGR_MEAN = (104.0, 117.0, 123.0)
# A mean of 127.5 for all channels is fine, too; none at all, or one for the other order, is not.
_MEAN_TOLERANCE = 24.0
_RGB = 3


@dataclass(frozen=True)
class Vgg16Report:
    """What `load_vgg16_weights` did; print it.

    Attributes:
        origin: Where the weights come from.
        loaded: Layers that have the source's weights now.
        decimated: Those of them that were thinned out from VGG-16's fully connected layers.
        adapted: What was done to the first kernel if images have not three channels, else None.
        fresh: {layer of VGG-16 that kept the model's own weights: why}.
        unused: Layers of the source that are not in the model's base network.
    """

    origin: str
    loaded: tuple[str, ...]
    decimated: tuple[str, ...]
    adapted: str | None
    fresh: Mapping[str, str]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"VGG-16 from {self.origin}: {len(self.loaded)} layers loaded"]
        if self.decimated:
            lines.append(f"thinned out from fully connected layers: {', '.join(self.decimated)}")
        if self.adapted:
            lines.append(f"{_FIRST}: {self.adapted}")
        lines += [f"fresh start: {layer}, {reason}" for layer, reason in self.fresh.items()]
        if self.unused:
            lines.append(f"only in the source: {', '.join(self.unused)}")
        return "\n".join(lines)


def load_vgg16_weights(
    model: keras.Model,
    source: str | os.PathLike | keras.Model = "imagenet",
    first_kernel: str | None = None,
) -> Vgg16Report:
    """Give the base network of SSD300 or SSD512 the weights of a VGG-16.

        model = ssd_300((300, 300, 3), n_classes=20, scales=SCALES_VOC)
        print(load_vgg16_weights(model))

    conv1_1 to conv5_3 are copied. fc6 and fc7 are thinned out from VGG-16's fully connected layers
    (paper, section 3.1), copied if the source has them as SSD does, and start afresh if it has
    none. All other layers of the model keep their weights; if anything is wrong, all do.

    Arguments:
        model: A built model with layers conv1_1 ... conv5_3, and perhaps fc6 and fc7.
        source: ``'imagenet'``: `keras.applications.VGG16`, which Keras downloads (528 MB);
            ``'imagenet_convolutions'``: the same without the fully connected layers (58 MB). Or the
            path of a file (`.npz`, `.h5`, `.weights.h5`, `.keras`, `.caffemodel`), or a model.
        first_kernel: For images that have not three channels: ``'average'`` gives all channels the
            mean of the three, ``'tile'`` repeats blue, green, red, blue, ...; both scaled by
            3 / channels, so that activations keep their size. None is an error for such images.

    Returns:
        A `Vgg16Report`; print it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the model has no VGG-16 in it, if the source is none, or if images have not
            three channels and `first_kernel` is None.
    """
    if first_kernel not in (None, *_FIRST_KERNELS):
        raise ValueError(
            f"`first_kernel` must be None, {' or '.join(map(repr, _FIRST_KERNELS))}; got "
            f"{first_kernel!r}."
        )
    variables = variables_by_layer(model)
    absent = [name for name in VGG16_CONVOLUTIONS if name not in variables]
    if absent:
        raise ValueError(
            f"Model {model.name!r} has no VGG-16 to give weights to: it lacks {', '.join(absent)}. "
            "SSD300 and SSD512 have one."
        )
    # Before the source is read: it may be a download.
    n_channels = variables[_FIRST][0].shape[2]
    _check_channels(n_channels, first_kernel)
    weights = read_vgg16(source)
    values = {name: _float32(weights.layers[name]) for name in weights.layers if name in variables}
    adapted = None
    if n_channels != _RGB:
        values[_FIRST][0], adapted = _adapted(values[_FIRST][0], n_channels, first_kernel)
    elif model.input_shape[-1] == _RGB:
        _warn_of_preprocessing(model)
    _check_shapes(values, variables, weights)
    assign_weights(model, values, weights.origin)
    return Vgg16Report(
        origin=weights.origin,
        loaded=tuple(values),
        decimated=weights.decimated,
        adapted=adapted,
        fresh={
            name: f"{weights.origin} has no {name}"
            for name in ("fc6", "fc7")
            if name in variables and name not in values
        },
        unused=(*weights.unused, *(name for name in weights.layers if name not in variables)),
    )


def _float32(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(array, dtype=np.float32) for array in arrays]


def _check_channels(n_channels: int, first_kernel: str | None) -> None:
    if n_channels == _RGB or first_kernel is not None:
        return
    message = (
        f"VGG-16 was trained on images of three channels, the model's first convolution sees "
        f"{n_channels}. Pass `first_kernel='average'` or 'tile' to make a kernel from the three"
    )
    if n_channels == 1:
        message += (
            ", or build the model with `swap_channels=(0, 0, 0)`, which shows the grey channel to "
            "VGG-16 three times"
        )
    raise ValueError(f"{message}.")


def _adapted(kernel: np.ndarray, n_channels: int, how: str) -> tuple[np.ndarray, str]:
    """Make a `(height, width, n_channels, out)` kernel of one for three channels."""
    if how == "average":
        kernel, words = kernel.mean(axis=2, keepdims=True), "the mean of three channels"
    else:
        words = "blue, green, red in turn"
    picks = np.arange(n_channels) % kernel.shape[2]
    scale = np.float32(_RGB / n_channels)
    return kernel[:, :, picks] * scale, f"{words} for each of {n_channels} channels"


def _check_shapes(
    values: Mapping[str, Sequence[np.ndarray]], variables: Mapping, weights: Vgg16Weights
) -> None:
    for name, arrays in values.items():
        shapes = [array.shape for array in arrays]
        expected = [tuple(variable.shape) for variable in variables[name]]
        if shapes != expected:
            raise ValueError(
                f"Layer {name!r} of {weights.origin} has weights of the shapes {shapes}, the "
                f"model's {expected}. Is it VGG-16, and the model SSD300 or SSD512?"
            )


def _warn_of_preprocessing(model: keras.Model) -> None:
    """Warn if the model shows VGG-16 images unlike those that it was trained on."""
    settings = {layer.name: layer for layer in model.layers}
    mean = _value(settings.get("input_mean_normalization"), 0.0)
    stddev = _value(settings.get("input_stddev_normalization"), 1.0)
    swap = settings.get("input_channel_swap")
    order = list(range(_RGB)) if swap is None else swap.order
    if mean.shape != (_RGB,) or stddev.shape != (_RGB,):  # a value a pixel: leave that to the user
        return
    is_fine = np.allclose(stddev, 1, atol=0.1) and np.allclose(
        mean[order], _BGR_MEAN, atol=_MEAN_TOLERANCE
    )
    # With a mean of its own for each channel the order shows in it.
    if is_fine and np.ptp(mean) > 0:
        is_fine = np.argsort(mean[order]).tolist() == [0, 1, 2]
    if not is_fine:
        warnings.warn(
            "VGG-16's weights expect BGR images minus (104, 117, 123), not divided by anything; "
            f"the model subtracts {mean.tolist()}, divides by {stddev.tolist()} and then takes the "
            f"channels {order}. With RGB images keep the defaults of `subtract_mean`, "
            "`divide_by_stddev` and `swap_channels`.",
            stacklevel=3,
        )


def _value(layer: Any, default: float) -> np.ndarray:
    """Return the constant of a preprocessing layer, one number a channel if it is one for all."""
    value = np.asarray(default if layer is None else layer.value, dtype=np.float64)
    return np.broadcast_to(value, _RGB) if value.ndim == 0 else value
