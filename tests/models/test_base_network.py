"""Base networks from elsewhere: what is found in them, what is refused, weights from a file."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from models.base_network import applications_network, copy_network, find_feature_maps

SIZE = (32, 48, 3)


class SplitInTwo(layers.Layer):
    def call(self, x):
        return x[..., :2], x[..., 2:]


def make_network(shape=SIZE) -> keras.Model:
    inputs = keras.Input(shape)
    x = layers.Conv2D(3, 3, strides=2, padding="same", name="half")(inputs)
    x = layers.ZeroPadding2D(1, name="half_pad")(x)
    x = layers.Conv2D(4, 3, strides=2, name="quarter")(x)
    x = layers.Activation("relu", name="quarter_relu")(x)
    split = SplitInTwo(name="split")(x)
    return keras.Model(inputs, layers.Flatten(name="flat")(split[0]), name="small")


def test_feature_maps_in_the_order_asked_for():
    network = make_network()
    found = find_feature_maps(network, ["quarter_relu", "half"])
    assert list(found) == ["quarter_relu", "half"]
    assert found["half"] is network.get_layer("half").output


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "`feature_layers` must list.*at least one"),
        ("half", "`feature_layers` must list.*got 'half'"),
        (["half", "half"], "lists 'half' twice"),
        (["flat"], r"'flat' makes no feature map.*\(None, 192\)"),
        (["split"], "'split' has several outputs"),
        (
            ["quarter_rel"],
            r"'small' has no layer 'quarter_rel'. Similar are quarter_relu, quarter. "
            r"The last layers .* are 'half' \(stride 2\), 'quarter_relu' \(stride 4\)\.",
        ),
        ([keras.layers.ReLU(name="stranger")], "no layer 'stranger'"),
        ([keras.KerasTensor((None, 4, 4, 1))], "No layer of the backbone 'small' has the output"),
    ],
)
def test_what_is_not_there_is_named(wanted, message):
    with pytest.raises(ValueError, match=message):
        find_feature_maps(make_network(), wanted)


def test_candidates_of_a_network_of_open_size():
    x = inputs = keras.Input((None, None, 3))
    network = keras.Model(inputs, layers.Conv2D(2, 3, name="only")(x))
    with pytest.raises(ValueError, match=r"Similar are only.*`summary\(\)` lists"):
        find_feature_maps(network, ["onli"])


class Subclassed(keras.Model):
    def call(self, images):
        return images


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (keras.Sequential([layers.Conv2D(3, 3)], name="blind"), "'blind' has no graph"),
        (Subclassed(name="subclassed"), "'subclassed' has no graph"),
        (keras.Sequential([keras.Input((8,)), layers.Dense(2)]), r"images.*\(None, 8\)"),
        (
            keras.Model([a := keras.Input(SIZE), b := keras.Input(SIZE)], layers.add([a, b])),
            "one input of images",
        ),
    ],
)
def test_networks_that_are_no_base_networks(network, message):
    with pytest.raises(ValueError, match=message):
        find_feature_maps(network, ["half"])


def test_channels_must_come_last():
    inputs = keras.Input((3, 32, 32))
    pool = layers.MaxPooling2D(data_format="channels_first", name="first")
    network = keras.Model(inputs, pool(inputs))
    with pytest.raises(ValueError, match="Layer 'first'.*channels_last"):
        find_feature_maps(network, ["first"])


@pytest.mark.parametrize("size", [(32, 32, 3), (32, 48, 1)])
def test_images_must_be_what_the_network_was_made_for(size):
    network = make_network()
    feature_maps = find_feature_maps(network, ["half"])
    inputs = keras.Input(size)
    with pytest.raises(ValueError, match=r"'small' was made for .*\(32, 48, 3\).* would get"):
        copy_network(network, feature_maps, inputs, inputs)


# ---------------------------------------------------------------------------- keras.applications


def mobilenet(image_size=(32, 32, 3), weights=None, swap_channels=None) -> keras.Model:
    make = keras.applications.MobileNetV2
    return applications_network(make, image_size, weights, swap_channels, alpha=0.35)


def test_weights_of_a_file(tmp_path):
    network = mobilenet()
    network.save_weights(tmp_path / "network.weights.h5")
    for path in (tmp_path / "network.weights.h5", str(tmp_path / "network.weights.h5")):
        again = mobilenet((48, 40, 3), path)  # another size has the same weights
        for ours, theirs in zip(again.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.h5'.*'imagenet'.*None"):
        mobilenet(weights=tmp_path / "nowhere.h5")


@pytest.mark.parametrize(
    ("image_size", "swap_channels", "n_channels"),
    [((32, 32, 1), None, 1), ((32, 32, 5), False, 5), ((32, 32, 1), (0, 0, 0), 3)],
)
def test_channels_that_the_network_sees(image_size, swap_channels, n_channels):
    network = mobilenet(image_size, None, swap_channels)
    assert network.input_shape == (None, 32, 32, n_channels)


def test_imagenet_is_in_colour():
    with pytest.raises(ValueError, match=r"RGB images; got 1 channels.*\(0, 0, 0\)"):
        mobilenet((32, 32, 1), "imagenet")


@pytest.mark.parametrize("size", [(31, 32, 3), (32, 32), 300])
def test_sizes_that_are_refused(size):
    with pytest.raises(ValueError, match="size"):
        mobilenet(size)
