"""Every constructor argument of every layer and loss is in its config and survives a file's JSON.

The classes and their arguments are found by looking, not listed: a new layer, or a new argument of
an old one, is tested from the day it is there.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil

import keras
import pytest

import keras_layers
import keras_loss_function
from keras_loss_function.keras_ssd_loss import SSDLoss

PACKAGES = (keras_layers, keras_loss_function)
OF_EVERY_KERAS_OBJECT = {"self", "kwargs", "name", "dtype"}


def registered_classes() -> list[type]:
    """Return the classes of the packages that Keras can load from a file."""
    found = set()
    for package in PACKAGES:
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if keras.saving.get_registered_name(cls).startswith("ssd_keras>"):
                    found.add(cls)
    return sorted(found, key=lambda cls: cls.__name__)


def constructor_arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Return the arguments that the class, not Keras, defines."""
    if cls.__init__.__module__.startswith("keras."):
        return {}
    parameters = inspect.signature(cls.__init__).parameters
    return {name: p for name, p in parameters.items() if name not in OF_EVERY_KERAS_OBJECT}


CLASSES = registered_classes()

# Values for arguments that have no default, and for those whose default does not tell what else
# would be valid. For everything else another value is made from the default.
EXAMPLES = {
    "img_height": 60,
    "img_width": 90,
    "this_scale": 0.25,
    "next_scale": 0.5,
    "this_steps": (16.0, 20.0),
    "this_offsets": 0.25,
    "max_candidates_per_class": 150,
    "value": [1.0, 2.0, 3.0],
    "order": [2, 1, 0],
    "loss": SSDLoss(alpha=2),
    "mining": "per_image",
    "class_weights": [0.5, 1.0, 2.0],
    "label_smoothing": 0.1,
    "box_loss": "giou",
    "focal_alpha": [0.25, 0.5, 1.0],
    "class_activation": "sigmoid",
    "class_names": ["background", "cat", "dog"],
    "gamma_regularizer": keras.regularizers.L2(0.25),
    "reduction": "sum",
    "aspect_ratios": [1.0, 3.0],
}
# Per class, where a name means different things. The decoding layers take one box format only.
EXAMPLES_OF_CLASS = {
    "AnchorBoxes": {"coords": "minmax"},
    "DecodeDetections": {"coords": "centroids"},
    "DecodeDetectionsFast": {"coords": "centroids"},
    "SSDLoss": {"coords": "corners"},
    "SSDFocalLoss": {"coords": "minmax"},
}


def other_value(cls: type, name: str, parameter: inspect.Parameter):
    """Return a valid value for an argument, other than its default wherever there is another."""
    examples = {**EXAMPLES, **EXAMPLES_OF_CLASS.get(cls.__name__, {})}
    if name in examples:
        return examples[name]
    default = parameter.default
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2
    if isinstance(default, tuple) and all(isinstance(v, float) for v in default):
        return [v / 2 for v in default]
    pytest.fail(f"{cls.__name__}: add an example of {name!r} (default {default!r}) to this test")


def plain(value):
    """Bring tuples, lists and Keras objects to a form that can be compared."""
    if hasattr(value, "get_config"):
        return plain(value.get_config())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def test_the_classes_are_found():
    names = {cls.__name__ for cls in CLASSES}
    assert {
        "AnchorBoxes",
        "BatchNormalization",
        "ChannelSwap",
        "DecodeDetections",
        "DecodeDetectionsFast",
        "L2Normalization",
        "LossOfEachImage",
        "MeanSubtraction",
        "Predictions",
        "SSDFocalLoss",
        "SSDLoss",
        "SigmoidScores",
        "StddevDivision",
    } <= names


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_argument_survives(cls):
    arguments = {
        name: other_value(cls, name, parameter)
        for name, parameter in constructor_arguments(cls).items()
    }
    original = cls(**arguments)
    config = original.get_config()
    assert set(arguments) <= set(config)
    # What a file holds is JSON.
    text = json.dumps(keras.saving.serialize_keras_object(original))
    copy = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(copy) is cls
    assert plain(copy.get_config()) == plain(config)
    for name, value in arguments.items():
        assert plain(getattr(copy, name)) == plain(value), name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_defaults_survive(cls):
    required = {
        name: other_value(cls, name, parameter)
        for name, parameter in constructor_arguments(cls).items()
        if parameter.default is parameter.empty or name in ("img_height", "img_width")
    }
    original = cls(**required)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    assert plain(copy.get_config()) == plain(original.get_config())


@pytest.mark.parametrize(
    "cls", [c for c in CLASSES if issubclass(c, keras.layers.Layer)], ids=lambda c: c.__name__
)
def test_name_and_dtype_of_layers_survive(cls):
    required = {
        name: other_value(cls, name, parameter)
        for name, parameter in constructor_arguments(cls).items()
        if parameter.default is parameter.empty or name in ("img_height", "img_width")
    }
    original = cls(**required, name="some_name", dtype="mixed_bfloat16", trainable=False)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    assert copy.name == "some_name"
    assert copy.dtype_policy.name == "mixed_bfloat16"
    assert copy.trainable is False
