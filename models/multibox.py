"""What every SSD model shares: preprocessing, predictor heads, the prediction tensor, decoding.

A builder brings its base network and the list of feature maps to predict from; everything after
that happens here, for all models alike:

    feature map --> class scores, box offsets, anchors      (per map)
                --> reshape to one row a box, concatenate   (all maps)
                --> softmax over the classes (or a sigmoid each)
                --> [classes | offsets | anchors | variances]
                --> decoding, if the mode asks for it
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_layers.class_scores import SigmoidScores
from keras_layers.keras_layer_AnchorBoxes import AnchorBoxes
from keras_layers.keras_layer_DecodeDetections import DecodeDetections
from keras_layers.keras_layer_DecodeDetectionsFast import DecodeDetectionsFast
from keras_layers.predictions import Predictions
from keras_layers.preprocessing import ChannelSwap, MeanSubtraction, StddevDivision
from ssd_encoder_decoder.anchors import AnchorSettings, anchor_boxes
from ssd_encoder_decoder.class_names import check_class_names

MODES = ("training", "inference", "inference_fast")
CLASS_ACTIVATIONS = ("softmax", "sigmoid")


@dataclass(frozen=True)
class HeadNames:
    """The layer names of the predictor heads: patterns with the name of the feature map.

    Trained weights find their layers by these names, so each model keeps its own.
    """

    classes: str
    boxes: str
    anchors: str
    classes_concat: str
    boxes_concat: str
    anchors_concat: str
    classes_softmax: str


# The names of the original Caffe models: every builder but SSD7's uses them.
CAFFE_NAMES = HeadNames(
    classes="{}_mbox_conf",
    boxes="{}_mbox_loc",
    anchors="{}_mbox_priorbox",
    classes_concat="mbox_conf",
    boxes_concat="mbox_loc",
    anchors_concat="mbox_priorbox",
    classes_softmax="mbox_conf_softmax",
)


def check_mode(mode: str) -> None:
    """Raise a ValueError unless `mode` is one of the three modes of a model."""
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}; got {mode!r}.")


def check_image_size(image_size: tuple[int, int, int]) -> None:
    """Raise a ValueError unless `image_size` is (height, width, channels), all known."""
    known = np.ndim(image_size) == 1 and all(isinstance(n, numbers.Integral) for n in image_size)
    if not known or len(image_size) != 3 or min(image_size) < 1:
        raise ValueError(
            "`image_size` must be (height, width, channels), all known and at least 1; "
            f"got {image_size}."
        )


def preprocessed_input(
    image_size: tuple[int, int, int],
    subtract_mean: float | Sequence[float] | None,
    divide_by_stddev: float | Sequence[float] | None,
    swap_channels: Sequence[int] | bool | None,
) -> tuple[Any, Any]:
    """Start a model: the input and its normalisation.

    Arguments:
        image_size: (height, width, channels).
        subtract_mean: A number or one a channel, in the order of the input image's channels.
        divide_by_stddev: Likewise.
        swap_channels: New channel order, or something false to keep the order. It may repeat
            channels ((0, 0, 0) makes three of one) and leave some out.

    Returns:
        (the input tensor, the normalised tensor): `(batch, height, width, channels)`.

    Raises:
        ValueError: naming the argument that is not as described.
    """
    check_image_size(image_size)
    _check_channel_values("subtract_mean", subtract_mean, image_size)
    _check_channel_values("divide_by_stddev", divide_by_stddev, image_size)
    if divide_by_stddev is not None and not np.all(divide_by_stddev):
        raise ValueError(f"`divide_by_stddev` must not be 0; got {divide_by_stddev}.")
    if swap_channels is True:
        raise ValueError("`swap_channels` must list the new channel order, like (2, 1, 0).")
    inputs = keras.Input(shape=tuple(image_size))
    x = layers.Identity(name="identity_layer", dtype="float32")(inputs)
    if subtract_mean is not None:
        x = MeanSubtraction(subtract_mean, name="input_mean_normalization")(x)
    if divide_by_stddev is not None:
        x = StddevDivision(divide_by_stddev, name="input_stddev_normalization")(x)
    if swap_channels is not None and swap_channels is not False and len(swap_channels) > 0:
        x = ChannelSwap(swap_channels, name="input_channel_swap")(x)
    return inputs, x


def build_ssd(
    inputs: Any,
    feature_maps: dict[str, Any],
    names: HeadNames,
    convolution: Callable[..., Any],
    image_size: tuple[int, int, int],
    n_classes: int,
    anchors: AnchorSettings,
    mode: str,
    confidence_thresh: float,
    iou_threshold: float,
    top_k: int,
    nms_max_output_size: int,
    max_candidates_per_class: int | None = None,
    class_activation: str = "softmax",
    class_names: Sequence[str] | None = None,
) -> tuple[keras.Model, np.ndarray]:
    """Attach the multibox heads to feature maps and make the model.

    Under a half precision policy the heads' convolutions are computed in it like all the others,
    and everything from there on in float32. Heads in float32 would be slower, and boxes would be
    only a few per cent nearer to those of a float32 model: the base network rounds more away.

    Arguments:
        inputs: The model's input tensor.
        feature_maps: {name that goes into the heads' layer names: tensor}, finest map first.
        names: The pattern of the layer names.
        convolution: `convolution(filters, kernel_size, name=...)` makes a predictor layer.
        image_size: (height, width, channels) of the input.
        n_classes: Number of object classes, without the background class.
        anchors: Anchor settings with one layer a feature map.
        mode: ``'training'``, ``'inference'`` or ``'inference_fast'``.
        confidence_thresh: Decoding: boxes need a higher score than this.
        iou_threshold: Decoding: of boxes that overlap more than this, the best one stays.
        top_k: Decoding: rows of output an image.
        nms_max_output_size: Decoding: survivors of non-maximum suppression (a class) at most.
        max_candidates_per_class: Decoding: the best boxes of each class that compete; None: all.
        class_activation: What makes scores of the class logits: ``'softmax'`` or ``'sigmoid'``.
        class_names: Names by class id, 'background' first, which the model is to know; or None.

    Returns:
        (model, predictor sizes): the latter an int array `(layers, 2)` of (height, width).

    Raises:
        ValueError: if `n_classes`, `mode`, `class_activation` or `class_names` is not as described.
    """
    check_mode(mode)
    if not isinstance(n_classes, numbers.Integral) or n_classes < 1:
        raise ValueError(
            "`n_classes` must be the number of object classes, a positive integer (the background "
            f"does not count); got {n_classes!r}."
        )
    class_names = check_class_names(class_names, n_classes)
    img_height, img_width, _ = image_size
    predictor_sizes = np.array([x.shape[1:3] for x in feature_maps.values()])
    _warn_of_anchors_outside(anchors, predictor_sizes, (img_height, img_width))
    n_scores = n_classes + 1  # the background is a class of its own
    scores, offsets, priors = [], [], []
    for layer, (source, x) in enumerate(feature_maps.items()):
        n_boxes = anchors.n_boxes[layer]
        # One 3x3 convolution predicts all class scores of all boxes of a cell ...
        classes = convolution(n_boxes * n_scores, (3, 3), name=names.classes.format(source))(x)
        # ... and another one the four offsets of each box.
        boxes = convolution(n_boxes * 4, (3, 3), name=names.boxes.format(source))(x)
        arguments = anchors.layer_arguments(layer)
        prior = AnchorBoxes(
            img_height,
            img_width,
            variances=anchors.variances,
            name=names.anchors.format(source),
            **arguments,
        )(boxes)
        # (batch, height, width, n_boxes * n) -> (batch, height * width * n_boxes, n)
        scores.append(_rows(classes, n_scores, names.classes.format(source)))
        offsets.append(_rows(boxes, 4, names.boxes.format(source)))
        priors.append(_rows(prior, 8, names.anchors.format(source)))

    # (batch, n_boxes_total, n). Scores, boxes and anchors are float32 under any dtype policy.
    scores = _joined(scores, names.classes_concat)
    offsets = _joined(offsets, names.boxes_concat)
    priors = _joined(priors, names.anchors_concat)
    # The loss is a cross-entropy: it wants probabilities.
    scores = _activation(class_activation, names.classes_softmax)(scores)
    # (batch, n_boxes_total, n_classes + 1 + 4 + 8)
    predictions = Predictions(axis=2, class_names=class_names, name="predictions", dtype="float32")(
        [scores, offsets, priors]
    )

    outputs = predictions
    if mode != "training":
        decoder = DecodeDetections if mode == "inference" else DecodeDetectionsFast
        outputs = decoder(
            confidence_thresh=confidence_thresh,
            iou_threshold=iou_threshold,
            top_k=top_k,
            nms_max_output_size=nms_max_output_size,
            max_candidates_per_class=max_candidates_per_class,
            coords=anchors.coords,
            normalize_coords=anchors.normalize_coords,
            img_height=img_height,
            img_width=img_width,
            name="decoded_predictions",
        )(predictions)
    return keras.Model(inputs, outputs), predictor_sizes


def _check_channel_values(name: str, values: Any, image_size: tuple[int, int, int]) -> None:
    """Refuse values that are neither one number nor one a channel (nor one a pixel)."""
    if values is None:
        return
    try:
        fits = np.broadcast_shapes(np.shape(values), tuple(image_size)) == tuple(image_size)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"`{name}` must be a number or one a channel; the image has {image_size[2]} channels "
            f"(`image_size` {tuple(image_size)}), got {values}. The defaults of most builders "
            f"are for RGB images: pass your own `{name}`, or None, and a `swap_channels` that fits."
        )


def _warn_of_anchors_outside(
    anchors: AnchorSettings, predictor_sizes: np.ndarray, image_size: tuple[int, int]
) -> None:
    """Warn where steps of another image size put whole rows of anchors outside of the image."""
    for layer, map_size in enumerate(predictor_sizes):
        grid = anchor_boxes(tuple(map_size), image_size, **anchors.layer_arguments(layer))
        for centers, step, length in zip(grid.centers, grid.steps, image_size, strict=True):
            # Half a step beyond the edge is common: ten cells of 32 pixels on 300 pixels.
            if centers[-1] - step / 2 >= length:
                warnings.warn(
                    f"Anchors of predictor layer {layer} lie outside of the {image_size[0]} x "
                    f"{image_size[1]} image: {len(centers)} cells, {step:g} pixels apart. `steps` "
                    "belongs to another image size; `steps=None` spreads the anchors evenly.",
                    stacklevel=2,
                )
                return


def _activation(class_activation: str, softmax_name: str) -> keras.layers.Layer:
    if class_activation not in CLASS_ACTIVATIONS:
        raise ValueError(
            f"`class_activation` must be one of {', '.join(CLASS_ACTIVATIONS)}; got "
            f"{class_activation!r}."
        )
    if class_activation == "sigmoid":
        return SigmoidScores(name=softmax_name.replace("softmax", "sigmoid"), dtype="float32")
    return layers.Activation("softmax", name=softmax_name, dtype="float32")


def _rows(x: Any, n: int, name: str) -> Any:
    # In float32 whatever the policy: a half precision layer would round the anchors it is given.
    return layers.Reshape((-1, n), name=f"{name}_reshape", dtype="float32")(x)


def _joined(tensors: list, name: str) -> Any:
    if len(tensors) == 1:  # a model with a single predictor layer has nothing to concatenate
        return layers.Identity(name=name, dtype="float32")(tensors[0])
    return layers.Concatenate(axis=1, name=name, dtype="float32")(tensors)
