"""The boxes inside label arrays: where their columns are, and how they move.

Every transformation of this library maps boxes by an axis-parallel affine map, possibly after
exchanging x and y (`BoxMap`). Maps of this kind have exact inverses, so whatever happened to an
image on its way into a network can be undone for the boxes that come out of it (`Inverter`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bounding_box_utils.bounding_box_utils import widened

LABELS_FORMAT = {"class_id": 0, "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}


def box_columns(labels_format: Mapping[str, int], shift: int = 0) -> list[int]:
    """Look up the columns of (xmin, ymin, xmax, ymax).

    Arguments:
        labels_format: Column positions by name, as the attribute of every transformation.
        shift: Added to every position; 1 for predictions, whose rows carry a confidence between
            the class and the box.

    Returns:
        Four column positions.
    """
    return [labels_format[key] + shift for key in ("xmin", "ymin", "xmax", "ymax")]


def as_label_array(labels: np.ndarray, labels_format: Mapping[str, int]) -> np.ndarray:
    """Turn the labels of one image into the two-dimensional array all code here works on.

    Arguments:
        labels: `(n, >= 5)` rows; anything of size 0 stands for an image without objects. Columns
            beyond those named in `labels_format` travel with their box.
        labels_format: Column positions by name.

    Returns:
        The same array if it is two-dimensional already, `(0, 5)` float32 for no objects. Of integer
        types that cannot hold boxes which leave their image, or grow with it (unsigned ones, and
        those of less than 32 bits), an int64 copy.

    Raises:
        ValueError: if the labels are neither empty nor `(n, >= 5)`.
    """
    labels = np.asarray(labels)
    n_columns = max(labels_format.values()) + 1
    if labels.ndim == 2 and labels.shape[1] >= n_columns:
        is_narrow = labels.dtype.kind == "u" or labels.dtype in (np.int8, np.int16)
        return widened(labels) if is_narrow else labels
    if labels.size == 0:
        return np.zeros((0, n_columns), np.float32)
    raise ValueError(
        f"The labels of one image must have the shape (n, {n_columns}) or more columns, one row "
        f"for each box; got {labels.shape}. Is this a single box, or a whole batch?"
    )


@dataclass(frozen=True)
class BoxMap:
    """Map points by x' = x_scale * x + x_shift, and y likewise.

    Attributes:
        x_scale: Factor for x; a negative one mirrors, so the left and the right side of a box
            change places.
        x_shift: Added to x afterwards, in pixels of the new image.
        y_scale: As `x_scale`, for y.
        y_shift: As `x_shift`, for y.
        transpose: Whether x and y are exchanged before anything else.
    """

    x_scale: float = 1.0
    x_shift: float = 0.0
    y_scale: float = 1.0
    y_shift: float = 0.0
    transpose: bool = False

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """Map `(n, 4)` float boxes (xmin, ymin, xmax, ymax); returns a new array of that dtype."""
        x, y = boxes[:, 0::2], boxes[:, 1::2]  # (n, 2) each: the lower and the upper side
        if self.transpose:
            x, y = y, x
        moved = np.empty_like(boxes)
        moved[:, 0::2] = (x * self.x_scale + self.x_shift)[:, :: 1 if self.x_scale > 0 else -1]
        moved[:, 1::2] = (y * self.y_scale + self.y_shift)[:, :: 1 if self.y_scale > 0 else -1]
        return moved

    def inverse(self) -> BoxMap:
        """Return the map that undoes this one."""
        x = 1 / self.x_scale, -self.x_shift / self.x_scale
        y = 1 / self.y_scale, -self.y_shift / self.y_scale
        # This map exchanges x and y first, so its inverse would have to do it last. Exchanging
        # first comes to the same if the two scales and shifts change places.
        return BoxMap(*y, *x, transpose=True) if self.transpose else BoxMap(*x, *y)


def move_labels(labels: np.ndarray, box_map: BoxMap, columns: list[int]) -> np.ndarray:
    """Move the boxes of a label array; the other columns stay.

    Arguments:
        labels: `(n, k)` labels. Integer labels are rounded to whole pixels (half to even);
            float labels keep their fractions.
        box_map: Where the boxes go.
        columns: The columns of (xmin, ymin, xmax, ymax).

    Returns:
        A new array of the same shape and dtype.
    """
    moved = labels.copy()
    boxes = labels[:, columns]
    if np.issubdtype(labels.dtype, np.floating):
        moved[:, columns] = box_map(boxes)
    else:
        moved[:, columns] = np.rint(box_map(boxes.astype(np.float64)))
    return moved


@dataclass(frozen=True)
class Inverter:
    """Bring decoded predictions back to the image as it was before one transformation.

    Attributes:
        box_map: The map from the transformed image back to the original one.
        columns: The columns of (xmin, ymin, xmax, ymax) in the predictions.
    """

    box_map: BoxMap
    columns: tuple[int, ...]

    def __call__(self, predictions: np.ndarray) -> np.ndarray:
        """Map `(k, 6)` predictions back; returns a new float array, nothing is rounded."""
        predictions = np.asarray(predictions)
        if not np.issubdtype(predictions.dtype, np.floating):
            predictions = predictions.astype(np.float64)
        return move_labels(predictions, self.box_map, list(self.columns))


def leave_unchanged(predictions: np.ndarray) -> np.ndarray:
    """Copy predictions: the inverter of everything that does not move boxes."""
    return np.array(predictions)


class InverterChain(list):
    """The inverters of consecutive transformations, the last transformation first.

    A list, so that they can be looked at one by one, and a function like any other inverter.
    """

    def __call__(self, predictions: np.ndarray) -> np.ndarray:
        """Map `(k, 6)` predictions back through all of them; returns a new array."""
        predictions = leave_unchanged(predictions)
        for inverter in self:
            predictions = inverter(predictions)
        return predictions


AnyInverter = Callable[[np.ndarray], np.ndarray]
