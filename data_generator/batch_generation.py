"""From the entries of a data set to training batches: read, transform, clean up, encode, stack.

`DataGenerator.generate` is the door. What is here knows nothing about passes over a data set: a
`BatchMaker` turns a list of entries into a batch, and needs nothing but its arguments to do so.
Random numbers come from the seed, the epoch and the position in the epoch alone, so it does not
matter which process makes a batch, or whether the batches before it were made.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_generator.annotations import LABEL_COLUMNS, label_array
from data_generator.errors import DatasetError, DegenerateBatchError
from data_generator.image_reading import ImageReadError
from data_generator.sample import Sample, check_image_size, stack_images

# Everything a batch can consist of, in the order in which it stands there.
RETURNS = (
    "processed_images",
    "encoded_labels",
    "matched_anchors",
    "processed_labels",
    "filenames",
    "image_ids",
    "evaluation-neutral",
    "inverse_transform",
    "original_images",
    "original_labels",
)
DEGENERATE_BOX_HANDLING = ("remove", "warn", "raise", "keep")
ON_IMAGE_ERROR = ("raise", "skip")

_NEED_LABELS = {
    "original_labels",
    "processed_labels",
    "encoded_labels",
    "matched_anchors",
    "evaluation-neutral",
}
_NEED_ENCODER = {"encoded_labels", "matched_anchors"}
# Tags of boxes: multiples of a number so large that a transformation that takes the tag for a
# coordinate, and moves, scales or clips it, does not turn it into another tag. Exact in float32.
_TAG_STEP, _FIRST_TAG = 4096, 256
# First element of a spawn key: what the random numbers are for.
_ORDER, _IMAGE, _REPLACEMENT = 0, 1, 2
_ATTEMPTS = 20  # images tried for each place of a batch that is to be filled up
_MORE_IMAGES = (
    "Use a larger batch_size, keep_images_without_gt=True, or transformations that keep more boxes"
)


class ImageDataset(Protocol):
    """What a `BatchMaker` needs of a data set: parallel lists, and the image of an entry."""

    filenames: Sequence[str] | None
    labels: Sequence | None
    image_ids: Sequence | None
    eval_neutral: Sequence | None
    labels_format: dict[str, int]
    dataset_size: int
    skipped_images: dict[str, str]

    def get_image(self, index: int) -> np.ndarray:
        """Return the image of an entry as a new array."""

    def entry_name(self, index: int) -> str:
        """Name an entry, for messages."""

    def check(self) -> None:
        """Raise a `DatasetError` if there are no images, or lists of another length."""


class _Dropped(Exception):
    """An image does not enter the batch; the message says why."""


class _Step(NamedTuple):
    transformation: Callable
    takes_inverter: bool
    takes_rng: bool


class BatchMaker:
    """Make batches from entries of a data set.

    Arguments: see `DataGenerator.generate`; `dataset` is the data set.

    Raises:
        DatasetError: The data set is empty, or its lists differ in length.
        ValueError: An argument is wrong.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transformations: Sequence[Callable] = (),
        label_encoder: Callable | None = None,
        returns: Collection[str] = ("processed_images", "encoded_labels"),
        keep_images_without_gt: bool = False,
        degenerate_box_handling: str = "remove",
        seed: int | None = None,
        on_image_error: str = "raise",
    ):
        dataset.check()
        _check_choice("degenerate_box_handling", degenerate_box_handling, DEGENERATE_BOX_HANDLING)
        _check_choice("on_image_error", on_image_error, ON_IMAGE_ERROR)
        self.dataset = dataset
        self.label_encoder = label_encoder
        self._encoder_takes_empty = label_encoder is not None and "empty" in _parameter_names(
            label_encoder
        )
        self.returns = _check_returns(returns)
        self.keep_images_without_gt = keep_images_without_gt
        self.degenerate_box_handling = degenerate_box_handling
        self.on_image_error = on_image_error
        # Without a seed, transformations draw from generators of their own, which may be seeded.
        self.gives_rng = seed is not None
        self.entropy = np.random.SeedSequence(seed).entropy
        self.steps = self._plan(transformations)
        self._warn_of_impossible_returns()

    def _plan(self, transformations: Sequence[Callable]) -> list[_Step]:
        """Look up once which of the optional arguments each transformation takes."""
        if callable(transformations):
            raise ValueError(
                f"transformations must be a list, got one {type(transformations).__name__}: "
                "put it in a list"
            )
        steps = []
        for transformation in transformations:
            if self.dataset.labels is not None:
                with contextlib.suppress(AttributeError):  # a bound method takes no attributes
                    transformation.labels_format = self.dataset.labels_format
            names = _parameter_names(transformation)
            wants_inverter = "inverse_transform" in self.returns
            steps.append(
                _Step(
                    transformation,
                    takes_inverter=wants_inverter and "return_inverter" in names,
                    takes_rng=self.gives_rng and "rng" in names,
                )
            )
        return steps

    def _warn_of_impossible_returns(self) -> None:
        if self.dataset.labels is None:
            impossible, why = self.returns & _NEED_LABELS, "the data set has no labels"
        elif self.label_encoder is None:
            impossible, why = self.returns & _NEED_ENCODER, "there is no label_encoder"
        elif not _finds_anchors(self.label_encoder):
            impossible = self.returns & {"matched_anchors"}
            why = "label_encoder is not an SSDInputEncoder"
        else:
            return
        if impossible:
            warnings.warn(
                f"generate() gives None for {sorted(impossible)}, because {why}",
                UserWarning,
                stacklevel=4,  # the line that asks the generator for its first batch
            )

    def order(self, epoch: int, shuffle: bool = True) -> np.ndarray:
        """Return the order of all entries in an epoch, which depends on seed and epoch only."""
        if not shuffle:
            return np.arange(self.dataset.dataset_size)
        return self._rng(_ORDER, epoch).permutation(self.dataset.dataset_size)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.entropy, spawn_key=key))

    def batch(
        self,
        indices: Sequence[int],
        epoch: int = 0,
        position: int = 0,
        fill_up_to: int = 0,
        empty: Callable[..., np.ndarray] = np.empty,
    ) -> tuple:
        """Make one batch.

        Arguments:
            indices: The entries of the data set, in order.
            epoch: The number of the epoch, from 0.
            position: Where in the epoch's order the first of the entries stands, from 0.
            fill_up_to: If images are missing to this number, others, drawn at random, follow.
            empty: `empty(shape, dtype)` makes the arrays of images and targets, which may so lie
                in memory that another process sees.

        Returns:
            What `returns` asks for, as a tuple in the order of `RETURNS`.

        Raises:
            DegenerateBatchError: Not one image is left, or no images to fill up with are found.
            ImageSizeError: The images differ in size or channels.
            ImageReadError: An image cannot be read, and they are not to be skipped.
        """
        samples, reasons = [], Counter()
        for offset, index in enumerate(indices):
            try:
                samples.append(self.sample(int(index), epoch, position + offset))
            except _Dropped as dropped:
                reasons[str(dropped)] += 1
        if len(samples) < fill_up_to:
            n_missing = fill_up_to - len(samples)
            samples += self._replacements(n_missing, epoch, position, reasons)
        if not samples:
            raise DegenerateBatchError(_describe_empty_batch(sum(reasons.values()), reasons))
        return self._collect(samples, empty)

    def _replacements(
        self, n_missing: int, epoch: int, position: int, reasons: Counter
    ) -> list[Sample]:
        """Draw images to fill up a batch: the same ones wherever and whenever it is made."""
        rng, samples = self._rng(_REPLACEMENT, epoch, position), []
        candidates = self._candidates
        for attempt in range(1, n_missing * _ATTEMPTS + 1 if len(candidates) else 1):
            try:
                samples.append(self.sample(int(rng.choice(candidates)), epoch, position, attempt))
            except _Dropped as dropped:
                reasons[str(dropped)] += 1
            if len(samples) == n_missing:
                return samples
        raise DegenerateBatchError(
            f"A batch cannot be filled up: {n_missing} images are missing, and only "
            f"{len(samples)} were found among {len(candidates)} entries "
            f"({_describe_reasons(reasons)}). {_MORE_IMAGES}"
        )

    @cached_property
    def _candidates(self) -> np.ndarray:
        """The entries that a batch may be filled up with."""
        labels = self.dataset.labels
        if labels is None or self.keep_images_without_gt:
            return np.arange(self.dataset.dataset_size)
        return np.flatnonzero([len(boxes) > 0 for boxes in labels])

    def sample(self, index: int, epoch: int = 0, position: int = 0, attempt: int = 0) -> Sample:
        """Read one entry and take it through all transformations.

        Arguments:
            index: The entry.
            epoch: As for `batch`.
            position: Where in the epoch's order the image stands.
            attempt: 0, or a number from 1 for images that fill up the batch at that position.

        Returns:
            The image with all that belongs to it.
        """
        sample = Sample(index)
        tag_column = None
        if self.dataset.labels is not None:
            where, n_columns = self.dataset.entry_name(index), len(self.dataset.labels_format)
            sample.labels = label_array(self.dataset.labels[index], where, n_columns)
            if len(sample.labels) == 0 and not self.keep_images_without_gt:
                raise _Dropped("no ground truth, and keep_images_without_gt=False")
            if "original_labels" in self.returns:
                sample.original_labels = sample.labels.copy()
            tag_column = self._track_eval_neutral(sample)
        if self.steps or not self.returns.isdisjoint({"processed_images", "original_images"}):
            sample.image = self._read_image(index)
            if "original_images" in self.returns:
                # Copied, because transformations that a user wrote may work in place.
                sample.original_image = sample.image.copy() if self.steps else sample.image

        # Without an attempt, the numbers are those of an image that nothing had to replace.
        self._transform(sample, (epoch, position, attempt) if attempt else (epoch, position))

        if sample.labels is not None:
            sample.labels = self._check_transformed(sample.labels, index)
            if tag_column is not None:
                self._follow_boxes(sample, tag_column)
            self._handle_degenerate_boxes(sample)
            if self.steps and len(sample.labels) == 0 and not self.keep_images_without_gt:
                raise _Dropped("no box left after the transformations")
        return sample

    def _read_image(self, index: int) -> np.ndarray:
        try:
            return self.dataset.get_image(index)
        except ImageReadError as error:
            if self.on_image_error == "raise":
                raise
            self.dataset.skipped_images[self.dataset.entry_name(index)] = str(error)
            raise _Dropped("the image cannot be read (see skipped_images)") from error

    def _transform(self, sample: Sample, key: tuple[int, ...]) -> None:
        """Apply all transformations to image and labels; the key makes the random numbers."""
        rng = None
        if any(step.takes_rng for step in self.steps):
            rng = self._rng(_IMAGE, *key)
        for transformation, takes_inverter, takes_rng in self.steps:
            options: dict[str, Any] = {}
            if takes_inverter:
                options["return_inverter"] = True
            if takes_rng:
                options["rng"] = rng
            inputs = [sample.image] if sample.labels is None else [sample.image, sample.labels]
            expected = ["image", "labels"][: len(inputs)] + ["inverter"] * takes_inverter
            with _naming(f"While transforming {self.dataset.entry_name(sample.index)}"):
                outputs = _as_list(transformation(*inputs, **options), expected, transformation)
            sample.image = outputs.pop(0)
            if sample.labels is not None:
                sample.labels = outputs.pop(0)
            if takes_inverter:
                sample.inverters.insert(0, outputs.pop(0))  # the last transformation comes first

    def _check_transformed(self, labels: np.ndarray, index: int) -> np.ndarray:
        labels = np.asarray(labels)
        if labels.ndim == 2 and labels.shape[1] >= 5:
            return labels
        if labels.size == 0:
            return np.zeros((0, len(self.dataset.labels_format)), np.float32)
        raise ValueError(
            f"{self.dataset.entry_name(index)}: the transformations made labels of the shape "
            f"{labels.shape}; expected (k, 5)"
        )

    def _track_eval_neutral(self, sample: Sample) -> int | None:
        """Prepare the marks of boxes that an evaluation ignores, so that they can be followed.

        Transformations may remove boxes. To know afterwards which ones are left, each box carries
        a tag in a last column through the transformations. Returns that column, or None if there
        is nothing to follow.
        """
        if "evaluation-neutral" not in self.returns or self.dataset.eval_neutral is None:
            return None
        n_boxes = len(sample.labels)
        sample.eval_neutral = np.array(self.dataset.eval_neutral[sample.index], bool).reshape(-1)
        if len(sample.eval_neutral) != n_boxes:
            raise DatasetError(
                f"{self.dataset.entry_name(sample.index)}: labels has {n_boxes} boxes, but "
                f"eval_neutral has {len(sample.eval_neutral)} entries for this image"
            )
        if not self.steps:
            return None
        tags = _TAG_STEP * np.arange(_FIRST_TAG, _FIRST_TAG + n_boxes)
        tag_column = sample.labels.shape[1]
        sample.labels = np.column_stack([sample.labels, tags.astype(sample.labels.dtype)])
        return tag_column

    def _follow_boxes(self, sample: Sample, tag_column: int) -> None:
        """Keep the marks of the boxes that are left, and take their tags off again."""
        n_boxes = len(sample.eval_neutral)
        tags = sample.labels[:, tag_column : tag_column + 1].ravel()  # empty if they are gone
        sample.labels = sample.labels[:, :tag_column]
        with np.errstate(invalid="ignore"):  # tags that a transformation made infinite
            numbers = tags / _TAG_STEP - _FIRST_TAG
            is_tag = (tags % _TAG_STEP == 0) & (numbers >= 0) & (numbers < n_boxes)
        if len(tags) == len(sample.labels) and is_tag.all():
            sample.eval_neutral = sample.eval_neutral[numbers.astype(int)]
        elif len(sample.labels) != n_boxes:
            raise ValueError(
                f"{self.dataset.entry_name(sample.index)}: a transformation removed boxes and did "
                "not keep the last column of the labels as it was, so eval_neutral cannot follow "
                "its boxes. Transformations must select whole rows, and change no column but the "
                "four of the box"
            )

    def _handle_degenerate_boxes(self, sample: Sample) -> None:
        """Deal with boxes that have no size or are not finite, after the transformations."""
        fmt = self.dataset.labels_format
        xmin, ymin, xmax, ymax = (
            sample.labels[:, fmt[name]] for name in ("xmin", "ymin", "xmax", "ymax")
        )
        good = np.isfinite(sample.labels).all(axis=1) & (xmax > xmin) & (ymax > ymin)
        if good.all() or self.degenerate_box_handling == "keep":
            return
        if self.degenerate_box_handling == "remove":
            sample.labels = sample.labels[good]
            if sample.eval_neutral is not None:
                sample.eval_neutral = sample.eval_neutral[good]
            return
        bad = np.flatnonzero(~good)
        message = (
            f"{self.dataset.entry_name(sample.index)}: {len(bad)} of {len(good)} boxes have no "
            f"size or are not finite after the transformations; the first is box {bad[0]}, "
            f"{dict(zip(fmt, sample.labels[bad[0], list(fmt.values())].tolist(), strict=True))}. "
            "Correct the annotations, or pass degenerate_box_handling='remove'"
        )
        if self.degenerate_box_handling == "raise":
            raise ValueError(message)
        warnings.warn(message, UserWarning, stacklevel=2)

    def _collect(self, samples: list[Sample], empty: Callable[..., np.ndarray]) -> tuple:
        """Put the samples together: what is asked for, in the fixed order."""
        dataset, has_labels = self.dataset, self.dataset.labels is not None
        labels = [sample.labels for sample in samples] if has_labels else None
        parts: dict[str, Any] = {
            "processed_labels": labels,
            "inverse_transform": [s.inverters for s in samples] if self.steps else [],
            "original_images": [sample.original_image for sample in samples],
            "original_labels": [s.original_labels for s in samples] if has_labels else None,
            "evaluation-neutral": None,
        }
        if samples[0].eval_neutral is not None:
            parts["evaluation-neutral"] = [sample.eval_neutral.tolist() for sample in samples]
        for name in ("filenames", "image_ids"):
            entries = getattr(dataset, name)
            parts[name] = None if entries is None else [entries[s.index] for s in samples]
        if "processed_images" in self.returns:
            parts["processed_images"] = stack_images(samples, dataset.entry_name, empty)
            if "encoded_labels" in self.returns:
                check_image_size(parts["processed_images"], self.label_encoder)
        names = ", ".join(dataset.entry_name(sample.index) for sample in samples)
        with _naming(f"While encoding the labels of, in this order, {names}"):
            parts["encoded_labels"], parts["matched_anchors"] = self._encode(labels, empty)
        return tuple(parts[name] for name in RETURNS if name in self.returns)

    def _encode(self, labels: list[np.ndarray] | None, empty: Callable[..., np.ndarray]) -> tuple:
        """Return the encoded labels and the matched anchors, None where not available."""
        if labels is None or self.label_encoder is None or not self.returns & _NEED_ENCODER:
            return None, None
        options = {"empty": empty} if self._encoder_takes_empty else {}
        finds_anchors = _finds_anchors(self.label_encoder)
        if finds_anchors:  # it wants one order of columns, whatever that of the data set
            columns = [self.dataset.labels_format[name] for name in LABEL_COLUMNS]
            labels = [boxes[:, columns] for boxes in labels]
        if "matched_anchors" in self.returns and finds_anchors:
            return self.label_encoder(labels, diagnostics=True, **options)
        return self.label_encoder(labels, diagnostics=False, **options), None


