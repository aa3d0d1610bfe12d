"""Scoring detections of any origin in one call, from plain arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from types import SimpleNamespace

import numpy as np

from eval_utils.detection_scorer import GT_FORMAT, DetectionScorer
from eval_utils.prediction_results import collect_predictions


def score_detections(
    ground_truth: object | Mapping[Hashable, np.ndarray] | Sequence[np.ndarray],
    detections: Mapping[Hashable, np.ndarray] | Sequence[np.ndarray],
    n_classes: int | None = None,
    eval_neutral: Sequence | None = None,
    class_names: Sequence[str] | None = None,
    matching_iou_threshold: float = 0.5,
    border_pixels: str = "include",
    average_precision_mode: str = "sample",
    num_recall_points: int = 11,
    ignore_neutral_boxes: bool = True,
    matching_rule: str = "voc",
) -> DetectionScorer:
    """Compute the average precision of every class, and their mean.

        scores = score_detections(labels, detections)
        scores.mean_average_precision, scores.average_precisions[1], scores.summary()

    The defaults are the rules of Pascal VOC 2007; ``average_precision_mode='integrate'`` makes them
    those of VOC 2010 and later, and ``matching_rule='coco', border_pixels='half',
    average_precision_mode='coco'`` those of the AP50 of MS COCO.

    Arguments:
        ground_truth: A data set, which is any object with the attributes `labels`, `image_ids` and
            `eval_neutral` of a `DataGenerator`; or a dictionary {image id: boxes}; or a list of the
            boxes of each image. Boxes are `(k, 5)`: class id (from 1), xmin, ymin, xmax, ymax.
        detections: A dictionary {image id: detections}, in which images without detections may be
            missing; or a list of the detections of each image, in the order of the ground truth.
            Detections are `(k, 6)`: class id, confidence, xmin, ymin, xmax, ymax in pixels.
        n_classes: The number of positive classes; None: as many as there are class names, or else
            the greatest class id that occurs.
        eval_neutral: For each image in the order of the ground truth one boolean per box, True for
            boxes that count for nothing; None: those of the data set.
        class_names: n_classes + 1 names for reports, that of the background first; None: those of
            the data set.
        matching_iou_threshold: The overlap from which on (equality included) an object counts as
            found.
        border_pixels: ``'include'``, ``'half'`` or ``'exclude'``: whether the pixels under the
            borders belong to a box.
        average_precision_mode: ``'sample'``, ``'integrate'`` or ``'coco'``, see
            `average_precision.average_precision`.
        num_recall_points: The number of recall levels for ``'sample'``.
        ignore_neutral_boxes: Whether neutral boxes count for nothing; otherwise they are like all
            others.
        matching_rule: ``'voc'`` or ``'coco'``, see `eval_utils.matching`.

    Returns:
        A `DetectionScorer` with all its results.

    Raises:
        ValueError: if ground truth and detections do not belong together, or a setting is unknown.

    Example:
        One image with two objects of class 1; one is found, and something that is none:

        >>> import numpy as np
        >>> from eval_utils.scoring import score_detections
        >>> labels = {"street": np.array([[1, 10, 10, 50, 50], [1, 60, 10, 90, 40]])}
        >>> detections = {"street": np.array([[1, 0.9, 12, 10, 50, 50], [1, 0.6, 10, 60, 40, 90]])}
        >>> scores = score_detections(labels, detections, class_names=["background", "car"])
        >>> round(scores.mean_average_precision, 3)
        0.545
        >>> scores.cumulative_precisions[1], scores.cumulative_recalls[1]
        (array([1. , 0.5]), array([0.5, 0.5]))
    """
    data = _data_set(ground_truth, eval_neutral)
    class_names = class_names or getattr(data, "class_names", None)
    pairs = _by_image(detections, data)
    if n_classes is None:
        n_classes = len(class_names) - 1 if class_names else _greatest_class_id(data, pairs)
    scorer = DetectionScorer(n_classes, data, class_names=class_names)
    scorer.prediction_results = collect_predictions(pairs, n_classes)
    scorer.score(
        matching_iou_threshold=matching_iou_threshold,
        border_pixels=border_pixels,
        sorting_algorithm="stable",
        average_precision_mode=average_precision_mode,
        num_recall_points=num_recall_points,
        ignore_neutral_boxes=ignore_neutral_boxes,
        verbose=False,
        matching_rule=matching_rule,
    )
    return scorer


def _data_set(ground_truth: object, eval_neutral: Sequence | None) -> object:
    """Bring the ground truth to the form in which a `DetectionScorer` reads it.

    A data set stays itself, so that reports can show its images.
    """
    if isinstance(ground_truth, Mapping):
        image_ids, labels = list(ground_truth), list(ground_truth.values())
        ground_truth = SimpleNamespace(labels=labels, image_ids=image_ids)
    elif not hasattr(ground_truth, "labels"):
        ground_truth = SimpleNamespace(labels=list(ground_truth), image_ids=None)
    if ground_truth.labels is None:
        raise ValueError("`ground_truth` is a data set without labels: nothing can be scored.")
    if eval_neutral is not None:
        ground_truth = copy(ground_truth)
        ground_truth.eval_neutral = eval_neutral
    return ground_truth


def _by_image(
    detections: Mapping[Hashable, np.ndarray] | Sequence[np.ndarray], data: object
) -> list[tuple[Hashable, np.ndarray]]:
    if isinstance(detections, Mapping):
        pairs = list(detections.items())
    elif len(detections) != len(data.labels):
        raise ValueError(
            f"There are detections for {len(detections)} images, but ground truth for "
            f"{len(data.labels)}: a list needs one entry for each image, if only an empty one. "
            "Detections of some images only can be given as a dictionary {image id: detections}."
        )
    else:
        image_ids = getattr(data, "image_ids", None)
        image_ids = range(len(data.labels)) if image_ids is None else image_ids
        pairs = list(zip(image_ids, detections, strict=True))
    for image_id, rows in pairs:
        if len(rows) > 0 and (np.ndim(rows) != 2 or np.shape(rows)[1] != 6):
            raise ValueError(
                f"The detections of image {image_id!r} must be (k, 6): class id, confidence, xmin, "
                f"ymin, xmax, ymax; got shape {np.shape(rows)}."
            )
    return pairs


def _greatest_class_id(data: object, pairs: list[tuple[Hashable, np.ndarray]]) -> int:
    label_column = (getattr(data, "labels_format", None) or GT_FORMAT)["class_id"]
    ids = [np.asarray(rows)[..., label_column].max() for rows in data.labels if len(rows) > 0]
    ids += [np.asarray(rows)[:, 0].max() for _, rows in pairs if len(rows) > 0]
    return int(max(ids, default=1))
