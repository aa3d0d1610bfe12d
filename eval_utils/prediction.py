"""Running a model over a data set: from images to detections in pixels of these images."""

from __future__ import annotations

import inspect
import itertools
import math
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize
from data_generator.object_detection_2d_misc_utils import apply_inverse_transforms
from data_generator.object_detection_2d_patch_sampling_ops import RandomPadFixedAR
from data_generator.object_detection_2d_photometric_ops import ConvertTo3Channels
from eval_utils.ground_truth import BOX_KEYS
from ssd_encoder_decoder.ssd_output_decoder import decode_detections

MODEL_MODES = ("training", "inference", "inference_fast")
PRED_FORMAT = {"class_id": 0, "conf": 1, "xmin": 2, "ymin": 3, "xmax": 4, "ymax": 5}


def check_model_mode(model_mode: str) -> None:
    """Raise a ValueError unless `model_mode` is one of `MODEL_MODES`."""
    if model_mode not in MODEL_MODES:
        raise ValueError(
            f"`model_mode` must be one of {', '.join(MODEL_MODES)}; got {model_mode!r}."
        )


def input_transformations(
    mode: str, img_height: int, img_width: int, img_channels: int | None = 3
) -> list[Callable]:
    """List what happens to an image on its way into the model.

    Arguments:
        mode: ``'resize'``: stretch the image to the size of the model's input; ``'pad'``: pad it to
            the input's aspect ratio first, so that objects keep their proportions.
        img_height: The height of the model's input in pixels.
        img_width: The width of the model's input in pixels.
        img_channels: The `image_channels` the data generator reads. What it reads as one channel,
            or as more than three, stays so; everything else becomes RGB.

    Returns:
        Transformations for `DataGenerator.generate`.

    Raises:
        ValueError: for any other mode.
    """
    if mode not in ("resize", "pad"):
        raise ValueError(f"`data_generator_mode` must be 'resize' or 'pad'; got {mode!r}.")
    transformations = [ConvertTo3Channels()] if img_channels in (3, None) else []
    if mode == "pad":
        # Where an image ends up on its canvas is random; a seed makes evaluations repeatable.
        transformations.append(RandomPadFixedAR(img_width / img_height, rng=0))
    return [*transformations, Resize(height=img_height, width=img_width)]


def predict_images(
    predict: Callable[[np.ndarray], Sequence[np.ndarray]],
    data_generator: DataGenerator,
    transformations: Sequence[Callable],
    batch_size: int = 32,
    verbose: bool = True,
) -> Iterator[tuple[Hashable, np.ndarray]]:
    """Run over every image of a data set once, in order, images without objects included.

    Arguments:
        predict: Turns a batch of images `(batch, height, width, channels)` into one array of
            detections for each image, see `make_detection_function`.
        data_generator: The data set. It is not changed.
        transformations: See `input_transformations`.
        batch_size: The number of images for one call of `predict`; the last batch may be smaller.
        verbose: Whether to show a progress bar.

    Yields:
        (image id, `(k, 6)` detections) for each image; the boxes are in pixels of the original
        image and not rounded. In a data set without image ids, images count from 0.

    Raises:
        ValueError: if the data set is empty or `batch_size` is not positive.
    """
    n_images = data_generator.get_dataset_size()
    if n_images == 0:
        raise ValueError("The data set holds no images: load or parse one before predicting on it.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1; got {batch_size!r}.")
    n_batches = math.ceil(n_images / batch_size)
    batches = data_generator.generate(
        batch_size=batch_size,
        shuffle=False,
        transformations=list(transformations),
        label_encoder=None,
        returns={"processed_images", "image_ids", "inverse_transform"},
        keep_images_without_gt=True,
        degenerate_box_handling="remove",
    )
    progress = tqdm(
        itertools.islice(batches, n_batches),
        total=n_batches,
        desc="Predicting",
        file=sys.stdout,
        disable=not verbose,
    )
    running_number = itertools.count()
    for images, image_ids, inverters in progress:
        # The data generator has told its transformations the column order of its labels.
        labels_format = transformations[-1].labels_format
        detections = to_original_images(predict(images), inverters, labels_format)
        if image_ids is None:
            image_ids = list(itertools.islice(running_number, len(images)))
        yield from zip(image_ids, detections, strict=True)


