"""The layers in a Keras 2 description of a model, and their comparison with a model of today."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

# What decides a layer's output besides its weights. (AnchorBoxes layers are built from their own
# settings, so there is nothing to compare.)
_COMPARED = (
    "activation",
    "axis",
    "data_format",
    "dilation_rate",
    "epsilon",
    "filters",
    "kernel_size",
    "padding",
    "pool_size",
    "strides",
    "target_shape",
    "use_bias",
)
_INPUT = "<input>"
# Layers that have classes of their own today, and those that they had.
_FORMER_CLASSES = {"Predictions": "Concatenate"}
# Present or not according to the mode, which a caller may choose.
_OF_THE_MODE = "decoded_predictions"


@dataclass(frozen=True)
class LegacyLayer:
    """A layer as a model's description has it.

    Attributes:
        cls: Name of its class.
        config: Its settings.
        sources: Names of the layers whose outputs it takes, in order.
    """

    cls: str
    config: Mapping[str, Any]
    sources: tuple[str, ...]


def layers_of_config(config: Mapping[str, Any]) -> dict[str, LegacyLayer]:
    """Read the layers of a functional model's description.

    Arguments:
        config: `model.get_config()` of Keras 2 or 3, or the same from a file's JSON.

    Returns:
        {layer name: layer}, in the file's order.

    Raises:
        KeyError, TypeError, AttributeError: if `config` has another form.
    """
    return {
        str(layer["config"]["name"]): LegacyLayer(
            cls=str(layer["class_name"]),
            config=dict(layer["config"]),
            sources=tuple(_source_names(layer["inbound_nodes"])),
        )
        for layer in config["layers"]
    }


def check_same_structure(layers: Mapping[str, LegacyLayer], model: keras.Model, path: Path) -> None:
    """Check that a model has the layers of a file, with the same settings and connections.

    Equal names and shapes of weights are not enough: another stride or padding would go unnoticed.

    Arguments:
        layers: The layers of the file.
        model: A model that was built to be the same.
        path: The file, for the error message.

    Raises:
        ValueError: naming what differs.
    """
    expected = _without_input_names(layers)
    built = _without_input_names(layers_of_config(model.get_config()))
    differences = [f"only in the file: {name}" for name in expected if name not in built]
    differences += [f"not in the file: {name}" for name in built if name not in expected]
    for name, layer in expected.items():
        if name in built:
            differences += _differences(name, layer, built[name])
    if differences:
        raise ValueError(
            f"'{path}' is a changed version of the original library's model; rebuilding it would "
            "give another network:\n  " + "\n  ".join(differences)
        )


def _differences(name: str, layer: LegacyLayer, built: LegacyLayer) -> list[str]:
    found = []
    cls = _FORMER_CLASSES.get(built.cls, built.cls)
    if layer.cls not in (cls, "Lambda"):  # preprocessing was in Lambda layers
        found.append(f"{name} is a {layer.cls}, expected {cls}")
    if layer.sources != built.sources:
        found.append(f"{name} takes {list(layer.sources)}, expected {list(built.sources)}")
    for key in _COMPARED:
        value, other = _plain(layer.config.get(key)), _plain(built.config.get(key))
        if None not in (value, other) and value != other:
            found.append(f"{name} has {key} {value}, expected {other}")
    return found


def _plain(value: Any) -> Any:
    """Write values alike that mean the same: tuples and lists, [3] and 3."""
    value = json.loads(json.dumps(value))
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _without_input_names(layers: Mapping[str, LegacyLayer]) -> dict[str, LegacyLayer]:
    """Leave out input layers, whose names differ from session to session, and the decoding."""
    inputs = {name for name, layer in layers.items() if layer.cls == "InputLayer"}
    return {
        name: LegacyLayer(
            layer.cls,
            layer.config,
            tuple(_INPUT if source in inputs else source for source in layer.sources),
        )
        for name, layer in layers.items()
        if name not in inputs and name != _OF_THE_MODE
    }


def _source_names(node: Any) -> list[str]:
    """Collect the layer names in the description of a layer's inputs.

    Keras 2 writes a tensor as [layer name, node, tensor, {}], Keras 3 as an object with the
    attribute `keras_history`; both nest them in lists.
    """
    if isinstance(node, dict):
        if "keras_history" in node:
            return [node["keras_history"][0]]
        node = list(node.values())
    if not isinstance(node, list | tuple):
        return []
    if len(node) >= 3 and isinstance(node[0], str):
        return [node[0]]
    return [name for item in node for name in _source_names(item)]
