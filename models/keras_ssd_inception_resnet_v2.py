"""SSD on Inception-ResNet-v2 (arXiv:1602.07261): large and slow, for the last bit of precision."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any

import keras
import numpy as np

from models.backbone_ssd import ssd_from_backbone
from models.base_network import applications_network

# The last layers of strides 8, 16 and 32.
FEATURE_LAYERS = ("block35_10_ac", "block17_20_ac", "conv_7b_ac")


def ssd_inception_resnet_v2(
    image_size: tuple[int, int, int],
    n_classes: int,
    mode: str = "training",
    *,
    weights: str | os.PathLike | None = None,
    **settings: Any,
) -> keras.Model | tuple[keras.Model, np.ndarray]:
    """Build an SSD on `keras.applications.InceptionResNetV2`.

        model = ssd_inception_resnet_v2((299, 299, 3), n_classes=20, weights="imagenet")
        encoder = SSDInputEncoder.from_model(model)

    The first convolutions of this network do not pad, so its maps are a little smaller than the
    strides say: 35 x 35, 17 x 17 and 8 x 8 cells at 299 x 299 pixels.

    Arguments:
        image_size: (height, width, channels) of the input images; at least 75 x 75 pixels.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'``, ``'inference'`` or ``'inference_fast'``.
        weights: Of the base network: ``'imagenet'``, which Keras downloads; the path of a file of
            its weights without the classifier; or None for a random start.
        **settings: Other arguments of `ssd_from_backbone`, which has the defaults. Those of
            preprocessing bring the image to -1 to 1, as the weights expect. `min_scale` is 0.1,
            for there is a map of stride 8.

    Returns:
        The model, or what else `ssd_from_backbone` returns.

    Raises:
        FileNotFoundError: if `weights` is a path where no file is.
        ValueError: naming the argument that is not as described.
    """
    settings = {
        "min_scale": 0.1,
        "subtract_mean": 127.5,
        "divide_by_stddev": 127.5,
        **settings,
    }
    backbone = applications_network(
        keras.applications.InceptionResNetV2, image_size, weights, settings.get("swap_channels")
    )
    _count_names_from_zero(backbone)
    return ssd_from_backbone(backbone, FEATURE_LAYERS, image_size, n_classes, mode, **settings)


def _count_names_from_zero(network: keras.Model) -> None:
    """Rename the layers that Keras named: conv2d, conv2d_1, and so on in each network.

    Keras counts them in each process. In the second model that it makes they have other names, and
    weights that move by name would not find them.
    """
    counts: Counter[str] = Counter()
    for layer in network.layers:
        kind = re.fullmatch(
            r"(conv2d|batch_normalization|activation|concatenate|custom_scale_layer"
            r"|max_pooling2d|average_pooling2d|input_layer)(_\d+)?",
            layer.name,
        )
        if kind:
            number = counts[kind[1]]
            layer.name = f"{kind[1]}_{number}" if number else kind[1]
            counts[kind[1]] += 1
