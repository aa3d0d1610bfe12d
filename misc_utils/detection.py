"""From images of any size to boxes in the pixels of those images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import cv2
import numpy as np

from data_generator.image_reading import read_image
from ssd_encoder_decoder.model_settings import ModelSettings, read_model_settings
from ssd_encoder_decoder.ssd_output_decoder import decode_detections


def detect(
    model: Any,
    images: Any,
    confidence_thresh: float = 0.5,
    iou_threshold: float | None = 0.45,
    batch_size: int = 8,
    top_k: int | str = 200,
    clip_boxes: bool = True,
) -> list[np.ndarray] | Iterator[np.ndarray]:
    """Detect objects in images; boxes come in pixels of the images as they were given.

        boxes, = detect(model, "street.jpg")

    Every image is resized to the model's input, which is how the evaluator does it by default; the
    resizing is undone for the boxes. Nothing needs to be said about the model: its image size, its
    mode and its box format are read back from it.

    Arguments:
        model: an SSD of any mode that one of the builders in `models` made, also a loaded one.
        images: one of
            - the path of an image file;
            - one uint8 image: grey `(height, width)` or RGB(A) `(height, width, channels)`;
            - a batch of them, `(n, height, width, channels)`;
            - a list or tuple of paths and images, of any sizes;
            - a `cv2.VideoCapture`, or any other iterable of paths and RGB images.
        confidence_thresh: only detections with a higher confidence than this are returned.
        iou_threshold: of two boxes of a class that overlap by more than this IoU, the one with the
            lower confidence is dropped; None drops none. A model in an inference mode does so by
            itself, with its own threshold.
        batch_size: the number of images the model gets at a time. Boxes of a video come after so
            many frames were read: use 1 for a live camera.
        top_k: at most so many detections of an image are returned, or 'all'.
        clip_boxes: whether boxes that reach over the border of the image are cut there.

    Returns:
        A list with one float32 array `(n_detections, 6)` for each image, with rows (class_id,
        confidence, xmin, ymin, xmax, ymax) by descending confidence, in pixels; n_detections may
        be 0. One path or one image gives a list of length 1. A video or another iterable that is
        no list, tuple or array gives a generator of such arrays, which reads on as it is asked.

    Raises:
        ValueError: if an image is not a uint8 array as above, if a file cannot be read
            (`ImageReadError`, which names the file), if `batch_size` is below 1, or if the model
            decodes by itself and drops detections above `confidence_thresh`.

    Example:
        With a model that has learnt nothing yet, and two images of different sizes:

        >>> import numpy as np
        >>> from misc_utils.detection import detect
        >>> from models.keras_ssd7 import build_model
        >>> model = build_model((64, 64, 3), n_classes=2)
        >>> images = [np.zeros((120, 160, 3), np.uint8), np.zeros((480, 640, 3), np.uint8)]
        >>> detections = detect(model, images, confidence_thresh=0.99)
        >>> [boxes.shape for boxes in detections]
        [(0, 6), (0, 6)]
    """
    settings = read_model_settings(model)
    if batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1, got {batch_size}.")
    _check_thresholds(settings, confidence_thresh, iou_threshold)

    decode = partial(
        _decode,
        settings=settings,
        confidence_thresh=confidence_thresh,
        iou_threshold=iou_threshold,
        top_k=top_k,
    )
    sequence, is_lazy = _as_sequence(images)
    detections = _detect_each(model, sequence, settings, batch_size, decode, clip_boxes)
    return detections if is_lazy else list(detections)


def video_frames(source: str | os.PathLike | cv2.VideoCapture) -> Iterator[np.ndarray]:
    """Yield the frames of a video as RGB images, ready for `detect` and for drawing.

    Arguments:
        source: a video file, or an opened `cv2.VideoCapture`, which the caller releases.

    Yields:
        uint8 RGB images `(height, width, 3)`.

    Raises:
        ValueError: if OpenCV cannot open the video.
    """
    is_path = isinstance(source, str | os.PathLike)
    capture = cv2.VideoCapture(os.fspath(source)) if is_path else source
    if not capture.isOpened():
        raise ValueError(f"OpenCV cannot open the video {source!r}: does it exist, is it a video?")
    try:
        while True:
            is_frame, frame = capture.read()
            if not is_frame:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        if is_path:
            capture.release()


def _as_sequence(images: Any) -> tuple[Iterable[Any], bool]:
    """Return something to loop over for images, and whether it is to be read lazily."""
    if isinstance(images, str | os.PathLike):
        return [images], False
    if isinstance(images, list | tuple):
        return images, False
    if isinstance(images, cv2.VideoCapture):
        return video_frames(images), True
    if hasattr(images, "__array__"):  # NumPy arrays and tensors of all backends
        array = np.asarray(images)
        return ([array] if array.ndim < 4 else array), False
    if isinstance(images, Iterable):
        return images, True
    raise ValueError(
        "Expected a path, a uint8 image, a batch, a list or an iterator of images, or a "
        f"cv2.VideoCapture, got {type(images).__name__}."
    )


def _check_thresholds(
    settings: ModelSettings, confidence_thresh: float, iou_threshold: float | None
) -> None:
    """Refuse or warn of thresholds that a model which decodes by itself cannot respect."""
    if settings.mode == "training":
        return
    if settings.confidence_thresh > confidence_thresh:
        raise ValueError(
            f"The model was built in mode '{settings.mode}' with confidence_thresh="
            f"{settings.confidence_thresh} and drops all detections below that, but detections "
            f"above {confidence_thresh} were asked for. Ask for a higher confidence_thresh, or "
            "build the model with a lower one and load the same weights."
        )
    if settings.iou_threshold != iou_threshold:
        warnings.warn(
            f"The model was built in mode '{settings.mode}' and suppresses overlapping boxes with "
            f"its own iou_threshold={settings.iou_threshold}; iou_threshold={iou_threshold} has no "
            "effect on it.",
            stacklevel=3,
        )


def _detect_each(
    model: Any,
    images: Iterable[Any],
    settings: ModelSettings,
    batch_size: int,
    decode: Callable[[np.ndarray], list[np.ndarray]],
    clip_boxes: bool,
) -> Iterator[np.ndarray]:
    """Yield the detections of each image, in pixels of that image."""
    numbered = enumerate(images)
    while batch := list(islice(numbered, batch_size)):
        loaded = [_load(image, settings.img_channels, index) for index, image in batch]
        inputs = np.stack([_resize(image, settings) for image in loaded])
        # The last batch may be smaller and is not filled up: TensorFlow traces the model once more
        # when it meets a second batch size, then never again, and a single image stays cheap.
        # Of a model on several devices, each predicts them all: those of the first are enough.
        y_pred = np.asarray(model.predict_on_batch(inputs))[: len(inputs)]
        for image, rows in zip(loaded, decode(y_pred), strict=True):
            yield _to_pixels_of(image, rows, settings, clip_boxes)


def _decode(
    y_pred: np.ndarray,
    settings: ModelSettings,
    confidence_thresh: float,
    iou_threshold: float | None,
    top_k: int | str,
) -> list[np.ndarray]:
    """Return rows (class_id, confidence, box), in pixels of the model's input, of each image."""
    if settings.mode != "training":
        return [_select(rows, confidence_thresh, top_k) for rows in y_pred]
    return decode_detections(
        y_pred,
        confidence_thresh=confidence_thresh,
        iou_threshold=iou_threshold,
        top_k=top_k,
        input_coords=settings.coords,
        normalize_coords=settings.normalize_coords,
        img_height=settings.img_height,
        img_width=settings.img_width,
    )


