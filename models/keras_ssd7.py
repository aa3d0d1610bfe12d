"""SSD7: a small SSD that trains from scratch in minutes, and the template for building your own.

Seven convolutional layers, four of which predict. To build a network of your own, write another
stack of layers, say which feature maps to predict from, and hand both to `build_ssd`, as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.regularizers import L2

from keras_layers.batch_normalization import BatchNormalization
from models.multibox import HeadNames, build_ssd, check_mode, preprocessed_input
from ssd_encoder_decoder.anchors import AnchorSettings

# (filters, kernel size) of conv1 ... conv7.
_STAGES = ((32, 5), (48, 3), (64, 3), (64, 3), (48, 3), (48, 3), (32, 3))
# The stages whose outputs predict: at strides of 8, 16, 32 and 64 pixels.
_PREDICTOR_STAGES = (4, 5, 6, 7)

_NAMES = HeadNames(
    classes="classes{}",
    boxes="boxes{}",
    anchors="anchors{}",
    classes_concat="classes_concat",
    boxes_concat="boxes_concat",
    anchors_concat="anchors_concat",
    classes_softmax="classes_softmax",
)


def build_model(
    image_size: tuple[int, int, int],
    n_classes: int,
    mode: str = "training",
    l2_regularization: float = 0.0,
    min_scale: float | None = 0.1,
    max_scale: float | None = 0.9,
    scales: Sequence[float] | None = None,
    aspect_ratios_global: Sequence[float] | None = (0.5, 1.0, 2.0),
    aspect_ratios_per_layer: Sequence[Sequence[float]] | None = None,
    two_boxes_for_ar1: bool = True,
    steps: Sequence | None = None,
    offsets: Sequence | None = None,
    clip_boxes: bool = False,
    variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    coords: str = "centroids",
    normalize_coords: bool = False,
    subtract_mean: float | Sequence[float] | None = None,
    divide_by_stddev: float | Sequence[float] | None = None,
    swap_channels: Sequence[int] | bool | None = False,
    confidence_thresh: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 200,
    nms_max_output_size: int = 400,
    return_predictor_sizes: bool = False,
    max_candidates_per_class: int | None = None,
    *,
    class_activation: str = "softmax",
    class_names: Sequence[str] | None = None,
) -> keras.Model | tuple[keras.Model, np.ndarray]:
    """Build the SSD7 model.

    The defaults of `variances` and `normalize_coords` are not those of `SSDInputEncoder`; make the
    encoder with `SSDInputEncoder.from_model(model)` and they agree whatever you choose here.

    Arguments:
        image_size: (height, width, channels) of the input images.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'`` for the raw prediction tensor, ``'inference'`` and
            ``'inference_fast'`` for decoded detections.
        l2_regularization: L2 penalty on all convolution kernels.
        min_scale: Smallest anchor scale, a fraction of the shorter image side.
        max_scale: Largest anchor scale; those between are evenly spaced.
        scales: Five scales (four layers and a last one); wins over min_scale and max_scale.
        aspect_ratios_global: Ratios width / height of the anchors of all layers.
        aspect_ratios_per_layer: Four lists of ratios; wins over the global list.
        two_boxes_for_ar1: Whether ratio 1 gets a second, larger box.
        steps: Four entries: pixels between anchor centres, a number, a pair or None.
        offsets: Four entries: position of the first centre in steps, likewise.
        clip_boxes: Whether anchors are clipped to the image.
        variances: Four constants that divide the offsets.
        coords: ``'centroids'``, ``'corners'`` or ``'minmax'``. Decoding needs centroids.
        normalize_coords: Whether boxes are in fractions of the image instead of pixels.
        subtract_mean: Subtracted from the image: a number or one a channel.
        divide_by_stddev: The image is divided by it, after that: a number or one a channel.
        swap_channels: New order of the input's channels, or something false.
        confidence_thresh: Decoding: boxes need a higher score than this.
        iou_threshold: Decoding: of boxes that overlap more than this, the best one stays.
        top_k: Decoding: rows of output an image.
        nms_max_output_size: Decoding: survivors of non-maximum suppression (a class) at most.
        return_predictor_sizes: Whether to return the feature map sizes, too.
        max_candidates_per_class: Decoding: let only this many of the best boxes of each class
            compete; the original in Caffe takes 400. None lets all of them.
        class_activation: ``'softmax'``: the classes of a box compete. ``'sigmoid'``: each is scored
            by itself (see `SigmoidScores`), as `SSDFocalLoss(class_activation="sigmoid")` expects.
        class_names: 'background' and the names of the classes, for the model to carry along
            (`ssd_encoder_decoder.class_names` reads and changes them); None for no names.

    Returns:
        The model; with `return_predictor_sizes` the tuple (model, int array `(4, 2)` of heights and
        widths). Its output is float32 `(batch, n_boxes, n_classes + 1 + 12)` = classes | offsets |
        anchors | variances in mode ``'training'``, else `(batch, top_k, 6)` rows (class_id,
        confidence, xmin, ymin, xmax, ymax) in pixels of the input, zero rows at the end.

    Raises:
        ValueError: naming the argument that is not as described.

    Example:
        >>> from models.keras_ssd7 import build_model
        >>> from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
        >>> model = build_model((96, 128, 3), n_classes=2)
        >>> model.output_shape  # images, anchors, (background, 2 classes) + 12
        (None, 1016, 15)
        >>> SSDInputEncoder.from_model(model)([]).shape  # targets of no images, of the same layout
        (0, 1016, 15)
    """
    anchors = AnchorSettings.from_arguments(
        n_layers=len(_PREDICTOR_STAGES),
        min_scale=min_scale,
        max_scale=max_scale,
        scales=scales,
        aspect_ratios_global=aspect_ratios_global,
        aspect_ratios_per_layer=aspect_ratios_per_layer,
        two_boxes_for_ar1=two_boxes_for_ar1,
        steps=steps,
        offsets=offsets,
        clip_boxes=clip_boxes,
        variances=variances,
        coords=coords,
        normalize_coords=normalize_coords,
    )
    check_mode(mode)
    convolution = partial(
        layers.Conv2D,
        padding="same",
        kernel_initializer="he_normal",
        kernel_regularizer=L2(l2_regularization),
    )

    inputs, x = preprocessed_input(image_size, subtract_mean, divide_by_stddev, swap_channels)
    smallest = 2 ** (len(_STAGES) - 1)
    if min(image_size[:2]) < smallest:
        raise ValueError(
            f"SSD7 halves the image {len(_STAGES) - 1} times, so it must be at least {smallest} "
            f"pixels high and wide; got `image_size` {tuple(image_size)}."
        )
    feature_maps: dict[str, Any] = {}
    for stage, (filters, kernel_size) in enumerate(_STAGES, start=1):
        if stage > 1:
            x = layers.MaxPooling2D((2, 2), name=f"pool{stage - 1}")(x)
        x = convolution(filters, (kernel_size, kernel_size), name=f"conv{stage}")(x)
        x = BatchNormalization(axis=3, momentum=0.99, name=f"bn{stage}")(x)
        x = layers.ELU(name=f"elu{stage}")(x)
        if stage in _PREDICTOR_STAGES:
            feature_maps[str(stage)] = x

    model, predictor_sizes = build_ssd(
        inputs,
        feature_maps,
        _NAMES,
        convolution,
        image_size,
        n_classes,
        anchors,
        mode,
        confidence_thresh,
        iou_threshold,
        top_k,
        nms_max_output_size,
        max_candidates_per_class,
        class_activation,
        class_names,
    )
    return (model, predictor_sizes) if return_predictor_sizes else model
