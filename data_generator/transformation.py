"""What all transformations share: how they are called, and how random ones find their arguments.

A transformation is called in one of four ways, and whatever goes in comes out in the same order:

    image = t(image)
    image, labels = t(image, labels)
    image, inverter = t(image, return_inverter=True)
    image, labels, inverter = t(image, labels, return_inverter=True)

There are three kinds. A transformation with fixed arguments says what happens to the pixels and,
if it is a `GeometricTransformation`, where the boxes go. A `RandomTransformation` draws one with
fixed arguments for each image, and leaves the rest to it. A `TransformationChain` applies several
in a row. Neither images nor labels that are handed in are ever modified.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoxFilter,
    ImageValidator,
)


class Transformed(NamedTuple):
    """What a transformation made of an image and its labels; all None if it drops the image."""

    image: np.ndarray | None
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
        result = self.transform(image, given, None if rng is None else np.random.default_rng(rng))

        outputs = [result.image]
        if labels is not None:
            outputs.append(result.labels)
        if return_inverter:
            outputs.append(result.inverter)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    @abstractmethod
    def transform(
        self, image: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator | None
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
        _check_type("box_filter", box_filter, BoxFilter)
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
        self, image: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Transform the pixels, the boxes and the way back."""
        height, width = image.shape[:2]
        if labels is not None:
            labels = self.apply_labels(labels, height, width, rng)
        return Transformed(self.apply_image(image), labels, self.inverter(height, width))


class RandomTransformation(Transformation):
    """Apply, with a probability, a transformation that is drawn for each image."""

    def __init__(
        self,
        prob: float = 1.0,
        labels_format: Mapping[str, int] | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        """Set up the random part.

        Arguments:
            prob: The probability to act; otherwise image and labels stay as they are.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `prob` is no probability.
        """
        super().__init__(labels_format)
        if not 0 <= prob <= 1:
            raise ValueError(f"`prob` must be a probability between 0 and 1; got {prob}.")
        self.prob = prob
        self.rng = np.random.default_rng(rng)

    @abstractmethod
    def draw(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Transformation | None:
        """Draw the transformation to apply to an image of the given size.

        Arguments:
            height: Of the image, in pixels.
            width: Of the image, in pixels.
            labels: The labels of the image, or None.
            rng: The generator to draw from.

        Returns:
            A transformation with fixed arguments, or None to leave the image alone.
        """

    def sample(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Transformation | None:
        """Decide whether to act, then `draw`; arguments and result as there."""
        if rng.random() < 1 - self.prob:
            return None
        transformation = self.draw(height, width, labels, rng)
        if transformation is not None:
            transformation.labels_format = self.labels_format
        return transformation

    def transform(
        self, image: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Apply the transformation that the draw gives, if it gives one."""
        rng = self.rng if rng is None else rng
        transformation = self.sample(*image.shape[:2], labels, rng)
        if transformation is None:
            return Transformed(image, labels, leave_unchanged)
        return transformation.transform(image, labels, rng)


class RandomArgument(RandomTransformation):
    """A transformation whose only argument is drawn uniformly from a range."""

    def __init__(
        self,
        transformation: Callable[[float], Transformation],
        lower: float,
        upper: float,
        prob: float = 0.5,
        rng: np.random.Generator | int | None = None,
    ):
        """Set up the range.

        Arguments:
            transformation: Builds the transformation from the argument.
            lower: The lowest argument.
            upper: The highest argument.
            prob: The probability to act.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if the range is empty or `prob` is no probability.
        """
        super().__init__(prob, rng=rng)
        if lower >= upper:
            raise ValueError(f"`lower` must be below `upper`; got {lower} and {upper}.")
        self.lower = lower
        self.upper = upper
        self._transformation = transformation

    def draw(self, height, width, labels, rng):
        """Draw the argument."""
        return self._transformation(rng.uniform(self.lower, self.upper))


class RandomChoice(RandomTransformation):
    """One of several transformations, all equally probable."""

    def __init__(
        self,
        transformations: Sequence[Transformation],
        prob: float = 0.5,
        labels_format: Mapping[str, int] | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        """Set up the choice.

        Arguments:
            transformations: What to choose from.
            prob: The probability to act at all.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `prob` is no probability.
        """
        super().__init__(prob, labels_format, rng)
        self._transformations = list(transformations)

    def draw(self, height, width, labels, rng):
        """Choose."""
        return self._transformations[rng.integers(len(self._transformations))]


class RandomTrials(RandomTransformation):
    """A geometric transformation that is drawn again until enough objects remain in the image."""

    def __init__(
        self,
        image_validator: ImageValidator | None = None,
        n_trials_max: int = 3,
        prob: float = 0.5,
        labels_format: Mapping[str, int] | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        """Set up the trials.

        Arguments:
            image_validator: Judges the boxes after the transformation, before they are filtered
                and clipped. Without one, or without labels, the first draw counts.
            n_trials_max: How many draws there are before giving up; at least one.
            prob: The probability to act.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if `image_validator` is neither None nor an `ImageValidator`, or `prob`
                is no probability.
        """
        super().__init__(prob, labels_format, rng)
        _check_type("image_validator", image_validator, ImageValidator)
        self.image_validator = image_validator
        self.n_trials_max = n_trials_max

    @abstractmethod
    def candidate(
        self, height: int, width: int, rng: np.random.Generator
    ) -> GeometricTransformation | None:
        """Draw one candidate for an image of the given size; None counts as a failed trial."""

    def draw(self, height, width, labels, rng, bounds=None):
        """Return the first candidate that is good enough, None if none is."""
        for _ in range(max(1, self.n_trials_max)):
            candidate = self.candidate(height, width, rng)
            if candidate is None:
                continue
            if labels is None or self.image_validator is None:
                return candidate
            candidate.labels_format = self.labels_format
            moved = candidate.move_labels(labels, height, width)
            boxes = moved[:, box_columns(self.labels_format)]
            size = candidate.output_size(height, width)
            if self.image_validator.accepts(boxes, *size, rng, bounds):
                return candidate
        return None


class TransformationChain(Transformation):
    """Several transformations, one after another."""

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
        self, image: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator | None
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


def _check_type(name: str, value: object, expected: type) -> None:
    if value is not None and not isinstance(value, expected):
        raise ValueError(
            f"`{name}` must be None or a {expected.__name__}; got {type(value).__name__}."
        )
