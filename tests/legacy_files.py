"""Writes files as Keras 2.1.6 wrote them, which today's Keras cannot do."""

from __future__ import annotations

import base64
import json
import marshal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import h5py
import keras
import numpy as np

# What today's preprocessing layers were as Lambda layers: where the constant is.
_LAMBDAS = {"Identity": None, "MeanSubtraction": "value", "StddevDivision": "value"}
_LAMBDAS["ChannelSwap"] = "order"
_KEPT = (
    "activation",
    "alpha",
    "axis",
    "data_format",
    "dilation_rate",
    "epsilon",
    "filters",
    "kernel_size",
    "momentum",
    "padding",
    "pool_size",
    "strides",
    "target_shape",
    "use_bias",
)
_LOST_BY_ANCHORS = ("this_steps", "this_offsets", "dtype")


def names_as_attribute(names: Sequence[str], as_bytes: bool = True) -> Any:
    """Names as h5py 2 stored them (fixed-length bytes), or as h5py 3 does."""
    if as_bytes:
        return np.array([name.encode() for name in names], dtype="S" if names else "S1")
    return np.array(names, dtype=h5py.string_dtype())


def write_keras2_weights(
    group: h5py.Group,
    weights: Mapping[str, Mapping[str, np.ndarray]],
    as_bytes: bool = True,
    split_names: bool = False,
) -> None:
    """Fill a group as `save_weights` of Keras 2 did.

    Arguments:
        group: The file, or its group `model_weights`.
        weights: {layer: {weight name such as 'conv1/kernel:0': array}}.
        as_bytes: Whether names are bytes, as in 2018, or strings.
        split_names: Whether the names of the layers are spread over numbered attributes.
    """
    names = list(weights)
    parts = {"layer_names": names}
    if split_names:
        parts = {"layer_names0": names[:2], "layer_names1": names[2:]}
    for attribute, part in parts.items():
        group.attrs[attribute] = names_as_attribute(part, as_bytes)
    group.attrs["backend"] = b"tensorflow" if as_bytes else "tensorflow"
    group.attrs["keras_version"] = b"2.1.6" if as_bytes else "2.15.0"
    for layer, arrays in weights.items():
        layer_group = group.create_group(layer)
        layer_group.attrs["weight_names"] = names_as_attribute(list(arrays), as_bytes)
        for name, array in arrays.items():
            layer_group[name] = array


def keras2_weights(model: keras.Model) -> dict[str, dict[str, np.ndarray]]:
    """Name a model's weights as Keras 2 did; layers without weights are listed, too."""
    return {
        layer.name: {f"{w.path}:0": keras.ops.convert_to_numpy(w) for w in layer.weights}
        for layer in model.layers
    }


def lambda_function(closure: list | None, code: CodeType | None = None) -> list:
    """Write a function as Keras 2 did: [compiled code, defaults, contents of the closure]."""
    code = (lambda x: x).__code__ if code is None else code
    return [base64.encodebytes(marshal.dumps(code)).decode("ascii"), None, closure]


def keras2_config(model: keras.Model, code: CodeType | None = None) -> dict:
    """Describe a model of today as Keras 2.1.6 described the original library's.

    Arguments:
        model: One of the library's models.
        code: The compiled code of its Lambda layers.
    """
    layers = []
    for layer in model.layers:
        cls, config = _keras2_layer(layer, code)
        inbound = [[name, 0, 0, {}] for name in _source_names(model, layer)]
        layers.append(
            {
                "name": config["name"],
                "class_name": cls,
                "config": config,
                "inbound_nodes": [inbound] if inbound else [],
            }
        )
    return {"class_name": "Model", "config": {"name": "model_1", "layers": layers}}


def write_keras2_model(
    path: Path, model: keras.Model, config: dict | None = None, code: CodeType | None = None
) -> Path:
    """Write a full-model file: `model_config` as an attribute, the weights under a group."""
    config = keras2_config(model, code) if config is None else config
    weights = keras2_weights(model)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"2.1.6"
        file.attrs["backend"] = b"tensorflow"
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["training_config"] = json.dumps({"loss": "compute_loss"}).encode()
        write_keras2_weights(file.create_group("model_weights"), weights)
        optimizer = file.create_group("optimizer_weights")
        optimizer.attrs["weight_names"] = names_as_attribute(["SGD/iterations:0"])
        optimizer["SGD/iterations:0"] = np.int64(7)
    return path


def _keras2_layer(layer: keras.layers.Layer, code: CodeType | None) -> tuple[str, dict]:
    cls, config = type(layer).__name__, layer.get_config()
    common = {"name": layer.name, "trainable": layer.trainable}
    if cls == "InputLayer":
        return cls, {"name": "input_1", "batch_input_shape": list(config["batch_shape"])}
    if cls in _LAMBDAS:
        constant = _LAMBDAS[cls]
        function = lambda_function(None if constant is None else [config[constant]], code)
        return "Lambda", {**common, "function": function, "function_type": "lambda"}
    if cls == "AnchorBoxes":
        return cls, {key: value for key, value in config.items() if key not in _LOST_BY_ANCHORS}
    if cls.startswith("DecodeDetections"):
        return cls, {key: value for key, value in config.items() if key != "dtype"}
    if cls == "Predictions":
        return "Concatenate", {**common, "axis": 2}
    kept = {key: config[key] for key in _KEPT if key in config}
    if cls == "Conv2D":
        regularizer = config["kernel_regularizer"]
        # Keras 2 held the penalty as a float32.
        l2 = float(np.float32(regularizer["config"]["l2"]))
        kept["kernel_regularizer"] = {"class_name": "L1L2", "config": {"l1": 0.0, "l2": l2}}
    if cls == "L2Normalization":
        kept = {"gamma_init": config["gamma_init"]}
    return cls, {**common, **kept}


def _source_names(model: keras.Model, layer: keras.layers.Layer) -> list[str]:
    if isinstance(layer, keras.layers.InputLayer):
        return []
    producers = {id(each.output): each for each in model.layers}
    tensors = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
    found = [producers[id(tensor)] for tensor in tensors]
    inputs = keras.layers.InputLayer
    return ["input_1" if isinstance(each, inputs) else each.name for each in found]
