"""The names of a model's classes, which travel with the model.

An SSD model keeps them in its layer `predictions`, as it keeps its anchor settings in its
`AnchorBoxes` layers: they are saved and loaded with it, and stay when decoding is put behind it.
Like `model_settings`, this module asks the layers only and needs no deep-learning framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Class scores, offsets, anchors and variances stand side by side in this layer's output.
_LAYER = "predictions"


def get_class_names(model: Any) -> list[str] | None:
    """Return the names of a model's classes.

    Arguments:
        model: A Keras model of any mode, freshly built or loaded; or any other object.

    Returns:
        Names by class id, 'background' first; None if the model knows none, because none were
        given, or because it is no SSD model.

    Example:
        >>> from models.keras_ssd7 import build_model
        >>> from ssd_encoder_decoder.class_names import get_class_names
        >>> model = build_model((64, 96, 3), 2, class_names=["background", "cat", "dog"])
        >>> get_class_names(model)
        ['background', 'cat', 'dog']
    """
    names = getattr(_layer(model), "class_names", None)
    return None if names is None else list(names)


def set_class_names(model: Any, class_names: Sequence[str] | None) -> None:
    """Name the classes of a model, or rename them; nothing that it computes changes.

    Arguments:
        model: A Keras model of any mode, freshly built or loaded. Models that share its layer
            `predictions`, such as itself with decoding put behind it, get the names, too.
        class_names: Names by class id, 'background' first; None forgets them.

    Raises:
        ValueError: if the model has another number of classes, or no place for names.
    """
    layer = _layer(model)
    if not hasattr(layer, "class_names"):
        raise ValueError(
            f"Model {getattr(model, 'name', model)!r} has no place for class names: it is no SSD "
            "model of this library, or comes from a file that was saved before models had names. "
            "In that case build it anew with `class_names=...` and give it the old one's weights: "
            "`new.set_weights(old.get_weights())`."
        )
    layer.class_names = check_class_names(class_names, layer.output.shape[-1] - 12 - 1)


def check_class_names(class_names: Sequence[str] | None, n_classes: int) -> tuple[str, ...] | None:
    """Raise a ValueError unless there are names for the background and each class.

    Arguments:
        class_names: Names by class id, 'background' first, or None.
        n_classes: Number of object classes, without the background class.

    Returns:
        The names, or None.

    Raises:
        ValueError: if `class_names` is not as described.
    """
    if class_names is None:
        return None
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"`class_names` must be a list of strings; got {class_names!r}.")
    if len(class_names) != n_classes + 1:
        raise ValueError(
            f"`class_names` must list 'background' and then the {n_classes} classes, "
            f"{n_classes + 1} names in all; got {len(class_names)}: {', '.join(class_names)}."
        )
    return tuple(map(str, class_names))


def check_same_classes(model_names: Sequence[str] | None, names: Sequence[str] | None) -> None:
    """Raise a ValueError if a name means one class to a model and another to a data set.

    Arguments:
        model_names: The model's names by class id, or None.
        names: Those of the data set, or None.

    Raises:
        ValueError: naming a class that both know by different ids. Nothing that is computed from
            the two would mean anything: this is what another order of the classes leads to.
    """
    model_names = list(model_names or ())
    for class_id, name in enumerate(names or ()):
        if name in model_names and name not in model_names[class_id : class_id + 1]:
            raise ValueError(
                f"Class {name!r} is number {model_names.index(name)} of the model, but number "
                f"{class_id} of the data set: the classes must be the same, in the same order. "
                f"Those of the model are {', '.join(model_names)}."
            )


def _layer(model: Any) -> Any:
    layers = getattr(model, "layers", ())
    return next((layer for layer in layers if getattr(layer, "name", None) == _LAYER), None)
