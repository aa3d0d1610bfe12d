"""Models as files for other runtimes: TensorFlow's SavedModel, ONNX and LiteRT (TensorFlow Lite).

Whoever runs such a file needs neither Keras nor this library. What the file computes is what the
model computes, the anchors are constants in it, and a model in an inference mode has its decoding,
non-maximum suppression included, inside the file: images in, boxes out.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_layers.decoding import DecodingLayer
from keras_layers.nms import greedy_nms
from misc_utils.export_litert import litert_nms, write_litert
from misc_utils.export_onnx import write_onnx
from misc_utils.files import atomic_folder
from misc_utils.tensorflow_function import write_tensorflow_function
from ssd_encoder_decoder.class_names import check_class_names
from ssd_encoder_decoder.model_settings import ModelSettings, read_model_settings

# The required suffix of each format; a SavedModel is a folder.
_SUFFIXES = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite"}
_FILE_SUFFIXES = (".onnx", ".tflite", ".keras", ".h5")
_ONNX_PACKAGES = ("onnx", "tf2onnx")
_INPUT_DTYPES = ("float32", "uint8")


def export_model(
    model: keras.Model,
    path: str | os.PathLike,
    format: str,
    batch_size: int | None = None,
    input_dtype: str = "float32",
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write a model as a file for another runtime.

        model = build_model((300, 480, 3), n_classes=5, mode="inference")
        model.load_weights("ssd7.weights.h5")
        export_model(model, "ssd7.onnx", "onnx", class_names=["background", "car", ...])

    The file has one input, ``images``: RGB images (or what the model was trained on) of the model's
    size with values from 0 to 255, `(batch, height, width, channels)`. It has one output. Of a
    model in mode ``'training'`` that is ``predictions``, `(batch, n_boxes, n_classes + 1 + 12)`,
    which `ssd_encoder_decoder.ssd_output_decoder`, NumPy and nothing else, turns into boxes. Of a
    model in an inference mode it is ``detections``, `(batch, top_k, 6)` with rows (class_id,
    confidence, xmin, ymin, xmax, ymax), zero rows at the end. Both are float32.

    The file computes in float32, also if the model has a half precision policy: how far a runtime
    gets with less is for its own tools to decide.

    The facts about the model (`class_names`, the size of the images, the meaning of the columns,
    thresholds) travel along as JSON named ``ssd_keras.json``: in the folder ``assets.extra`` of a
    SavedModel, under that key in an ONNX file's `metadata_props`, and as an associated file of a
    LiteRT model (``unzip -p model.tflite ssd_keras.json``).

    Arguments:
        model: an SSD of any mode that one of the builders in `models` made, also a loaded one.
        path: the file to make or to replace; its suffix must be ``.onnx`` or ``.tflite``. For
            ``'tf_saved_model'`` the folder; one that is not a SavedModel is not replaced.
        format: ``'tf_saved_model'``; ``'onnx'`` for ONNX Runtime and many others; ``'litert'`` for
            telephones and small boards, in LiteRT's built-in operations alone.
        batch_size: the number of images the file takes at a time; None for any number. LiteRT is
            faster with a fixed one.
        input_dtype: ``'float32'``, or ``'uint8'`` to take the bytes of a camera as they are.
        class_names: the names of all classes, 'background' at 0; None: those that the model knows.

    Returns:
        `path`.

    Raises:
        ValueError: if an argument is not as described, if `model` is not an SSD of this library, or
            if the Keras backend is not TensorFlow.
        ImportError: if the format needs packages that are not installed.
        FileExistsError: if `path` is to be a SavedModel and is a folder of something else.
    """
    settings = read_model_settings(model)
    class_names = check_class_names(class_names, settings.n_classes) or settings.class_names
    path = Path(path)
    _check_arguments(path, format, batch_size, input_dtype)

    raw_model, decoder = _split(model)
    images = keras.Input(raw_model.input_shape[1:], batch_size, dtype=input_dtype, name="images")
    raw_model = keras.Model(images, {"predictions": raw_model(ops.cast(images, "float32"))})
    metadata = {"ssd_keras.json": json.dumps(_describe(settings, class_names), indent=2)}
    if format == "onnx":
        write_onnx(path, raw_model, decoder, metadata)
        return path

    nms = litert_nms if format == "litert" else greedy_nms
    function = _function(raw_model, decoder, nms)
    signature = keras.InputSpec(shape=images.shape, dtype=images.dtype, name="images")
    write = write_litert if format == "litert" else _write_saved_model
    write(path, function, raw_model, signature, metadata)
    return path


