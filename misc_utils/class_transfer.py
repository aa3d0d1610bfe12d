"""Giving a model the weights of one with other classes: what both know is kept.

A detector trained on the 80 classes of COCO is a good start for a data set with three of them, or
with three that are merely similar. Everything except the class scores is copied as it is. In the
layers of class scores the channels of a class move to where the model expects that class; the
background comes along; classes without a counterpart keep the model's initial weights.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from misc_utils.model_weights import assign_weights, weights_by_layer
from misc_utils.predictor_heads import PredictorHead, find_predictor_heads
from misc_utils.weights_file import read_saved_class_names, read_weights_file
from ssd_encoder_decoder.class_names import get_class_names

ClassKey = int | str
Weights = Mapping[str, Sequence[np.ndarray]]
_BACKGROUND = 0


@dataclass(frozen=True)
class TransferReport:
    """What `transfer_weights` did; print it.

    Attributes:
        source: Where the weights come from.
        n_classes: Classes of the model, without background.
        source_n_classes: Classes of the source, without background.
        classes: {class id of the model: class id of the source, or None for a fresh start}.
        copied: Layers that have the source's weights as they are.
        resampled: {layer of class scores: (channels in the source, channels in the model)}.
        fresh: {layer that kept the model's own weights: why}.
        unused: Layers with weights in the source that the model does not have.
        class_names: Names by class id, background first; None if not known.
        source_class_names: The same of the source.
    """

    source: str
    n_classes: int
    source_n_classes: int
    classes: Mapping[int, int | None]
    copied: tuple[str, ...]
    resampled: Mapping[str, tuple[int, int]]
    fresh: Mapping[str, str]
    unused: tuple[str, ...]
    class_names: tuple[str, ...] | None = None
    source_class_names: tuple[str, ...] | None = None

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.source_n_classes} classes -> {self.n_classes} classes"]
        lines.append(f"copied: {len(self.copied)} layers")
        for layer, (before, after) in self.resampled.items():
            verb = "sub-sampled" if after < before else "up-sampled" if after > before else "moved"
            lines.append(f"{verb}: {layer}, {before} -> {after} channels")
        lines += [f"fresh start: {layer}, {reason}" for layer, reason in self.fresh.items()]
        if self.unused:
            lines.append(f"only in the source: {', '.join(self.unused)}")
        for target, source in self.classes.items():
            origin = "fresh start"
            if source is not None:
                origin = _labelled(source, self.source_class_names)
            lines.append(f"class {_labelled(target, self.class_names)} <- {origin}")
        return "\n".join(lines)


def transfer_weights(
    source: str | os.PathLike | keras.Model,
    model: keras.Model,
    class_map: Mapping[ClassKey, ClassKey | None] | None = None,
    class_names: Sequence[str] | None = None,
    source_class_names: Sequence[str] | None = None,
    skip_mismatch: bool = False,
) -> TransferReport:
    """Copy weights into a model with other classes; keep the scores of the classes both have.

        model = ssd_300((300, 300, 3), n_classes=2, scales=SCALES_COCO)
        report = transfer_weights("coco.h5", model, {1: 3, 2: None})  # car; something new
        print(report)

    Layers are found by name. For a class that is kept, the model computes exactly the source's
    logits, box by box. Both models must have the same anchors for that to make sense: weights
    cannot tell whether aspect ratios come in another order, or scales differ.
    If anything is wrong the model stays as it was.

    Arguments:
        source: A file (legacy `.h5`, `.weights.h5`, `.keras`) or a model.
        model: The model to give weights to, freshly built.
        class_map: {class of the model: class of the source, or None for a fresh start}. Classes are
            ids from 1, or names. Classes of the model that are not listed start afresh, too;
            several may start from the same class of the source. None pairs classes of equal names.
        class_names: Names of the model's classes, with or without 'background' at the front; None:
            those that the model knows, if any. Needed if `class_map` uses names for them.
        source_class_names: Names of the source's classes, likewise; a `.keras` file may know them.
        skip_mismatch: Whether layers that do not fit for other reasons than the classes keep the
            model's own weights; otherwise they are an error.

    Returns:
        A `TransferReport`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if `class_map` names classes that there are not, if the source or the model has
            no layers of class scores, or if layers do not fit; naming layers and shapes.
    """
    theirs, their_names, origin = _read_source(source)
    own = weights_by_layer(model)
    heads, their_heads = _heads(own, "The model"), _heads(theirs, f"The source {origin}")
    n_classes, their_n_classes = _n_classes(heads), _n_classes(their_heads)
    names = _checked_names(class_names or get_class_names(model), n_classes, "class_names")
    their_names = _checked_names(
        source_class_names or their_names, their_n_classes, "source_class_names"
    )
    classes = _resolve(class_map, n_classes, their_n_classes, names, their_names)

    values: dict[str, list[np.ndarray]] = {}
    resampled: dict[str, tuple[int, int]] = {}
    fresh: dict[str, str] = {}
    differing: dict[str, str] = {}
    for layer, weights in own.items():
        if layer not in theirs:
            fresh[layer] = "not in the source"
            continue
        problem = _difference(layer, weights, theirs[layer], heads, their_heads)
        if problem:
            differing[layer] = problem
        elif layer in heads:
            pair = (heads[layer], their_heads[layer])
            values[layer] = [
                _with_classes(ours, other, *pair, classes)
                for ours, other in zip(weights, theirs[layer], strict=True)
            ]
            resampled[layer] = (theirs[layer][-1].shape[-1], weights[-1].shape[-1])
        else:
            values[layer] = list(theirs[layer])
    if differing and not skip_mismatch:
        raise ValueError(
            f"{origin} does not fit the model:\n"
            + "\n".join(f"  {layer}: {problem}" for layer, problem in differing.items())
            + "\nBuild the model with the settings of the source (image channels, aspect ratios), "
            "or let these layers start afresh with `skip_mismatch=True`."
        )
    assign_weights(model, values, origin)
    return TransferReport(
        source=origin,
        n_classes=n_classes,
        source_n_classes=their_n_classes,
        classes=classes,
        copied=tuple(layer for layer in values if layer not in resampled),
        resampled=resampled,
        fresh={**fresh, **differing},
        unused=tuple(layer for layer in theirs if layer not in own),
        class_names=names,
        source_class_names=their_names,
    )


def _read_source(
    source: str | os.PathLike | keras.Model,
) -> tuple[Weights, Sequence[str] | None, str]:
    """Return the weights of a source, the class names that it knows, and what to call it."""
    if isinstance(source, keras.Model):
        return weights_by_layer(source), get_class_names(source), f"model {source.name!r}"
    weights = {layer: list(arrays.values()) for layer, arrays in read_weights_file(source).items()}
    return weights, read_saved_class_names(source), f"'{source}'"


def _heads(weights: Weights, owner: str) -> dict[str, PredictorHead]:
    shapes = {layer: [array.shape for array in arrays] for layer, arrays in weights.items()}
    heads = find_predictor_heads(shapes)
    if not heads:
        raise ValueError(
            f"{owner} has no layers of class scores ('..._mbox_conf' beside '..._mbox_loc', or "
            "'classes...' beside 'boxes...'), so there are no classes to transfer. To load the "
            "weights of a base network use `misc_utils.legacy_h5.load_legacy_weights`."
        )
    counts = {head.classes: head.n_classes for head in heads.values()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"{owner} has layers with different numbers of classes: {counts}.")
    return heads


def _n_classes(heads: Mapping[str, PredictorHead]) -> int:
    return next(iter(heads.values())).n_classes


def _difference(
    layer: str,
    weights: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    heads: Mapping[str, PredictorHead],
    their_heads: Mapping[str, PredictorHead],
) -> str | None:
    """Say why a layer cannot take the source's weights, whatever their classes."""
    shapes = [array.shape for array in weights]
    their_shapes = [array.shape for array in others]
    if layer in heads:
        if layer not in their_heads:
            return f"without a fitting layer {heads[layer].boxes!r} beside it in the source"
        n_boxes, their_n_boxes = heads[layer].n_boxes, their_heads[layer].n_boxes
        if n_boxes != their_n_boxes:
            return f"{their_n_boxes} boxes a cell in the source, {n_boxes} in the model"
        # Apart from the last axis, which holds the classes.
        if [shape[:-1] for shape in shapes] == [shape[:-1] for shape in their_shapes]:
            return None
    if shapes == their_shapes:
        return None
    listed, their_listed = (" + ".join(map(str, each)) for each in (shapes, their_shapes))
    return f"{their_listed} in the source, {listed} in the model"


def _with_classes(
    weight: np.ndarray,
    other: np.ndarray,
    head: PredictorHead,
    other_head: PredictorHead,
    classes: Mapping[int, int | None],
) -> np.ndarray:
    """Return the model's kernel or bias with the source's numbers at the classes both have."""
    pairs = [(_BACKGROUND, _BACKGROUND)]
    pairs += [(target, source) for target, source in classes.items() if source is not None]
    targets, sources = (list(ids) for ids in zip(*pairs, strict=True))
    result = weight.copy()
    # (..., n_boxes, n_scores): the same classes at every box.
    head.by_box_and_class(result)[..., targets] = other_head.by_box_and_class(other)[..., sources]
    return result


def _resolve(
    class_map: Mapping[ClassKey, ClassKey | None] | None,
    n_classes: int,
    source_n_classes: int,
    names: tuple[str, ...] | None,
    source_names: tuple[str, ...] | None,
) -> dict[int, int | None]:
    """Turn a class map of ids and names into ids, with an entry for every class of the model."""
    if class_map is None:
        if names is None or source_names is None:
            raise ValueError(
                "Without a `class_map` classes are paired by name, which needs `class_names` and "
                "`source_class_names` unless model and source know them. For ids pass {class id of "
                "the model: class id of the source}; with {} all classes start afresh."
            )
        class_map = {name: name for name in names[1:] if name in source_names[1:]}
    classes: dict[int, int | None] = dict.fromkeys(range(1, n_classes + 1))
    seen = set()
    for target, source in class_map.items():
        target_id = _class_id(target, n_classes, names, "class_names", "the model")
        if target_id in seen:
            raise ValueError(f"`class_map` lists class {_labelled(target_id, names)} twice.")
        seen.add(target_id)
        if source is not None:
            classes[target_id] = _class_id(
                source, source_n_classes, source_names, "source_class_names", "the source"
            )
    return classes


def _class_id(
    key: ClassKey, n_classes: int, names: tuple[str, ...] | None, argument: str, owner: str
) -> int:
    if isinstance(key, str):
        if names is None:
            raise ValueError(f"`class_map` has the name {key!r}: pass `{argument}` for {owner}.")
        if names[1:].count(key) != 1:
            raise ValueError(
                f"`class_map` has {key!r}, which `{argument}` has {names[1:].count(key)} times: "
                f"{', '.join(names[1:])}."
            )
        return names.index(key, 1)
    if isinstance(key, bool) or not isinstance(key, numbers.Integral) or not 1 <= key <= n_classes:
        raise ValueError(
            f"`class_map` has the class {key!r}, but the classes of {owner} are 1 to {n_classes} "
            "(the background, 0, is always kept)."
        )
    return int(key)


def _checked_names(
    names: Sequence[str] | None, n_classes: int, argument: str
) -> tuple[str, ...] | None:
    """Bring names to the form that starts with the background."""
    if names is None:
        return None
    names = tuple(names)
    if len(names) == n_classes:
        return ("background", *names)
    if len(names) == n_classes + 1:
        return names
    raise ValueError(
        f"`{argument}` must have {n_classes} names, or {n_classes + 1} with the background first; "
        f"got {len(names)}: {', '.join(names[:5])}, ..."
    )


def _labelled(class_id: int, names: tuple[str, ...] | None) -> str:
    return str(class_id) if names is None else f"{class_id} ({names[class_id]})"
