"""Running a model over a data set: from images to detections in pixels of these images."""

from __future__ import annotations

import inspect
import itertools
import math
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.object_detection_2d_geometric_ops import Resize
from data_generator.object_detection_2d_misc_utils import apply_inverse_transforms
from data_generator.object_detection_2d_patch_sampling_ops import RandomPadFixedAR
from data_generator.object_detection_2d_photometric_ops import ConvertTo3Channels
from ssd_encoder_decoder.ssd_output_decoder import decode_detections

MODEL_MODES = ("training", "inference", "inference_fast")


def input_transformations(mode: str, img_height: int, img_width: int) -> list[Callable]:
    """List what happens to an image on its way into the model.

    Arguments:
        mode: ``'resize'``: stretch the image to the size of the model's input; ``'pad'``: pad it to
            the input's aspect ratio first, so that objects keep their proportions.
        img_height: The height of the model's input in pixels.
        img_width: The width of the model's input in pixels.

    Returns:
        Transformations for `DataGenerator.generate`.

    Raises:
        ValueError: for any other mode.
    """
    if mode not in ("resize", "pad"):
        raise ValueError(f"`data_generator_mode` must be 'resize' or 'pad'; got {mode!r}.")
    padding = [RandomPadFixedAR(patch_aspect_ratio=img_width / img_height)] if mode == "pad" else []
    return [ConvertTo3Channels(), *padding, Resize(height=img_height, width=img_width)]


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
            detections `(k, 6)` for each image, in pixels of the model's input.
        data_generator: The data set. It is not changed.
        transformations: See `input_transformations`.
        batch_size: The number of images for one call of `predict`; the last batch may be smaller.
        verbose: Whether to show a progress bar.

    Yields:
        (image id, detections) for each image; the boxes are in pixels of the original image and
        not rounded. In a data set without image ids, images count from 0.

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
        detections = apply_inverse_transforms(list(predict(images)), inverters)
        if image_ids is None:
            image_ids = list(itertools.islice(running_number, len(images)))
        yield from zip(image_ids, detections, strict=True)


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
    class_id_column: int = 0,
    **decoding: object,
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Make the function from a batch of images to one array of detections for each image.

    Arguments:
        model: Any object with `predict(batch)`.
        model_mode: ``'training'`` if the output is raw and must be decoded, ``'inference'`` or
            ``'inference_fast'`` if the model decodes it itself.
        n_classes: The number of positive classes.
        class_id_column: The column of a decoded output that holds the class id. Models pad their
            output with rows of class 0; these are dropped.
        decoding: Arguments of `decode_detections` for ``'training'``.

    Returns:
        The function; it raises a ValueError if the model's output does not suit `model_mode`.
    """
    predict = quiet_predict(model)

    def detect_raw(images: np.ndarray) -> list[np.ndarray]:
        y_pred = predict(images)
        _check_output(y_pred, n_classes + 1 + 12, model_mode, n_classes)
        return decode_detections(y_pred, **decoding)

    def detect_decoded(images: np.ndarray) -> list[np.ndarray]:
        y_pred = predict(images).astype(np.float64)
        _check_output(y_pred, 6, model_mode, n_classes)
        return [rows[rows[:, class_id_column] != 0] for rows in y_pred]

    return detect_raw if model_mode == "training" else detect_decoded


def _check_output(y_pred: np.ndarray, n_columns: int, model_mode: str, n_classes: int) -> None:
    if y_pred.ndim != 3 or y_pred.shape[-1] != n_columns:
        raise ValueError(
            f"With model_mode={model_mode!r} and n_classes={n_classes} (positive classes only) the "
            f"model's output must have shape (batch, boxes, {n_columns}); got {y_pred.shape}. "
            "Raw outputs need model_mode='training', decoded ones (6 columns) 'inference' or "
            "'inference_fast'."
        )