def _check_arguments(
    path: Path,
    format: str,
    batch_size: int | None,
    input_dtype: str,
) -> None:
    """Raise what `export_model` promises, before the long work begins."""
    if format not in _SUFFIXES:
        raise ValueError(f"`format` must be one of {', '.join(_SUFFIXES)}; got {format!r}.")
    suffix = _SUFFIXES[format]
    if suffix and path.suffix != suffix:
        raise ValueError(f"A file of the format '{format}' must end with '{suffix}'; got '{path}'.")
    if not suffix and path.suffix in _FILE_SUFFIXES:
        raise ValueError(f"A SavedModel is a folder, and '{path}' is the name of a file.")
    if not suffix and path.is_dir() and any(path.iterdir()) and not _is_saved_model(path):
        raise FileExistsError(f"The folder '{path}' contains something else than a SavedModel.")
    if batch_size is not None and (int(batch_size) != batch_size or batch_size < 1):
        raise ValueError(f"`batch_size` must be a positive integer or None; got {batch_size!r}.")
    if input_dtype not in _INPUT_DTYPES:
        raise ValueError(
            f"`input_dtype` must be one of {', '.join(_INPUT_DTYPES)}; got {input_dtype!r}."
        )
    _check_means(format)


def _is_saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").is_file()


def _check_means(format: str) -> None:
    """Raise unless the Keras backend and the installed packages can write the format."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Models are exported with TensorFlow, and the Keras backend is "
            f"'{keras.backend.backend()}'. Save the model with `model.save('ssd.keras')`, and load "
            "and export it in a process with the environment variable KERAS_BACKEND=tensorflow: "
            "the file serves all backends."
        )
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if format == "onnx" and missing:
        raise ImportError(
            f"Exporting to ONNX needs {' and '.join(missing)}: pip install 'ssd-keras[export]', or "
            f"pip install {' '.join(missing)}."
        )


def _split(model: keras.Model) -> tuple[keras.Model, DecodingLayer | None]:
    """Return the network up to the raw predictions, in float32, and the decoding layer if any."""
    raw_model = keras.Model(model.inputs, model.get_layer("predictions").output)
    if any(layer.compute_dtype != "float32" for layer in raw_model.layers):
        raw_model = _in_float32(raw_model)
    last_layer = model.layers[-1]
    return raw_model, last_layer if isinstance(last_layer, DecodingLayer) else None


def _in_float32(model: keras.Model) -> keras.Model:
    """Return a copy of a model that computes in float32."""

    def clone(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights([weights.astype("float32") for weights in model.get_weights()])
    return copy


def _function(
    raw_model: keras.Model, decoder: DecodingLayer | None, nms: Callable
) -> Callable[[Any], dict[str, Any]]:
    """Return what the file is to compute."""

    def predict(images):
        return raw_model(images, training=False)

    def detect(images):
        return {"detections": decoder.decode(predict(images)["predictions"], nms)}

    return predict if decoder is None else detect


def _write_saved_model(
    path: Path,
    function: Callable[[Any], dict[str, Any]],
    model: keras.Model,
    images: keras.InputSpec,
    metadata: dict[str, str],
) -> None:
    with atomic_folder(path) as folder:
        write_tensorflow_function(folder, function, model, images)
        (folder / "assets.extra").mkdir()
        for name, text in metadata.items():
            (folder / "assets.extra" / name).write_text(text, encoding="utf-8")


def _describe(settings: ModelSettings, class_names: tuple[str, ...] | None) -> dict[str, Any]:
    """Return what somebody who has only the file wants to know."""
    facts = {
        "mode": settings.mode,
        "image_height": settings.img_height,
        "image_width": settings.img_width,
        "image_channels": settings.img_channels,
        "n_classes": settings.n_classes,
        "class_names": class_names,
    }
    if settings.mode == "training":
        return facts | {
            "columns": {
                "confidences": settings.n_classes + 1,
                "offsets": 4,
                "anchors": 4,
                "variances": 4,
            },
            "coords": settings.coords,
            "normalize_coords": settings.normalize_coords,
        }
    return facts | {
        "columns": ["class_id", "confidence", "xmin", "ymin", "xmax", "ymax"],
        "unit": "pixels of the input",
        "confidence_thresh": settings.confidence_thresh,
        "iou_threshold": settings.iou_threshold,
        "top_k": settings.top_k,
    }
