"""SSD on VGG-16: what SSD300 and SSD512 share, which is all but a table.

    image --> conv1 ... conv5 of VGG-16 --> fc6, fc7 as convolutions --> conv6, conv7 ...
                       |                           |                        |
                    conv4_3                       fc7               conv6_2, conv7_2 ...
                       |                           |                        |
                 L2 normalised                     |                        |
                       +---------- predictor heads on all of these ---------+

(paper, figure 2 and section 3). Layer names are those of the original Caffe models, because trained
weights find their layers by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.regularizers import L2

from keras_layers.keras_layer_L2Normalization import L2Normalization
from models.multibox import CAFFE_NAMES, build_ssd, check_mode, preprocessed_input
from ssd_encoder_decoder.anchors import AnchorSettings

# (filters, number of 3x3 convolutions) of conv1 ... conv5; each but the last is halved by its pool.
_VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_N_HALVINGS = len(_VGG16_STAGES) - 1
# The number of feature maps that predict and belong to the base network: conv4_3 and fc7.
_N_BASE_SOURCES = 2
# How many boxes of a class the original lets into non-maximum suppression.
_CANDIDATES_IN_CAFFE = 400


@dataclass(frozen=True)
class ExtraStage:
    """Two convolutions after the base network, the second of which makes a coarser feature map.

    Attributes:
        squeeze: Filters of the 1x1 convolution, which thins out the channels.
        filters: Filters of the second convolution.
        kernel_size: Kernel of the second convolution.
        stride: Its stride.
        padding: Zeros put around the map before it, on every side.
    """

    squeeze: int
    filters: int
    kernel_size: int
    stride: int
    padding: int

    def output_side(self, side: int) -> int:
        """Return the height (or width) of the stage's output for a map of this height (width)."""
        return (side + 2 * self.padding - self.kernel_size) // self.stride + 1


