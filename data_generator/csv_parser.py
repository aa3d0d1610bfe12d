"""CSV data sets: one line per box, or per image without objects."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from data_generator.annotations import (
    LABEL_COLUMNS,
    BoxRules,
    ParsedDataset,
    class_map,
    describe_classes,
    parse_class_id,
    parse_number,
    read_text,
    remapped_names,
    unique_image_ids,
)
from data_generator.errors import AnnotationError, EmptyAnnotationsError

CSV_COLUMNS = ("image_name", "xmin", "xmax", "ymin", "ymax", "class_id")
HEADER = "header"

# What other tools call these columns in their headers.
_SYNONYMS = {
    "image_name": ("filename", "file_name", "image", "image_path", "path", "frame"),
    "class_id": ("class", "class_name", "label", "category"),
}
_COLUMN_OF = {name: name for name in CSV_COLUMNS} | {
    synonym: name for name, synonyms in _SYNONYMS.items() for synonym in synonyms
}


def parse_csv(
    images_dir: str,
    labels_filename: str,
    input_format: Sequence[str] | None = HEADER,
    include_classes: str | Collection[int | str] = "all",
    random_sample: float | bool = False,
    classes: Sequence[str] | None = None,
    remap_classes: bool = False,
    on_invalid_boxes: str = "keep",
    seed: int | None = None,
    labels_output_format: Sequence[str] = LABEL_COLUMNS,
    delimiter: str = ",",
) -> ParsedDataset:
    """Read a data set from a CSV file.

    Arguments: see `DataGenerator.parse_csv`; `labels_output_format` gives the label columns.

    Returns:
        The data set: images in the order of their names; labels are arrays `(k, 5)`, the boxes
        of an image in ascending order. They are int64 if all numbers of the file are whole,
        else float32.

    Raises:
        AnnotationError: The file is missing or cannot be read; line, column and value are named.
        EmptyAnnotationsError: No image is left (an `IndexError` as well).
        ValueError: An argument is wrong.
    """
    by_header = input_format is None or input_format == HEADER
    if not by_header:
        _check_input_format(input_format)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"delimiter must be one character such as ',' or ';', got {delimiter!r}")
    names = None if classes is None else dict(enumerate(classes))
    ids = class_map(include_classes, names, "classes", remap_classes)
    rules = BoxRules(ids, on_invalid_boxes, labels_output_format)

    rows_of: dict[str, list] = {}
    for where, cells in _read_rows(labels_filename, None if by_header else input_format, delimiter):
        name = cells["image_name"]
        if not name:
            raise AnnotationError(f"{where}: the image name is empty")
        values = [cells[column] for column in LABEL_COLUMNS]
        if not any(values):  # `path,,,,,` is an image without objects
            rows_of.setdefault(name, [])
            continue
        class_id = _class_id(cells["class_id"], names, where)
        box = [parse_number(cells[column], column, where) for column in LABEL_COLUMNS[1:]]
        row = rules.row(class_id, box, where)
        if row is not None:
            rows_of.setdefault(name, []).append(row)
    if not rows_of:
        raise EmptyAnnotationsError(
            f"{labels_filename}: no image is left: the file has no row with a class of "
            f"include_classes={include_classes!r}"
        )

    image_names = _sample(sorted(rows_of), random_sample, seed)
    if not image_names:
        raise EmptyAnnotationsError(
            f"{labels_filename}: no image is left: random_sample={random_sample} kept none of "
            f"{len(rows_of)}"
        )
    dtype = _label_dtype(rows_of.values())
    return ParsedDataset(
        filenames=[os.path.join(images_dir, name) for name in image_names],
        image_ids=unique_image_ids(image_names),
        labels=[np.array(sorted(rows_of[name]), dtype).reshape(-1, 5) for name in image_names],
        class_names=_class_names(names, ids, remap_classes),
        invalid_boxes=rules.invalid_boxes,
    )


def _check_input_format(input_format: Sequence[str]) -> None:
    if sorted(input_format) != sorted(CSV_COLUMNS):
        raise ValueError(
            f"input_format must list the names {CSV_COLUMNS} in the order of the columns of the "
            f"file, got {tuple(input_format)}"
        )


def _read_rows(
    path: str, input_format: Sequence[str] | None, delimiter: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, {column: cell}) for each row, without the header and blank lines."""
    text = io.StringIO(read_text(path, "CSV file"), newline="")
    reader = csv.reader(text, delimiter=delimiter)
    positions = None if input_format is None else {c: i for i, c in enumerate(input_format)}
    is_first = True
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{path}, line {reader.line_num}"
            cells = [cell.strip() for cell in cells]
            if positions is None:
                positions = _header_positions(cells, where, delimiter)
            else:
                row = _row(cells, positions, where, delimiter)
                if is_first and input_format is not None and _is_header(row):
                    _check_header(cells, input_format, where)
                else:
                    yield where, row
            is_first = False
    except csv.Error as error:
        raise AnnotationError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    if is_first:
        raise AnnotationError(f"{path}: the CSV file is empty")


