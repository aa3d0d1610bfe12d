"""Ground truth and detections as an engine for the numbers of MS COCO needs them."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from eval_utils.coco_files import list_in, read_entry, read_json_list, read_json_object


@dataclass(frozen=True)
class CocoProblem:
    """What there is to evaluate, with new ids.

    All ids are numbers from 1 on, whatever they were: engines take integers only, and an annotation
    with the id 0 could never be found, because 0 stands for "no match" in their tables. Numbers
    ascend with the ids they replace, so that ties between detections are decided as before.

    Attributes:
        ground_truth: A dictionary with 'images', 'categories' and 'annotations'.
        detections: The same, with detections as annotations.
        categories: The names of the categories in the order of their new ids; their old ids, if two
            of them share a name.
    """

    ground_truth: dict
    detections: dict
    categories: list[str | int]


@dataclass(frozen=True)
class _Numbering:
    """The new ids of images or of categories.

    Attributes:
        kind: 'image' or 'category'.
        numbers: {old id: new id}, for what is left out None.
        everything: True if nothing is left out.
    """

    kind: str
    numbers: Mapping[Hashable, int | None]
    everything: bool

    def __getitem__(self, old_id: Hashable) -> int | None:
        return self.numbers.get(old_id)

    def chosen(self) -> list[Hashable]:
        """List the old ids of what is not left out."""
        return [old_id for old_id, number in self.numbers.items() if number is not None]

    def entries(self) -> list[dict]:
        """Describe what is not left out as COCO does."""
        return [{"id": number} for number in self.numbers.values() if number is not None]

    def check(self, old_id: Hashable, where: str, cure: str = "") -> None:
        """Raise a ValueError if the ground truth does not hold this id."""
        if old_id not in self.numbers:
            raise ValueError(f"{where}: the ground truth holds no {self.kind} {old_id!r}.{cure}")


def read_coco_problem(
    ground_truth: str | os.PathLike | Mapping,
    detections: str | os.PathLike | Sequence[Mapping],
    image_ids: Collection[Hashable] | None = None,
    category_ids: Collection[Hashable] | None = None,
) -> CocoProblem:
    """Read, check and renumber ground truth and detections.

    Arguments: see `coco_utils.evaluate_coco`.

    Returns:
        The problem.

    Raises:
        ValueError: if something is missing, malformed or refers to an image or a category that does
            not exist; the message names the entry.
    """
    content, source = read_json_object(ground_truth, "ground_truth")
    image_list, category_list, annotation_list = (
        list_in(content, key, source) for key in ("images", "categories", "annotations")
    )
    images = _number("image", image_list, f"{source}, images", image_ids)
    categories = _number("category", category_list, f"{source}, categories", category_ids)
    annotations = _annotations(annotation_list, f"{source}, annotations", images, categories)
    found = _detections(*read_json_list(detections, "detections"), images, categories)

    shared = {"images": images.entries(), "categories": categories.entries()}
    return CocoProblem(
        ground_truth={**shared, "annotations": _with_ids(annotations)},
        detections={**shared, "annotations": _with_ids(found)},
        categories=_category_names(category_list, categories.chosen()),
    )


def _number(
    kind: str, entries: Iterable[Mapping], where: str, chosen: Collection[Hashable] | None
) -> _Numbering:
    ids = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or "id" not in entry:
            raise ValueError(f"{where}[{position}]: 'id' is missing, got {entry!r:.200}")
        ids.add(entry["id"])
    everything = chosen is None
    chosen = ids if everything else set(chosen)
    if not chosen <= ids:
        raise ValueError(
            f"`{kind}_ids` names the {kind} {next(iter(chosen - ids))!r}, which is not in {where}."
        )
    if not chosen:
        raise ValueError(f"There is nothing to evaluate: no {kind} in {where} or `{kind}_ids`.")
    # Strings after numbers: a data set may hold both.
    ordered = sorted(chosen, key=lambda old_id: (isinstance(old_id, str), old_id))
    numbers = {old_id: number for number, old_id in enumerate(ordered, start=1)}
    numbers.update(dict.fromkeys(ids - chosen))
    return _Numbering(kind, numbers, everything)


def _annotations(
    entries: Iterable[Mapping], where: str, images: _Numbering, categories: _Numbering
) -> Iterator[dict]:
    """Yield what there is to find, with new ids for image and category."""
    for position, entry in enumerate(entries):
        place = f"{where}[{position}]"
        image_id, category, box, _ = read_entry(entry, place, scored=False)
        images.check(image_id, place)
        categories.check(category, place)
        image_number, category_number = images[image_id], categories[category]
        if image_number is not None and category_number is not None:
            area = entry.get("area")
            yield {
                "image_id": image_number,
                "category_id": category_number,
                "bbox": box,
                "area": box[2] * box[3] if area is None else float(area),
                "iscrowd": int(entry.get("iscrowd") or 0),
            }


def _detections(
    entries: Iterable[Mapping], where: str, images: _Numbering, categories: _Numbering
) -> Iterator[dict]:
    """Yield the detections that count, with new ids for image and category."""
    for position, entry in enumerate(entries):
        place = f"{where}[{position}]"
        image_id, category, box, score = read_entry(entry, place, scored=True)
        if images.everything:
            images.check(
                image_id,
                place,
                " Do the two belong together? `image_ids` can name the images that count.",
            )
        if categories.everything:
            categories.check(
                category,
                place,
                " Is it a class id, which `classes_to_cats` should have turned into a category id? "
                "`category_ids` can name the categories that count.",
            )
        image_number, category_number = images[image_id], categories[category]
        if image_number is not None and category_number is not None:
            yield {
                "image_id": image_number,
                "category_id": category_number,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "score": score,
            }


def _with_ids(entries: Iterable[dict]) -> list[dict]:
    entries = list(entries)
    for number, entry in enumerate(entries, start=1):
        entry["id"] = number
    return entries


def _category_names(entries: Iterable[Mapping], chosen: list[Hashable]) -> list[str | int]:
    """Name the chosen categories: by their names if these are unique, or else by their ids."""
    names = {entry["id"]: entry.get("name", entry["id"]) for entry in entries}
    chosen_names = [names[category] for category in chosen]
    return chosen_names if len(set(chosen_names)) == len(chosen) else chosen
