"""The weights of a model, layer by layer, and setting many of them at once or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np


def variables_by_layer(model: keras.Model) -> dict[str, list[Any]]:
    """List the variables of all layers that have any.

    Arguments:
        model: A built model; the layers of models within it count as its own.

    Returns:
        {layer name: variables in the order in which files hold them}, in the model's order.

    Raises:
        ValueError: if two layers have the same name.
    """
    found: dict[str, list[Any]] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            own = variables_by_layer(layer)
        else:
            own = {layer.name: list(layer.weights)} if layer.weights else {}
        for name, variables in own.items():
            if name in found:
                raise ValueError(
                    f"Model {model.name!r} has two layers named {name!r}, which weights that are "
                    "found by name cannot tell apart. Rename one of them."
                )
            found[name] = variables
    return found


def weights_by_layer(model: keras.Model) -> dict[str, list[np.ndarray]]:
    """Copy the weights of all layers that have any.

    Arguments:
        model: A built model.

    Returns:
        {layer name: arrays in the order of `variables_by_layer`}.
    """
    return {
        name: [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
        for name, variables in variables_by_layer(model).items()
    }


def assign_weights(
    model: keras.Model, values: Mapping[str, Sequence[np.ndarray]], origin: str
) -> None:
    """Give layers new weights; if anything is wrong with one of them, no layer changes.

    Arguments:
        model: A built model.
        values: {layer name: arrays of the shapes and in the order of its variables}.
        origin: Where the values come from, for the error message.

    Raises:
        ValueError: naming layers that the model lacks, whose weights have other shapes, or that
            have weights that are not finite.
    """
    variables = variables_by_layer(model)
    for layer, arrays in values.items():
        expected = [tuple(variable.shape) for variable in variables.get(layer, [])]
        shapes = [tuple(array.shape) for array in arrays]
        if shapes != expected:
            raise ValueError(
                f"Layer {layer!r} of the model needs weights of the shapes {expected}; got "
                f"{shapes} from {origin}."
            )
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError(
                f"The weights of layer {layer!r} from {origin} are not finite: the training they "
                "come from had diverged. Use an earlier checkpoint."
            )
    for layer, arrays in values.items():
        for variable, array in zip(variables[layer], arrays, strict=True):
            variable.assign(array)
