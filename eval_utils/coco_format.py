"""Labels and predictions of this library in the formats of MS COCO."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from eval_utils.ground_truth import BOX_KEYS, image_key
from eval_utils.prediction_results import Prediction


def coco_ground_truth(
    labels: Sequence[np.ndarray],
    image_ids: Sequence[Hashable],
    class_names: Sequence[str],
    gt_format: Mapping[str, int],
    eval_neutral: Sequence | None = None,
    classes_to_cats: Mapping[int, int] | None = None,
) -> dict:
    """Describe labels in the format of MS COCO, so that any data set can be scored by its rules.

    Arguments:
        labels: For each image its boxes `(k, 5)` in pixels.
        image_ids: The id of each image.
        class_names: The names of the classes, that of the background first.
        gt_format: The column of 'class_id', 'xmin', 'ymin', 'xmax' and 'ymax' in `labels`.
        eval_neutral: For each image one boolean per box, or None. A neutral box becomes a crowd,
            which is how COCO marks what counts for nothing.
        classes_to_cats: The category id of each class id; None if they are the same.

    Returns:
        A dictionary with 'images', 'categories' and 'annotations'.
    """
    columns = [gt_format[key] for key in ("class_id", *BOX_KEYS)]
    annotations = []
    for position, (image_id, rows) in enumerate(zip(image_ids, labels, strict=True)):
        for row, box in enumerate(rows):
            class_id, xmin, ymin, xmax, ymax = (float(box[column]) for column in columns)
            width, height = xmax - xmin, ymax - ymin
            neutral = eval_neutral is not None and bool(eval_neutral[position][row])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": plain_id(image_id),
                    "category_id": _category(int(class_id), classes_to_cats),
                    "bbox": [xmin, ymin, width, height],
                    "area": width * height,
                    "iscrowd": int(neutral),
                }
            )
    categories = [
        {"id": _category(class_id, classes_to_cats), "name": name}
        for class_id, name in enumerate(class_names)
        if class_id > 0
    ]
    images = [{"id": plain_id(image_id)} for image_id in image_ids]
    return {"images": images, "categories": categories, "annotations": annotations}


def coco_detections(
    prediction_results: Sequence[Sequence[Prediction]],
    classes_to_cats: Mapping[int, int] | None = None,
) -> list[dict]:
    """Describe predictions in the results format of MS COCO.

    Arguments:
        prediction_results: For each class a list of (image_id, confidence, xmin, ymin, xmax, ymax),
            as `Evaluator.prediction_results`.
        classes_to_cats: The category id of each class id; None if they are the same.

    Returns:
        A list of ``{'image_id': ..., 'category_id': ..., 'bbox': [x, y, width, height],
        'score': ...}``.
    """
    return [
        {
            "image_id": plain_id(image_id),
            "category_id": _category(class_id, classes_to_cats),
            "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
            "score": confidence,
        }
        for class_id, predictions in enumerate(prediction_results)
        for image_id, confidence, xmin, ymin, xmax, ymax in predictions
    ]


def plain_id(image_id: Hashable) -> int | str:
    """Turn an image id into what JSON can hold: a number of NumPy becomes one of Python."""
    return int(image_id) if isinstance(image_id, (int, np.integer)) else image_key(image_id)


def _category(class_id: int, classes_to_cats: Mapping[int, int] | None) -> int:
    return class_id if classes_to_cats is None else classes_to_cats[class_id]
