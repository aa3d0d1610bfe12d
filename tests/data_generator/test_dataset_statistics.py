"""Statistics of data sets: every number counted by hand, and what the report says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_generator.dataset_statistics import FoundBox
from data_generator.detection_dataset import DetectionDataset
from data_generator.errors import DatasetError

LABELS = [
    [[1, 2, 3, 12, 13], [2, 0, 0, 31, 20], [1, 2, 3, 12, 13]],  # the first one twice
    [],
    [[1, 5, 5, 5, 9], [1, 0, 0, 32, 20], [1, -2, 0, 10, 10], [3, 8, 9, 2, 12]],
    np.array([[2, np.nan, 0, 5, 5], [2, 0, 0, 15, 10]], np.float32),
]


@pytest.fixture
def dataset(tmp_path):
    paths = []
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((20, 30, 3), np.uint8))
        paths.append(str(tmp_path / f"{i}.png"))
    dataset = DetectionDataset(filenames=paths, labels=LABELS)
    dataset.class_names = ["background", "dog", "cat", "bird", "cow"]
    return dataset


def test_counts(dataset):
    found = dataset.describe()
    assert (found.n_images, found.n_boxes) == (4, 9)
    assert found.boxes_per_class == {1: 5, 2: 3, 3: 1, 4: 0}
    assert found.images_per_class == {1: 2, 2: 2, 3: 1, 4: 0}
    assert found.boxes_per_image.tolist() == [3, 0, 4, 2]
    assert found.images_without_objects == [1]
    assert found.image_sizes == {(20, 30): 4}
    assert found.unreadable_images == {}


def test_suspicious_boxes(dataset):
    found = dataset.describe()
    places = {
        name: [(box.index, box.box) for box in getattr(found, name)]
        for name in ("degenerate_boxes", "duplicate_boxes", "boxes_outside")
    }
    assert places == {
        "degenerate_boxes": [(2, 0), (2, 3), (3, 0)],
        "duplicate_boxes": [(0, 2)],
        # (0, 1) reaches the pixel behind the last one, as boxes that are counted from 1 do.
        "boxes_outside": [(2, 1), (2, 2)],
    }
    first = found.duplicate_boxes[0]
    assert first == FoundBox(0, 2, (1, 2, 3, 12, 13), dataset.filenames[0])


def test_sizes_are_shares_of_the_image(dataset):
    found = dataset.describe()
    assert found.box_sizes.shape == (6, 2)
    np.testing.assert_allclose(found.box_sizes[0], [10 / 30, 10 / 20])
    np.testing.assert_allclose(found.relative_sizes[-1], 0.5)


def test_other_order_of_columns(dataset):
    order = ["xmin", "ymin", "xmax", "ymax", "class_id"]
    labels = [np.reshape(boxes, (-1, 5))[:, [1, 2, 3, 4, 0]] for boxes in LABELS]
    other = DetectionDataset(filenames=dataset.filenames, labels=labels, labels_output_format=order)
    other.class_names = dataset.class_names
    assert str(other.describe()) == str(dataset.describe())


def test_report(dataset):
    text = str(dataset.describe())
    for part in (
        "4 images, 9 boxes of 4 classes; 1 images without objects",
        "Boxes in an image: 2.2 on average, 4 at most",
        "Image sizes, height x width: 20 x 30 (4)",
        "    1  dog         5   55.6%       2",
        "    4  cow         0    0.0%       0",
        "50% below 0.",
        "Degenerate boxes: 3; the first is",
        "2.png, box 0: (1.0, 5.0, 5.0, 5.0, 9.0)",
        "Duplicate boxes: 1; ",
        "Boxes that reach out of their image: 2; ",
    ):
        assert part in text, text


def test_without_names_and_files(dataset):
    dataset.class_names = None
    dataset.filenames = [*dataset.filenames[:3], "none.png"]
    found = dataset.describe()
    assert found.boxes_per_class == {1: 5, 2: 3, 3: 1}
    assert list(found.unreadable_images) == [3]
    assert len(found.box_sizes) == 5
    assert "Images that cannot be read: 1; none.png: cannot read" in str(found)
    without_sizes = dataset.describe(read_image_sizes=False)
    assert without_sizes.image_sizes == without_sizes.unreadable_images == {}
    assert without_sizes.boxes_outside == []
    assert len(without_sizes.degenerate_boxes) == 3
    assert "sizes" not in str(without_sizes)


def test_ids_beyond_the_names(dataset):
    dataset.class_names = ["background", "dog"]
    text = str(dataset.describe())
    assert "    3  ?  " in text


def test_many_classes(dataset):
    dataset.class_names = ["background", *(f"c{i}" for i in range(1, 91))]
    assert "and 50 more classes" in str(dataset.describe())


def test_without_labels(dataset):
    dataset.labels = None
    found = dataset.describe()
    assert found.n_boxes == 0
    assert found.boxes_per_image.tolist() == [0] * 4
    assert "4 images, 0 boxes of 4 classes; 4 images without objects" in str(found)


def test_nothing_loaded():
    with pytest.raises(DatasetError, match="No data set is loaded"):
        DetectionDataset().describe()