@dataclass(frozen=True)
class VggSsd:
    """The description of one network: what differs between SSD300 and SSD512.

    Attributes:
        name: The network's name, for messages.
        extra_stages: conv6, conv7 and so on.
    """

    name: str
    extra_stages: tuple[ExtraStage, ...]

    @property
    def n_predictor_layers(self) -> int:
        """The number of feature maps that predict."""
        return _N_BASE_SOURCES + len(self.extra_stages)

    @property
    def smallest_side(self) -> int:
        """The least image height and width in pixels for which every feature map has a cell."""
        return next(side for side in count(1) if self._last_side(side) > 0)

    def _last_side(self, image_side: int) -> int:
        side = -(-image_side // 2**_N_HALVINGS)  # the pools round up
        for stage in self.extra_stages:
            side = stage.output_side(side)
        return side

    def check_image_size(self, image_size: tuple[int, int, int]) -> None:
        """Raise a ValueError if an image is too small for the coarsest feature map."""
        smallest = self.smallest_side
        if min(image_size[:2]) < smallest:
            raise ValueError(
                f"{self.name} halves the image until one cell is left, so it must be at least "
                f"{smallest} pixels high and wide; got `image_size` {tuple(image_size)}. Resize "
                "the images, or take a smaller network such as SSD7."
            )


def build_vgg_ssd(
    network: VggSsd,
    *,
    image_size: tuple[int, int, int],
    n_classes: int,
    mode: str,
    l2_regularization: float,
    min_scale: float | None,
    max_scale: float | None,
    scales: Sequence[float] | None,
    aspect_ratios_global: Sequence[float] | None,
    aspect_ratios_per_layer: Sequence[Sequence[float]] | None,
    two_boxes_for_ar1: bool,
    steps: Sequence | None,
    offsets: Sequence | None,
    clip_boxes: bool,
    variances: Sequence[float],
    coords: str,
    normalize_coords: bool,
    subtract_mean: float | Sequence[float] | None,
    divide_by_stddev: float | Sequence[float] | None,
    swap_channels: Sequence[int] | bool | None,
    confidence_thresh: float,
    iou_threshold: float,
    top_k: int,
    nms_max_output_size: int,
    return_predictor_sizes: bool,
    max_candidates_per_class: int | None,
    class_activation: str,
    class_names: Sequence[str] | None,
    caffe_faithful: bool,
) -> keras.Model | tuple[keras.Model, np.ndarray]:
    """Build the model that a `VggSsd` describes.

    Arguments:
        network: The description of the network.
        image_size: As all that follow, an argument of `ssd_300` and described there.

    Returns:
        The model; with `return_predictor_sizes` the tuple (model, predictor sizes).

    Raises:
        ValueError: naming the argument that is not as described.
    """
    anchors = AnchorSettings.from_arguments(
        n_layers=network.n_predictor_layers,
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
    kernel_initializer = "he_normal"
    if caffe_faithful:
        kernel_initializer = "lecun_uniform"  # variance 1 / fan-in: what Caffe calls xavier
        # The gradient of L2(x) is 2 x w, that of Caffe's weight decay d is d w.
        l2_regularization = l2_regularization / 2
        if max_candidates_per_class is None:
            max_candidates_per_class = _CANDIDATES_IN_CAFFE
    penalty = L2(l2_regularization)
    convolution = partial(
        layers.Conv2D,
        padding="same",
        kernel_initializer=kernel_initializer,
        kernel_regularizer=penalty,
    )
    relu_convolution = partial(convolution, activation="relu")

    inputs, x = preprocessed_input(image_size, subtract_mean, divide_by_stddev, swap_channels)
    network.check_image_size(image_size)
    conv4_3, fc7 = _vgg16_base(x, relu_convolution)
    feature_maps = {
        # Only the predictor sees the normalised map; the network goes on from conv4_3 itself.
        "conv4_3_norm": L2Normalization(
            gamma_init=20,
            gamma_regularizer=penalty if caffe_faithful else None,
            name="conv4_3_norm",
        )(conv4_3),
        "fc7": fc7,
        **_extra_feature_maps(fc7, network.extra_stages, relu_convolution),
    }
    model, predictor_sizes = build_ssd(
        inputs,
        feature_maps,
        CAFFE_NAMES,
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


def _vgg16_base(x: Any, convolution: Callable[..., Any]) -> tuple[Any, Any]:
    """Stack VGG-16 without its classifier, fully convolutional; return (conv4_3, fc7)."""
    outputs = {}
    for stage, (filters, n_convolutions) in enumerate(_VGG16_STAGES, start=1):
        for index in range(1, n_convolutions + 1):
            x = convolution(filters, (3, 3), name=f"conv{stage}_{index}")(x)
        outputs[stage] = x
        # Caffe's pools round up, as padding="same" does: 75 becomes 38. The last pool keeps the
        # resolution (stride 1), and the dilation of fc6 makes up for that in its field of view.
        last = stage == len(_VGG16_STAGES)
        size, stride = ((3, 3), (1, 1)) if last else ((2, 2), (2, 2))
        x = layers.MaxPooling2D(size, stride, padding="same", name=f"pool{stage}")(x)
    # VGG's two fully connected layers, thinned out to convolutions (arXiv:1412.7062).
    x = convolution(1024, (3, 3), dilation_rate=(6, 6), name="fc6")(x)
    x = convolution(1024, (1, 1), name="fc7")(x)
    return outputs[4], x


def _extra_feature_maps(
    x: Any, stages: Sequence[ExtraStage], convolution: Callable[..., Any]
) -> dict[str, Any]:
    """Stack the extra stages, counted on from VGG's five; return {layer name: feature map}."""
    feature_maps = {}
    for number, stage in enumerate(stages, start=len(_VGG16_STAGES) + 1):
        x = convolution(stage.squeeze, (1, 1), name=f"conv{number}_1")(x)
        if stage.padding:
            # Not padding="same": for an even side that would pad at the far end only.
            x = layers.ZeroPadding2D(stage.padding, name=f"conv{number}_padding")(x)
        x = convolution(
            stage.filters,
            (stage.kernel_size, stage.kernel_size),
            strides=(stage.stride, stage.stride),
            padding="valid",
            name=f"conv{number}_2",
        )(x)
        feature_maps[f"conv{number}_2"] = x
    return feature_maps
