"""The labels of a data set as a network sees them: corners, in pixels of its input."""

from __future__ import annotations

import numpy as np

from data_generator.annotations import label_array
from data_generator.detection_dataset import DetectionDataset

_LABEL = ("class_id", "xmin", "ymin", "xmax", "ymax")


def corner_labels(dataset: DetectionDataset, index: int) -> np.ndarray:
    """Return the labels of an image in the order that all of this library understands.

    Arguments:
        dataset: A data set with labels.
        index: The position of the image.

    Returns:
        A new float64 array `(k, 5)`: class_id, xmin, ymin, xmax, ymax in pixels of the image.
    """
    columns = [dataset.labels_format[name] for name in _LABEL]
    where, n_columns = dataset.entry_name(index), len(dataset.labels_format)
    labels = label_array(dataset.labels[index], where, n_columns)
    return labels[:, columns].astype(np.float64)


def labels_of_input_size(
    dataset: DetectionDataset, image_size: tuple[int, int]
) -> list[np.ndarray]:
    """Return the labels of all images as they are after a `Resize` to the network's input.

    Only the sizes of the images are read, not the images.

    Arguments:
        dataset: A data set with labels.
        image_size: (height, width) of the network's input.

    Returns:
        One float64 array `(k, 5)` for each image: class_id, xmin, ymin, xmax, ymax.

    Raises:
        ImageReadError: The size of an image cannot be read.
    """
    target_height, target_width = image_size
    resized = []
    for index in range(dataset.dataset_size):
        labels = corner_labels(dataset, index)
        if len(labels):
            height, width = dataset.get_image_size(index)
            labels[:, 1:] *= [target_width / width, target_height / height] * 2
        resized.append(labels)
    return resized
