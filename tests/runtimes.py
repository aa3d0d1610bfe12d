"""Run exported models the way somebody does who has the file and its runtime, and nothing else."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# The name of a model's file or folder in each format.
FILES = {"tf_saved_model": "ssd", "onnx": "ssd.onnx", "litert": "ssd.tflite"}

Runner = Callable[[np.ndarray], dict[str, np.ndarray]]


def load(path: Path, n_threads: int | None = None) -> Runner:
    """Return a function from images to the named outputs of an exported model.

    TensorFlow has as many threads as the process gave it.
    """
    loaders = {"": _load_saved_model, ".onnx": _load_onnx, ".tflite": _load_litert}
    return loaders[path.suffix](path, n_threads)


def _load_saved_model(path: Path, _: int | None) -> Runner:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # the function lives only as long as this does

    def run(images):
        outputs = loaded.signatures["serving_default"](images=tf.constant(images))
        return {name: output.numpy() for name, output in outputs.items()}

    return run


def _load_onnx(path: Path, n_threads: int | None) -> Runner:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = n_threads or 0  # 0: all
    session = runtime.InferenceSession(path, options)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def _load_litert(path: Path, n_threads: int | None) -> Runner:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(path), num_threads=n_threads)
    runner = interpreter.get_signature_runner("serving_default")
    return lambda images: runner(images=images)


def read_metadata(path: Path) -> dict:
    """Return the facts about the model that travel with its file."""
    if path.suffix == ".onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        return json.loads(session.get_modelmeta().custom_metadata_map["ssd_keras.json"])
    if path.suffix == ".tflite":
        with zipfile.ZipFile(path) as associated_files:
            return json.loads(associated_files.read("ssd_keras.json"))
    return json.loads((path / "assets.extra" / "ssd_keras.json").read_text(encoding="utf-8"))
