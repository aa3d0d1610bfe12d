"""The augmentation of the SSD paper (section 2.2, "Data augmentation", and section 3.6).

There are two variants of it. ``'port'`` is what the Keras port of SSD made of it, whose weights and
published results other scripts rely on; ``'caffe'`` is the original in Caffe. They differ in this:

| | ``'port'`` | ``'caffe'`` |
| --- | --- | --- |
| contrast | about the grey level 127.5 | about 0 |
| crop | see `SSDRandomCrop` | see `CaffeRandomCrop` |
| flip | before the resizing | after it |
| integer boxes | rounded to whole pixels | turned into floats |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_generator.caffe_random_crop import CaffeRandomCrop
from data_generator.object_detection_2d_geometric_ops import RandomFlip, ResizeRandomInterp
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoundGenerator,
    BoxFilter,
    ImageValidator,
)
from data_generator.object_detection_2d_patch_sampling_ops import (
    PatchCoordinateGenerator,
    RandomPatch,
    RandomPatchInf,
)
from data_generator.pending_image import PendingImage
from data_generator.photometric_distortion import PhotometricDistortion
from data_generator.random_transformation import RandomChoice
from data_generator.transformation import TransformationChain, Transformed

VARIANTS = ("port", "caffe")

Format = Mapping[str, int] | None
Rng = np.random.Generator | int | None


class SSDRandomCrop(RandomPatchInf):
    """Crop so that at least one object overlaps the patch by an IoU above a random bound.

    In each round the image stays whole with probability 1/7; otherwise a bound is drawn from 0, .1,
    .3, .5, .7 and .9, and up to 50 patches are tried, whose sides are 0.3 to 1 times those of the
    image and whose aspect ratio lies between 1/2 and 2. Of the boxes those stay whose centre lies
    in the patch, clipped to it. Images without objects stay whole: no patch shows any of theirs.
    """

    def __init__(self, labels_format: Format = None, rng: Rng = None):
        """Set up the crop.

        Arguments:
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.
        """
        bounds = [(lower, None) for lower in (None, 0.1, 0.3, 0.5, 0.7, 0.9)]
        super().__init__(
            PatchCoordinateGenerator(min_scale=0.3, max_scale=1.0),
            BoxFilter(check_min_area=False, check_degenerate=False),
            ImageValidator("iou"),
            BoundGenerator(bounds),
            prob=0.857,
            labels_format=labels_format,
            rng=rng,
        )


class SSDExpand(RandomPatch):
    """Put half of the images at a random place of a canvas with one to four times their sides."""

    def __init__(
        self,
        background: Sequence[float] | float = (123, 117, 104),
        labels_format: Format = None,
        rng: Rng = None,
    ):
        """Set up the expansion.

        Arguments:
            background: The colour of the canvas, by default the mean colour of ImageNet in RGB.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.
        """
        super().__init__(
            PatchCoordinateGenerator(min_scale=1.0, max_scale=4.0, scale_uniformly=True),
            clip_boxes=False,
            prob=0.5,
            background=background,
            labels_format=labels_format,
            rng=rng,
        )


class SSDPhotometricDistortions(RandomChoice):
    """Change brightness, contrast, saturation and hue at random, contrast second or last."""

    def __init__(self, variant: str = "port", keep_channels: bool = False, rng: Rng = None):
        """Set up the distortions.

        Arguments:
            variant: ``'port'`` or ``'caffe'``. The latter changes contrast about 0, so that it
                acts on the brightness too, and converts to HSV only if it has to.
            keep_channels: Whether grayscale images stay grayscale and RGBA images keep their
                fourth channel, instead of becoming RGB.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: for any other variant.
        """
        _check_variant(variant)
        distortions = [
            PhotometricDistortion(
                random_brightness=(-32, 32, 0.5),
                random_contrast=(0.5, 1.5, 0.5),
                random_saturation=(0.5, 1.5, 0.5),
                random_hue=(18, 0.5),
                contrast_last=contrast_last,
                keep_channels=keep_channels,
                contrast_pivot=0 if variant == "caffe" else 127.5,
                always_by_hsv=variant == "port",
            )
            for contrast_last in (False, True)
        ]
        super().__init__(distortions, prob=1.0, rng=rng)


class SSDDataAugmentation(TransformationChain):
    """Distort, expand, crop, flip and resize images as for the training of SSD.

    Example:
        >>> import numpy as np
        >>> from data_generator.data_augmentation_chain_original_ssd import SSDDataAugmentation
        >>> augment = SSDDataAugmentation(300, 300, rng=0)
        >>> image, labels = np.zeros((375, 500, 3), np.uint8), np.array([[1, 100, 80, 300, 280]])
        >>> for _ in range(3):
        ...     new_image, new_labels = augment(image, labels)
        ...     print(new_image.shape, new_labels.tolist())
        (300, 300, 3) [[1, 2, 0, 214, 200]]
        (300, 300, 3) [[1, 28, 29, 290, 299]]
        (300, 300, 3) [[1, 51, 90, 299, 223]]
    """

    def __init__(
        self,
        img_height: int = 300,
        img_width: int = 300,
        background: Sequence[float] | float = (123, 117, 104),
        labels_format: Format = None,
        variant: str = "port",
        keep_channels: bool = False,
        rng: Rng = None,
    ):
        """Set up the chain.

        Arguments:
            img_height: Of the images for the model, in pixels.
            img_width: Of the images for the model, in pixels.
            background: The colour of the canvas of the expansion, in RGB.
            labels_format: Column positions by name.
            variant: ``'port'`` or ``'caffe'``, see the module.
            keep_channels: Whether grayscale images stay grayscale and RGBA images keep their
                fourth channel, instead of becoming RGB.
            rng: A generator or a seed for all parts, used where a call does not bring its own.

        Raises:
            ValueError: for any other variant, or if the size is not positive.
        """
        self.photometric_distortions = SSDPhotometricDistortions(variant, keep_channels)
        self.expand = SSDExpand(background)
        self.random_crop = CaffeRandomCrop() if variant == "caffe" else SSDRandomCrop()
        self.random_flip = RandomFlip("horizontal", 0.5)
        self.box_filter = BoxFilter(check_overlap=False, check_min_area=False)
        self.resize = ResizeRandomInterp(img_height, img_width, box_filter=self.box_filter)
        last = [self.random_flip, self.resize]
        self.variant = variant
        super().__init__(
            [
                self.photometric_distortions,
                self.expand,
                self.random_crop,
                *(reversed(last) if variant == "caffe" else last),
            ],
            labels_format,
            rng,
        )

    def transform(
        self, image: PendingImage, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Apply all parts; Caffe's variant to boxes that are never rounded."""
        is_integer = labels is not None and np.issubdtype(labels.dtype, np.integer)
        if self.variant == "caffe" and is_integer:
            labels = labels.astype(np.float32)
        return super().transform(image, labels, rng)


def _check_variant(variant: str) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}; got {variant!r}.")