def _as_list(outputs: Any, expected: Sequence[str], transformation: Callable) -> list:
    """Return what a transformation made as a list in which nothing is missing."""
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    if outputs and outputs[0] is None:
        raise _Dropped(f"{type(transformation).__name__} gave no image")
    if len(outputs) < len(expected):
        raise ValueError(
            f"The transformation {transformation!r:.100} must return ({', '.join(expected)}); "
            f"got {len(outputs)} of these {len(expected)}"
        )
    return outputs


def _check_returns(returns: Collection[str]) -> frozenset[str]:
    unknown = [returns] if isinstance(returns, str) else sorted(set(returns) - set(RETURNS))
    if unknown:
        raise ValueError(f"returns must be a set of names out of {RETURNS}; unknown: {unknown}")
    return frozenset(returns)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def _parameter_names(function: Callable) -> Mapping[str, Any]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # built-in functions may have no signature
        return {}


def _finds_anchors(label_encoder: Callable) -> bool:
    """Say whether an encoder can also return which anchors it matched, as SSDInputEncoder can."""
    return hasattr(label_encoder, "generate_encoding_template")


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Add what was being done to any exception, which may know nothing of files."""
    try:
        yield
    except Exception as error:
        error.add_note(what)
        raise


def _describe_reasons(reasons: Counter) -> str:
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())


def _describe_empty_batch(n_images: int, reasons: Counter) -> str:
    return (
        f"All {n_images} images of a batch were dropped from it ({_describe_reasons(reasons)}). "
        f"{_MORE_IMAGES}"
    )
