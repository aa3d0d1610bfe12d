"""SSDLite on MobileNetV2: for phones and processors without a GPU (arXiv:1801.04381, section 6.2).

All 3x3 convolutions that SSD adds are depthwise separable, those of the predictor heads among them.
"""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from models.backbone_ssd import ssd_from_backbone
from models.base_network import applications_network

# Those of the paper: the expansion of the first block of stride 32, which still has stride 16, and
# the last layer, stride 32.
FEATURE_LAYERS = ("block_13_expand_relu", "out_relu")


def ssd_mobilenet_v2(
    image_size: tuple[int, int, int],
    n_classes: int,
    mode: str = "training",
    *,
    alpha: float = 1.0,
    weights: str | os.PathLike | None = None,
    **settings: Any,
) -> keras.Model | tuple[keras.Model, np.ndarray]:
    """Build SSDLite on `keras.applications.MobileNetV2`.

        model = ssd_mobilenet_v2((300, 300, 3), n_classes=20, weights="imagenet")
        encoder = SSDInputEncoder.from_model(model)

    Arguments:
        image_size: (height, width, channels) of the input images; at least 32 x 32 pixels.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'``, ``'inference'`` or ``'inference_fast'``.
        alpha: Width: 0.5 is half of all filters. ImageNet's weights are there for 0.35, 0.5, 0.75,
            1.0, 1.3 and 1.4.
        weights: Of the base network: ``'imagenet'``, which Keras downloads; the path of a file of
            its weights without the classifier; or None for a random start.
        **settings: Other arguments of `ssd_from_backbone`, which has the defaults. Those of
            preprocessing bring the image to -1 to 1, as the weights expect; `separable` is True;
            `batch_normalization_momentum` is 0.99: with the network's own 0.999, training for less
            than some 5,000 steps would leave it without usable statistics.

    Returns:
        The model, or what else `ssd_from_backbone` returns.

    Raises:
        FileNotFoundError: if `weights` is a path where no file is.
        ValueError: naming the argument that is not as described.
    """
    settings = {
        "subtract_mean": 127.5,
        "divide_by_stddev": 127.5,
        "separable": True,
        "batch_normalization_momentum": 0.99,
        **settings,
    }
    backbone = applications_network(
        keras.applications.MobileNetV2,
        image_size,
        weights,
        settings.get("swap_channels"),
        alpha=alpha,
    )
    return ssd_from_backbone(backbone, FEATURE_LAYERS, image_size, n_classes, mode, **settings)
