"""Opening full models of Keras 2: settings, output, hostile and damaged files."""

from __future__ import annotations

import builtins
import copy
import json
import marshal
import pickle
import warnings

import h5py
import keras
import numpy as np
import pytest

from misc_utils.legacy_model import load_legacy_model
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300
from models.keras_ssd512 import ssd_512
from ssd_encoder_decoder.model_settings import read_model_settings
from tests.legacy_files import keras2_config, keras2_weights, write_keras2_model
from tests.recorded_models import (
    OTHER_CLASSES,
    check_predictions,
    recorded_image,
    set_recorded_weights,
)

SIZE = (64, 96, 3)
SETTINGS = {
    "l2_regularization": 0.0005,
    "scales": [0.1, 0.2, 0.4, 0.7, 0.9],
    "aspect_ratios_per_layer": [[1.0, 2.0], [0.5, 1.0], [1.0, 3.0], [2.0, 1.0]],
    "two_boxes_for_ar1": False,
    "clip_boxes": True,
    "variances": [0.1, 0.1, 0.2, 0.3],
    "normalize_coords": True,
    "subtract_mean": [123, 117, 104],
    "divide_by_stddev": 127.5,
    "swap_channels": [2, 1, 0],
}


@pytest.fixture(scope="module")
def saved():
    """A small model and its description as Keras 2 wrote it."""
    model = build_model(SIZE, 3, **SETTINGS)
    return model, keras2_config(model)


def layer_config(config: dict, name: str) -> dict:
    (layer,) = [each for each in config["config"]["layers"] if each["name"] == name]
    return layer["config"]


def same_output(model, other, size=SIZE) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (1, *size)).astype(np.float32)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(image)), keras.ops.convert_to_numpy(other(image))
    )


# ---------------------------------------------------------------------------- what is restored


def test_everything_is_restored(tmp_path, saved):
    model, config = saved
    loaded = load_legacy_model(write_keras2_model(tmp_path / "full.h5", model, config))
    assert read_model_settings(loaded) == read_model_settings(model)
    assert loaded.get_layer("conv1").kernel_regularizer.l2 == pytest.approx(0.0005)
    same_output(loaded, model)


@pytest.mark.parametrize("mode", ["inference", "inference_fast"])
def test_models_that_decode(tmp_path, mode):
    decoding = {"confidence_thresh": 0.2, "iou_threshold": 0.3, "top_k": 7}
    model = build_model(SIZE, 2, mode, normalize_coords=True, nms_max_output_size=11, **decoding)
    loaded = load_legacy_model(write_keras2_model(tmp_path / "full.h5", model))
    assert read_model_settings(loaded) == read_model_settings(model)
    assert loaded.layers[-1].nms_max_output_size == 11
    same_output(loaded, model)


def test_frozen_layers_stay_frozen(tmp_path):
    model = build_model(SIZE, 2)
    for name in ("conv1", "bn1"):
        model.get_layer(name).trainable = False
    loaded = load_legacy_model(write_keras2_model(tmp_path / "full.h5", model))
    assert [layer.name for layer in loaded.layers if not layer.trainable] == ["conv1", "bn1"]


def test_a_loaded_model_is_a_model_of_today(tmp_path, saved):
    model, config = saved
    loaded = load_legacy_model(write_keras2_model(tmp_path / "full.h5", model, config))
    loaded.save(tmp_path / "today.keras")
    same_output(keras.saving.load_model(tmp_path / "today.keras"), model)


def test_recorded_ssd7(golden, tmp_path):
    """A full model with the layers of the recording gives the recorded output."""
    recorded = golden("models/ssd7")
    model = build_model(**recorded.info["kwargs"])
    set_recorded_weights(model, recorded.info)
    config = with_recorded_facts(keras2_config(model), recorded.info)
    loaded = load_legacy_model(write_keras2_model(tmp_path / "ssd7.h5", model, config))
    check_predictions(loaded.predict(recorded_image(recorded.info), verbose=0), recorded)


