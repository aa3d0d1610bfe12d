"""What all annotation parsers share: their result, and the rules for classes and boxes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_generator.errors import AnnotationError, DatasetError

LABEL_COLUMNS = ("class_id", "xmin", "ymin", "xmax", "ymax")
INVALID_BOX_POLICIES = ("keep", "drop", "raise")
# No image is that large; HDF5 files hold whole coordinates, and all class ids, as int32.
COORDINATE_LIMIT = CLASS_ID_LIMIT = 2**31


@dataclass
class ParsedDataset:
    """What a parser makes of its files: parallel lists with one entry per image.

    Attributes:
        filenames: Paths of the images.
        image_ids: Strings, or the integer ids of a COCO file.
        labels: Per image the boxes, columns in the order asked for; None without ground truth.
        eval_neutral: Per image one boolean per box (True: an evaluation ignores the box), or
            None where the format has no such mark.
        class_names: Names by class id, 'background' first; None where the format has no names.
        invalid_boxes: One line per box of no size or not finite: where it stands, what it is.
    """

    filenames: list[str]
    image_ids: list
    labels: list | None
    eval_neutral: list[list[bool]] | None = None
    class_names: list[str] | None = None
    invalid_boxes: list[str] = field(default_factory=list)


def read_text(path: str | os.PathLike, what: str) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Arguments:
        path: The file.
        what: What the file is to the user, for the error message, such as 'image set file'.

    Returns:
        Its content.

    Raises:
        AnnotationError: The file is missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AnnotationError(f"{path}: cannot read the {what} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path}: the {what} is not UTF-8 text (byte {error.start} is "
            f"{error.object[error.start]:#04x}). Save it as UTF-8"
        ) from error


def parse_number(text: str, what: str, where: str) -> int | float:
    """Read a number: an int where the text is one ('12'), else a float ('12.5').

    Arguments:
        text: The text.
        what: The name of the value, for the error message, such as 'xmin'.
        where: Where it stands, for the error message, such as 'labels.csv, line 7'.

    Returns:
        The number.

    Raises:
        AnnotationError: The text is not a number.
    """
    if "_" not in text:  # Python would read '1_0' as 10
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    raise AnnotationError(f"{where}: {what} must be a number, got {text!r:.80}")


def parse_class_id(value: str | float, where: str) -> int:
    """Read a class id: a whole number, also when written as '3.0'.

    Raises:
        AnnotationError: It is not a whole number.
    """
    number = parse_number(value, "class_id", where) if isinstance(value, str) else value
    if abs(number) >= CLASS_ID_LIMIT:
        raise AnnotationError(
            f"{where}: class_id must be a whole number below {CLASS_ID_LIMIT}, got {value!r:.80}"
        )
    if number != number or number != int(number):  # NaN is unlike itself
        raise AnnotationError(f"{where}: class_id must be a whole number, got {value!r}")
    return int(number)


def class_map(
    include_classes: str | Collection[int | str],
    names: Mapping[int, str] | None,
    source: str,
    remap_classes: bool = False,
) -> dict[int, int] | None:
    """Work out which classes to keep, and the class id that each of them gets.

    Arguments:
        include_classes: 'all', or the ids or names of the classes to keep.
        names: {id: name} of all classes of the data set, or None where they are not known.
        source: Where `names` come from, for the error message.
        remap_classes: Give the classes kept the ids 1..n, in ascending order of their own ids,
            so that a model of n classes fits and all splits of a data set agree.

    Returns:
        {id: new id} of the classes kept, or None for "every id there is, as it is".

    Raises:
        ValueError: `include_classes` names no or an unknown class, or there is nothing to tell
            which classes to re-map.
    """
    if isinstance(include_classes, str):
        if include_classes != "all":
            raise ValueError(
                "include_classes must be 'all' or a list of class ids or names, "
                f"got {include_classes!r}"
            )
        if names is None:
            if remap_classes:
                raise ValueError(
                    "remap_classes=True needs the list of classes: pass include_classes (or "
                    "classes), so that all splits of the data set get the same ids"
                )
            return None
        kept = list(names)
    else:
        kept = [_known_class_id(entry, names, source) for entry in include_classes]
        if not kept:
            raise ValueError("include_classes is empty: name at least one class, or pass 'all'")
    kept = sorted(set(kept))
    if not remap_classes:
        return {class_id: class_id for class_id in kept}
    objects = [class_id for class_id in kept if class_id != 0]
    # The background keeps its id: a box that claims to be background is an error to report.
    return {class_id: 0 for class_id in kept if class_id == 0} | {
        class_id: new_id for new_id, class_id in enumerate(objects, start=1)
    }


def _known_class_id(entry: int | str, names: Mapping[int, str] | None, source: str) -> int:
    if names is None:
        if isinstance(entry, str):
            raise ValueError(
                f"include_classes has the name {entry!r}, but class names are not known here: "
                "pass class ids, or the names of all classes as classes=[...]"
            )
        return int(entry)
    if isinstance(entry, str):
        for class_id, name in names.items():
            if name == entry:
                return class_id
    elif entry in names:
        return int(entry)
    raise ValueError(
        f"include_classes has {entry!r}, which is no class of {source}; known: "
        + describe_classes(names)
    )


def describe_classes(names: Mapping[int, str]) -> str:
    """List ids and names for an error message: "1 'person', 2 'bicycle', ..."."""
    shown = [f"{class_id} {name!r}" for class_id, name in list(names.items())[:100]]
    return ", ".join(shown) + (", ..." if len(names) > 100 else "")


def remapped_names(names: Mapping[int, str], ids: Mapping[int, int]) -> list[str]:
    """List the class names by their new ids, for a selection that was re-mapped to 1..n."""
    objects = [class_id for class_id in sorted(ids, key=ids.get) if ids[class_id] != 0]
    return ["background"] + [names[class_id] for class_id in objects]


class BoxRules:
    """Turn one annotated box into a label row: choose by class, check it, order its columns.

    Arguments:
        ids: What `class_map` returned.
        on_invalid_boxes: What to do with boxes of no size or with coordinates that are not
            finite: 'keep' (but what is not finite is an error), 'drop', or 'raise'.
        labels_output_format: The five column names of a label in the order wanted.

    Raises:
        ValueError: Unknown `on_invalid_boxes`, or more than the five columns.
    """

    def __init__(
        self,
        ids: Mapping[int, int] | None,
        on_invalid_boxes: str = "keep",
        labels_output_format: Sequence[str] = LABEL_COLUMNS,
    ):
        if on_invalid_boxes not in INVALID_BOX_POLICIES:
            raise ValueError(
                f"on_invalid_boxes must be one of {INVALID_BOX_POLICIES}, got {on_invalid_boxes!r}"
            )
        self.ids = ids
        self.on_invalid_boxes = on_invalid_boxes
        if len(labels_output_format) > len(LABEL_COLUMNS):
            raise ValueError(
                f"Annotation files hold the label columns {LABEL_COLUMNS}, but "
                f"labels_output_format is {tuple(labels_output_format)}. Labels with columns of "
                "your own go into the constructor: DataGenerator(filenames=..., labels=...)"
            )
        self.order = [LABEL_COLUMNS.index(name) for name in labels_output_format]
        self.invalid_boxes: list[str] = []

    def row(self, class_id: int, box: Sequence[float], where: str) -> list[int | float] | None:
        """Return the label row of a box, or None if it is left out.

        Arguments:
            class_id: The class id of the data set's own numbering.
            box: (xmin, ymin, xmax, ymax) in pixels.
            where: Where it stands, for the error message.

        Raises:
            AnnotationError: The class id is not a positive number, or the box is invalid and
                `on_invalid_boxes` does not allow it.
        """
        if self.ids is not None and class_id not in self.ids:
            return None
        new_id = class_id if self.ids is None else self.ids[class_id]
        if new_id < 1:
            raise AnnotationError(
                f"{where}: class id {new_id} is not the id of an object: 0 is the background, so "
                "objects start at 1. Add 1 to ids that start at 0; a list of classes must begin "
                "with 'background'"
            )
        xmin, ymin, xmax, ymax = box
        finite = all(abs(value) < COORDINATE_LIMIT for value in box)  # false for NaN
        if not finite or xmax <= xmin or ymax <= ymin:
            self._note_invalid_box(box, finite, where)
            if self.on_invalid_boxes == "drop":
                return None
        label = (new_id, xmin, ymin, xmax, ymax)
        return [label[column] for column in self.order]

    def _note_invalid_box(self, box: Sequence[float], finite: bool, where: str) -> None:
        why = "has no size" if finite else "is not finite (or beyond any image)"
        message = f"{where}: the box (xmin, ymin, xmax, ymax) = {str(tuple(box)):.200} {why}"
        if self.on_invalid_boxes == "raise" or (not finite and self.on_invalid_boxes == "keep"):
            raise AnnotationError(
                f"{message}. Correct it, or pass on_invalid_boxes='drop' to leave such boxes out"
                + ("; xmin and xmax, or ymin and ymax, may be swapped" if finite else "")
            )
        self.invalid_boxes.append(message)


def unique_image_ids(names: Sequence[str]) -> list[str]:
    """Make image ids of file names: without suffix, or with it where they would not be unique."""
    stems = [os.path.splitext(name)[0] for name in names]
    count = Counter(stems)
    return [stem if count[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]


def check_image_files(filenames: Sequence[str]) -> None:
    """Check that image files exist.

    Raises:
        AnnotationError: Some are missing; the message counts them and shows the first.
    """
    missing = [filename for filename in filenames if not os.path.isfile(filename)]
    if missing:
        raise AnnotationError(
            f"{len(missing)} of {len(filenames)} image files do not exist, the first is "
            f"{missing[0]!r}. Check the images folder, and the suffix and case of the names"
        )


def label_array(labels: Sequence, where: str, n_columns: int = len(LABEL_COLUMNS)) -> np.ndarray:
    """Turn the stored labels of an image into a new `(k, n_columns)` array, also for k = 0.

    Integers become int64 (and are rounded to whole pixels by transformations that scale), other
    numbers float32.

    Arguments:
        labels: Rows of so many numbers: lists, an array, or nothing.
        where: The name of the image, for the error message.
        n_columns: Five, and one for each column of the user's own.

    Returns:
        The array, which shares no memory with `labels`.

    Raises:
        DatasetError: They are not rows of so many numbers.
    """
    expected = f"{where}: labels must be rows of {n_columns} numbers"
    try:
        array = np.array(labels)
    except ValueError as error:
        raise DatasetError(f"{expected}: {error}") from error
    if array.size == 0:
        return np.zeros((0, n_columns), np.float32)
    if array.ndim != 2 or array.shape[1] != n_columns or array.dtype.kind not in "iuf":
        raise DatasetError(
            f"{expected}, got an array of shape {array.shape} and type {array.dtype}"
        )
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)


def progress(items: Iterable, title: str, verbose: bool, total: int | None = None) -> Iterable:
    """Go through `items` with a progress bar on the standard output, or without one."""
    return tqdm(items, desc=title, disable=not verbose, file=sys.stdout, total=total)
