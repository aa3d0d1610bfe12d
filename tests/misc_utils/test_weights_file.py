"""Reading weights: files of all ages, and damaged or forged ones."""

from __future__ import annotations

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest

from misc_utils.weights_file import (
    WeightsFileError,
    open_weights_file,
    read_saved_class_names,
    read_weights_file,
)
from models.keras_ssd7 import build_model
from tests.legacy_files import names_as_attribute, write_keras2_model, write_keras2_weights
from tests.recorded_models import set_recorded_weights

WEIGHTS = {
    "input_1": {},
    "conv1": {
        "conv1/kernel:0": np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4),
        "conv1/bias:0": np.arange(4, dtype=np.float32),
    },
    "conv4_3_norm": {"conv4_3_norm/conv4_3_norm_gamma:0": np.full(4, 20, dtype=np.float32)},
}


NAMES = ["background", "cat", "dog"]


@pytest.fixture(scope="module")
def model():
    return build_model((64, 96, 3), 2, subtract_mean=[1, 2, 3], class_names=NAMES)


def check_all_weights(weights, model):
    """Compare with a model; Keras 3's files number the weights, older ones name them."""
    layers = {layer.name: layer.weights for layer in model.layers if layer.weights}
    assert set(weights) == set(layers)
    for name, variables in layers.items():
        assert len(weights[name]) == len(variables)
        for array, variable in zip(weights[name].values(), variables, strict=True):
            np.testing.assert_array_equal(array, keras.ops.convert_to_numpy(variable))


# ---------------------------------------------------------------------------- class names


def test_class_names_of_a_saved_model(tmp_path, model):
    model.save(tmp_path / "named.keras")
    assert read_saved_class_names(tmp_path / "named.keras") == NAMES


def test_files_without_class_names(tmp_path, model):
    build_model((64, 96, 3), 2).save(tmp_path / "unnamed.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    model.save_weights(tmp_path / "only.weights.h5")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.txt", "cheese")
    for path in tmp_path.iterdir():
        assert read_saved_class_names(path) is None, path


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "{}",
        '{"config": 1}',
        '{"config": {"layers": [1]}}',
        '{"config": {"layers": [{"class_name": "Predictions", "config": {"class_names": 7}}]}}',
    ],
)
def test_a_damaged_description_is_explained(config, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", config)
    with pytest.raises(WeightsFileError, match="damaged"):
        read_saved_class_names(tmp_path / "model.keras")


# ---------------------------------------------------------------------------- good files


@pytest.mark.parametrize("name", ["ssd7_keras2_weights", "ssd7_keras216_weights"])
def test_recorded_legacy_files(golden, golden_dir, name):
    info = golden("models/ssd7").info
    weights = read_weights_file(golden_dir / "models" / f"{name}.h5")
    expected = build_model(**info["kwargs"])
    set_recorded_weights(expected, info)
    check_all_weights(weights, expected)
    assert list(weights["conv1"]) == ["kernel", "bias"]
    assert list(weights["bn1"]) == ["gamma", "beta", "moving_mean", "moving_variance"]


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("split_names", [True, False])
@pytest.mark.parametrize("where", ["/", "model_weights"])
def test_legacy_layouts(tmp_path, as_bytes, split_names, where):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        group = file.require_group(where)
        write_keras2_weights(group, WEIGHTS, as_bytes, split_names)
        # Keras 2.4 and later added this group, which is no layer.
        group.create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0)
        if split_names and where != "/":
            file.attrs["model_config"] = "{}"
    weights = read_weights_file(path)
    assert list(weights) == ["conv1", "conv4_3_norm"]
    assert list(weights["conv4_3_norm"]) == ["conv4_3_norm_gamma"]
    for layer, arrays in weights.items():
        for array, expected in zip(arrays.values(), WEIGHTS[layer].values(), strict=True):
            np.testing.assert_array_equal(array, expected)
            assert array.dtype == np.float32


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_todays_files(tmp_path, suffix):
    model = build_model((64, 96, 3), 2)
    model.compile("adam", "mse")  # the optimizer's state is in the file, too
    model.optimizer.build(model.trainable_variables)
    path = tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    weights = read_weights_file(path)
    check_all_weights(weights, model)
    assert list(weights["bn1"]) == ["0", "1", "2", "3"]


def test_bfloat16(tmp_path):
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, dtype="bfloat16", name="dense_a")(inputs)
    model = keras.Model(inputs, outputs)
    model.save_weights(tmp_path / "half.weights.h5")
    kernel = read_weights_file(tmp_path / "half.weights.h5")["dense_a"]["0"]
    expected = keras.ops.convert_to_numpy(model.get_layer("dense_a").kernel)
    np.testing.assert_array_equal(kernel.astype(np.float32), expected.astype(np.float32))


