"""What a data set consists of, and what may be wrong with it: counts, sizes, suspicious boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from data_generator.annotations import label_array
from data_generator.image_reading import ImageReadError

# VOC counts pixels from 1, and annotations end at the last pixel or behind it.
_BORDER = 1.0
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MAX_LINES = 40


class MeasurableDataset(Protocol):
    """What statistics need of a data set."""

    labels: Sequence | None
    labels_format: dict[str, int]
    class_names: Sequence[str] | None
    dataset_size: int

    def get_image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image of an entry."""

    def entry_name(self, index: int) -> str:
        """Name an entry, for messages."""

    def check(self) -> None:
        """Raise a `DatasetError` if there are no images, or lists of another length."""


class FoundBox(NamedTuple):
    """A box that deserves a look.

    Attributes:
        index: The position of its image in the data set.
        box: Its position among the boxes of the image.
        label: (class_id, xmin, ymin, xmax, ymax).
        where: The name of the image.
    """

    index: int
    box: int
    label: tuple[float, ...]
    where: str

    def __str__(self) -> str:
        return f"{self.where}, box {self.box}: {tuple(round(float(v), 2) for v in self.label)}"


@dataclass(frozen=True)
class DatasetStatistics:
    """The statistics of a data set; `str()` of it is a report.

    Attributes:
        n_images: The number of images.
        n_boxes: The number of boxes.
        class_names: Names by class id, 'background' first, or None.
        boxes_per_class: {class id: number of boxes}, classes without boxes included where the
            names of all classes are known.
        images_per_class: {class id: number of images that show it}.
        boxes_per_image: int64 `(n_images,)`.
        images_without_objects: The positions of these images.
        image_sizes: {(height, width): number of images}, in pixels, of images that can be read.
        unreadable_images: {position: reason} of the others.
        box_sizes: float64 `(n, 2)`: width and height of the boxes, as shares of their images,
            without degenerate boxes and those in images of unknown size.
        degenerate_boxes: Boxes of no width or height, or with coordinates that are not finite.
        duplicate_boxes: Boxes equal to an earlier one of their image, class included.
        boxes_outside: Boxes that reach over the border of their image by more than a pixel.
    """

    n_images: int
    n_boxes: int
    class_names: list[str] | None
    boxes_per_class: dict[int, int]
    images_per_class: dict[int, int]
    boxes_per_image: np.ndarray
    images_without_objects: list[int]
    image_sizes: dict[tuple[int, int], int]
    unreadable_images: dict[int, str]
    box_sizes: np.ndarray
    degenerate_boxes: list[FoundBox]
    duplicate_boxes: list[FoundBox]
    boxes_outside: list[FoundBox]

    @property
    def relative_sizes(self) -> np.ndarray:
        """float64 `(n,)`: the square roots of the boxes' shares of the image area."""
        return np.sqrt(self.box_sizes.prod(axis=1))

    def __str__(self) -> str:
        lines = [
            f"{self.n_images} images, {self.n_boxes} boxes of {len(self.boxes_per_class)} classes; "
            f"{len(self.images_without_objects)} images without objects"
        ]
        if self.n_boxes:
            per_image = self.boxes_per_image
            lines.append(
                f"Boxes in an image: {per_image.mean():.1f} on average, {per_image.max()} at most"
            )
        lines += self._describe_image_sizes() + self._describe_classes()
        if len(self.box_sizes):
            sizes = self.relative_sizes
            shares = ", ".join(
                f"{q:.0%} below {value:.3f}"
                for q, value in zip(_QUANTILES, np.quantile(sizes, _QUANTILES), strict=True)
            )
            lines += ["", f"Box sizes (square root of the share of the image area): {shares}"]
        for name in ("degenerate_boxes", "duplicate_boxes", "boxes_outside"):
            found = getattr(self, name)
            title = name.replace("_", " ").replace("outside", "that reach out of their image")
            first = f"; the first is {found[0]}" if found else ""
            lines.append(f"{title.capitalize()}: {len(found)}{first}")
        return "\n".join(lines)

    def _describe_image_sizes(self) -> list[str]:
        lines = []
        if self.image_sizes:
            common = sorted(self.image_sizes, key=self.image_sizes.get, reverse=True)[:3]
            shown = ", ".join(f"{h} x {w} ({self.image_sizes[h, w]})" for h, w in common)
            more = len(self.image_sizes) - len(common)
            lines.append(
                f"Image sizes, height x width: {shown}" + (f" and {more} others" if more else "")
            )
        if self.unreadable_images:
            reason = next(iter(self.unreadable_images.values()))
            lines.append(f"Images that cannot be read: {len(self.unreadable_images)}; {reason}")
        return lines

    def _describe_classes(self) -> list[str]:
        if not self.boxes_per_class:
            return []
        names = {class_id: self.class_name(class_id) for class_id in self.boxes_per_class}
        width = max(5, *map(len, names.values()))
        lines = ["", f"   id  {'class':{width}}   boxes   share  images"]
        for class_id in list(names)[:_MAX_LINES]:
            n = self.boxes_per_class[class_id]
            lines.append(
                f"{class_id:5}  {names[class_id]:{width}} {n:7} {n / max(1, self.n_boxes):7.1%} "
                f"{self.images_per_class[class_id]:7}"
            )
        if len(names) > _MAX_LINES:
            lines.append(f"       and {len(names) - _MAX_LINES} more classes")
        return lines

    def class_name(self, class_id: int) -> str:
        """Return the name of a class; '?' for an id beyond the names, '' without names."""
        if self.class_names is None:
            return ""
        return self.class_names[class_id] if 0 <= class_id < len(self.class_names) else "?"


