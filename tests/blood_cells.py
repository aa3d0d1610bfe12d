"""A few real images for tests that train: microscope photographs of three kinds of blood cells."""

from __future__ import annotations

from pathlib import Path

from data_generator.object_detection_2d_data_generator import DataGenerator


def few_images(real_data: Path, n: int) -> DataGenerator:
    """Return the first `n` training images of bccd that show all three classes."""
    folder = real_data / "bccd"
    cells = DataGenerator()
    cells.parse_xml(
        [str(folder / "JPEGImages")],
        [str(folder / "ImageSets" / "Main" / "train.txt")],
        [str(folder / "Annotations")],
        classes=["background", *(folder / "classes.txt").read_text(encoding="utf-8").split()],
        verbose=False,
    )
    chosen = [i for i, labels in enumerate(cells.labels) if len({box[0] for box in labels}) == 3][
        :n
    ]
    return DataGenerator(
        filenames=[cells.filenames[i] for i in chosen],
        labels=[cells.labels[i] for i in chosen],
        image_ids=[cells.image_ids[i] for i in chosen],
    )