def _select(rows: np.ndarray, confidence_thresh: float, top_k: int | str) -> np.ndarray:
    """Return the confident detections of one image of a model that decodes by itself.

    The model fills its output up with rows of zeros, that is, of the background class.
    """
    rows = rows[(rows[:, 0] > 0) & (rows[:, 1] > confidence_thresh)]
    if top_k == "all" or len(rows) <= top_k:
        return rows
    return rows[np.argsort(-rows[:, 1], kind="stable")[:top_k]]


def _load(image: Any, n_channels: int, index: int) -> np.ndarray:
    """Return an image as uint8 `(height, width, n_channels)`."""
    if isinstance(image, str | os.PathLike):
        return read_image(image, channels=n_channels)
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(
            "Expected an image as a uint8 array (height, width) or (height, width, channels) "
            f"with values from 0 to 255, got {image.dtype} of shape {image.shape} as image number "
            f"{index}."
        )
    if 0 in image.shape:
        raise ValueError(f"Image number {index} has no pixels: its shape is {image.shape}.")
    return _with_channels(image, n_channels, index)


def _with_channels(image: np.ndarray, n_channels: int, index: int) -> np.ndarray:
    """Return an image with the number of channels that a model expects; alpha is dropped."""
    if image.shape[2] == n_channels:
        return image
    if image.shape[2] == 4:  # RGBA
        image = image[..., :3]
    if image.shape[2] == n_channels:
        return image
    if image.shape[2] == 3 and n_channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    if image.shape[2] == 1 and n_channels == 3:
        return np.repeat(image, 3, axis=2)
    raise ValueError(
        f"Image number {index} has {image.shape[2]} channels, which cannot become the "
        f"{n_channels} input channels of the model."
    )


def _resize(image: np.ndarray, settings: ModelSettings) -> np.ndarray:
    size = (settings.img_width, settings.img_height)
    resized = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_LINEAR)
    return resized.reshape(settings.img_height, settings.img_width, image.shape[2])


def _to_pixels_of(
    image: np.ndarray, rows: np.ndarray, settings: ModelSettings, clip_boxes: bool
) -> np.ndarray:
    """Return detections, in pixels of the model's input, in pixels of an image."""
    height, width = image.shape[:2]
    detections = np.array(rows, dtype=np.float64)  # a copy
    detections = detections[np.argsort(-detections[:, 1], kind="stable")]
    detections[:, [2, 4]] *= width / settings.img_width
    detections[:, [3, 5]] *= height / settings.img_height
    # An untrained model may predict boxes that float32 cannot hold.
    largest = np.finfo(np.float32).max
    low, high = (0, [width, height] * 2) if clip_boxes else (-largest, largest)
    detections[:, 2:] = np.clip(detections[:, 2:], low, high)
    return detections.astype(np.float32)
