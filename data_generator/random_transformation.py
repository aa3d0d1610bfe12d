"""How random transformations find their arguments.

A random transformation draws, for each image, a transformation with fixed arguments. Nearly all of
them are one of three combinators: one argument from a range (`RandomArgument`), one transformation
of several (`RandomChoice`), or draws until one is good (`RandomTrials`). Draws come from a
`numpy.random.Generator`: that of the call, or else the one made from the seed given to the
constructor. The global random state of NumPy is never touched.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data_generator.label_boxes import box_columns, leave_unchanged
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoxFilter,
    ImageValidator,
)
from data_generator.pending_image import PendingImage
from data_generator.transformation import (
    GeometricTransformation,
    Transformation,
    Transformed,
    check_box_filter,
)


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

    def acts(self, rng: np.random.Generator) -> bool:
        """Decide whether to act on an image."""
        return rng.random() >= 1 - self.prob

    def sample(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Transformation | None:
        """Decide whether to act, then `draw`; arguments and result as there."""
        if not self.acts(rng):
            return None
        transformation = self.draw(height, width, labels, rng)
        if transformation is not None:
            transformation.labels_format = self.labels_format
        return transformation

    def transform(
        self, image: PendingImage, labels: np.ndarray | None, rng: np.random.Generator | None
    ) -> Transformed:
        """Apply the transformation that the draw gives, if it gives one."""
        rng = self.rng if rng is None else rng
        transformation = self.sample(*image.size, labels, rng)
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

    def draw(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Transformation:
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
        self.alternatives = list(transformations)

    def draw(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> Transformation:
        """Choose."""
        return self.alternatives[rng.integers(len(self.alternatives))]


class RandomTrials(RandomTransformation):
    """What is drawn again and again until enough objects remain in the image."""

    def __init__(
        self,
        image_validator: ImageValidator | None,
        n_trials_max: int,
        prob: float,
        clip_boxes: bool,
        box_filter: BoxFilter | None,
        background: Sequence[float] | float,
        labels_format: Mapping[str, int] | None,
        rng: np.random.Generator | int | None,
    ):
        """Set up the trials, and what the drawn transformations have in common.

        Arguments:
            image_validator: Judges the boxes after the transformation, before they are filtered
                and clipped. Without one, or without labels, the first draw counts.
            n_trials_max: How many draws there are before giving up; at least one.
            prob: The probability to act.
            clip_boxes: Whether to clip boxes to the image.
            box_filter: Decides before the clipping which boxes are kept; None keeps all.
            background: The colour of what lies outside the image.
            labels_format: Column positions by name.
            rng: A generator or a seed, used where a call does not bring its own.

        Raises:
            ValueError: if the validator or the filter has another type, or `prob` is no
                probability.
        """
        super().__init__(prob, labels_format, rng)
        check_box_filter(box_filter)
        if not (image_validator is None or isinstance(image_validator, ImageValidator)):
            raise ValueError(
                "`image_validator` must be None or an ImageValidator; "
                f"got {type(image_validator).__name__}."
            )
        self.image_validator = image_validator
        self.n_trials_max = n_trials_max
        self.clip_boxes = clip_boxes
        self.box_filter = box_filter
        self.background = background

    @property
    def edges(self) -> dict:
        """The arguments with which candidates say what happens at the edges of the image."""
        return {
            "clip_boxes": self.clip_boxes,
            "box_filter": self.box_filter,
            "background": self.background,
            "labels_format": self.labels_format,
        }


class TrialsInTurn(RandomTrials):
    """Trials of which each one is drawn and judged after the other."""

    @abstractmethod
    def candidate(
        self, height: int, width: int, rng: np.random.Generator
    ) -> GeometricTransformation:
        """Draw a candidate, built with `edges`, for an image of the given size."""

    def draw(
        self, height: int, width: int, labels: np.ndarray | None, rng: np.random.Generator
    ) -> GeometricTransformation | None:
        """Return the first candidate that is good enough, None if none is."""
        for _ in range(max(1, self.n_trials_max)):
            candidate = self.candidate(height, width, rng)
            if labels is None or self.image_validator is None:
                return candidate
            moved = candidate.move_labels(labels, height, width)
            boxes = moved[:, box_columns(self.labels_format)]
            if self.image_validator.accepts(boxes, *candidate.output_size(height, width), rng):
                return candidate
        return None
