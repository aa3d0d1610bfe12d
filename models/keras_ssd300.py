"""SSD300: the detector of the paper for images of 300 x 300 pixels (arXiv:1512.02325)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from models.vgg16_ssd import ExtraStage, VggSsd, build_vgg_ssd

# The scales that the published weights were trained with. For a data set of your own start from
# the first, or from the second if most objects are small.
SCALES_VOC = (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)
SCALES_COCO = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)

# In the comments: the size of the feature maps that predict, for a 300 x 300 image. Before these
# come conv4_3 (38 x 38) and fc7 (19 x 19) of the base network.
SSD300 = VggSsd(
    name="SSD300",
    extra_stages=(
        ExtraStage(squeeze=256, filters=512, kernel_size=3, stride=2, padding=1),  # conv6: 10 x 10
        ExtraStage(squeeze=128, filters=256, kernel_size=3, stride=2, padding=1),  # conv7: 5 x 5
        ExtraStage(squeeze=128, filters=256, kernel_size=3, stride=1, padding=0),  # conv8: 3 x 3
        ExtraStage(squeeze=128, filters=256, kernel_size=3, stride=1, padding=0),  # conv9: 1 x 1
    ),
)


def ssd_300(
    image_size: tuple[int, int, int],
    n_classes: int,
    mode: str = "training",
    l2_regularization: float = 0.0005,
    min_scale: float | None = None,
    max_scale: float | None = None,
    scales: Sequence[float] | None = None,
    aspect_ratios_global: Sequence[float] | None = None,
    aspect_ratios_per_layer: Sequence[Sequence[float]] | None = (
        (1.0, 2.0, 0.5),
        (1.0, 2.0, 0.5, 3.0, 1.0 / 3.0),
        (1.0, 2.0, 0.5, 3.0, 1.0 / 3.0),
        (1.0, 2.0, 0.5, 3.0, 1.0 / 3.0),
        (1.0, 2.0, 0.5),
        (1.0, 2.0, 0.5),
    ),
    two_boxes_for_ar1: bool = True,
    steps: Sequence | None = (8, 16, 32, 64, 100, 300),
    offsets: Sequence | None = None,
    clip_boxes: bool = False,
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    coords: str = "centroids",
    normalize_coords: bool = True,
    subtract_mean: float | Sequence[float] | None = (123, 117, 104),
    divide_by_stddev: float | Sequence[float] | None = None,
    swap_channels: Sequence[int] | bool | None = (2, 1, 0),
    confidence_thresh: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 200,
    nms_max_output_size: int = 400,
    return_predictor_sizes: bool = False,
    max_candidates_per_class: int | None = None,
    *,
    class_activation: str = "softmax",
    class_names: Sequence[str] | None = None,
    caffe_faithful: bool = False,
) -> keras.Model | tuple[keras.Model, np.ndarray]:
    """Build the SSD300 model.

    Make the target encoder from the model, and both agree whatever you choose here:

        model = ssd_300((300, 300, 3), n_classes=20, scales=SCALES_VOC)
        encoder = SSDInputEncoder.from_model(model)

    The defaults are those of the original, for RGB images of 300 x 300 pixels and its VGG-16
    weights. For other images:

    - Other sizes, also rectangular ones: pass `steps=None`, which spreads the anchors evenly over
      the image. The default steps are pixels of a 300 x 300 image.
    - Other numbers of channels: pass your own `subtract_mean`, and `swap_channels=None`.

    Arguments:
        image_size: (height, width, channels) of the input images; at least 257 x 257 pixels.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'`` for the raw prediction tensor, ``'inference'`` and
            ``'inference_fast'`` for decoded detections.
        l2_regularization: L2 penalty on all convolution kernels. Caffe's weight decay d is a
            penalty of d / 2, so its 0.0005 is 0.00025 here.
        min_scale: Smallest anchor scale, a fraction of the shorter image side.
        max_scale: Largest anchor scale; those between are evenly spaced.
        scales: Seven scales (six layers and a last one); wins over min_scale and max_scale. There
            is no default: `SCALES_VOC` and `SCALES_COCO` are those of the original's two families
            of weights, and weights only work with the scales that they were trained with.
        aspect_ratios_global: Ratios width / height of the anchors of all layers; used only with
            `aspect_ratios_per_layer=None`.
        aspect_ratios_per_layer: Six lists of ratios; wins over the global list.
        two_boxes_for_ar1: Whether ratio 1 gets a second, larger box.
        steps: Six entries: pixels between anchor centres, a number, a pair or None; None for all.
        offsets: Six entries: position of the first centre in steps, likewise; None is 0.5.
        clip_boxes: Whether anchors are clipped to the image.
        variances: Four constants that divide the offsets.
        coords: ``'centroids'``, ``'corners'`` or ``'minmax'``. Decoding needs centroids.
        normalize_coords: Whether boxes are in fractions of the image instead of pixels.
        subtract_mean: Subtracted from the image: a number or one a channel of the input (RGB).
        divide_by_stddev: The image is divided by it, after that: a number or one a channel.
        swap_channels: New order of the input's channels, or something false. The default makes BGR
            of RGB, as the original VGG-16 weights expect.
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
        caffe_faithful: Whether the network follows the original where it differs from its port:
            kernels start uniform with variance 1 / fan-in instead of normal with 2 / fan-in;
            `l2_regularization` is Caffe's weight decay, so that the penalty is half of it, and is
            on the scale of conv4_3's normalisation, too; decoding lets 400 boxes of each class
            compete unless told otherwise. `misc_utils.caffe_rules` has what concerns training.

    Returns:
        The model; with `return_predictor_sizes` the tuple (model, int array `(6, 2)` of heights and
        widths). Its output is float32 `(batch, n_boxes, n_classes + 1 + 12)` = classes | offsets |
        anchors | variances in mode ``'training'``, else `(batch, top_k, 6)` rows (class_id,
        confidence, xmin, ymin, xmax, ymax) in pixels of the input, zero rows at the end. A 300 x
        300 image has 8,732 boxes.

    Raises:
        ValueError: naming the argument that is not as described.

    Example:
        >>> from models.keras_ssd300 import SCALES_VOC, ssd_300
        >>> model = ssd_300((300, 300, 3), n_classes=20, scales=SCALES_VOC)
        >>> model.output_shape  # images, anchors, (background, 20 classes) + 12
        (None, 8732, 33)
    """
    return build_vgg_ssd(SSD300, **locals())
