"""VGG-16 as the start of SSD: from every kind of source, and what it makes of a photograph."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from misc_utils import vgg16_sources
from misc_utils.model_weights import weights_by_layer
from misc_utils.pretrained import load_vgg16_weights
from misc_utils.vgg16_sources import VGG16_CONVOLUTIONS, decimate, read_vgg16
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300
from tests.caffe_files import write_caffemodel
from tests.conftest import REPOSITORY

LAYERS = (*VGG16_CONVOLUTIONS, "fc6", "fc7")


def new_model(channels: int = 3, **settings) -> keras.Model:
    settings = {"n_classes": 1, "scales": SCALES_VOC, **settings}
    return ssd_300((300, 300, channels), **settings)


def keras_name(name: str) -> str:
    """Turn conv1_2 into block1_conv2."""
    return f"block{name[4]}_conv{name[6]}"


@pytest.fixture(scope="module")
def model():
    return new_model()


@pytest.fixture(scope="module")
def convolutions():
    """Random weights of the 13 convolutions: {name: [kernel, bias]}, in Keras' layout."""
    rng = np.random.default_rng(0)
    channels, weights = 3, {}
    for name in VGG16_CONVOLUTIONS:
        filters = min(512, 32 * 2 ** int(name[4]))
        weights[name] = [
            rng.normal(size=(3, 3, channels, filters)).astype(np.float32),
            rng.normal(size=filters).astype(np.float32),
        ]
        channels = filters
    return weights