def test_shapes_without_reading(tmp_path, model):
    path = write_keras2_model(tmp_path / "model.h5", model)
    with open_weights_file(path) as file:
        assert file.shapes()["conv1"] == [(5, 5, 3, 32), (32,)]
        assert "elu1" in file.layers
        assert "elu1" not in file.shapes()
        assert '"class_name": "Model"' in file.model_config


# ---------------------------------------------------------------------------- bad files


def refused(path, message):
    with pytest.raises(WeightsFileError, match=message) as error:
        read_weights_file(path)
    assert str(path) in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file of weights"):
        read_weights_file(tmp_path / "absent.h5")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\x89PNG\r\n", b"PK\x03\x04 cut"])
def test_something_else(tmp_path, content):
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    refused(path, "is neither an HDF5 file .* nor a .keras archive: it begins with")


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_files_cut_off(tmp_path, model, suffix, share):
    path = tmp_path / f"model{suffix}"
    write_keras2_model(path, model) if suffix == ".h5" else model.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "damaged|neither")


def test_damage_in_an_archive(tmp_path, model):
    path = tmp_path / "model.keras"
    model.save(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    path.write_bytes(content)
    refused(path, "damaged.*CRC")


def test_an_archive_of_something_else(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"...")
    refused(path, r"no 'model.weights.h5' in it, .* \['photo.jpg'\]")


def test_other_hdf5_files(tmp_path):
    path = tmp_path / "dataset.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    refused(path, r"holds no Keras weights: .* it has \['images'\]")


def forged(path, change):
    """Write a legacy file of one layer, changed by a function of the layer's group."""
    with h5py.File(path, "w") as file:
        write_keras2_weights(file, {"conv1": {"conv1/kernel:0": np.zeros(3, np.float32)}})
        del file["conv1/conv1/kernel:0"]
        change(file["conv1/conv1"])
    return path


def test_weights_that_are_listed_but_missing(tmp_path):
    refused(forged(tmp_path / "w.h5", lambda group: None), "lists 'conv1/kernel:0'")


@pytest.mark.parametrize(
    "link",
    [h5py.ExternalLink("secret.h5", "/numbers"), h5py.SoftLink("/elsewhere")],
    ids=["external", "soft"],
)
def test_links_are_not_followed(tmp_path, link):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["numbers"] = np.arange(3.0)

    def change(group):
        group["kernel:0"] = link
        group.file["elsewhere"] = np.arange(3.0)

    refused(forged(tmp_path / "w.h5", change), "has a link in place of 'conv1/kernel:0'")


def test_data_in_other_files_is_not_read(tmp_path):
    (tmp_path / "secret.raw").write_bytes(bytes(24))

    def external(group):
        file_name = str(tmp_path / "secret.raw")
        group.create_dataset("kernel:0", (3,), "f8", external=[(file_name, 0, 24)])

    def virtual(group):
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "numbers", (3,))
        group.create_virtual_dataset("kernel:0", layout)

    for change in (external, virtual):
        refused(forged(tmp_path / f"{change.__name__}.h5", change), "refers to another file")


def test_only_numbers_are_read(tmp_path):
    def text(group):
        group["kernel:0"] = "text"

    def empty(group):
        group["kernel:0"] = h5py.Empty("f4")

    def nested(group):
        group.create_group("kernel:0")

    refused(forged(tmp_path / "a.h5", text), "must hold numbers")
    refused(forged(tmp_path / "b.h5", empty), "is no array")
    refused(forged(tmp_path / "c.h5", nested), "is no array")


def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path):
    def change(group):
        group.create_dataset("kernel:0", (2**20, 2**20), "f4", chunks=(1024, 1024))

    path = forged(tmp_path / "w.h5", change)
    assert path.stat().st_size < 100_000
    refused(path, "declares 4398047 MB of weights but is only")


def test_archives_that_unpack_to_absurd_sizes_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(100 * 2**20))
    refused(path, "declares 105 MB of weights but is only")


def test_two_layers_of_one_name_are_refused(tmp_path):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for key in ("conv2d", "conv2d_1"):
            group = file.create_group(f"layers/{key}/vars")
            group.attrs["name"] = "conv1"
            group["0"] = np.zeros(2)
    path = tmp_path / "twice.weights.h5"
    path.write_bytes(content.getvalue())
    refused(path, "two layers named 'conv1'")


@pytest.mark.parametrize("raised", [KeyError, OSError, RuntimeError, TypeError, ValueError])
def test_whatever_h5py_says_of_damage_is_explained(tmp_path, monkeypatch, raised):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        write_keras2_weights(file, WEIGHTS)

    def damaged(*_):
        raise raised("bad symbol table node signature")

    monkeypatch.setattr(h5py.Group, "__getitem__", damaged)
    refused(path, "is damaged, .*bad symbol table node signature.*Fetch it again")


def test_a_layer_that_is_listed_but_missing(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = names_as_attribute(["conv1"])
    refused(path, "lists 'conv1' in group '/' but does not have it")
