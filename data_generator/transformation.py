"""What all transformations share: how they are called, and what comes out.

A transformation is called in one of four ways, and whatever goes in comes out in the same order:

    image = t(image)
    image, labels = t(image, labels)
    image, inverter = t(image, return_inverter=True)
    image, labels, inverter = t(image, labels, return_inverter=True)

There are three kinds. A transformation with fixed arguments says what happens to the pixels and,
if it is a `GeometricTransformation`, where the boxes go. A `RandomTransformation` (see its module)
draws one with fixed arguments for each image, and leaves the rest to it. A `TransformationChain`
applies several in a row. Neither images nor labels that are handed in are ever modified.

Between the parts of a chain an image is a `PendingImage`, which puts off making pixels until they
are needed. Transformations with fixed arguments say how by `apply_image`, if they have to, and by
`defer` if they can do better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_generator.label_boxes import (
    LABELS_FORMAT,
    AnyInverter,
    BoxMap,
    Inverter,
    InverterChain,
    as_label_array,
    box_columns,
    leave_unchanged,
    move_labels,
)
from data_generator.object_detection_2d_image_boxes_validation_utils import BoxFilter
from data_generator.pending_image import PendingImage


class Transformed(NamedTuple):
    """What a transformation made of an image and its labels; all None if it drops the image."""

    image: PendingImage | None
    labels: np.ndarray | None
    inverter: AnyInverter | None


class Transformation(ABC):
    """A step from an image and its labels to another image and the labels that belong to it.

    Attributes:
        labels_format: Column positions of 'class_id', 'xmin', 'ymin', 'xmax', 'ymax' in the
            labels. Read at every call, so it may be assigned at any time.
    """

    def __init__(self, labels_format: Mapping[str, int] | None = None):
        self.labels_format = dict(LABELS_FORMAT if labels_format is None else labels_format)

    def __call__(
        self,
        image: np.ndarray,
        labels: np.ndarray | None = None,
        return_inverter: bool = False,
        rng: np.random.Generator | int | None = None,
    ):
        """Transform one image.

        Arguments:
            image: `(height, width, channels)` or `(height, width)`, uint8 unless said otherwise.
            labels: `(n, >= 5)` labels in pixels, columns as in `labels_format`; n may be 0. None
                if there are none to transform.
            return_inverter: Whether to return a function as well that maps `(k, 6)` predictions
                (class, confidence, box) for the new image back to the given one.
            rng: A generator or a seed for this call; by default the transformation's own.

        Returns:
            The image, followed by the labels if there were any and by the inverter if asked for.
            All of them are None if the transformation drops the image.

        Raises:
            ValueError: if the image or the labels do not have the shape described.
        """
        if getattr(image, "ndim", None) not in (2, 3):
            raise ValueError(
                f"{type(self).__name__} expects an image array of shape (height, width, channels) "
                f"or (height, width); got {getattr(image, 'shape', type(image).__name__)}."
            )
        given = None if labels is None else as_label_array(labels, self.labels_format)
        rng = None if rng is None else np.random.default_rng(rng)
        result = self.transform(PendingImage.of(image), given, rng)

        outputs = [None if result.image is None else result.image.pixels()]
        if labels is not None:
            outputs.append(result.labels)
        if return_inverter:
            outputs.append(result.inverter)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    @abstractmethod
    def transform(
        self, image: PendingImage, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Do what a call does, for labels that are a checked array or None."""


