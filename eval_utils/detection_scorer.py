"""Scoring detections against ground truth, stage by stage, by the rules of Pascal VOC."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from eval_utils.average_precision import (
    average_precision,
    check_average_precision_mode,
    precision_and_recall,
)
from eval_utils.ground_truth import GroundTruth, read_ground_truth
from eval_utils.matched_class import MatchedClass, match_class
from eval_utils.matching import check_matching_rule
from eval_utils.prediction_files import read_coco_predictions, read_predictions
from eval_utils.prediction_results import Prediction
from eval_utils.report import write_report

GT_FORMAT = {"class_id": 0, "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}


class DetectionScorer:
    """Computes the average precision of every class, and their mean, from given detections.

    The detections may come from any detector: assign `prediction_results` (see
    `eval_utils.prediction_results.collect_predictions`), or read them from the text files of Pascal
    VOC or the JSON of MS COCO with `load_predictions_from_txt` or `load_predictions_from_json`.
    Then call `score`, which runs five stages, or the stages one by one, to look at what lies
    between them or to repeat only the last ones with other settings:

    ====================================  ====================================================
    stage                                 fills in
    ====================================  ====================================================
    `get_num_gt_per_class`                num_gt_per_class, classes_without_gt
    `match_predictions`                   matched_classes (all details of the matching),
                                          true_positives, false_positives and both cumulative_...
    `compute_precision_recall`            cumulative_precisions, cumulative_recalls
    `compute_average_precisions`          average_precisions
    `compute_mean_average_precision`      mean_average_precision
    ====================================  ====================================================

    All results are None until their stage has run. Those that hold one entry for each class have
    length n_classes + 1: class 0, the background, has a dummy entry. Arrays over predictions are in
    the order of falling confidence.

    Arguments:
        n_classes: The number of positive classes, background not counted.
        data_generator: A `DataGenerator`, or any object with its attribute `labels` and, if there
            are any, `image_ids` and `eval_neutral`. They are read when a stage needs them, and
            never changed.
        gt_format: The columns of 'class_id', 'xmin', 'ymin', 'xmax' and 'ymax' in the labels; None
            means the `labels_format` of the data generator if it has one, or else this order.
        class_names: n_classes + 1 names for reports, that of the background first; None means the
            `class_names` of the data generator if it has as many, or else the class ids.

    Raises:
        ValueError: if `n_classes` or `class_names` is not as described.
    """

    def __init__(
        self,
        n_classes: int,
        data_generator: object,
        gt_format: Mapping[str, int] | None = None,
        class_names: Sequence[str] | None = None,
    ):
        if n_classes < 1:
            raise ValueError(
                f"`n_classes` counts the positive classes: at least 1, got {n_classes}."
            )
        if class_names is not None and len(class_names) != n_classes + 1:
            raise ValueError(
                f"`class_names` must hold the background and {n_classes} classes, "
                f"{n_classes + 1} names in all; got {len(class_names)}."
            )
        self.n_classes = n_classes
        self.data_generator = data_generator
        self.gt_format = dict(
            gt_format or getattr(data_generator, "labels_format", None) or GT_FORMAT
        )
        known_names = class_names or getattr(data_generator, "class_names", None) or ()
        self.class_names = list(known_names) if len(known_names) == n_classes + 1 else None

        self.prediction_results: list[list[Prediction]] | None = None
        self.num_gt_per_class: np.ndarray | None = None
        self.classes_without_gt: list[int] | None = None
        self.matched_classes: list[MatchedClass | None] | None = None
        self.true_positives: list[np.ndarray] | None = None
        self.false_positives: list[np.ndarray] | None = None
        self.cumulative_true_positives: list[np.ndarray] | None = None
        self.cumulative_false_positives: list[np.ndarray] | None = None
        self.cumulative_precisions: list[np.ndarray] | None = None
        self.cumulative_recalls: list[np.ndarray] | None = None
        self.average_precisions: list[float] | None = None
        self.mean_average_precision: float | None = None
        # What the stages were called with, for reports.
        self.matching_settings: dict[str, object] = {}
        self.average_precision_settings: dict[str, object] = {}

    def score(
        self,
        matching_iou_threshold: float = 0.5,
        border_pixels: str = "include",
        sorting_algorithm: str = "quicksort",
        average_precision_mode: str = "sample",
        num_recall_points: int = 11,
        ignore_neutral_boxes: bool = True,
        verbose: bool = True,
        matching_rule: str = "voc",
    ) -> float:
        """Run all five stages; their methods describe the arguments.

        Returns:
            The mean average precision.

        Raises:
            ValueError: if labels or predictions are missing, or a setting is unknown.
        """
        self.get_num_gt_per_class(ignore_neutral_boxes, verbose=verbose)
        self.match_predictions(
            ignore_neutral_boxes,
            matching_iou_threshold,
            border_pixels,
            sorting_algorithm,
            verbose=verbose,
            matching_rule=matching_rule,
        )
        self.compute_precision_recall(verbose=verbose)
        self.compute_average_precisions(average_precision_mode, num_recall_points, verbose=verbose)
        return self.compute_mean_average_precision()

    def load_predictions_from_txt(
        self, classes: Sequence[str] | None = None, in_file_prefix: str = "comp3_det_test_"
    ) -> None:
        """Read `prediction_results` from one text file for each class, in the format of Pascal VOC.

        The counterpart of `write_predictions_to_txt`; see `prediction_files.read_predictions`.

        Arguments:
            classes: n_classes + 1 class names, that of the background first, which are part of the
                file names; None: class ids in four digits.
            in_file_prefix: Folder and first part of the file names.

        Raises:
            ValueError: if there is not one name for each class and the background, or if a line is
                no prediction or names an image that the data set does not hold.
            FileNotFoundError: if a class has no file.
        """
        self.prediction_results = read_predictions(
            in_file_prefix, self.n_classes, self._image_ids(), classes
        )

    def load_predictions_from_json(
        self,
        detections: str | os.PathLike | Sequence[Mapping],
        cats_to_classes: Mapping[int, int] | None = None,
    ) -> None:
        """Read `prediction_results` from a results file of MS COCO.

        Arguments:
            detections: The JSON file, or the list of detections that it holds.
            cats_to_classes: The class id of each category id; None means the `cats_to_classes` of
                the data generator if it has them, or else that the ids are the same.

        Raises:
            ValueError: if a detection is incomplete or has an unknown category.
        """
        if cats_to_classes is None:
            cats_to_classes = getattr(self.data_generator, "cats_to_classes", None)
        self.prediction_results = read_coco_predictions(detections, self.n_classes, cats_to_classes)

    def get_num_gt_per_class(
        self, ignore_neutral_boxes: bool = True, verbose: bool = True, ret: bool = False
    ) -> np.ndarray | None:
        """Count the ground truth boxes of each class.

        Arguments:
            ignore_neutral_boxes: Whether to leave out the boxes that the data set marks as neutral.
            verbose: Whether to print which classes have none.
            ret: Whether to return the counts.

        Returns:
            With `ret`, `(n_classes + 1,)` integers.

        Raises:
            ValueError: if the data set has no labels, or labels with class ids out of range.
        """
        ground_truth = self._read_ground_truth(ignore_neutral_boxes)
        counted = ground_truth.class_ids[~ground_truth.neutral]
        self.num_gt_per_class = np.bincount(counted, minlength=self.n_classes + 1)
        self.classes_without_gt = [
            class_id
            for class_id in range(1, self.n_classes + 1)
            if self.num_gt_per_class[class_id] == 0
        ]
        if verbose:
            print(f"Counted {len(counted)} ground truth boxes in {self.n_classes} classes.")
            if self.classes_without_gt:
                missing = ", ".join(str(self._name(c)) for c in self.classes_without_gt)
                print(f"Without ground truth, hence not part of the mean: {missing}.")
        return self.num_gt_per_class if ret else None

    def match_predictions(
        self,
        ignore_neutral_boxes: bool = True,
        matching_iou_threshold: float = 0.5,
        border_pixels: str = "include",
        sorting_algorithm: str = "quicksort",
        verbose: bool = True,
        ret: bool = False,
        matching_rule: str = "voc",
    ) -> tuple[list[np.ndarray], ...] | None:
        """Find out which predictions are right (see `eval_utils.matching` for the rules).

        Arguments:
            ignore_neutral_boxes: Whether predictions on neutral boxes count for nothing; otherwise
                neutral boxes are like all others. Use what `get_num_gt_per_class` was called with.
            matching_iou_threshold: The overlap from which on (equality included) a prediction
                counts as a hit.
            border_pixels: ``'include'`` (Pascal VOC), ``'half'`` or ``'exclude'``: whether the
                pixels under the borders belong to a box.
            sorting_algorithm: The `kind` of `numpy.argsort` that ranks predictions by confidence.
                With equal confidences only ``'mergesort'`` and ``'stable'`` keep the predictions'
                order; the others leave it open.
            verbose: Whether to print which classes have no predictions.
            ret: Whether to return the results.
            matching_rule: ``'voc'``: the box of greatest overlap decides, taken or not; ``'coco'``:
                the free box of greatest overlap does. COCO leaves out the pixels under borders:
                combine it with ``border_pixels='half'``.

        Returns:
            With `ret`, (true_positives, false_positives, cumulative_true_positives,
            cumulative_false_positives): lists with one integer array for each class. A prediction
            on a neutral box is 0 in both of the first two.

        Raises:
            ValueError: if labels or predictions are missing or do not belong together.
        """
        check_matching_rule(matching_rule)
        ground_truth = self._read_ground_truth(ignore_neutral_boxes)
        self._require("prediction_results", "predict_on_dataset")
        if len(self.prediction_results) != self.n_classes + 1:
            raise ValueError(
                "`prediction_results` must have one list for each class and one for the background,"
                f" {self.n_classes + 1} in all; got {len(self.prediction_results)}."
            )

        self.matching_settings = {
            "iou_threshold": matching_iou_threshold,
            "border_pixels": border_pixels,
            "matching_rule": matching_rule,
        }
        self.matched_classes = [None]
        for class_id, predictions in enumerate(self.prediction_results[1:], start=1):
            if verbose and len(predictions) == 0:
                print(f"No predictions for class {self._name(class_id)}.")
            self.matched_classes.append(
                match_class(
                    predictions,
                    ground_truth,
                    class_id,
                    sorting_algorithm=sorting_algorithm,
                    **self.matching_settings,
                )
            )
        nothing = np.zeros(0, dtype=bool)
        matches = [matched.matches for matched in self.matched_classes[1:]]
        hits = [nothing, *(match.true_positives for match in matches)]
        misses = [nothing, *(match.false_positives for match in matches)]
        self.true_positives = [flags.astype(np.int64) for flags in hits]
        self.false_positives = [flags.astype(np.int64) for flags in misses]
        self.cumulative_true_positives = [np.cumsum(flags) for flags in hits]
        self.cumulative_false_positives = [np.cumsum(flags) for flags in misses]
        if not ret:
            return None
        return (
            self.true_positives,
            self.false_positives,
            self.cumulative_true_positives,
            self.cumulative_false_positives,
        )

    def compute_precision_recall(
        self, verbose: bool = True, ret: bool = False
    ) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
        """Compute the precision/recall curve of each class.

        Arguments:
            verbose: Whether to print a line.
            ret: Whether to return the curves.

        Returns:
            With `ret`, (precisions, recalls): lists with one float64 array for each class. The
            recalls of a class without ground truth are NaN.

        Raises:
            ValueError: if an earlier stage has not run, or if the stages before disagree.
        """
        self._require("cumulative_true_positives", "match_predictions")
        self._require("num_gt_per_class", "get_num_gt_per_class")
        curves = []
        for class_id, num_gt in enumerate(self.num_gt_per_class):
            hits = self.cumulative_true_positives[class_id]
            if len(hits) > 0 and hits[-1] > num_gt:
                raise ValueError(
                    f"Class {self._name(class_id)} has {hits[-1]} true positives, but only "
                    f"{num_gt} ground truth boxes: call `get_num_gt_per_class` and "
                    "`match_predictions` with the same `ignore_neutral_boxes` and labels."
                )
            curves.append(
                precision_and_recall(hits, self.cumulative_false_positives[class_id], num_gt)
            )
        self.cumulative_precisions = [precisions for precisions, _ in curves]
        self.cumulative_recalls = [recalls for _, recalls in curves]
        if verbose:
            print(f"Computed the precisions and recalls of {self.n_classes} classes.")
        return (self.cumulative_precisions, self.cumulative_recalls) if ret else None

    def compute_average_precisions(
        self,
        mode: str = "sample",
        num_recall_points: int = 11,
        verbose: bool = True,
        ret: bool = False,
    ) -> list[float] | None:
        """Sum up the precision/recall curve of each class.

        Arguments:
            mode: ``'sample'``: mean precision at equidistant recall levels (Pascal VOC until 2009);
                ``'integrate'``: area under the curve (Pascal VOC since 2010); ``'coco'``: mean
                precision at 101 recall levels, as MS COCO computes it.
            num_recall_points: The number of recall levels for ``'sample'``.
            verbose: Whether to print the average precision of each class.
            ret: Whether to return the average precisions.

        Returns:
            With `ret`, a list of n_classes + 1 floats. A class with ground truth but without
            predictions has 0.0, a class without ground truth has none: NaN.

        Raises:
            ValueError: if an earlier stage has not run or the mode is unknown.
        """
        self._require("cumulative_recalls", "compute_precision_recall")
        check_average_precision_mode(mode, num_recall_points)
        self.average_precision_settings = {"mode": mode, "num_recall_points": num_recall_points}
        average_precisions = [0.0]
        for class_id in range(1, self.n_classes + 1):
            value = math.nan
            if self.num_gt_per_class[class_id] > 0:
                value = average_precision(
                    self.cumulative_precisions[class_id],
                    self.cumulative_recalls[class_id],
                    **self.average_precision_settings,
                )
            average_precisions.append(value)
            if verbose:
                text = "n/a (no ground truth)" if math.isnan(value) else f"{value:.4f}"
                print(f"Average precision of class {self._name(class_id)}: {text}")
        self.average_precisions = average_precisions
        return average_precisions if ret else None

    def compute_mean_average_precision(self, ret: bool = True) -> float | None:
        """Average over the classes that have ground truth.

        Arguments:
            ret: Whether to return the mean.

        Returns:
            With `ret`, the mean average precision; NaN if no class has ground truth.

        Raises:
            ValueError: if `compute_average_precisions` has not run.
        """
        self._require("average_precisions", "compute_average_precisions")
        values = [value for value in self.average_precisions[1:] if not math.isnan(value)]
        self.mean_average_precision = float(np.mean(values)) if values else math.nan
        return self.mean_average_precision if ret else None

    def summary(self) -> dict:
        """Return the results as a dictionary that can be written as JSON.

        Returns:
            ``{'mAP': ..., 'average_precisions': {class: ...}, 'num_gt_per_class': {class: ...}}``.
            Classes are named if the evaluator knows names, and go by their ids otherwise; what does
            not exist for lack of ground truth is None.

        Raises:
            ValueError: if not all stages have run.
        """
        self._require("mean_average_precision", "compute_mean_average_precision")
        names = [self._name(class_id) for class_id in range(1, self.n_classes + 1)]
        values = [None if math.isnan(value) else value for value in self.average_precisions[1:]]
        mean = self.mean_average_precision
        return {
            "mAP": None if math.isnan(mean) else mean,
            "average_precisions": dict(zip(names, values, strict=True)),
            "num_gt_per_class": dict(zip(names, self.num_gt_per_class[1:].tolist(), strict=True)),
        }

    def report(
        self,
        path: str | os.PathLike,
        confidence_thresh: float | None = None,
        n_pictures: int = 24,
        title: str = "Evaluation",
        object_sizes: str = "coco",
    ) -> None:
        """Write a report for people to read: one HTML file that works offline and can be printed.

        It shows precision/recall curves, precision, recall and F1 of each class, average precision
        by object size, the kinds of mistakes, a confusion matrix, and pictures of the most
        confident mistakes and the largest missed objects, if the data set can give its images.

        Arguments:
            path: The file to make or to replace.
            confidence_thresh: The least confidence of the detections that everything but average
                precision is about; None: where F1 of all classes together is best.
            n_pictures: The number of mistakes and of missed objects to show at most.
            title: The title of the page.
            object_sizes: ``'coco'``: objects are small below 32 x 32 pixels and large from 96 x 96
                on; ``'terciles'``: each size has a third of the objects.

        Raises:
            ValueError: if not all stages have run, or an argument is not as described.
        """
        self._require("mean_average_precision", "compute_mean_average_precision")
        write_report(self, path, confidence_thresh, n_pictures, title, object_sizes)

    def check_labels(self) -> None:
        """Raise a ValueError if the data set has no labels."""
        if self.data_generator.labels is None:
            raise ValueError(
                "The data set has no ground truth labels, so nothing can be evaluated on it. "
                "Load it with its annotations, or only predict on it."
            )

    def _read_ground_truth(self, ignore_neutral_boxes: bool) -> GroundTruth:
        self.check_labels()
        data = self.data_generator
        eval_neutral = getattr(data, "eval_neutral", None) if ignore_neutral_boxes else None
        return read_ground_truth(
            data.labels, self._image_ids(), self.n_classes, self.gt_format, eval_neutral
        )

    def _image_ids(self) -> Sequence[Hashable]:
        """Return the ids of the data set; without ids images count from 0, as in predicting."""
        image_ids = getattr(self.data_generator, "image_ids", None)
        if image_ids is not None:
            return image_ids
        self.check_labels()
        return range(len(self.data_generator.labels))

    def _name(self, class_id: int) -> str | int:
        return class_id if self.class_names is None else self.class_names[class_id]

    def _require(self, attribute: str, stage: str) -> None:
        if getattr(self, attribute) is None:
            raise ValueError(f"There is no `{attribute}` yet: call `{stage}` first.")
