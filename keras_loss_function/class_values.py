"""Arguments of losses that hold one number a class, the background first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops


def checked_class_values(name: str, values: Sequence[float] | None) -> list[float] | None:
    """Bring one number a class to the form that a configuration can hold.

    Arguments:
        name: The argument that they come from.
        values: Numbers that are not negative, the background's first, or None.

    Returns:
        A list of floats, or None.

    Raises:
        ValueError: if the values are something else.
    """
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.all((array >= 0) & np.isfinite(array)):
        raise ValueError(
            f"`{name}` must hold one number a class, none of them negative, the background first; "
            f"got {values}."
        )
    return array.tolist()


def value_of_class(values: Sequence[float], classes: Any, name: str) -> Any:
    """Look up a value of each anchor's class.

    Arguments:
        values: One number a class, the background first.
        classes: `(..., n_classes)` one-hot classes, or all zeros.
        name: The argument that the values come from.

    Returns:
        `(...)` values; 0 for a neutral anchor.

    Raises:
        ValueError: if there are not as many values as classes.
    """
    n_classes = classes.shape[-1]
    if len(values) != n_classes:
        raise ValueError(
            f"`{name}` must hold one number a class, the background first: {n_classes} for this "
            f"model; got {len(values)}."
        )
    return ops.sum(ops.multiply(classes, np.array(values, np.float32)), axis=-1)
