"""Loading weights by the names of layers: the `.h5` files of Keras 2, and today's files as well.

Keras 3 still loads such a file with `model.load_weights(path, by_name=True)`. This does the same,
but checks everything before it changes anything, says what it did, and explains what does not fit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from misc_utils.model_weights import assign_weights, variables_by_layer
from misc_utils.predictor_heads import find_predictor_heads
from misc_utils.weights_file import WeightsFile, open_weights_file

Shapes = Mapping[str, Sequence[tuple[int, ...]]]


@dataclass(frozen=True)
class LoadReport:
    """What became of the layers of a model and of a file of weights.

    Attributes:
        path: The file.
        loaded: Layers of the model that have the file's weights now.
        skipped: {layer of the model: how its weights differ in shape}; these kept their weights.
        missing: Layers of the model that the file has no weights for; these kept theirs, too.
        unused: Layers with weights in the file that the model does not have.
    """

    path: Path
    loaded: tuple[str, ...]
    skipped: Mapping[str, str]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every layer was loaded and the file had nothing else."""
        return not (self.skipped or self.missing or self.unused)

    def __str__(self) -> str:
        n_layers = len(self.loaded) + len(self.skipped) + len(self.missing)
        lines = [f"'{self.path}': {len(self.loaded)} of {n_layers} layers loaded"]
        if self.skipped:
            lines += ["other shapes, not loaded:"]
            lines += [f"  {layer}: {difference}" for layer, difference in self.skipped.items()]
        if self.missing:
            lines.append(f"not in the file: {', '.join(self.missing)}")
        if self.unused:
            lines.append(f"only in the file: {', '.join(self.unused)}")
        return "\n".join(lines)


def load_legacy_weights(
    model: keras.Model,
    path: str | os.PathLike,
    by_name: bool = True,
    skip_mismatch: bool = False,
) -> LoadReport:
    """Load a file of weights that Keras 2 wrote, such as the original library's trained weights.

        report = load_legacy_weights(model, "VGG_coco_SSD_300x300_iter_400000.h5")
        print(report)

    Files of weights only and of full models are both fine, and so are Keras 3's `.weights.h5` and
    `.keras`. Nothing in the file is executed. If anything is wrong the model stays as it was.

    Arguments:
        model: A built model.
        path: The file.
        by_name: Whether layers get the weights of the layer of the same name. If False, layers with
            weights are matched by order, and the file must have exactly as many as the model.
        skip_mismatch: Whether layers whose weights have other shapes in the file keep their own;
            otherwise they are an error.

    Returns:
        A `LoadReport`; print it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, has no layer of the model, or has other shapes.
    """
    own = {
        layer: [tuple(variable.shape) for variable in variables]
        for layer, variables in variables_by_layer(model).items()
    }
    with open_weights_file(path) as file:
        _check_backend(file)
        stored = file.shapes()
        partners = _by_name(own, stored, file) if by_name else _by_order(own, stored, file)
        differing = {
            layer: f"{_listed(stored[partner])} in the file, {_listed(own[layer])} in the model"
            for layer, partner in partners.items()
            if stored[partner] != own[layer]
        }
        if differing and not skip_mismatch:
            raise ValueError(explain_mismatch(file.path, differing, stored, own))
        # Only arrays of the model's own shapes are read.
        values = {
            layer: [weight.read() for weight in file.layers[partner]]
            for layer, partner in partners.items()
            if layer not in differing
        }
    assign_weights(model, values, origin=f"'{file.path}'")
    return LoadReport(
        path=file.path,
        loaded=tuple(values),
        skipped=differing,
        missing=tuple(layer for layer in own if layer not in partners),
        unused=tuple(layer for layer in stored if layer not in partners.values()),
    )


def _check_backend(file: WeightsFile) -> None:
    # Theano convolves, everybody else correlates: its kernels are upside down.
    if file.backend == "theano":
        raise ValueError(
            f"'{file.path}' was written with the backend Theano, whose convolution kernels are "
            "rotated by 180 degrees. Convert the file with Keras 2 first."
        )


def _by_name(own: Shapes, stored: Shapes, file: WeightsFile) -> dict[str, str]:
    partners = {layer: layer for layer in own if layer in stored}
    if not partners:
        raise ValueError(
            f"No layer of the model has weights in '{file.path}'. The model has "
            f"{_some(own)}; the file has {_some(stored)}. Is it a file of another network?"
        )
    return partners


def _by_order(own: Shapes, stored: Shapes, file: WeightsFile) -> dict[str, str]:
    if len(own) != len(stored):
        raise ValueError(
            f"`by_name=False` needs as many layers with weights in '{file.path}' as in the model: "
            f"the file has {len(stored)}, the model {len(own)}. Load by name instead."
        )
    return dict(zip(own, stored, strict=True))


def explain_mismatch(
    path: str | os.PathLike, differing: Mapping[str, str], stored: Shapes, own: Shapes
) -> str:
    """Explain shapes that differ; the most common reason is another number of classes.

    Arguments:
        path: Where the weights come from.
        differing: {layer of the model: how its weights differ in shape}.
        stored: {layer: shapes of its weights} of the file.
        own: The same of the model.

    Returns:
        A message with the layers, the likely reason and what helps.
    """
    message = f"'{path}' does not fit the model:\n" + "\n".join(
        f"  {layer}: {difference}" for layer, difference in differing.items()
    )
    heads, own_heads = find_predictor_heads(stored), find_predictor_heads(own)
    shared = [layer for layer in heads if layer in own_heads]
    n_classes = {heads[layer].n_classes for layer in shared}
    own_n_classes = {own_heads[layer].n_classes for layer in shared}
    for layer in shared:
        if heads[layer].n_boxes != own_heads[layer].n_boxes:
            return (
                f"{message}\nAt layer {layer!r} the file's model predicts {heads[layer].n_boxes} "
                f"boxes a cell, yours {own_heads[layer].n_boxes}: build yours with the aspect "
                "ratios of the file's model, or keep its own weights in all these layers with "
                "`skip_mismatch=True`."
            )
    if set(differing) <= set(shared) and n_classes != own_n_classes:
        return (
            f"{message}\nThe file's model has {_any(n_classes)} classes, yours "
            f"{_any(own_n_classes)} (without background). To keep the scores of the classes "
            "that both have use `misc_utils.class_transfer.transfer_weights`; to let all classes "
            "start afresh use `skip_mismatch=True`; to have the file's classes build the model "
            f"with `n_classes={_any(n_classes)}`."
        )
    return (
        f"{message}\nBuild the model with the settings of the file's model, or keep its own "
        "weights in these layers with `skip_mismatch=True`."
    )


def _listed(values: Iterable) -> str:
    return " + ".join(map(str, values))


def _any(counts: set[int]) -> str:
    return " or ".join(map(str, sorted(counts)))


def _some(names: Shapes) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
