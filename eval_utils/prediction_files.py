"""Predictions in files: the text files of Pascal VOC, and the JSON of MS COCO."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence

from eval_utils.coco_files import read_entry, read_json_list
from eval_utils.ground_truth import image_key
from eval_utils.prediction_results import Prediction


def write_predictions(
    prediction_results: Sequence[Sequence[Prediction]],
    out_file_prefix: str | os.PathLike,
    classes: Sequence[str] | None = None,
) -> list[str]:
    """Write predictions to text files, one for each class, as the Pascal VOC server takes them.

    A line reads ``<image id> <confidence> <xmin> <ymin> <xmax> <ymax>``, with four decimals for the
    confidence and one for the coordinates at most. Ids that are numbers get at least six digits.

    Arguments:
        prediction_results: What `collect_predictions` returns.
        out_file_prefix: Folder and first part of the file names.
        classes: The class names with that of the background first; without them files are called by
            class id in four digits.

    Returns:
        The paths of the files.

    Raises:
        ValueError: if there is not one name for each class and the background.
    """
    paths = prediction_file_paths(out_file_prefix, len(prediction_results) - 1, classes)
    for path, predictions in zip(paths, prediction_results[1:], strict=True):
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(_line(prediction) for prediction in predictions)
    return paths


def read_predictions(
    in_file_prefix: str | os.PathLike,
    n_classes: int,
    image_ids: Iterable[Hashable],
    classes: Sequence[str] | None = None,
) -> list[list[Prediction]]:
    """Read predictions from text files, one for each class: what `write_predictions` writes.

    Any detector whose output was prepared for the Pascal VOC server (``comp3_det_test_cat.txt``)
    can be scored this way. An empty file is a class without predictions; each file must exist.

    Arguments:
        in_file_prefix: Folder and first part of the file names.
        n_classes: The number of positive classes.
        image_ids: The ids of the data set, to which the names in the files are translated: the
            image 42 is called ``000042`` in a file.
        classes: The class names with that of the background first; without them files are called by
            class id in four digits.

    Returns:
        One list for each class, a dummy for class 0 included, of tuples (image_id, confidence,
        xmin, ymin, xmax, ymax).

    Raises:
        ValueError: if there is not one name for each class and the background, or if a line is no
            prediction or names an unknown image; the message names file and line.
        FileNotFoundError: if a class has no file.
    """
    ids = {}
    for image_id in image_ids:
        ids[_file_name_of(image_id)] = image_id
        ids.setdefault(image_key(image_id), image_id)
    results = [[]]
    for path in prediction_file_paths(in_file_prefix, n_classes, classes):
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"There is no file {path!r}: one is needed for each class, if only an empty one. "
                "Are the prefix and the class names right?"
            )
        with open(path, encoding="utf-8") as file:
            results.append(
                [
                    _parse_line(line, ids, f"{path}, line {number}")
                    for number, line in enumerate(file, start=1)
                    if line.strip()
                ]
            )
    return results


def prediction_file_paths(
    file_prefix: str | os.PathLike, n_classes: int, classes: Sequence[str] | None = None
) -> list[str]:
    """Name the text files of all classes but the background.

    Arguments:
        file_prefix: Folder and first part of the file names.
        n_classes: The number of positive classes.
        classes: The class names with that of the background first, or None for ids in four digits.

    Returns:
        One path for each class.

    Raises:
        ValueError: if there is not one name for each class and the background.
    """
    if classes is not None and len(classes) != n_classes + 1:
        raise ValueError(
            "`classes` must name the background and every class: "
            f"{n_classes + 1} names; got {len(classes)}."
        )
    names = [f"{class_id:04d}" for class_id in range(n_classes + 1)] if classes is None else classes
    return [f"{os.fspath(file_prefix)}{name}.txt" for name in names[1:]]


def read_coco_predictions(
    detections: str | os.PathLike | Sequence[Mapping],
    n_classes: int,
    cats_to_classes: Mapping[int, int] | None = None,
) -> list[list[Prediction]]:
    """Read predictions in the results format of MS COCO.

    Arguments:
        detections: A JSON file, or its content: a list of ``{'image_id': ..., 'category_id': ...,
            'bbox': [x, y, width, height], 'score': ...}``, boxes in pixels of the image.
        n_classes: The number of positive classes.
        cats_to_classes: The class id of each category id; None if they are the same.

    Returns:
        As `read_predictions`.

    Raises:
        ValueError: if the content is no such list, or if a detection has an unknown category; the
            message names the entry.
    """
    entries, source = read_json_list(detections, "detections")
    if cats_to_classes is None:
        cats_to_classes = {class_id: class_id for class_id in range(1, n_classes + 1)}
    results = [[] for _ in range(n_classes + 1)]
    for number, entry in enumerate(entries):
        where = f"{source}[{number}]"
        image_id, category, (x, y, width, height), score = read_entry(entry, where, scored=True)
        class_id = cats_to_classes.get(category)
        if class_id is None or not 1 <= class_id <= n_classes:
            raise ValueError(
                f"{where}: category_id {category!r} is no class of the data set; known: "
                f"{', '.join(map(repr, cats_to_classes))}. Is `cats_to_classes` right?"
            )
        results[class_id].append((image_id, score, x, y, x + width, y + height))
    return results


def _parse_line(line: str, ids: Mapping[str, Hashable], where: str) -> Prediction:
    try:
        # From the right: a name may contain spaces.
        name, *numbers = line.strip().rsplit(maxsplit=5)
        confidence, xmin, ymin, xmax, ymax = map(float, numbers)
    except ValueError as error:
        raise ValueError(
            f"{where}: expected <image id> <confidence> <xmin> <ymin> <xmax> <ymax>; "
            f"got {line.rstrip()!r}"
        ) from error
    if not all(map(math.isfinite, (confidence, xmin, ymin, xmax, ymax))):
        raise ValueError(f"{where}: expected finite numbers; got {line.rstrip()!r}")
    if name not in ids:
        raise ValueError(
            f"{where}: the data set holds no image {name!r}: do predictions and data set belong "
            "together?"
        )
    return ids[name], confidence, xmin, ymin, xmax, ymax


def _line(prediction: Prediction) -> str:
    image_id, confidence, *box = prediction
    coordinates = (round(float(value), 1) + 0.0 for value in box)  # + 0.0 turns -0.0 into 0.0
    values = (_file_name_of(image_id), round(float(confidence), 4), *coordinates)
    return " ".join(map(str, values)) + "\n"


def _file_name_of(image_id: Hashable) -> str:
    """Write an image id as Pascal VOC does: numbers with six digits or more."""
    key = image_key(image_id)
    # Not int(key): Python reads VOC's '2008_000345' as the number 2008000345.
    return key.zfill(6) if key.isdecimal() else key
