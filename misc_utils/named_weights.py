"""Giving a model weights that have names: all of them are checked before the first is assigned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from misc_utils.legacy_h5 import LoadReport, explain_mismatch
from misc_utils.model_weights import assign_weights, variables_by_layer


def load_named_weights(
    model: keras.Model,
    weights: Mapping[str, Sequence[np.ndarray]],
    path: Path,
    skip_mismatch: bool = False,
) -> LoadReport:
    """Give layers the weights that were read for layers of the same names.

    If anything is wrong the model stays as it was.

    Arguments:
        model: A built model.
        weights: {layer name: arrays in the order and layout of the layer's weights}.
        path: The file they were read from.
        skip_mismatch: Whether layers whose weights have other shapes keep their own; otherwise they
            are an error.

    Returns:
        A `LoadReport`.

    Raises:
        ValueError: if no layer of the model is there, or if layers do not fit.
    """
    own = {
        layer: [tuple(variable.shape) for variable in variables]
        for layer, variables in variables_by_layer(model).items()
    }
    stored = {layer: [array.shape for array in arrays] for layer, arrays in weights.items()}
    shared = [layer for layer in own if layer in stored]
    if not shared:
        raise ValueError(
            f"No layer of the model has weights in '{path}'. The model has {_some(own)}; the file "
            f"has {_some(stored)}. Is it a file of another network?"
        )
    differing = {
        layer: f"{_listed(stored[layer])} in the file, {_listed(own[layer])} in the model"
        for layer in shared
        if stored[layer] != own[layer]
    }
    if differing and not skip_mismatch:
        raise ValueError(explain_mismatch(path, differing, stored, own))
    loaded = [layer for layer in shared if layer not in differing]
    assign_weights(model, {layer: weights[layer] for layer in loaded}, origin=f"'{path}'")
    return LoadReport(
        path=path,
        loaded=tuple(loaded),
        skipped=differing,
        missing=tuple(layer for layer in own if layer not in stored),
        unused=tuple(layer for layer in stored if layer not in own),
    )


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return " + ".join(map(str, shapes))


def _some(names: Mapping) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
