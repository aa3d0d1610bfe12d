"""Names of classes: what is taken for names, where a model keeps them, and who may share them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from misc_utils.command_line import with_decoding
from models.keras_ssd7 import build_model
from ssd_encoder_decoder.class_names import (
    check_class_names,
    check_same_classes,
    get_class_names,
    set_class_names,
)
from ssd_encoder_decoder.model_settings import read_model_settings

NAMES = ["background", "cat", "dog"]


def model_of(mode: str = "training", **arguments) -> keras.Model:
    return build_model((64, 96, 3), 2, mode, **arguments)


# ---------------------------------------------------------------------------- what names are


@pytest.mark.parametrize("names", [NAMES, tuple(NAMES), np.array(NAMES)])
def test_names_of_all_classes(names):
    assert check_class_names(names, 2) == tuple(NAMES)


def test_no_names():
    assert check_class_names(None, 2) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "dog"], "'background' and then the 2 classes, 3 names in all; got 2: cat, dog"),
        ([*NAMES, "cow"], "3 names in all; got 4: background, cat, dog, cow"),
        ([], "got 0"),
        ("cat", "must be a list of strings; got 'cat'"),
        ([0, 1, 2], r"must be a list of strings; got \[0, 1, 2\]"),
    ],
)
def test_other_things_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        check_class_names(names, 2)


# ---------------------------------------------------------------------------- a model's names


@pytest.mark.parametrize("mode", ["training", "inference", "inference_fast"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_model_keeps_the_names_it_is_built_with(mode, activation):
    model = model_of(mode, class_names=NAMES, class_activation=activation)
    assert get_class_names(model) == NAMES
    assert read_model_settings(model).class_names == tuple(NAMES)


def test_names_need_not_be_given():
    model = model_of()
    assert get_class_names(model) is None
    assert read_model_settings(model).class_names is None


def test_a_builder_refuses_names_of_other_classes():
    with pytest.raises(ValueError, match="`class_names` must list 'background'.*got 2: cat, dog"):
        model_of(class_names=["cat", "dog"])


def test_names_can_be_changed_and_forgotten():
    model = model_of()
    names = list(NAMES)
    set_class_names(model, names)
    names[1] = "lynx"  # what the caller does with the list is of no concern to the model
    get_class_names(model)[2] = "wolf"
    assert get_class_names(model) == NAMES
    set_class_names(model, ["background", "lynx", "wolf"])
    assert get_class_names(model) == ["background", "lynx", "wolf"]
    set_class_names(model, None)
    assert get_class_names(model) is None


def test_wrong_names_change_nothing():
    model = model_of(class_names=NAMES)
    with pytest.raises(ValueError, match="3 names in all; got 2"):
        set_class_names(model, ["background", "cat"])
    assert get_class_names(model) == NAMES


def test_names_stay_when_decoding_is_put_behind_the_model():
    model = model_of(class_names=NAMES)
    decoding = with_decoding(model, "inference")
    assert get_class_names(decoding) == NAMES
    set_class_names(decoding, None)
    assert get_class_names(model) is None, "they share the layer"


def test_objects_without_a_place_for_names():
    classifier = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="classifier")
    for thing in (classifier, None, object()):
        assert get_class_names(thing) is None
    with pytest.raises(ValueError, match="'classifier' has no place for class names"):
        set_class_names(classifier, NAMES)


# ---------------------------------------------------------------------------- model and data


@pytest.mark.parametrize(
    ("of_model", "of_data"),
    [
        (None, NAMES),
        (NAMES, None),
        (NAMES, NAMES),
        (NAMES, tuple(NAMES)),
        (NAMES, ["nothing", "cat", "hound"]),  # other words for the same
        (NAMES, [*NAMES, "cow"]),
        (["background", "a", "a"], ["background", "a", "a"]),
    ],
)
def test_names_that_do_not_contradict(of_model, of_data):
    check_same_classes(of_model, of_data)


@pytest.mark.parametrize(
    ("of_data", "message"),
    [
        (["background", "dog", "cat"], "'dog' is number 2 of the model, but number 1 of the data"),
        (["background", "cow", "cat"], "'cat' is number 1 of the model, but number 2 of the data"),
        (["background", "cow", "ape", "dog"], "'dog' is number 2 .* number 3"),
        (["cat", "dog"], "'cat' is number 1 .* number 0"),
    ],
)
def test_names_that_contradict(of_data, message):
    with pytest.raises(ValueError, match=message):
        check_same_classes(NAMES, of_data)
