"""SSD on a DenseNet (arXiv:1608.06993): every layer sees all before it, so few filters suffice."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from models.backbone_ssd import ssd_from_backbone
from models.base_network import applications_network

# What the transitions see, before they halve the map: strides 8 and 16. And the last layer, 32.
FEATURE_LAYERS = ("pool3_relu", "pool4_relu", "relu")

_NETWORKS = {
    121: keras.applications.DenseNet121,
    169: keras.applications.DenseNet169,
    201: keras.applications.DenseNet201,
}


def ssd_densenet(
    image_size: tuple[int, int, int],
    n_classes: int,
    mode: str = "training",
    *,
    depth: int = 121,
    weights: str | os.PathLike | None = None,
    **settings: Any,
) -> keras.Model | tuple[keras.Model, np.ndarray]:
    """Build an SSD on `keras.applications.DenseNet121`, or on one of its deeper siblings.

        model = ssd_densenet((300, 300, 3), n_classes=20, weights="imagenet")
        encoder = SSDInputEncoder.from_model(model)

    Arguments:
        image_size: (height, width, channels) of the input images; at least 32 x 32 pixels.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'``, ``'inference'`` or ``'inference_fast'``.
        depth: Number of layers of the base network: 121, 169 or 201.
        weights: Of the base network: ``'imagenet'``, which Keras downloads; the path of a file of
            its weights without the classifier; or None for a random start.
        **settings: Other arguments of `ssd_from_backbone`, which has the defaults. Those of
            preprocessing normalise with ImageNet's mean and deviation, as the weights, which come
            from Torch, expect. `min_scale` is 0.1, for there is a map of stride 8.

    Returns:
        The model, or what else `ssd_from_backbone` returns.

    Raises:
        FileNotFoundError: if `weights` is a path where no file is.
        ValueError: naming the argument that is not as described.
    """
    if depth not in _NETWORKS:
        raise ValueError(f"`depth` must be one of {', '.join(map(str, _NETWORKS))}; got {depth!r}.")
    settings = {
        "min_scale": 0.1,
        # Those of images with values 0 to 1, times 255.
        "subtract_mean": (123.675, 116.28, 103.53),
        "divide_by_stddev": (58.395, 57.12, 57.375),
        **settings,
    }
    backbone = applications_network(
        _NETWORKS[depth], image_size, weights, settings.get("swap_channels")
    )
    return ssd_from_backbone(backbone, FEATURE_LAYERS, image_size, n_classes, mode, **settings)
