"""Files in the JSON formats of MS COCO: read, checked entry by entry, and written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from misc_utils.files import atomic_path


def read_json_object(content: str | os.PathLike | Mapping, what: str) -> tuple[Mapping, str]:
    """Read a JSON file that holds a dictionary, unless the dictionary itself is given.

    Arguments:
        content: The path of the file, or the dictionary.
        what: What it is, for messages.

    Returns:
        The dictionary, and what to call it in messages.

    Raises:
        ValueError: if the file is no JSON or holds no dictionary.
    """
    content, source = _read_json(content, what)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{source}: expected a dictionary in COCO format, got a {type(content).__name__}."
        )
    return content, source


def read_json_list(
    content: str | os.PathLike | Sequence[Mapping], what: str
) -> tuple[Sequence[Mapping], str]:
    """Read a JSON file that holds a list, unless the list itself is given.

    Arguments:
        content: The path of the file, or the list.
        what: What the list holds, for messages.

    Returns:
        The list, and what to call it in messages.

    Raises:
        ValueError: if the file is no JSON or holds no list.
    """
    content, source = _read_json(content, what)
    if not isinstance(content, Sequence):
        raise ValueError(
            f"{source}: expected a list of {what} in COCO format, got a {type(content).__name__}."
        )
    return content, source


def list_in(content: Mapping, key: str, source: str) -> Sequence[Mapping]:
    """Look up a list of an annotations file.

    Arguments:
        content: The content of the file.
        key: 'images', 'categories' or 'annotations'.
        source: The name of the file in messages.

    Returns:
        The list.

    Raises:
        ValueError: if there is no such list.
    """
    if not isinstance(content.get(key), Sequence):
        raise ValueError(
            f"{source}: expected a list {key!r}, got {content.get(key)!r:.80}. (The files of "
            "COCO's test images have no annotations: only COCO's server can score detections on "
            "these.)"
        )
    return content[key]


def read_coco_categories(annotations_file: str | os.PathLike) -> dict[int, str]:
    """Read {category id: name} from an annotations file, in the order of the file.

    Arguments:
        annotations_file: A JSON file with 'categories'.

    Returns:
        The names by id.

    Raises:
        ValueError: if the file is no JSON or has no categories with ids and names.
    """
    content, source = read_json_object(annotations_file, "annotations_file")
    names = {}
    for position, entry in enumerate(list_in(content, "categories", source)):
        if not isinstance(entry, Mapping) or not {"id", "name"} <= entry.keys():
            raise ValueError(
                f"{source}, categories[{position}]: expected 'id' and 'name', got {entry!r:.200}"
            )
        names[entry["id"]] = entry["name"]
    return names


def read_entry(
    entry: Mapping, where: str, scored: bool
) -> tuple[Hashable, Hashable, list[float], float]:
    """Check one detection or annotation.

    Arguments:
        entry: A dictionary with 'image_id', 'category_id', 'bbox' and, for a detection, 'score'.
        where: Its name in messages.
        scored: True for a detection, False for an annotation.

    Returns:
        (image id, category id, [x, y, width, height], score or 1).

    Raises:
        ValueError: if something is missing, or not a finite number.
    """
    try:
        image_id, category = entry["image_id"], entry["category_id"]
        x, y, width, height = map(float, entry["bbox"])
        score = float(entry["score"]) if scored else 1.0
    except (KeyError, TypeError, ValueError) as error:
        expected = "'image_id', 'category_id', 'bbox' (x, y, width, height)"
        if scored:
            expected += " and 'score'"
        raise ValueError(f"{where}: expected {expected}; got {entry!r:.200}") from error
    # One sum instead of five tests: it is finite only if all of them are.
    if not math.isfinite(x + y + width + height + score):
        raise ValueError(f"{where}: expected finite numbers; got {entry!r:.200}")
    return image_id, category, [x, y, width, height], score


def write_json_list(path: str | os.PathLike, entries: Iterable[dict]) -> None:
    """Write a list with an entry on each line; the file appears only when it is complete.

    Arguments:
        path: The file to make or to replace; missing folders are made.
        entries: What to write; they are not held in memory.

    Raises:
        ValueError: if a number is not finite, which JSON cannot express.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = ""
        file.write("[")
        for entry in entries:
            file.write(f"{separator}\n{json.dumps(entry, allow_nan=False)}")
            separator = ","
        file.write("\n]\n")


def _read_json(content: object, what: str) -> tuple[object, str]:
    if not isinstance(content, (str, os.PathLike)):
        return content, what
    source = os.fspath(content)
    try:
        return json.loads(Path(content).read_bytes()), source
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: not a JSON file: {error}") from error
