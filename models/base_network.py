"""A base network from elsewhere: finding its feature maps, and setting it on top of an image.

Of the network only the part that the feature maps depend on is used. Its layers are copied, with
their weights, into the graph of the SSD itself: they keep their names there, so `get_layer`,
`freeze` and weights that move by name find them, and whatever happens to the SSD does not touch
the network that they came from.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import keras

from keras_layers.batch_normalization import BatchNormalization
from models.multibox import check_image_size

# Keras warns of what is no trouble here: weights of convolutions do not depend on the image size,
# and whoever asks for five channels has five.
_HARMLESS_WARNINGS = (
    "`input_shape` is undefined or non-square",
    "This model usually expects 1 or 3 input channels",
)


def applications_network(
    make: Callable[..., keras.Model],
    image_size: tuple[int, int, int],
    weights: str | os.PathLike | None,
    swap_channels: Sequence[int] | bool | None = None,
    **arguments: Any,
) -> keras.Model:
    """Make a network of `keras.applications` without its classifier.

    Arguments:
        make: The function that makes it, `keras.applications.ResNet50` for example.
        image_size: (height, width, channels) of the SSD's input.
        weights: ``'imagenet'``, which Keras downloads; the path of a file of weights for the
            network without its classifier; or None for a random start.
        swap_channels: The SSD's argument: its length is the number of channels that the network
            sees, if it is given.
        **arguments: Other arguments of `make`.

    Returns:
        The network.

    Raises:
        FileNotFoundError: if `weights` is a path where no file is.
        ValueError: if `image_size` is not as described or too small for the network, or if
            ImageNet's weights shall see another number of channels than three.
    """
    check_image_size(image_size)
    height, width, channels = image_size
    if swap_channels is not None and swap_channels is not False and swap_channels is not True:
        channels = len(swap_channels) or channels
    if weights == "imagenet" and channels != 3:
        raise ValueError(
            f"ImageNet's weights expect RGB images; got {channels} channels (`image_size` "
            f"{tuple(image_size)}). Pass `weights=None`, or let `swap_channels` make three of "
            "them: (0, 0, 0) shows a grey channel three times."
        )
    if weights is not None and weights != "imagenet":
        if not Path(weights).is_file():
            raise FileNotFoundError(
                f"There is no file of weights '{os.fspath(weights)}'. To download those of "
                "ImageNet pass 'imagenet', for a random start None."
            )
        weights = os.fspath(weights)
    with warnings.catch_warnings():
        for message in _HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message)
        return make(
            input_shape=(height, width, channels), include_top=False, weights=weights, **arguments
        )


def find_feature_maps(network: keras.Model, feature_layers: Sequence[Any]) -> dict[str, Any]:
    """Find the outputs of some layers.

    Arguments:
        network: A functional or sequential model with one input.
        feature_layers: Names of layers, layers, or symbolic tensors.

    Returns:
        {layer name: symbolic tensor}.

    Raises:
        ValueError: naming what the network does not have, with what it has instead.
    """
    _check_network(network)
    if isinstance(network, keras.Sequential):  # which has a graph, but does not show it
        network = keras.Model(network.inputs, network.outputs, name=network.name)
    if isinstance(feature_layers, str) or not feature_layers:
        raise ValueError(
            "`feature_layers` must list the layers to predict from, at least one; got "
            f"{feature_layers!r}."
        )
    feature_maps: dict[str, Any] = {}
    for each in feature_layers:
        name, tensor = _feature_map(network, each)
        if name in feature_maps:
            raise ValueError(f"`feature_layers` lists {name!r} twice.")
        if len(tensor.shape) != 4:
            raise ValueError(
                f"Layer {name!r} makes no feature map: its output has the shape {tensor.shape}, "
                "not (batch, height, width, channels)."
            )
        feature_maps[name] = tensor
    return feature_maps


def copy_network(
    network: keras.Model,
    feature_maps: dict[str, Any],
    inputs: Any,
    images: Any,
    freeze_batch_normalization: bool = False,
    batch_normalization_momentum: float | None = None,
) -> dict[str, Any]:
    """Copy the part of a network that feature maps depend on into another model's graph.

    Batch normalisation layers become the library's own, which are the same but faster on
    TensorFlow (`keras_layers.batch_normalization`).

    Arguments:
        network: The network.
        feature_maps: {name: symbolic tensor of the network}.
        inputs: The other model's input.
        images: What the network shall see: made from `inputs`, `(batch, height, width, channels)`.
        freeze_batch_normalization: Whether the copies of batch normalisation layers are not
            trained.
        batch_normalization_momentum: That of the copies; None: that of the network's layers.

    Returns:
        {name: symbolic tensor} in the other model's graph.

    Raises:
        ValueError: if the images are not what the network was made for.
    """
    _check_images(network, images)

    def copy_of(layer: Any) -> Any:
        kind = BatchNormalization if type(layer) is keras.layers.BatchNormalization else type(layer)
        copy = kind.from_config(layer.get_config())
        if isinstance(copy, keras.layers.BatchNormalization):
            if freeze_batch_normalization:
                copy.trainable = False
            if batch_normalization_momentum is not None:
                copy.momentum = batch_normalization_momentum
        return copy

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        # `clone_model` starts at an input, the network at what preprocessing made of it.
        args, kwargs = keras.tree.map_structure(
            lambda value: images if value is inputs else value, (args, kwargs)
        )
        return layer(*args, **kwargs)

    part = keras.Model(network.inputs[0], list(feature_maps.values()))
    copy = keras.models.clone_model(
        part,
        input_tensors=inputs,
        clone_function=copy_of,
        call_function=call,
        recursive=True,
    )
    for layer in part.layers:
        if layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return dict(zip(feature_maps, copy.outputs, strict=True))


def check_sizes(feature_maps: dict[str, Any]) -> None:
    """Raise a ValueError unless feature maps get coarser from one to the next."""
    before = None
    for name, tensor in feature_maps.items():
        size = tuple(tensor.shape[1:3])
        if None in size or 0 in size:
            raise ValueError(
                f"The feature map of {name!r} has the height and width {size}: predictors need "
                "maps of a known size with at least one cell. Larger images may help."
            )
        if before is not None and (size == before or size[0] > before[0] or size[1] > before[1]):
            sizes = ", ".join(f"{n} {t.shape[1]} x {t.shape[2]}" for n, t in feature_maps.items())
            raise ValueError(
                f"Feature maps must come from the finest to the coarsest, because anchors grow in "
                f"this order; got {sizes}. Sort `feature_layers`, or shorten `extra_filters`."
            )
        before = size


def _check_network(network: keras.Model) -> None:
    inputs = getattr(network, "inputs", None)
    if not inputs:
        raise ValueError(
            f"The backbone must be a functional model, or a sequential one that knows its input; "
            f"{getattr(network, 'name', network)!r} has no graph to take feature maps from."
        )
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = ", ".join(str(tensor.shape) for tensor in inputs)
        raise ValueError(
            "The backbone must have one input of images (batch, height, width, channels); the "
            f"inputs of {network.name!r} have the shapes {shapes}."
        )
    for layer in network.layers:
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                f"Layer {layer.name!r} of the backbone works on (batch, channels, height, width). "
                "SSD needs data_format='channels_last': see "
                "`keras.config.set_image_data_format`."
            )


def _check_images(network: keras.Model, images: Any) -> None:
    expected, given = network.inputs[0].shape[1:], images.shape[1:]
    if any(theirs not in (None, ours) for ours, theirs in zip(given, expected, strict=True)):
        raise ValueError(
            f"The backbone {network.name!r} was made for images of the size {expected}, and would "
            f"get {given}. Make it with input_shape={given}, or with (None, None, {given[-1]}) if "
            "it does not pad depending on the size."
        )


def _feature_map(network: keras.Model, wanted: Any) -> tuple[str, Any]:
    """Return the name and the output of what may be a name, a layer or a tensor."""
    outputs = {operation.name: _output(operation) for operation in network.operations}
    if keras.backend.is_keras_tensor(wanted):
        for name, tensor in outputs.items():
            if tensor is wanted:
                return name, tensor
        raise ValueError(
            f"No layer of the backbone {network.name!r} has the output {wanted}. (Of a layer that "
            "is used several times only the first output counts: put an Identity layer behind the "
            "others.)"
        )
    name = wanted.name if isinstance(wanted, keras.layers.Layer) else wanted
    if name not in outputs:
        raise ValueError(
            f"The backbone {network.name!r} has no layer {name!r}. {_candidates(network, name)}"
        )
    tensor = outputs[name]
    if not keras.backend.is_keras_tensor(tensor):
        raise ValueError(f"Layer {name!r} has several outputs; name one that has one.")
    return name, tensor


def _output(operation: Any) -> Any:
    return getattr(operation, "output", None)  # operations that are used elsewhere have none


def _candidates(network: keras.Model, name: Any) -> str:
    """Say which names are similar, and which layers are the last before the map gets coarser."""
    names = [operation.name for operation in network.operations]
    similar = get_close_matches(str(name), names)
    words = f"Similar are {', '.join(similar)}. " if similar else ""
    height = network.inputs[0].shape[1]
    if height is None:
        return f"{words}`summary()` lists all layers."
    last: dict[tuple, str] = {}
    for operation in network.operations:
        shape = getattr(_output(operation), "shape", ())
        # A layer of padding makes no map of its own.
        no_map = isinstance(operation, keras.layers.InputLayer | keras.layers.ZeroPadding2D)
        if len(shape) == 4 and not no_map:
            last[tuple(shape[1:3])] = operation.name
    strides = [f"{layer!r} (stride {height / size[0]:.0f})" for size, layer in last.items()]
    return f"{words}The last layers before the map gets coarser are {', '.join(strides)}."