def describe_dataset(
    dataset: MeasurableDataset, read_image_sizes: bool = True
) -> DatasetStatistics:
    """Gather the statistics of a data set; see `DetectionDataset.describe`.

    Raises:
        DatasetError: The data set is empty, or its lists differ in length.
    """
    dataset.check()
    columns = [dataset.labels_format[n] for n in ("class_id", "xmin", "ymin", "xmax", "ymax")]
    labels = [
        label_array(
            [] if dataset.labels is None else dataset.labels[i],
            dataset.entry_name(i),
            len(dataset.labels_format),
        )[:, columns].astype(np.float64)
        for i in range(dataset.dataset_size)
    ]
    sizes, unreadable = _image_sizes(dataset) if read_image_sizes else ({}, {})
    found: dict[str, list[FoundBox]] = {
        "degenerate_boxes": [],
        "duplicate_boxes": [],
        "boxes_outside": [],
    }
    box_sizes = [np.zeros((0, 2))]
    for index, boxes in enumerate(labels):
        good = np.isfinite(boxes).all(axis=1) & (boxes[:, 3:] > boxes[:, 1:3]).all(axis=1)
        marks = {"degenerate_boxes": ~good, "duplicate_boxes": _duplicates(boxes)}
        if index in sizes:
            extent = np.array(sizes[index][::-1], np.float64)  # (width, height)
            outside = (boxes[:, 1:3] < -_BORDER) | (boxes[:, 3:] > extent + _BORDER)
            marks["boxes_outside"] = good & outside.any(axis=1)
            box_sizes.append((boxes[good, 3:] - boxes[good, 1:3]) / extent)
        for name, mark in marks.items():
            for box in np.flatnonzero(mark).tolist():
                label = tuple(boxes[box].tolist())
                found[name].append(FoundBox(index, box, label, dataset.entry_name(index)))

    boxes_per_image = np.array([len(boxes) for boxes in labels], np.int64)
    class_ids = [boxes[:, 0].astype(np.int64).tolist() for boxes in labels]
    boxes_per_class = Counter(class_id for ids in class_ids for class_id in ids)
    images_per_class = Counter(class_id for ids in class_ids for class_id in set(ids))
    named = range(1, len(dataset.class_names)) if dataset.class_names is not None else ()
    all_ids = sorted({*named, *boxes_per_class})
    return DatasetStatistics(
        n_images=dataset.dataset_size,
        n_boxes=int(boxes_per_image.sum()),
        class_names=None if dataset.class_names is None else list(dataset.class_names),
        boxes_per_class={class_id: boxes_per_class[class_id] for class_id in all_ids},
        images_per_class={class_id: images_per_class[class_id] for class_id in all_ids},
        boxes_per_image=boxes_per_image,
        images_without_objects=np.flatnonzero(boxes_per_image == 0).tolist(),
        image_sizes=dict(Counter(sizes.values())),
        unreadable_images=unreadable,
        box_sizes=np.concatenate(box_sizes),
        **found,
    )


def _image_sizes(
    dataset: MeasurableDataset,
) -> tuple[dict[int, tuple[int, int]], dict[int, str]]:
    """Return {position: (height, width)}, and {position: reason} of what cannot be read."""
    sizes, unreadable = {}, {}
    for index in range(dataset.dataset_size):
        try:
            sizes[index] = dataset.get_image_size(index)
        except ImageReadError as error:
            unreadable[index] = str(error)
    return sizes, unreadable


def _duplicates(boxes: np.ndarray) -> np.ndarray:
    """Mark the rows that are equal to an earlier one."""
    marks = np.ones(len(boxes), bool)
    marks[np.unique(boxes, axis=0, return_index=True)[1]] = False
    return marks
