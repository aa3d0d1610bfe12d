"""SSD on any base network: the general door, through which the builders of other networks go.

    image --> preprocessing --> base network --> extra1 --> extra2 ... until one cell is left
                                  |     |           |         |
                                  +-----+-----------+---------+--> predictor heads on all of these

To put an SSD on a network of your own, name the layers to predict from:

    backbone = keras.applications.EfficientNetV2B0(input_shape=(300, 300, 3), include_top=False)
    model = ssd_from_backbone(
        backbone,
        feature_layers=["block6a_expand_activation", "top_activation"],
        image_size=(300, 300, 3),
        n_classes=20,
    )
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.regularizers import L2

from keras_layers.batch_normalization import BatchNormalization
from models.base_network import check_sizes, copy_network, find_feature_maps
from models.multibox import (
    CAFFE_NAMES,
    build_ssd,
    check_image_size,
    check_mode,
    preprocessed_input,
)
from ssd_encoder_decoder.anchors import AnchorSettings

# Filters of the extra stages, as in SSD300 and SSDLite. More stages have as many as the last.
_EXTRA_FILTERS = (512, 256, 256, 128)


def ssd_from_backbone(
    backbone: keras.Model,
    feature_layers: Sequence[str | keras.layers.Layer | keras.KerasTensor],
    image_size: tuple[int, int, int],
    n_classes: int,
    mode: str = "training",
    l2_regularization: float = 0.0,
    min_scale: float | None = 0.2,
    max_scale: float | None = 0.9,
    scales: Sequence[float] | None = None,
    aspect_ratios_global: Sequence[float] | None = (1.0, 2.0, 0.5, 3.0, 1.0 / 3.0),
    aspect_ratios_per_layer: Sequence[Sequence[float]] | None = None,
    two_boxes_for_ar1: bool = True,
    steps: Sequence | None = None,
    offsets: Sequence | None = None,
    clip_boxes: bool = False,
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    coords: str = "centroids",
    normalize_coords: bool = True,
    subtract_mean: float | Sequence[float] | None = None,
    divide_by_stddev: float | Sequence[float] | None = None,
    swap_channels: Sequence[int] | bool | None = None,
    confidence_thresh: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 200,
    nms_max_output_size: int = 400,
    return_predictor_sizes: bool = False,
    max_candidates_per_class: int | None = None,
    *,
    class_activation: str = "softmax",
    class_names: Sequence[str] | None = None,
    extra_filters: Sequence[int] | None = None,
    separable: bool = False,
    freeze_batch_normalization: bool = False,
    batch_normalization_momentum: float | None = None,
) -> keras.Model | tuple[keras.Model, np.ndarray]:
    """Build an SSD on a base network.

    The model gets copies of the network's layers, with their names and weights, as far as the
    feature maps depend on them; the network itself stays as it is. So `freeze(model, "out_relu")`
    and `LearningRateMultipliers` (`misc_utils.fine_tuning`) take the network's layer names.

    A network that was trained with batch normalisation loses its statistics in batches of a few
    images. Then fine-tune with `freeze_batch_normalization=True`, or with `freeze`, which keeps the
    statistics of what it freezes, too. (Setting `trainable` of such a layer back undoes it.)

    Arguments:
        backbone: A functional or sequential model with one input of images, channels last, made
            for images of this size, or of any.
        feature_layers: The layers to predict from, the finest feature map first: their names, the
            layers, or their symbolic outputs.
        image_size: (height, width, channels) of the input images.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'`` for the raw prediction tensor, ``'inference'`` and
            ``'inference_fast'`` for decoded detections.
        l2_regularization: L2 penalty on the kernels of the layers that SSD adds: the extra stages
            and the heads. Those of the network keep the penalty that they have.
        min_scale: Smallest anchor scale, a fraction of the shorter image side.
        max_scale: Largest anchor scale; those between are evenly spaced (paper, equation 4).
        scales: One more than there are predictor layers; wins over min_scale and max_scale.
        aspect_ratios_global: Ratios width / height of the anchors of all layers.
        aspect_ratios_per_layer: One list of ratios a layer; wins over the global list.
        two_boxes_for_ar1: Whether ratio 1 gets a second, larger box.
        steps: One entry a layer: pixels between anchor centres, a number, a pair or None.
        offsets: One entry a layer: position of the first centre in steps, likewise.
        clip_boxes: Whether anchors are clipped to the image.
        variances: Four constants that divide the offsets.
        coords: ``'centroids'``, ``'corners'`` or ``'minmax'``. Decoding needs centroids.
        normalize_coords: Whether boxes are in fractions of the image instead of pixels.
        subtract_mean: Subtracted from the image, whose values are 0 to 255: a number or one a
            channel. This and the next two make of the image what the network was trained on.
        divide_by_stddev: The image is divided by it, after that: a number or one a channel.
        swap_channels: New order of the input's channels, or something false. It may repeat some:
            (0, 0, 0) shows a grey image to a network that expects three channels.
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
        extra_filters: Filters of the extra stages, one a stage, each of which halves the map. None
            adds stages of 512, 256, 256, 128, 128, ... filters until the map is a single cell.
        separable: Whether 3x3 convolutions of the extra stages and heads are split into one that
            looks around in each channel and one that mixes channels: SSDLite (arXiv:1801.04381).
        freeze_batch_normalization: Whether the network's batch normalisation keeps its weights
            and statistics in training.
        batch_normalization_momentum: Share of the running statistics that a training step leaves
            as it is, in the network's batch normalisation. None leaves what the network has, which
            may be made for training that takes days: see `misc_utils.batch_statistics`.

    Returns:
        The model; with `return_predictor_sizes` the tuple (model, int array `(n_layers, 2)` of
        heights and widths). Its output is float32 `(batch, n_boxes, n_classes + 1 + 12)` =
        classes | offsets | anchors | variances in mode ``'training'``, else `(batch, top_k, 6)`
        rows (class_id, confidence, xmin, ymin, xmax, ymax) in pixels of the input, zero rows at the
        end.

    Raises:
        ValueError: naming the argument that is not as described. Layers that the network does not
            have are named with those it has, and their strides.
    """
    check_mode(mode)
    check_image_size(image_size)
    feature_maps = find_feature_maps(backbone, feature_layers)
    inputs, x = preprocessed_input(image_size, subtract_mean, divide_by_stddev, swap_channels)
    if batch_normalization_momentum is not None and not 0 <= batch_normalization_momentum < 1:
        raise ValueError(
            "`batch_normalization_momentum` must be in [0, 1), or None; got "
            f"{batch_normalization_momentum}."
        )
    feature_maps = copy_network(
        backbone, feature_maps, inputs, x, freeze_batch_normalization, batch_normalization_momentum
    )
    check_sizes(feature_maps)
    new_layers = _NewLayers(separable, l2_regularization)
    feature_maps |= _extra_feature_maps(feature_maps, extra_filters, new_layers)
    check_sizes(feature_maps)
    anchors = AnchorSettings.from_arguments(
        n_layers=len(feature_maps),
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
    model, predictor_sizes = build_ssd(
        inputs,
        feature_maps,
        CAFFE_NAMES,
        new_layers.predictor,
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


@dataclass(frozen=True)
class _NewLayers:
    """How the layers are made that SSD adds to a base network.

    Attributes:
        separable: Whether 3x3 convolutions are depthwise separable, as in SSDLite.
        l2_regularization: The penalty on all kernels.
    """

    separable: bool
    l2_regularization: float

    def predictor(self, filters: int, kernel_size: tuple[int, int], name: str) -> Callable:
        """Make a predictor: a function from a feature map to `filters` channels.

        The layer that makes these channels has the name `name`, whether separable or not.
        """
        if not self.separable:
            return self._convolution(filters, kernel_size, name=name)

        def separable_convolution(x: Any) -> Any:
            x = self._depthwise(x, kernel_size, f"{name}_depthwise")
            return self._convolution(filters, (1, 1), name=name)(x)

        return separable_convolution

    def stage(self, x: Any, filters: int, name: str) -> Any:
        """Halve a feature map: thin out its channels, then look around with a stride of two."""
        x = self._convolution(filters // 2, (1, 1), use_bias=False, name=f"{name}_squeeze")(x)
        x = self._normalised(x, f"{name}_squeeze")
        if self.separable:
            x = self._depthwise(x, (3, 3), f"{name}_depthwise", strides=2)
            x = self._convolution(filters, (1, 1), use_bias=False, name=f"{name}_conv")(x)
        else:
            convolution = self._convolution(
                filters, (3, 3), strides=2, use_bias=False, name=f"{name}_conv"
            )
            x = convolution(x)
        return self._normalised(x, name)

    def _convolution(self, filters: int, kernel_size: tuple[int, int], **arguments: Any) -> Any:
        return layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            kernel_initializer="he_normal",
            kernel_regularizer=L2(self.l2_regularization),
            **arguments,
        )

    def _depthwise(self, x: Any, kernel_size: tuple[int, int], name: str, strides: int = 1) -> Any:
        x = layers.DepthwiseConv2D(
            kernel_size,
            strides=strides,
            padding="same",
            use_bias=False,
            depthwise_initializer="he_normal",
            depthwise_regularizer=L2(self.l2_regularization),
            name=name,
        )(x)
        return self._normalised(x, name)

    def _normalised(self, x: Any, name: str) -> Any:
        x = BatchNormalization(name=f"{name}_bn")(x)
        # MobileNets bound activations by 6, so that few bits suffice for them.
        return layers.ReLU(6.0 if self.separable else None, name=f"{name}_relu")(x)


def _extra_feature_maps(
    feature_maps: dict[str, Any], extra_filters: Sequence[int] | None, new_layers: _NewLayers
) -> dict[str, Any]:
    """Stack extra stages on the coarsest feature map; return {name: feature map}."""
    *_, x = feature_maps.values()
    if extra_filters is None:
        # 10 -> 5 -> 3 -> 2 -> 1: halving rounds up.
        n_stages = (max(x.shape[1:3]) - 1).bit_length()
        extra_filters = islice(chain(_EXTRA_FILTERS, repeat(_EXTRA_FILTERS[-1])), n_stages)
    extra: dict[str, Any] = {}
    for number, filters in enumerate(extra_filters, start=1):
        if not isinstance(filters, numbers.Integral) or filters < 2:
            raise ValueError(
                f"`extra_filters` must list integers of at least 2, one a stage; got {filters!r}."
            )
        x = extra[f"extra{number}"] = new_layers.stage(x, int(filters), f"extra{number}")
    return extra
