"""SSD512: the detector of the paper for images of 512 x 512 pixels (arXiv:1512.02325)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from models.vgg16_ssd import ExtraStage, VggSsd, build_vgg_ssd

# The scales that the published weights were trained with (see keras_ssd300).
SCALES_VOC = (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05)
SCALES_COCO = (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06)

# In the comments: the size of the feature maps that predict, for a 512 x 512 image. Before these
# come conv4_3 (64 x 64) and fc7 (32 x 32) of the base network.
SSD512 = VggSsd(
    name="SSD512",
    extra_stages=(
        ExtraStage(squeeze=256, filters=512, kernel_size=3, stride=2, padding=1),  # conv6: 16 x 16
        ExtraStage(squeeze=128, filters=256, kernel_size=3, stride=2, padding=1),  # conv7: 8 x 8
        ExtraStage(squeeze=128, filters=256, kernel_size=3, stride=2, padding=1),  # conv8: 4 x 4
        ExtraStage(squeeze=128, filters=256, kernel_size=3, stride=2, padding=1),  # conv9: 2 x 2
        ExtraStage(squeeze=128, filters=256, kernel_size=4, stride=1, padding=1),  # conv10: 1 x 1
    ),
)


def ssd_512(
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
        (1.0, 2.0, 0.5, 3.0, 1.0 / 3.0),
        (1.0, 2.0, 0.5),
        (1.0, 2.0, 0.5),
    ),
    two_boxes_for_ar1: bool = True,
    steps: Sequence | None = (8, 16, 32, 64, 128, 256, 512),
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
    """Build the SSD512 model.

    It is SSD300 with one more feature map, for larger images: slower and more accurate, above all
    for small objects.

        model = ssd_512((512, 512, 3), n_classes=20, scales=SCALES_VOC)
        encoder = SSDInputEncoder.from_model(model)

    Arguments:
        image_size: (height, width, channels) of the input images; at least 257 x 257 pixels. For
            other sizes than 512 x 512 pass `steps=None`.
        n_classes: Number of object classes, without the background class.
        mode: This and all that follow as in `ssd_300`, with an entry more where that has one a
            layer: eight `scales`, seven `aspect_ratios_per_layer`, `steps` and `offsets`.

    Returns:
        The model; with `return_predictor_sizes` the tuple (model, int array `(7, 2)` of heights and
        widths). The outputs are those of `ssd_300`. A 512 x 512 image has 24,564 boxes.

    Raises:
        ValueError: naming the argument that is not as described.
    """
    return build_vgg_ssd(SSD512, **locals())
