"""The two numberings of a COCO data set: category ids with gaps, class ids without."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CategoryMaps:
    """The two numberings of a COCO data set.

    COCO's category ids have gaps (80 categories with ids up to 90); a model needs class ids
    1..n without gaps.

    Attributes:
        cats_to_names: {category id: name}.
        classes_to_names: Names by class id, 'background' first.
        cats_to_classes: {category id: class id}.
        classes_to_cats: {class id: category id}.
    """

    cats_to_names: dict[int, str]
    classes_to_names: list[str]
    cats_to_classes: dict[int, int]
    classes_to_cats: dict[int, int]

    @classmethod
    def of(cls, names: dict[int, str]) -> CategoryMaps:
        """Number the categories {category id: name} in their order."""
        return cls(
            cats_to_names=dict(names),
            classes_to_names=["background", *names.values()],
            cats_to_classes={category: i for i, category in enumerate(names, start=1)},
            classes_to_cats=dict(enumerate(names, start=1)),
        )
