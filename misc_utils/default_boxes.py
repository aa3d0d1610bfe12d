"""Do a model's anchors agree with the default boxes of another library, and in which order?

The channels of a predictor head belong to the boxes of a cell, one box after another. Caffe has the
boxes of a cell in the order

    smallest size | sqrt(smallest * largest) | ratio 2 | ratio 1/2 | ratio 3 | ratio 1/3

(`prior_box_layer.cpp`), and so has torchvision. It is the order of the default aspect ratios of
`ssd_300` and `ssd_512`. If a model lists its ratios in another order, its channels have to be in
that order, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssd_encoder_decoder.anchors import AnchorSettings, anchor_shapes
from ssd_encoder_decoder.model_settings import ModelSettings

# Caffe cuts sizes down to whole pixels, and prototxt files have rounded ones. The scales of VOC and
# COCO differ by far more.
_TOLERANCE_PIXELS = 1.0
_TOLERANCE_SHARE = 0.02


@dataclass(frozen=True)
class DefaultBoxes:
    """The default boxes of one feature map, as another library describes them.

    Attributes:
        shapes: (width, height) in pixels of the boxes at a location, in the order of the channels.
        step: Pixels between locations; None spreads them evenly.
        offset: Position of the first location in steps.
        clip: Whether boxes are cut off at the image's edges.
        variances: The four constants that divide the offsets.
    """

    shapes: tuple[tuple[float, float], ...]
    step: float | None
    offset: float
    clip: bool
    variances: tuple[float, ...]


def default_boxes(
    size: float,
    aspect_ratios: Sequence[Sequence[float]],
    scales: Sequence[float],
    steps: Sequence[float],
    variances: Sequence[float],
) -> list[DefaultBoxes]:
    """Describe the default boxes of a network by the arguments of a builder.

    Arguments:
        size: Side of the input in pixels.
        aspect_ratios: One list of ratios a predictor layer.
        scales: One scale a predictor layer, and a last one.
        steps: Pixels between locations, one a predictor layer.
        variances: The four constants that divide the offsets.

    Returns:
        The default boxes of each predictor layer.
    """
    return [
        DefaultBoxes(
            shapes=tuple(map(tuple, anchor_shapes(size, ratios, scale, next_scale).tolist())),
            step=step,
            offset=0.5,
            clip=False,
            variances=tuple(variances),
        )
        for ratios, scale, next_scale, step in zip(
            aspect_ratios, scales[:-1], scales[1:], steps, strict=True
        )
    ]


def model_anchor_shapes(settings: ModelSettings) -> list[np.ndarray]:
    """List the anchors of a cell for each predictor layer.

    Arguments:
        settings: A model's settings.

    Returns:
        For each layer a `(n_boxes, 2)` array of (width, height) in pixels.
    """
    size = min(settings.img_height, settings.img_width)
    return [_shapes(settings.anchors, layer, size) for layer in range(settings.anchors.n_layers)]


def box_orders(
    settings: ModelSettings, sources: Sequence[str], boxes: Mapping[str, DefaultBoxes]
) -> dict[str, np.ndarray]:
    """Find out in which order another library has the boxes of a cell.

    Arguments:
        settings: A model's settings.
        sources: The name of each predictor layer's feature map, such as 'fc7'.
        boxes: {feature map: its default boxes there}. For those that are not there, Caffe's
            rule is applied to the model's own boxes.

    Returns:
        {feature map: int array; element i is the other's number of the model's i-th box}. A feature
        map whose boxes differ is left out.
    """
    orders = {}
    for layer, (source, own) in enumerate(zip(sources, model_anchor_shapes(settings), strict=True)):
        theirs = boxes[source].shapes if source in boxes else _by_caffes_rule(settings, layer)
        order = _order(own, np.array(theirs))
        if order is not None:
            orders[source] = order
    return orders


def default_box_differences(
    settings: ModelSettings, sources: Sequence[str], boxes: Mapping[str, DefaultBoxes]
) -> list[str]:
    """Say in which respects a model's anchors are not those of another library.

    Arguments:
        settings: A model's settings.
        sources: The name of each predictor layer's feature map.
        boxes: {feature map: its default boxes there}.

    Returns:
        One line a difference; nothing for feature maps that are not in `boxes`.
    """
    differences = []
    anchors = settings.anchors
    for layer, (source, own) in enumerate(zip(sources, model_anchor_shapes(settings), strict=True)):
        if source not in boxes:
            continue
        theirs = boxes[source]
        if _order(own, np.array(theirs.shapes)) is None:
            differences.append(
                f"{source}: boxes of {_listed(theirs.shapes)} pixels in the file, of "
                f"{_listed(own)} in the model"
            )
        if theirs.clip != anchors.clip_boxes:
            differences.append(f"{source}: clipping {theirs.clip} in the file")
        step, offset = (
            _even(settings, layer) if anchors.steps[layer] is None else anchors.steps[layer],
            0.5 if anchors.offsets[layer] is None else anchors.offsets[layer],
        )
        for name, ours, other in (
            ("step", step, theirs.step or _even(settings, layer)),
            ("offset", offset, theirs.offset),
            ("variances", anchors.variances, theirs.variances or anchors.variances),
        ):
            if not np.allclose(ours, other, rtol=1e-3):
                differences.append(f"{source}: {name} {other} in the file, {ours} in the model")
    return differences


def reorder_boxes(arrays: Sequence[np.ndarray], order: np.ndarray) -> list[np.ndarray]:
    """Put the channels of a predictor layer into another order of boxes.

    Arguments:
        arrays: Kernel `(..., n_boxes * n)` and bias `(n_boxes * n,)`.
        order: Element i is the number of the box that comes to place i, `(n_boxes,)`.

    Returns:
        The arrays with their channels reordered, or as they are if they are not of such shapes.
    """
    if any(array.ndim == 0 or array.shape[-1] % len(order) for array in arrays):
        return list(arrays)
    return [
        array.reshape(*array.shape[:-1], len(order), -1)[..., order, :].reshape(array.shape)
        for array in arrays
    ]


def _even(settings: ModelSettings, layer: int) -> tuple[float, float]:
    """Return the (vertical, horizontal) steps that spread a layer's anchors evenly."""
    height, width = settings.predictor_sizes[layer]
    return settings.img_height / height, settings.img_width / width


