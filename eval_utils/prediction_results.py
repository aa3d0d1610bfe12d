"""Lists of predictions by class: made from detections, and turned into arrays."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from eval_utils.ground_truth import image_key

# (image_id, confidence, xmin, ymin, xmax, ymax), the box in pixels of the original image.
Prediction = tuple[Hashable, float, float, float, float, float]


def collect_predictions(
    detections: Iterable[tuple[Hashable, np.ndarray]],
    n_classes: int,
    round_confidences: int | bool = False,
) -> list[list[Prediction]]:
    """Sort the detections of all images by class.

    Use it to let an `Evaluator` score detections of any origin:
    ``evaluator.prediction_results = collect_predictions(zip(image_ids, detections), n_classes)``.

    Arguments:
        detections: Pairs (image id, `(k, 6)` array of class_id, confidence, xmin, ymin, xmax, ymax
            in pixels of the original image).
        n_classes: The number of positive classes.
        round_confidences: The number of decimals to round confidences to; False: do not round.

    Returns:
        One list for each class, a dummy for class 0 included, of tuples (image_id, confidence,
        xmin, ymin, xmax, ymax), in the order of the detections.

    Raises:
        ValueError: if a class id is not one of 1 to `n_classes`.
    """
    results: list[list[Prediction]] = [[] for _ in range(n_classes + 1)]
    for image_id, boxes in detections:
        if len(boxes) == 0:
            continue
        rows = np.array(boxes, dtype=np.float64)
        if round_confidences:
            rows[:, 1] = np.round(rows[:, 1], round_confidences)
        for class_id, *values in rows.tolist():
            if not (1 <= class_id <= n_classes and class_id.is_integer()):
                raise ValueError(
                    f"A detection in image {image_id!r} has the class id {class_id:g}, but class "
                    f"ids run from 1 to n_classes = {n_classes}: is `n_classes` right?"
                )
            results[int(class_id)].append((image_id, *values))
    return results


def prediction_arrays(
    predictions: Sequence[Prediction], image_numbers: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn the predictions of one class into arrays.

    Arguments:
        predictions: Tuples (image_id, confidence, xmin, ymin, xmax, ymax).
        image_numbers: The number of each image, see `number_images`.

    Returns:
        `(n,)` image numbers, `(n,)` float64 confidences, `(n, 4)` float64 boxes.

    Raises:
        ValueError: if a prediction is no such tuple or names an image that has no number.
    """
    if len(predictions) == 0:
        return np.zeros(0, dtype=np.intp), np.zeros(0), np.zeros((0, 4))
    if set(map(len, predictions)) != {6}:
        raise ValueError(
            "A prediction must be (image_id, confidence, xmin, ymin, xmax, ymax); "
            f"got {next(p for p in predictions if len(p) != 6)!r}."
        )
    image_ids = [prediction[0] for prediction in predictions]
    # Far fewer images than predictions: look every image up once.
    numbers = {image_id: image_numbers.get(image_key(image_id)) for image_id in set(image_ids)}
    unknown = [image_id for image_id, number in numbers.items() if number is None]
    if unknown:
        raise ValueError(
            f"There are predictions for {len(unknown)} images that the data set does not hold, for "
            f"example {unknown[0]!r}: do predictions and data set belong together?"
        )
    images = np.fromiter(map(numbers.__getitem__, image_ids), dtype=np.intp, count=len(image_ids))
    values = np.fromiter(
        itertools.chain.from_iterable(prediction[1:] for prediction in predictions),
        dtype=np.float64,
        count=5 * len(predictions),
    ).reshape(-1, 5)
    return images, values[:, 0], values[:, 1:]
