"""Mean average precision of a model on a data set, by the rules of Pascal VOC."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from bounding_box_utils.bounding_box_utils import border_width
from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.average_precision import check_average_precision_mode
from eval_utils.detection_scorer import DetectionScorer
from eval_utils.matching import check_matching_rule
from eval_utils.prediction import (
    PRED_FORMAT,
    check_model_mode,
    input_transformations,
    make_detection_function,
    predict_images,
)
from eval_utils.prediction_files import write_predictions
from eval_utils.prediction_results import Prediction, collect_predictions
from ssd_encoder_decoder.class_names import check_same_classes, get_class_names


class Evaluator(DetectionScorer):
    """Runs a model over a data set and computes average precisions.

    Calling an evaluator does it all. The stages can also be called one by one: first
    `predict_on_dataset`, which fills in `prediction_results`, then those of `DetectionScorer`,
    where they and their results are described. Evaluating does not change the data set.

    Arguments:
        model: Any object with a method `predict(batch)`, a Keras model for example.
        n_classes: The number of positive classes, background not counted.
        data_generator: A `DataGenerator` with the images and labels to evaluate on.
        model_mode: The mode the model was built with: ``'training'`` (raw output, decoded here),
            ``'inference'`` or ``'inference_fast'`` (the model decodes).
        pred_format: The columns of 'class_id', 'conf', 'xmin', 'ymin', 'xmax' and 'ymax' in decoded
            output; None means this order.
        gt_format: The columns of 'class_id', 'xmin', 'ymin', 'xmax' and 'ymax' in the labels; None
            means the `labels_format` of the data generator.
        class_names: n_classes + 1 names for reports, that of the background first; None means those
            of the data generator, or of the model if the data generator has none.

    Raises:
        ValueError: if `n_classes`, `model_mode` or `class_names` is not as described, or if data
            generator and model have their classes in different orders and no names were given.
    """

    def __init__(
        self,
        model: object,
        n_classes: int,
        data_generator: DataGenerator,
        model_mode: str = "inference",
        pred_format: Mapping[str, int] | None = None,
        gt_format: Mapping[str, int] | None = None,
        class_names: Sequence[str] | None = None,
    ):
        check_model_mode(model_mode)
        if not isinstance(data_generator, DataGenerator):
            warnings.warn(
                f"`data_generator` is a {type(data_generator).__name__}, not a `DataGenerator`; "
                "it must have the same attributes and methods.",
                stacklevel=2,
            )
        if class_names is None:
            class_names = _names_of_model(model, data_generator)
        super().__init__(n_classes, data_generator, gt_format, class_names)
        self.model = model
        self.model_mode = model_mode
        self.pred_format = dict(pred_format or PRED_FORMAT)

    def __call__(
        self,
        img_height: int,
        img_width: int,
        batch_size: int,
        data_generator_mode: str = "resize",
        round_confidences: int | bool = False,
        matching_iou_threshold: float = 0.5,
        border_pixels: str = "include",
        sorting_algorithm: str = "quicksort",
        average_precision_mode: str = "sample",
        num_recall_points: int = 11,
        ignore_neutral_boxes: bool = True,
        return_precisions: bool = False,
        return_recalls: bool = False,
        return_average_precisions: bool = False,
        verbose: bool = True,
        decoding_confidence_thresh: float = 0.01,
        decoding_iou_threshold: float = 0.45,
        decoding_top_k: int | str = 200,
        decoding_pred_coords: str = "centroids",
        decoding_normalize_coords: bool = True,
        matching_rule: str = "voc",
    ) -> float | list:
        """Predict on the data set and score the predictions.

        The arguments are described at the stages they belong to; `border_pixels` applies to
        decoding and matching alike.

        Returns:
            The mean average precision; or, with any of `return_average_precisions`,
            `return_precisions` and `return_recalls`, a list of it and the per-class lists asked
            for, in this order.

        Raises:
            ValueError: before anything is predicted, if the data set has no labels or a setting is
                unknown.
        """
        self.check_labels()
        check_average_precision_mode(average_precision_mode, num_recall_points)
        check_matching_rule(matching_rule)
        border_width(border_pixels)  # raises for an unknown one

        self.predict_on_dataset(
            img_height,
            img_width,
            batch_size,
            data_generator_mode=data_generator_mode,
            decoding_confidence_thresh=decoding_confidence_thresh,
            decoding_iou_threshold=decoding_iou_threshold,
            decoding_top_k=decoding_top_k,
            decoding_pred_coords=decoding_pred_coords,
            decoding_normalize_coords=decoding_normalize_coords,
            decoding_border_pixels=border_pixels,
            round_confidences=round_confidences,
            verbose=verbose,
        )
        mean_average_precision = self.score(
            matching_iou_threshold=matching_iou_threshold,
            border_pixels=border_pixels,
            sorting_algorithm=sorting_algorithm,
            average_precision_mode=average_precision_mode,
            num_recall_points=num_recall_points,
            ignore_neutral_boxes=ignore_neutral_boxes,
            verbose=verbose,
            matching_rule=matching_rule,
        )

        extras = [
            (return_average_precisions, self.average_precisions),
            (return_precisions, self.cumulative_precisions),
            (return_recalls, self.cumulative_recalls),
        ]
        wanted = [result for is_wanted, result in extras if is_wanted]
        return [mean_average_precision, *wanted] if wanted else mean_average_precision

    def predict_on_dataset(
        self,
        img_height: int,
        img_width: int,
        batch_size: int,
        data_generator_mode: str = "resize",
        decoding_confidence_thresh: float = 0.01,
        decoding_iou_threshold: float = 0.45,
        decoding_top_k: int | str = 200,
        decoding_pred_coords: str = "centroids",
        decoding_normalize_coords: bool = True,
        decoding_border_pixels: str = "include",
        round_confidences: int | bool = False,
        verbose: bool = True,
        ret: bool = False,
    ) -> list[list[Prediction]] | None:
        """Run the model over the data set.

        Arguments:
            img_height: The height of the model's input in pixels.
            img_width: The width of the model's input in pixels.
            batch_size: The number of images predicted at a time.
            data_generator_mode: ``'resize'`` stretches images to the model's input, ``'pad'`` pads
                them to its aspect ratio first.
            decoding_confidence_thresh: As `confidence_thresh` of `decode_detections`. This and the
                next five are for the model mode ``'training'`` only.
            decoding_iou_threshold: As `iou_threshold` there.
            decoding_top_k: As `top_k` there.
            decoding_pred_coords: As `input_coords` there.
            decoding_normalize_coords: As `normalize_coords` there.
            decoding_border_pixels: As `border_pixels` there.
            round_confidences: The number of decimals to round confidences to; False: do not round.
            verbose: Whether to show a progress bar.
            ret: Whether to return the predictions.

        Returns:
            With `ret`, for each class a list of (image_id, confidence, xmin, ymin, xmax, ymax),
            with unrounded boxes in pixels of the original image. Images of a data set without ids
            count from 0.

        Raises:
            ValueError: if the data set is empty, the mode is unknown or the model's output does not
                suit the model mode.
        """
        detect = make_detection_function(
            self.model,
            self.model_mode,
            self.n_classes,
            self.pred_format,
            confidence_thresh=decoding_confidence_thresh,
            iou_threshold=decoding_iou_threshold,
            top_k=decoding_top_k,
            input_coords=decoding_pred_coords,
            normalize_coords=decoding_normalize_coords,
            img_height=img_height,
            img_width=img_width,
            border_pixels=decoding_border_pixels,
        )
        channels = getattr(self.data_generator, "image_channels", 3)
        transformations = input_transformations(
            data_generator_mode, img_height, img_width, channels
        )
        detections = predict_images(
            detect, self.data_generator, transformations, batch_size, verbose
        )
        self.prediction_results = collect_predictions(detections, self.n_classes, round_confidences)
        return self.prediction_results if ret else None

    def write_predictions_to_txt(
        self,
        classes: Sequence[str] | None = None,
        out_file_prefix: str = "comp3_det_test_",
        verbose: bool = True,
    ) -> None:
        """Write the predictions to one text file for each class, in the format of Pascal VOC.

        Arguments:
            classes: n_classes + 1 class names, that of the background first, which become part of
                the file names; None: class ids in four digits.
            out_file_prefix: Folder and first part of the file names.
            verbose: Whether to print what is written.

        Raises:
            ValueError: if there are no predictions yet, or not the right number of names.
        """
        self._require("prediction_results", "predict_on_dataset")
        paths = write_predictions(self.prediction_results, out_file_prefix, classes)
        if verbose:
            print(f"Wrote the predictions of {len(paths)} classes to {out_file_prefix}*.txt")


def _names_of_model(model: object, data_generator: object) -> list[str] | None:
    """Return the model's class names if the data have none; those of both must not contradict."""
    names = get_class_names(model)
    others = getattr(data_generator, "class_names", None)
    check_same_classes(names, others)
    return None if others else names
