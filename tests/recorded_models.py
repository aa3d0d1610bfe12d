"""Compare a model with a recorded one: structure, and output for deterministic weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

# What used to be Lambda layers, and what else has another class here.
OTHER_CLASSES = {
    "identity_layer": "Identity",
    "input_mean_normalization": "MeanSubtraction",
    "input_stddev_normalization": "StddevDivision",
    "input_channel_swap": "ChannelSwap",
    "predictions": "Predictions",
}


def check_structure(model: keras.Model, info: dict) -> None:
    """Check names, order, classes, shapes, connections, weights and settings of all layers."""
    assert model.count_params() == info["count_params"]
    assert count(model.trainable_weights) == info["trainable_params"]
    assert model.input_shape == tuple(info["input_shape"])
    assert model.output_shape == tuple(info["output_shape"])
    assert len(model.layers) == len(info["layers"])
    for layer, recorded in zip(model.layers[1:], info["layers"][1:], strict=True):
        name = recorded["name"]
        assert layer.name == name
        assert type(layer).__name__ == OTHER_CLASSES.get(name, recorded["cls"]), name
        assert list(layer.output.shape) == recorded["output_shape"], name
        inputs = [keras_input_name(tensor) for tensor in as_list(layer.input)]
        assert inputs == recorded["inbound"], name
        weights = [[f"{w.path}:0", list(w.shape)] for w in layer.weights]
        assert weights == recorded["weights"], name
        for kind in ("conv", "bn", "pool"):
            for key, value in recorded.get(kind, {}).items():
                assert plain(SETTINGS.get(key, getter(key))(layer)) == value, (name, key)


def getter(key: str) -> Callable[[Any], Any]:
    """Return the function that reads a setting which the layer has under the same name."""
    return lambda layer: getattr(layer, key)


# How to read a recorded setting of another name or form from a layer.
SETTINGS = {
    "activation": lambda layer: layer.activation.__name__,
    "kernel_initializer": lambda layer: type(layer.kernel_initializer).__name__,
    "bias_initializer": lambda layer: type(layer.bias_initializer).__name__,
    "l2": lambda layer: np.float32(layer.kernel_regularizer.l2).item(),
    "axis": lambda layer: [layer.axis % len(layer.output.shape)],
}


def plain(value: Any) -> Any:
    """Turn tuples into lists, as JSON does."""
    return list(value) if isinstance(value, tuple) else value


def as_list(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]


def keras_input_name(tensor: Any) -> str:
    """Return the name of the layer that a symbolic tensor comes from."""
    layer = tensor._keras_history.operation
    return "<input>" if isinstance(layer, keras.layers.InputLayer) else layer.name


def count(weights: list) -> int:
    return sum(int(np.prod(w.shape)) for w in weights)


def set_recorded_weights(model: keras.Model, info: dict) -> None:
    """Give a model the deterministic weights of the recording."""
    variables = {f"{w.path}:0": w for w in model.weights}
    assert set(variables) == {w["name"] for w in info["weights"]}
    for recorded in info["weights"]:
        rng = np.random.default_rng(recorded["seed"])
        shape = recorded["shape"]
        if recorded["dist"] == "normal":
            values = rng.normal(recorded["mean"], recorded["std"], shape)
        else:
            values = rng.uniform(recorded["low"], recorded["high"], shape)
        variables[recorded["name"]].assign(values.astype("float32"))


def recorded_image(info: dict) -> np.ndarray:
    """Make the image of the recording, `(1, height, width, 3)`."""
    _, height, width, _ = info["input_shape"]
    rng = np.random.default_rng(info["image_seed"])
    cells = rng.integers(0, 256, (-(-height // 20), -(-width // 20), 3))
    image = np.repeat(np.repeat(cells, 20, 0), 20, 1)[:height, :width].astype("float32")
    image = np.ascontiguousarray(image[np.newaxis])
    assert hashlib.sha256(image.tobytes()).hexdigest() == info["image_sha256"]
    return image


def check_predictions(y_pred: np.ndarray, recorded: SimpleNamespace) -> None:
    """Compare the raw output for the recorded image with the recorded rows and sums."""
    y_pred, expected = y_pred[0], recorded.arrays["y"]
    rows = y_pred[recorded.arrays["rows"]]
    np.testing.assert_allclose(rows[:, :-8], expected[:, :-8], rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(rows[:, -8:], expected[:, -8:], rtol=1e-6, atol=1e-6)
    sums = np.abs(y_pred).sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(sums, recorded.arrays["colabs"], rtol=2e-3)


def check_detections(detections: np.ndarray, expected: np.ndarray) -> None:
    """Compare decoded output loosely: nearly every recorded detection is there.

    NMS decides by comparing floats, so a last bit may exchange one detection for another.
    """
    (detections,) = detections
    assert detections.shape == expected.shape
    found = 0
    for row in expected:
        same = detections[detections[:, 0] == row[0]]
        close = np.abs(same[:, 2:] - row[2:]).max(axis=1, initial=0) < 0.5
        found += (close & (np.abs(same[:, 1] - row[1]) < 5e-3)).any()
    assert found >= 0.9 * len(expected)