def _shapes(anchors: AnchorSettings, layer: int, size: float, ratios: Sequence | None = None):
    return anchor_shapes(
        size,
        anchors.aspect_ratios[layer] if ratios is None else ratios,
        anchors.scales[layer],
        anchors.scales[layer + 1],
        anchors.two_boxes_for_ar1,
    )


def _by_caffes_rule(settings: ModelSettings, layer: int) -> np.ndarray:
    """Put the model's own boxes in Caffe's order: 1, then each larger ratio and its reciprocal."""
    ratios = settings.anchors.aspect_ratios[layer]
    ordered = sorted(ratios, key=lambda ratio: (max(ratio, 1 / ratio), -ratio))
    size = min(settings.img_height, settings.img_width)
    return _shapes(settings.anchors, layer, size, ordered)


def _order(own: np.ndarray, theirs: np.ndarray) -> np.ndarray | None:
    """Pair boxes of (nearly) equal width and height; None if that does not work out."""
    if own.shape != theirs.shape:
        return None
    differences = np.abs(own[:, np.newaxis] - theirs).max(axis=-1)
    order = differences.argmin(axis=1)
    tolerance = np.maximum(_TOLERANCE_PIXELS, _TOLERANCE_SHARE * own.max(axis=1))
    paired = len(set(order.tolist())) == len(order)
    return order if paired and np.all(differences.min(axis=1) <= tolerance) else None


def _listed(shapes: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{width:.0f}x{height:.0f}" for width, height in shapes)
