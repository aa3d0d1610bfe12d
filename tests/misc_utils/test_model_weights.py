"""Listing a model's weights by layer, and setting all of them or none."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from misc_utils.model_weights import assign_weights, variables_by_layer, weights_by_layer


@pytest.fixture
def model():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="first")(inputs)
    x = keras.layers.ReLU(name="without_weights")(x)
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="inner")])
    return keras.Model(inputs, inner(x))


def test_layers_with_weights_are_listed_those_of_inner_models_too(model):
    variables = variables_by_layer(model)
    assert list(variables) == ["first", "inner"]
    assert [variable.name for variable in variables["inner"]] == ["kernel", "bias"]


def test_frozen_layers_keep_the_order():
    inputs = keras.Input((4,))
    layer = keras.layers.BatchNormalization(name="norm")
    model = keras.Model(inputs, layer(inputs))
    layer.trainable = False
    names = [variable.name for variable in variables_by_layer(model)["norm"]]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_copies_are_copies(model):
    weights_by_layer(model)["first"][1][:] = 9
    assert (weights_by_layer(model)["first"][1] == 0).all()


def test_assigning_some_layers(model):
    before = weights_by_layer(model)
    kernel = np.arange(12.0).reshape(4, 3)
    assign_weights(model, {"first": [kernel, np.ones(3)]}, "a test")
    after = weights_by_layer(model)
    np.testing.assert_array_equal(after["first"][0], kernel)
    np.testing.assert_array_equal(after["first"][1], 1)
    np.testing.assert_array_equal(after["inner"][0], before["inner"][0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inner": [np.zeros((3, 2))]}, r"'inner' of the model needs .*; got \[\(3, 2\)\] from"),
        ({"inner": [np.zeros((3, 3)), np.zeros(2)]}, r"\(3, 3\)"),
        ({"other": [np.zeros(2)]}, r"'other' of the model needs weights of the shapes \[\]"),
        ({"inner": [np.zeros((3, 2)), np.array([0, np.nan])]}, "'inner' from a test are not fin"),
        ({"inner": [np.zeros((3, 2)), np.array([0, np.inf])]}, "diverged"),
    ],
)
def test_nothing_is_assigned_if_anything_is_wrong(model, wrong, message):
    before = weights_by_layer(model)
    with pytest.raises(ValueError, match=message):
        assign_weights(model, {"first": [np.ones((4, 3)), np.ones(3)], **wrong}, "a test")
    for layer, arrays in weights_by_layer(model).items():
        for array, expected in zip(arrays, before[layer], strict=True):
            np.testing.assert_array_equal(array, expected)


def test_two_layers_of_one_name():
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="twice")])
    model = keras.Model(inputs, keras.layers.Dense(3, name="twice")(inner(inputs)))
    with pytest.raises(ValueError, match="two layers named 'twice'"):
        variables_by_layer(model)