@pytest.mark.parametrize(
    ("name", "builder"),
    [("ssd300", ssd_300), pytest.param("ssd512", ssd_512, marks=pytest.mark.slow)],
)
def test_recorded_ssd300_and_ssd512(golden, tmp_path, name, builder):
    info = golden(f"models/{name}").info
    model = builder(**info["kwargs"])
    config = with_recorded_facts(keras2_config(model), info)
    path = write_keras2_model(tmp_path / "full.h5", model, config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_legacy_model(path)
    # The steps, which are not in the file, are the default ones again (D10).
    assert read_model_settings(loaded) == read_model_settings(model)
    assert loaded.get_layer("input_mean_normalization").value == [123, 117, 104]
    assert loaded.get_layer("input_channel_swap").order == [2, 1, 0]
    for layer in ("conv1_1", "conv4_3_norm", "fc7_mbox_conf"):
        for array, other in zip(
            loaded.get_layer(layer).get_weights(), model.get_layer(layer).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(array, other)


def with_recorded_facts(config: dict, info: dict) -> dict:
    """Put what was recorded of the original's layers over a description made from today's."""
    recorded = {layer["name"]: layer for layer in info["layers"][1:]}
    layers = config["config"]["layers"][1:]
    assert [layer["name"] for layer in layers] == list(recorded)
    for layer in layers:
        facts = recorded[layer["name"]]
        assert layer["class_name"] == facts["cls"]
        inputs = ["input_1" if name == "<input>" else name for name in facts["inbound"]]
        layer["inbound_nodes"] = [[[name, 0, 0, {}] for name in inputs]]
        known = {**facts.get("conv", {}), **facts.get("bn", {}), **facts.get("pool", {})}
        for key in set(known) & set(layer["config"]):
            layer["config"][key] = known[key]
        anchors = facts.get("anchor_config", {})
        layer["config"].update((k, v) for k, v in anchors.items() if k in layer["config"])
    assert {layer["name"] for layer in layers if layer["class_name"] == "Lambda"} <= set(
        OTHER_CLASSES
    )
    return config


# ---------------------------------------------------------------------------- what was not saved


@pytest.mark.parametrize(
    ("layer", "argument", "value"),
    [
        ("input_mean_normalization", "subtract_mean", [123, 117, 104]),
        ("input_stddev_normalization", "divide_by_stddev", 127.5),
        ("input_channel_swap", "swap_channels", [2, 1, 0]),
    ],
)
def test_hidden_preprocessing_constants_must_be_given(tmp_path, saved, layer, argument, value):
    model, config = saved[0], copy.deepcopy(saved[1])
    path = write_keras2_model(tmp_path / "full.h5", model, config)
    for closure in (None, [], ["a"], [[1, "2"]], [1, 2], [None], [[]], [True], [float("inf")]):
        layer_config(config, layer)["function"][2] = closure
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = json.dumps(config)
        with pytest.raises(ValueError, match=f"'{layer}', .* Pass `{argument}=...` as in training"):
            load_legacy_model(path)
    same_output(load_legacy_model(path, **{argument: value}), model)


def test_a_preprocessing_constant_that_contradicts_the_file(tmp_path, saved):
    model, config = saved
    path = write_keras2_model(tmp_path / "full.h5", model, config)
    with pytest.warns(UserWarning, match=r"saved with `subtract_mean` \[123.0?, 117.0?, 104.0?\]"):
        loaded = load_legacy_model(path, subtract_mean=[1, 2, 3])
    assert loaded.get_layer("input_mean_normalization").value == [1, 2, 3]
    load_legacy_model(path, subtract_mean=(123, 117, 104))  # the same: no warning


def test_functions_as_later_versions_wrote_them(tmp_path, saved):
    model, config = saved[0], copy.deepcopy(saved[1])
    function = layer_config(config, "input_mean_normalization")
    function["function"] = {"class_name": "__tuple__", "items": function["function"]}
    same_output(load_legacy_model(write_keras2_model(tmp_path / "full.h5", model, config)), model)


@pytest.mark.slow
def test_steps_that_do_not_fit_the_image(tmp_path):
    size = (300, 520, 3)
    model = ssd_300(size, 1, scales=SCALES_VOC, steps=None)
    path = write_keras2_model(tmp_path / "full.h5", model)
    with pytest.warns(UserWarning, match="`steps` belongs to another image size"):
        loaded = load_legacy_model(path)
    assert read_model_settings(loaded).anchors.steps == (8, 16, 32, 64, 100, 300)
    loaded = load_legacy_model(path, steps=None, offsets=[0.5] * 6)
    assert read_model_settings(loaded).anchors.steps == (None,) * 6
    assert read_model_settings(loaded).anchors.offsets == (0.5,) * 6


def test_steps_of_files_that_have_them(tmp_path):
    model = build_model(SIZE, 2, steps=[8, 16, [32, 30], 64], offsets=[0.5, 0.4, None, 0.5])
    config = keras2_config(model)
    for stage in (4, 5, 6, 7):
        anchors = model.get_layer(f"anchors{stage}").get_config()
        for key in ("this_steps", "this_offsets"):
            layer_config(config, f"anchors{stage}")[key] = anchors[key]
    loaded = load_legacy_model(write_keras2_model(tmp_path / "full.h5", model, config))
    assert read_model_settings(loaded).anchors == read_model_settings(model).anchors


def test_overrides_change_the_mode(tmp_path, saved):
    model, config = saved
    path = write_keras2_model(tmp_path / "full.h5", model, config)
    loaded = load_legacy_model(path, mode="inference", top_k=5)
    assert loaded.output_shape == (None, 5, 6)
    with pytest.raises(ValueError, match=r"build_model, .* has no arguments \['mean'\]"):
        load_legacy_model(path, mean=3)


# ---------------------------------------------------------------------------- hostile files


def test_no_code_in_a_file_is_run(tmp_path, monkeypatch, saved):
    target = tmp_path / "written by the file"
    model = saved[0]
    source = f"lambda x: open({str(target)!r}, 'w').close()"
    code = eval(source).__code__
    path = write_keras2_model(tmp_path / "full.h5", model, code=code)

    def forbidden(*_, **__):
        raise AssertionError("code of the file was about to be run")

    for module, name in (
        (marshal, "loads"),
        (marshal, "load"),
        (pickle, "loads"),
        (pickle, "load"),
        (builtins, "eval"),
    ):
        monkeypatch.setattr(module, name, forbidden)
    loaded = load_legacy_model(path)
    monkeypatch.undo()
    same_output(loaded, model)
    assert not target.exists()
    # The code is really in the file, and really does it.
    with h5py.File(path) as file:
        assert "input_mean_normalization" in file.attrs["model_config"]
    eval(source)(0)
    assert target.exists()


@pytest.mark.parametrize(
    ("layer", "key", "value", "message"),
    [
        ("conv3", "strides", [2, 2], r"conv3 has strides \[2, 2\], expected \[1, 1\]"),
        ("conv3", "activation", "relu", "conv3 has activation relu, expected linear"),
        ("bn2", "epsilon", 0.1, "bn2 has epsilon 0.1, expected 0.001"),
        ("conv1", "data_format", "channels_first", "data_format"),
        ("anchors5", "this_scale", 0.3, "scales .* do not follow from each other"),
        ("anchors5", "coords", "corners", "AnchorBoxes layers differ"),
        ("anchors5", "aspect_ratios", [1.0], "makes 1 boxes a cell, the weights of 'classes5'"),
        ("anchors5", "aspect_ratios", 3, "not one that Keras 2 writes .* TypeError"),
        ("input_1", "batch_input_shape", [None, None, None, 3], "one input of a fixed size"),
        ("input_1", "batch_input_shape", [None, 10**6, 10**6, 3], "at most 67108864 pixels"),
        ("input_1", "batch_input_shape", None, "one input of a fixed size"),
    ],
)
def test_changed_descriptions(tmp_path, saved, layer, key, value, message):
    model, config = saved[0], copy.deepcopy(saved[1])
    layer_config(config, layer)[key] = value
    path = write_keras2_model(tmp_path / "full.h5", model, config)
    with pytest.raises(ValueError, match=message) as error:
        load_legacy_model(path)
    assert str(path) in str(error.value)


def test_missing_settings_and_layers(tmp_path, saved):
    model = saved[0]

    def refused(change, message):
        config = copy.deepcopy(saved[1])
        change(config, {each["name"]: each for each in config["config"]["layers"]})
        path = write_keras2_model(tmp_path / "full.h5", model, config)
        with pytest.raises(ValueError, match=message):
            load_legacy_model(path)

    def new_layer(config, layers):
        config["config"]["layers"].append({**copy.deepcopy(layers["elu3"]), "name": "dropout"})
        config["config"]["layers"][-1]["config"]["name"] = "dropout"

    refused(new_layer, "only in the file: dropout")
    refused(lambda c, layers: c["config"]["layers"].remove(layers["elu3"]), "not in the file: elu3")
    refused(lambda c, layers: layers["anchors4"]["config"].pop("this_scale"), "KeyError")
    refused(lambda c, layers: layers["elu3"].update(class_name="ReLU"), "elu3 is a ReLU, expected")
    refused(
        lambda c, layers: layers["conv5"]["inbound_nodes"][0].__setitem__(0, ["elu3", 0, 0, {}]),
        r"conv5 takes \['elu3'\], expected \['pool4'\]",
    )
    refused(lambda c, layers: c.pop("config"), "KeyError: 'config'")
    refused(lambda c, layers: c.update(config=[]), "TypeError")
    refused(
        lambda c, layers: [layers[f"anchors{n}"].update(class_name="Lambda") for n in (4, 5, 6, 7)],
        "none of the original library's SSD300, SSD512 and SSD7, .* it has none",
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "[" * 100_000])
def test_descriptions_that_are_none(tmp_path, saved, text):
    path = write_keras2_model(tmp_path / "full.h5", saved[0])
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = text
    with pytest.raises(ValueError, match="not one that Keras 2 writes"):
        load_legacy_model(path)


def test_weights_that_do_not_belong_to_the_description(tmp_path, saved):
    model, config = saved
    path = write_keras2_model(tmp_path / "full.h5", model, config)
    with h5py.File(path, "a") as file:
        del file["model_weights/conv3/conv3/bias:0"]
        file["model_weights/conv3/conv3/bias:0"] = np.zeros(65)
    with pytest.raises(ValueError, match=r"conv3: .*\(65,\) in the file, .*\(64,\) in the model"):
        load_legacy_model(path)

    path = write_keras2_model(tmp_path / "other.h5", model, config)
    with h5py.File(path, "a") as file:
        names = [name for name in keras2_weights(model) if name != "conv3"]
        file["model_weights"].attrs["layer_names"] = np.array([name.encode() for name in names])
    with pytest.raises(ValueError, match="not a model that .* build:(?s:.)*not in the file: conv3"):
        load_legacy_model(path)


def test_predictor_weights_of_absurd_size(tmp_path, saved):
    model, config = saved
    path = write_keras2_model(tmp_path / "full.h5", model, config)
    with h5py.File(path, "a") as file:
        group = file["model_weights/classes4/classes4"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", (3, 3, 64, 2**40), "f4", chunks=(1, 1, 64, 64))
    with pytest.raises(ValueError, match="declares .* MB of weights but is only"):
        load_legacy_model(path)


# ---------------------------------------------------------------------------- other files


def test_files_that_are_no_legacy_models(tmp_path, golden_dir, saved):
    saved[0].save(tmp_path / "today.keras")
    with pytest.raises(ValueError, match=r"Keras 3 archive.*keras.saving.load_model"):
        load_legacy_model(tmp_path / "today.keras")
    for path in (
        golden_dir / "models" / "ssd7_keras216_weights.h5",
        tmp_path / "today.weights.h5",
    ):
        if path.suffixes == [".weights", ".h5"]:
            saved[0].save_weights(path)
        with pytest.raises(ValueError, match=r"holds weights only, .*load_legacy_weights"):
            load_legacy_model(path)
    with pytest.raises(FileNotFoundError):
        load_legacy_model(tmp_path / "absent.h5")
    (tmp_path / "page.h5").write_text("<html>")
    with pytest.raises(ValueError, match="begins with b'<html>'"):
        load_legacy_model(tmp_path / "page.h5")


def test_a_description_is_json_as_keras_2_wrote_it(saved):
    """The files of these tests have the form of real ones."""
    config = json.loads(json.dumps(saved[1]))
    assert config["class_name"] == "Model"
    assert set(layer_config(config, "anchors4")) & {"this_steps", "this_offsets"} == set()
    code, defaults, closure = layer_config(config, "input_mean_normalization")["function"]
    assert isinstance(code, str)
    assert defaults is None
    assert closure == [[123, 117, 104]]
