"""SSD on ResNet-50 (arXiv:1512.03385), whose residual blocks train deeper than VGG-16's stack."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from models.backbone_ssd import ssd_from_backbone
from models.base_network import applications_network

# The last layers of strides 8, 16 and 32.
FEATURE_LAYERS = ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out")


def ssd_resnet50(
    image_size: tuple[int, int, int],
    n_classes: int,
    mode: str = "training",
    *,
    weights: str | os.PathLike | None = None,
    **settings: Any,
) -> keras.Model | tuple[keras.Model, np.ndarray]:
    """Build an SSD on `keras.applications.ResNet50`.

        model = ssd_resnet50((300, 300, 3), n_classes=20, weights="imagenet")
        encoder = SSDInputEncoder.from_model(model)

    Arguments:
        image_size: (height, width, channels) of the input images; at least 32 x 32 pixels.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'``, ``'inference'`` or ``'inference_fast'``.
        weights: Of the base network: ``'imagenet'``, which Keras downloads; the path of a file of
            its weights without the classifier; or None for a random start.
        **settings: Other arguments of `ssd_from_backbone`, which has the defaults. Those of
            preprocessing make BGR images minus ImageNet's mean, as the weights, which come from
            Caffe, expect. `min_scale` is 0.1, for there is a map of stride 8.

    Returns:
        The model, or what else `ssd_from_backbone` returns.

    Raises:
        FileNotFoundError: if `weights` is a path where no file is.
        ValueError: naming the argument that is not as described.
    """
    settings = {
        "min_scale": 0.1,
        "subtract_mean": (123.68, 116.779, 103.939),  # RGB: it is subtracted first
        "swap_channels": (2, 1, 0),
        **settings,
    }
    backbone = applications_network(
        keras.applications.ResNet50, image_size, weights, settings["swap_channels"]
    )
    return ssd_from_backbone(backbone, FEATURE_LAYERS, image_size, n_classes, mode, **settings)