def to_original_images(
    detections: Sequence[np.ndarray],
    inverters: Sequence[Sequence[Callable]],
    labels_format: Mapping[str, int],
) -> list[np.ndarray]:
    """Undo for detected boxes what the transformations did to their images.

    Arguments:
        detections: For each image `(k, 6)` rows (class_id, confidence, xmin, ymin, xmax, ymax).
        inverters: For each image the inverters of its transformations, in order of application.
        labels_format: The columns of a box in the labels. Inverters look for the coordinates of a
            prediction one column further on, whatever order its other columns have.

    Returns:
        Float64 arrays of the same shapes, with boxes in pixels of the original images.
    """
    columns = [labels_format[key] + 1 for key in BOX_KEYS]
    in_label_order = []
    for rows in detections:
        moved = np.zeros((len(rows), 6))
        moved[:, columns] = rows[:, 2:]
        in_label_order.append(moved)
    originals = apply_inverse_transforms(in_label_order, inverters)
    return [
        np.column_stack([rows[:, :2], original[:, columns]])
        for rows, original in zip(detections, originals, strict=True)
    ]


def quiet_predict(model: object) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function of `model.predict` that prints nothing, whether or not it has `verbose`."""
    if not callable(getattr(model, "predict", None)):
        raise ValueError(
            "Predicting needs a model with a method `predict(batch)`; the Evaluator was made with "
            f"{model!r}. To score predictions that already exist, assign `prediction_results`."
        )
    has_verbose = "verbose" in inspect.signature(model.predict).parameters
    options = {"verbose": 0} if has_verbose else {}
    return lambda images: np.asarray(model.predict(images, **options))


def make_detection_function(
    model: object,
    model_mode: str,
    n_classes: int,
    pred_format: Mapping[str, int],
    **decoding: object,
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Make the function from a batch of images to one array of detections for each image.

    Arguments:
        model: Any object with `predict(batch)`.
        model_mode: ``'training'`` if the output is raw and must be decoded, ``'inference'`` or
            ``'inference_fast'`` if the model decodes it itself.
        n_classes: The number of positive classes.
        pred_format: The column of 'class_id', 'conf', 'xmin', 'ymin', 'xmax' and 'ymax' in the
            output of a model that decodes. Rows of class 0, with which it is padded, are dropped.
        decoding: Arguments of `decode_detections` for ``'training'``.

    Returns:
        The function. It returns `(k, 6)` arrays (class_id, confidence, xmin, ymin, xmax, ymax) with
        boxes in pixels of the model's input, and raises a ValueError if the model's output does not
        suit `model_mode`.
    """
    predict = quiet_predict(model)
    columns = [pred_format[key] for key in ("class_id", "conf", *BOX_KEYS)]

    def decode_here(images: np.ndarray) -> list[np.ndarray]:
        y_pred = predict(images)
        _check_output(y_pred, n_classes + 1 + 12, model_mode, n_classes)
        return decode_detections(y_pred, **decoding)

    def drop_padding(images: np.ndarray) -> list[np.ndarray]:
        y_pred = predict(images)
        _check_output(y_pred, 6, model_mode, n_classes)
        y_pred = y_pred[:, :, columns]
        return [rows[rows[:, 0] != 0] for rows in y_pred]

    return decode_here if model_mode == "training" else drop_padding


def _check_output(y_pred: np.ndarray, n_columns: int, model_mode: str, n_classes: int) -> None:
    if y_pred.ndim != 3 or y_pred.shape[-1] != n_columns:
        raise ValueError(
            f"With model_mode={model_mode!r} and n_classes={n_classes} (positive classes only) the "
            f"model's output must have shape (batch, boxes, {n_columns}); got {y_pred.shape}. "
            "Raw outputs need model_mode='training', decoded ones (6 columns) 'inference' or "
            "'inference_fast'."
        )