class GeometricTransformation(Transformation):
    """A transformation with fixed arguments that moves pixels and boxes alike."""

    def __init__(
        self,
        clip_boxes: bool = False,
        box_filter: BoxFilter | None = None,
        labels_format: Mapping[str, int] | None = None,
    ):
        """Say what happens to boxes that leave the image.

        Arguments:
            clip_boxes: Whether to clip boxes to [0, width - 1] x [0, height - 1] in the end.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            labels_format: Column positions by name.

        Raises:
            ValueError: if `box_filter` is neither None nor a `BoxFilter`.
        """
        super().__init__(labels_format)
        check_box_filter(box_filter)
        self.clip_boxes = clip_boxes
        self.box_filter = box_filter

    @abstractmethod
    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that an image of the given size gets."""

    @abstractmethod
    def box_map(self, height: int, width: int) -> BoxMap:
        """Return how points of an image of the given size move, in pixels."""

    @abstractmethod
    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Move the pixels; dtype and channels stay."""

    def defer(self, image: PendingImage) -> PendingImage:
        """Return the image with the pixels moved, or the note that they have to be."""
        return PendingImage.of(self.apply_image(image.pixels()))

    def move_labels(self, labels: np.ndarray, height: int, width: int) -> np.ndarray:
        """Move the boxes of an image of the given size, wherever that takes them."""
        columns = box_columns(self.labels_format)
        return move_labels(labels, self.box_map(height, width), columns)

    def apply_labels(
        self,
        labels: np.ndarray,
        height: int,
        width: int,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Move the boxes of an image of the given size, then filter and clip them.

        Arguments:
            labels: `(n, >= 5)` labels.
            height: Of the image before the transformation, in pixels.
            width: Of the image before the transformation, in pixels.
            rng: For box filters that draw their bounds.

        Returns:
            A new array of the same dtype with the rows that are left.
        """
        labels = self.move_labels(labels, height, width)
        new_height, new_width = self.output_size(height, width)
        columns = box_columns(self.labels_format)
        if self.box_filter is not None:
            labels = labels[self.box_filter.mask(labels[:, columns], new_height, new_width, rng)]
        if self.clip_boxes:
            edges = np.array([new_width, new_height, new_width, new_height], labels.dtype) - 1
            labels[:, columns] = np.clip(labels[:, columns], 0, edges)
        return labels

    def inverter(self, height: int, width: int) -> Inverter:
        """Return the function that maps predictions back to an image of the given size."""
        columns = box_columns(self.labels_format, shift=1)
        return Inverter(self.box_map(height, width).inverse(), tuple(columns))

    def transform(
        self, image: PendingImage, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Transform the pixels, the boxes and the way back."""
        height, width = image.size
        if labels is not None:
            labels = self.apply_labels(labels, height, width, rng)
        return Transformed(self.defer(image), labels, self.inverter(height, width))


class TransformationChain(Transformation):
    """Several transformations, one after another.

    Example:
        >>> import numpy as np
        >>> from data_generator.object_detection_2d_geometric_ops import RandomFlip, Resize
        >>> from data_generator.object_detection_2d_photometric_ops import RandomBrightness
        >>> from data_generator.transformation import TransformationChain
        >>> chain = TransformationChain([RandomBrightness(), RandomFlip(), Resize(300, 300)], rng=0)
        >>> image, labels = np.zeros((100, 200, 3), np.uint8), np.array([[1, 20, 30, 60, 80]])
        >>> new_image, new_labels = chain(image, labels)
        >>> new_image.shape, new_labels
        ((300, 300, 3), array([[  1,  30,  90,  90, 240]]))
    """

    def __init__(
        self,
        transformations: Sequence[Transformation],
        labels_format: Mapping[str, int] | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        """Set up the chain.

        Arguments:
            transformations: In the order in which they are applied.
            labels_format: Column positions by name; every part follows the chain's.
            rng: A generator or a seed for all parts, used where a call does not bring its own.
        """
        super().__init__(labels_format)
        self.transformations = list(transformations)
        self.rng = np.random.default_rng(rng)

    def transform(
        self, image: PendingImage, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Apply all parts, stopping if one of them drops the image."""
        rng = self.rng if rng is None else rng
        inverters = InverterChain()
        for part in self.transformations:
            part.labels_format = self.labels_format
            image, labels, inverter = part.transform(image, labels, rng)
            if image is None:
                return Transformed(None, None, None)
            if isinstance(inverter, InverterChain):
                inverters[:0] = inverter  # flat: a chain in a chain adds its parts
            elif inverter not in (None, leave_unchanged):
                inverters.insert(0, inverter)
        return Transformed(image, labels, inverters)


def check_box_filter(box_filter: BoxFilter | None) -> None:
    """Raise a ValueError unless `box_filter` is None or a `BoxFilter`."""
    if not (box_filter is None or isinstance(box_filter, BoxFilter)):
        raise ValueError(
            f"`box_filter` must be None or a BoxFilter; got {type(box_filter).__name__}."
        )