@pytest.fixture(scope="module")
def npz(convolutions, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg16.npz"
    # The bias first, and half precision.
    np.savez(
        path,
        **{
            f"{keras_name(name)}/{kind}": array.astype(np.float16)
            for name, (kernel, bias) in convolutions.items()
            for kind, array in (("bias", bias), ("kernel", kernel))
        },
    )
    return path


def assert_loaded(model: keras.Model, expected: dict, atol: float = 0) -> None:
    weights = weights_by_layer(model)
    for name, arrays in expected.items():
        for ours, theirs in zip(weights[name], arrays, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=name)


# --- Sources -----------------------------------------------------------------------------------


def test_an_archive_of_arrays_is_loaded(model, npz, convolutions):
    before = weights_by_layer(model)
    report = load_vgg16_weights(model, npz)
    assert report.loaded == VGG16_CONVOLUTIONS
    assert list(report.fresh) == ["fc6", "fc7"]
    assert "fresh start: fc6" in str(report)
    assert_loaded(model, convolutions, atol=3e-3)  # half precision
    others = {layer: arrays for layer, arrays in before.items() if layer not in convolutions}
    assert len(others) > 20
    assert_loaded(model, others)


def test_a_caffe_model_of_ssds_form_is_loaded_as_it_is(model, convolutions, tmp_path):
    rng = np.random.default_rng(1)
    dense = {
        "fc6": [rng.normal(size=(3, 3, 512, 1024)), rng.normal(size=1024)],
        "fc7": [rng.normal(size=(1, 1, 1024, 1024)), rng.normal(size=1024)],
    }
    all_layers = {
        name: [np.float32(array) for array in arrays]
        for name, arrays in (convolutions | dense).items()
    }
    path = write_caffemodel(
        tmp_path / "VGG_ILSVRC_16_layers_fc_reduced.caffemodel",
        {name: [kernel.transpose(3, 2, 0, 1), bias] for name, (kernel, bias) in all_layers.items()},
        v1=True,
    )
    report = load_vgg16_weights(model, path)
    assert report.loaded == LAYERS
    assert not report.decimated
    assert not report.fresh
    assert_loaded(model, all_layers)


def test_a_weights_file_of_another_ssd_gives_its_base_network(model, tmp_path):
    other = new_model(n_classes=3)
    other.save_weights(tmp_path / "other.weights.h5")
    report = load_vgg16_weights(model, tmp_path / "other.weights.h5")
    assert report.loaded == LAYERS
    assert "conv6_1" in report.unused
    assert_loaded(model, {name: weights_by_layer(other)[name] for name in LAYERS})


def test_the_vgg16_of_keras_is_loaded_without_its_top(model, monkeypatch):
    made = []
    original = keras.applications.VGG16

    def vgg16(weights, include_top):
        made.append((weights, include_top, original(weights=None, include_top=False)))
        return made[-1][2]

    monkeypatch.setattr(keras.applications, "VGG16", vgg16)
    report = load_vgg16_weights(model, "imagenet_convolutions")
    ((weights, include_top, vgg),) = made
    assert (weights, include_top) == ("imagenet", False)
    assert "keras.applications" in str(report)
    named = {name: weights_by_layer(vgg)[keras_name(name)] for name in VGG16_CONVOLUTIONS}
    assert_loaded(model, named)
    load_vgg16_weights(model)
    assert made[-1][1]  # 'imagenet' is with its fully connected layers


# --- Fully connected layers --------------------------------------------------------------------


def test_decimation_picks_taps_inputs_and_outputs():
    kernel = np.arange(7 * 7 * 8 * 12).reshape(7, 7, 8, 12)
    thinned, bias = decimate(kernel, np.arange(12), thin_inputs=True)
    assert thinned.shape == (3, 3, 2, 3)
    np.testing.assert_array_equal(bias, [0, 4, 8])
    for row in range(3):
        for column in range(3):
            for i in range(2):
                for output in range(3):
                    expected = kernel[3 * row, 3 * column, 4 * i, 4 * output]
                    assert thinned[row, column, i, output] == expected
    assert decimate(kernel, np.arange(12), thin_inputs=False)[0].shape == (3, 3, 8, 3)


@pytest.mark.parametrize("source", ["keras", "caffe", "caffe of 2014"])
def test_dense_layers_are_convolutions_over_the_whole_map(
    source, model, convolutions, tmp_path, monkeypatch
):
    # As VGG-16, but small enough for a test: maps of 7 x 7 x 2, and 8 outputs each.
    monkeypatch.setattr(vgg16_sources, "_N_OUTPUTS", 8)
    rng = np.random.default_rng(2)
    features = rng.normal(size=(7, 7, 2)).astype(np.float32)
    dense6 = rng.normal(size=(98, 8)).astype(np.float32)
    dense7, bias = rng.normal(size=(8, 8)).astype(np.float32), np.zeros(8, dtype=np.float32)
    if source == "keras":
        path = tmp_path / "x.npz"
        layers = {keras_name(name): arrays for name, arrays in convolutions.items()}
        layers |= {"fc1": [dense6, bias], "fc2": [dense7, bias]}
        np.savez(
            path,
            **{
                f"{name}/{kind}": array
                for name, arrays in layers.items()
                for kind, array in zip(("kernel", "bias"), arrays, strict=True)
            },
        )
        flat = features.reshape(-1)  # height, width, channels
    else:
        layers = {name: [k.transpose(3, 2, 0, 1), b] for name, (k, b) in convolutions.items()}
        layers |= {"fc6": [dense6.T, bias], "fc7": [dense7.T, bias], "fc8": [dense7.T, bias]}
        path = write_caffemodel(tmp_path / "x.caffemodel", layers, v1="2014" in source)
        flat = features.transpose(2, 0, 1).reshape(-1)  # channels, height, width
    # The whole convolution, before it is thinned out, computes what the dense layer computes.
    monkeypatch.setattr(vgg16_sources, "decimate", lambda kernel, bias, thin_inputs: [kernel, bias])
    whole = read_vgg16(path)
    assert whole.decimated == ("fc6", "fc7")
    kernel = whole.layers["fc6"][0]
    np.testing.assert_allclose(
        np.einsum("yxi,yxio->o", features, kernel), flat @ dense6, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(whole.layers["fc7"][0], dense7.reshape(1, 1, 8, 8))
    monkeypatch.undo()
    monkeypatch.setattr(vgg16_sources, "_N_OUTPUTS", 8)
    thinned = read_vgg16(path).layers
    np.testing.assert_array_equal(thinned["fc6"][0], kernel[::3, ::3, :, ::4])
    np.testing.assert_array_equal(thinned["fc7"][0], dense7[::4, ::4].reshape(1, 1, 2, 2))


@pytest.mark.slow
def test_the_whole_vgg16_of_keras_gives_fc6_and_fc7():
    vgg = keras.applications.VGG16(weights=None)
    model = new_model()
    report = load_vgg16_weights(model, vgg)
    assert report.loaded == LAYERS
    assert report.decimated == ("fc6", "fc7")
    assert report.unused == ("predictions",)
    dense = {
        name: keras.ops.convert_to_numpy(vgg.get_layer(name).kernel) for name in ("fc1", "fc2")
    }
    weights = weights_by_layer(model)
    np.testing.assert_array_equal(
        weights["fc6"][0], dense["fc1"].reshape(7, 7, 512, 4096)[::3, ::3, :, ::4]
    )
    np.testing.assert_array_equal(weights["fc7"][0][0, 0], dense["fc2"][::4, ::4])


# --- What does not fit -------------------------------------------------------------------------


def test_a_source_that_is_no_vgg16_changes_nothing(model, convolutions, tmp_path):
    before = weights_by_layer(model)
    some = {name: convolutions[name] for name in VGG16_CONVOLUTIONS[:5]}
    write_caffemodel(tmp_path / "some.caffemodel", some)
    with pytest.raises(ValueError, match="is no VGG-16: it lacks conv3_2, conv3_3"):
        load_vgg16_weights(model, tmp_path / "some.caffemodel")
    odd = {name: [k.transpose(3, 2, 0, 1), b] for name, (k, b) in convolutions.items()}
    odd["conv5_3"] = [np.zeros((512, 512, 1, 1)), np.zeros(512)]
    write_caffemodel(tmp_path / "odd.caffemodel", odd)
    with pytest.raises(ValueError, match=r"'conv5_3'.*\(1, 1, 512, 512\)"):
        load_vgg16_weights(model, tmp_path / "odd.caffemodel")
    odd["conv5_3"] = [np.zeros((512, 512, 3, 3))]
    write_caffemodel(tmp_path / "odd.caffemodel", odd)
    with pytest.raises(ValueError, match="a kernel and a bias"):
        load_vgg16_weights(model, tmp_path / "odd.caffemodel")
    odd = odd | {"conv5_3": odd["conv5_2"], "fc6": [np.zeros((8, 100)), np.zeros(8)]}
    write_caffemodel(tmp_path / "odd.caffemodel", odd)
    with pytest.raises(ValueError, match="7 x 7 pixels"):
        load_vgg16_weights(model, tmp_path / "odd.caffemodel")
    # An archive whose list of members is broken.
    end = b"PK\x05\x06" + bytes([0, 0, 0, 0, 1, 0, 1, 0, 44, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    (tmp_path / "odd.npz").write_bytes(44 * b"?" + end)
    with pytest.raises(ValueError, match=r"odd\.npz' cannot be read"):
        load_vgg16_weights(model, tmp_path / "odd.npz")
    with pytest.raises(FileNotFoundError, match="imagenet"):
        load_vgg16_weights(model, "imagnet")
    assert_loaded(model, before)


def test_a_model_without_vgg16_is_refused(npz):
    model = build_model((96, 96, 3), n_classes=1)
    with pytest.raises(ValueError, match="has no VGG-16"):
        load_vgg16_weights(model, npz)


@pytest.mark.parametrize(
    ("settings", "is_fine"),
    [
        ({}, True),
        ({"subtract_mean": 127.5}, True),
        ({"subtract_mean": (104, 117, 123), "swap_channels": None}, True),  # images are BGR
        ({"swap_channels": None}, False),
        ({"subtract_mean": None}, False),
        ({"subtract_mean": 127.5, "divide_by_stddev": 127.5}, False),
    ],
)
def test_images_unlike_those_of_vgg16_are_a_warning(npz, settings, is_fine):
    model = new_model(**settings)
    if is_fine:
        load_vgg16_weights(model, npz)  # warnings are errors here
        return
    with pytest.warns(UserWarning, match="expect BGR images"):
        load_vgg16_weights(model, npz)


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_other_numbers_of_channels_need_a_decision(npz, convolutions, channels):
    model = new_model(channels, subtract_mean=127.5, swap_channels=None)
    with pytest.raises(ValueError, match=f"three channels, .* sees {channels}"):
        load_vgg16_weights(model, npz)
    report = load_vgg16_weights(model, npz, first_kernel="average")
    assert f"each of {channels} channels" in report.adapted
    kernel, bias = convolutions["conv1_1"]
    mean = kernel.mean(axis=2) * 3 / channels
    expected = np.stack([mean] * channels, axis=2)
    assert_loaded(model, {"conv1_1": [expected, bias]}, atol=4e-3)
    load_vgg16_weights(model, npz, first_kernel="tile")
    expected = kernel[:, :, [0, 1, 2, 0, 1][:channels]] * 3 / channels
    assert_loaded(model, {"conv1_1": [expected, bias]}, atol=1e-2)


def test_grey_images_can_be_shown_three_times(npz):
    report = load_vgg16_weights(
        new_model(1, subtract_mean=None, swap_channels=(0, 0, 0)), npz, first_kernel=None
    )
    assert report.adapted is None


def test_an_unknown_way_to_adapt_is_refused(model, npz):
    with pytest.raises(ValueError, match="'average' or 'tile'; got 'sum'"):
        load_vgg16_weights(model, npz, first_kernel="sum")


# --- A photograph ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet() -> Path:
    named = os.environ.get("SSD_KERAS_WEIGHTS")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "weights"
    path = folder / "vgg16_imagenet_convs_float16.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {folder}: set SSD_KERAS_WEIGHTS (see tests/README.md)")
    return path


def features(images: np.ndarray, path: Path, **settings) -> dict[str, np.ndarray]:
    model = new_model(**settings)
    load_vgg16_weights(model, path)
    names = ("conv4_3", "conv5_3")
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in names])(images)
    maps = [keras.ops.convert_to_numpy(output) for output in outputs]
    return dict(zip(names, maps, strict=True))


def test_photographs_give_the_activations_of_a_trained_network(real_data, imagenet):
    files = sorted((real_data / "coco_cc" / "val2017").glob("*.jpg"))[:2]
    assert len(files) == 2
    images = np.stack(
        [cv2.resize(cv2.imread(str(file)), (300, 300))[..., ::-1] for file in files]
    ).astype(np.float32)
    right = features(images, imagenet)
    # A trained VGG-16 is sparse: few units of the deep layers see what they look for.
    assert 0.05 < np.mean(right["conv4_3"] > 0) < 0.2
    assert 0.02 < np.mean(right["conv5_3"] > 0) < 0.1
    assert 10 < right["conv4_3"].mean() < 40
    assert 50 < right["conv4_3"].std() < 150
    assert 0.5 < right["conv5_3"].mean() < 2
    assert 4 < right["conv5_3"].std() < 12
    # Red and blue exchanged, or pixels as fractions, and its channels see something else.
    for settings in (
        {"swap_channels": None},
        {"subtract_mean": 127.5, "divide_by_stddev": 127.5},
    ):
        with pytest.warns(UserWarning, match="expect BGR"):
            wrong = features(images, imagenet, **settings)
        means = [maps["conv5_3"].mean(axis=(0, 1, 2)) for maps in (right, wrong)]
        assert np.corrcoef(*means)[0, 1] < 0.95
        assert np.abs(means[0] - means[1]).mean() > 0.2 * means[0].mean()
