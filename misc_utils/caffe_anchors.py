"""Do a model's anchors agree with the default boxes of a Caffe network, and in which order?

The channels of a predictor head belong to the boxes of a cell, one box after another. Caffe has the
boxes of a cell in the order

    smallest size | sqrt(smallest * largest) | ratio 2 | ratio 1/2 | ratio 3 | ratio 1/3

(`prior_box_layer.cpp`), which is that of the default aspect ratios of `ssd_300` and `ssd_512`. If a
model lists its ratios in another order, its channels have to be in that order, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from misc_utils.caffe_file import CaffePriors
from ssd_encoder_decoder.anchors import AnchorSettings, anchor_shapes
from ssd_encoder_decoder.model_settings import ModelSettings

# Caffe cuts sizes down to whole pixels, and prototxt files have rounded ones. The scales of VOC and
# COCO differ by far more.
_TOLERANCE_PIXELS = 1.0
_TOLERANCE_SHARE = 0.02


def model_anchor_shapes(settings: ModelSettings) -> list[np.ndarray]:
    """List the anchors of a cell for each predictor layer.

    Arguments:
        settings: A model's settings.

    Returns:
        For each layer a `(n_boxes, 2)` array of (width, height) in pixels.
    """
    size = min(settings.img_height, settings.img_width)
    return [_shapes(settings.anchors, layer, size) for layer in range(settings.anchors.n_layers)]


def caffe_box_orders(
    settings: ModelSettings, sources: Sequence[str], priors: Mapping[str, CaffePriors]
) -> dict[str, np.ndarray]:
    """Find out where Caffe has the boxes of a cell.

    Arguments:
        settings: A model's settings.
        sources: The name of each predictor layer's feature map, such as 'fc7'.
        priors: {feature map: its default boxes in the file}. For those that are not there, Caffe's
            rule is applied to the model's own boxes.

    Returns:
        {feature map: int array; element i is Caffe's number of the model's i-th box}. A feature map
        whose boxes differ from Caffe's is left out.
    """
    orders = {}
    for layer, (source, own) in enumerate(zip(sources, model_anchor_shapes(settings), strict=True)):
        theirs = priors[source].shapes if source in priors else _by_caffes_rule(settings, layer)
        order = _order(own, np.array(theirs))
        if order is not None:
            orders[source] = order
    return orders


def anchor_differences(
    settings: ModelSettings, sources: Sequence[str], priors: Mapping[str, CaffePriors]
) -> list[str]:
    """Say in which respects a model's anchors are not those of a Caffe network.

    Arguments:
        settings: A model's settings.
        sources: The name of each predictor layer's feature map.
        priors: {feature map: its default boxes in the file}.

    Returns:
        One line a difference; nothing for feature maps that are not in `priors`.
    """
    differences = []
    anchors = settings.anchors
    for layer, (source, own) in enumerate(zip(sources, model_anchor_shapes(settings), strict=True)):
        if source not in priors:
            continue
        theirs = priors[source]
        if _order(own, np.array(theirs.shapes)) is None:
            differences.append(
                f"{source}: boxes of {_listed(theirs.shapes)} pixels in the file, of "
                f"{_listed(own)} in the model"
            )
        if theirs.clip != anchors.clip_boxes:
            differences.append(f"{source}: clipping {theirs.clip} in the file")
        for name, ours, other in (
            ("step", anchors.steps[layer], theirs.step),
            (
                "offset",
                0.5 if anchors.offsets[layer] is None else anchors.offsets[layer],
                theirs.offset,
            ),
            ("variances", anchors.variances, theirs.variances),
        ):
            both = ours is not None and other is not None and other != ()
            if both and not np.allclose(ours, other, rtol=1e-5):
                differences.append(f"{source}: {name} {other} in the file, {ours} in the model")
    return differences


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
