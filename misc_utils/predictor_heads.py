"""Where the scores of a class stand in the channels of an SSD's predictor layers.

A feature map has two predictor layers. With n boxes a cell and s scores a box (the classes and the
background, which is class 0), their channels are

    class scores:  box 0: class 0, ..., class s-1 | box 1: class 0, ..., class s-1 | ... (n * s)
    box offsets:   box 0: x, y, width, height     | box 1: x, y, width, height     | ... (n * 4)

This is the order that the reshaping in `models.multibox` relies on. Here it is told from the
names and shapes of weights alone, so that it can be told of a file, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Names of class score layers, and of the layer of box offsets that belongs to each.
_NAMES = (
    (re.compile(r"(.+)_mbox_conf"), "{}_mbox_loc"),  # SSD300, SSD512
    (re.compile(r"classes(.+)"), "boxes{}"),  # SSD7
)
_N_OFFSETS = 4


@dataclass(frozen=True)
class PredictorHead:
    """The predictor layers of one feature map.

    Attributes:
        classes: Name of the layer of class scores.
        boxes: Name of the layer of box offsets.
        n_boxes: Boxes a cell.
        n_classes: Object classes, without the background class.
    """

    classes: str
    boxes: str
    n_boxes: int
    n_classes: int

    @property
    def n_scores(self) -> int:
        """Scores a box: the classes and the background."""
        return self.n_classes + 1

    def by_box_and_class(self, weight: np.ndarray) -> np.ndarray:
        """Split the channels, the last axis of a kernel or bias, into `(n_boxes, n_scores)`.

        Arguments:
            weight: `(..., n_boxes * n_scores)`, such as `(3, 3, 512, 84)`.

        Returns:
            A view `(..., n_boxes, n_scores)`, such as `(3, 3, 512, 4, 21)`.
        """
        return weight.reshape(*weight.shape[:-1], self.n_boxes, self.n_scores)


def find_predictor_heads(
    shapes: Mapping[str, Sequence[tuple[int, ...]]],
) -> dict[str, PredictorHead]:
    """Find the predictor layers of a model, or of a file of weights.

    Arguments:
        shapes: {layer name: shapes of its weights}; a layer's last weight is its bias.

    Returns:
        {name of the layer of class scores: its head}, in the order of `shapes`. Empty if nothing
        has the names and the shapes of predictor layers.
    """
    heads = {}
    for name in shapes:
        boxes = _offsets_layer(name)
        if boxes not in shapes or not shapes[name] or not shapes[boxes]:
            continue
        n_boxes, rest = divmod(_n_channels(shapes[boxes]), _N_OFFSETS)
        if rest or not n_boxes:
            continue
        n_scores, rest = divmod(_n_channels(shapes[name]), n_boxes)
        if rest or not n_scores:
            continue
        heads[name] = PredictorHead(name, boxes, n_boxes, n_classes=n_scores - 1)
    return heads


def _offsets_layer(name: str) -> str | None:
    for pattern, boxes in _NAMES:
        match = pattern.fullmatch(name)
        if match:
            return boxes.format(match[1])
    return None


def _n_channels(shapes: Sequence[tuple[int, ...]]) -> int:
    return shapes[-1][-1] if shapes[-1] else 0