def _header_positions(cells: Sequence[str], where: str, delimiter: str) -> dict[str, int]:
    """Look up in the header where the six columns are."""
    positions: dict[str, int] = {}
    for position, cell in enumerate(cells):
        column = _COLUMN_OF.get(cell.lower())
        if column in positions:
            first = cells[positions[column]]
            raise AnnotationError(
                f"{where}: the header has two columns for {column!r}, {first!r} and {cell!r}. "
                "List the columns of the file in input_format instead"
            )
        if column is not None:
            positions[column] = position
    missing = [column for column in CSV_COLUMNS if column not in positions]
    if missing:
        raise AnnotationError(
            f"{where}: expected a header that names the columns {', '.join(CSV_COLUMNS)} "
            f"separated by {delimiter!r}; {', '.join(missing)} is missing from {cells!r:.200}. For "
            "a file without a header, list its columns in input_format"
            + _delimiter_hint(cells, delimiter)
        )
    return positions


def _row(
    cells: Sequence[str], positions: Mapping[str, int], where: str, delimiter: str
) -> dict[str, str]:
    n_needed = max(positions.values()) + 1
    if len(cells) < n_needed:
        columns = ", ".join(sorted(positions, key=positions.get))
        raise AnnotationError(
            f"{where}: expected {n_needed} cells ({columns}) separated by {delimiter!r}, got "
            f"{len(cells)}: {cells!r:.200}" + _delimiter_hint(cells, delimiter)
        )
    return {column: cells[position] for column, position in positions.items()}


def _delimiter_hint(cells: Sequence[str], delimiter: str) -> str:
    for other in ",;\t":
        if len(cells) == 1 and other != delimiter and other in cells[0]:
            return f". If the cells are separated by {other!r}, pass delimiter={other!r}"
    return ""


def _is_header(row: dict[str, str]) -> bool:
    """Say whether the first line is a header: none of its coordinates is a number or empty."""
    for column in LABEL_COLUMNS[1:]:
        try:
            float(row[column] or 0)
        except ValueError:
            continue
        return False
    return True


def _check_header(cells: Sequence[str], input_format: Sequence[str], where: str) -> None:
    """Refuse a header that contradicts `input_format`: swapped columns would go unnoticed."""
    for position, (found, expected) in enumerate(zip(cells, input_format, strict=False), start=1):
        if found.lower() in CSV_COLUMNS and found.lower() != expected:
            raise AnnotationError(
                f"{where}: the header calls column {position} {found!r}, but input_format says "
                f"{expected!r}. List the columns in input_format in the order of the file"
            )


def _class_id(text: str, names: dict[int, str] | None, where: str) -> int:
    if names is None:
        try:
            return parse_class_id(text, where)
        except AnnotationError as error:
            raise AnnotationError(
                f"{error}. If the column holds class names, pass classes=['background', ...]"
            ) from None
    for class_id, name in names.items():
        if name == text:
            return class_id
    try:
        class_id = parse_class_id(text, where)
    except AnnotationError:
        class_id = None
    if class_id not in names:
        raise AnnotationError(
            f"{where}: {text!r} is neither the name nor the id of a class; known: "
            + describe_classes(names)
        )
    return class_id


def _sample(names: list[str], random_sample: float | bool, seed: int | None) -> list[str]:
    """Keep each image with the probability `random_sample`; False keeps all."""
    if random_sample is False:
        return names
    if not 0 < random_sample <= 1:
        raise ValueError(f"random_sample must be False or in (0, 1], got {random_sample!r}")
    keep = np.random.default_rng(seed).random(len(names)) < random_sample
    return [name for name, kept in zip(names, keep, strict=True) if kept]


def _label_dtype(rows_per_image) -> type:
    whole = all(isinstance(v, int) for rows in rows_per_image for row in rows for v in row)
    return np.int64 if whole else np.float32


def _class_names(names, ids, remap_classes: bool) -> list[str] | None:
    if names is None:
        return None
    return remapped_names(names, ids) if remap_classes else list(names.values())
