"""The ground truth of a data set as flat arrays, whatever form its labels came in."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

BOX_KEYS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class GroundTruth:
    """All ground truth boxes of a data set, one array entry each.

    Attributes:
        images: `(n,)` integers: the image that holds the box (see `number_images`).
        rows: `(n,)` integers: the position of the box among the labels of its image.
        class_ids: `(n,)` integers from 1 on.
        boxes: `(n, 4)` float64 boxes (xmin, ymin, xmax, ymax) in pixels.
        neutral: `(n,)` booleans: True for boxes that count for nothing.
        image_numbers: The number of every image of the data set by its `image_key`.
    """

    images: np.ndarray
    rows: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray
    neutral: np.ndarray
    image_numbers: Mapping[str, int]

    def of_class(self, class_id: int) -> GroundTruth:
        """Pick the boxes of one class."""
        mine = self.class_ids == class_id
        return replace(
            self,
            images=self.images[mine],
            rows=self.rows[mine],
            class_ids=self.class_ids[mine],
            boxes=self.boxes[mine],
            neutral=self.neutral[mine],
        )


def image_key(image_id: Hashable) -> str:
    """Turn an image id into the text under which images are compared: 7, '7' and b'7' are one."""
    return image_id.decode("utf-8") if isinstance(image_id, bytes) else str(image_id)


def number_images(image_ids: Sequence[Hashable]) -> dict[str, int]:
    """Number the images of a data set.

    Arguments:
        image_ids: One id for each image: integers, strings of any length, or both.

    Returns:
        The position of each image in the data set by its `image_key`. Two images with the same id
        get one number, that of the first, because predictions, which name only the id, cannot tell
        them apart: their boxes are pooled and a UserWarning says so.
    """
    numbers: dict[str, int] = {}
    shared = []
    for position, image_id in enumerate(image_ids):
        key = image_key(image_id)
        if key in numbers:
            shared.append(key)
        numbers.setdefault(key, position)
    if shared:
        warnings.warn(
            f"{len(image_ids)} images have only {len(numbers)} different ids (for example "
            f"{shared[0]!r} more than once). The boxes of images with the same id are pooled, so a "
            "prediction for one may match a box of another: give every image an id of its own.",
            stacklevel=2,
        )
    return numbers


def read_ground_truth(
    labels: Sequence,
    image_ids: Sequence[Hashable],
    n_classes: int,
    gt_format: Mapping[str, int],
    eval_neutral: Sequence | None = None,
) -> GroundTruth:
    """Collect the labels of all images in flat arrays.

    Arguments:
        labels: For each image its boxes: anything that makes a `(k, 5)` array of numbers. An image
            without objects may also have an empty list.
        image_ids: The id of each image.
        n_classes: The number of positive classes; class ids run from 1 to `n_classes`.
        gt_format: The column of 'class_id', 'xmin', 'ymin', 'xmax' and 'ymax' in `labels`.
        eval_neutral: For each image one boolean per box, or None if no box is neutral.

    Returns:
        The boxes in the order of the data set.

    Raises:
        ValueError: if the lists do not belong together, or if labels do not have the described
            columns or class ids; the message names the image and the box.
    """
    neutral_flags = [None] * len(labels) if eval_neutral is None else eval_neutral
    for name, values in (("image_ids", image_ids), ("eval_neutral", neutral_flags)):
        if len(values) != len(labels):
            raise ValueError(
                f"The data set has labels for {len(labels)} images, but its `{name}` has "
                f"{len(values)} entries; there must be one for each image."
            )

    image_numbers = number_images(image_ids)
    images, rows, tables, neutral = [], [], [np.empty((0, 5))], []
    for image_id, image_labels, flags in zip(image_ids, labels, neutral_flags, strict=True):
        image_rows = _label_rows(image_labels, image_id, gt_format)
        flags = [False] * len(image_rows) if flags is None else flags
        if len(flags) != len(image_rows):
            raise ValueError(
                f"Image {image_id!r} has {len(image_rows)} boxes, but {len(flags)} entries in "
                "`eval_neutral`; there must be one for each box."
            )
        _check_class_ids(image_rows[:, 0], image_id, n_classes)
        images.extend([image_numbers[image_key(image_id)]] * len(image_rows))
        rows.extend(range(len(image_rows)))
        tables.append(image_rows)
        neutral.extend(flags)

    table = np.concatenate(tables)
    return GroundTruth(
        images=np.array(images, dtype=np.intp),
        rows=np.array(rows, dtype=np.intp),
        class_ids=table[:, 0].astype(np.intp),
        boxes=table[:, 1:],
        neutral=np.array(neutral, dtype=bool),
        image_numbers=image_numbers,
    )


def _label_rows(
    image_labels: Sequence, image_id: Hashable, gt_format: Mapping[str, int]
) -> np.ndarray:
    """Bring the labels of one image to `(k, 5)` float64: class id, xmin, ymin, xmax, ymax."""
    columns = [gt_format[key] for key in ("class_id", *BOX_KEYS)]
    if len(image_labels) == 0:
        return np.empty((0, 5))
    rows = np.asarray(image_labels, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] <= max(columns):
        raise ValueError(
            f"The labels of image {image_id!r} must be a (k, {max(columns) + 1}) array with one "
            f"row for each box; got shape {rows.shape}."
        )
    return rows[:, columns]


def _check_class_ids(class_ids: np.ndarray, image_id: Hashable, n_classes: int) -> None:
    """Raise a ValueError for the first class id that is not one of 1, 2, ..., n_classes."""
    wrong = (class_ids < 1) | (class_ids > n_classes) | (class_ids != np.floor(class_ids))
    if wrong.any():
        box = int(np.argmax(wrong))
        raise ValueError(
            f"Box {box} of image {image_id!r} has the class id {class_ids[box]:g}, but class ids "
            f"run from 1 to n_classes = {n_classes} (0 is the background). Is `n_classes` or "
            "`gt_format` wrong, or do the labels count classes from 0?"
        )
