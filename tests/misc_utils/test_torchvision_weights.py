"""torchvision's SSD300: the same outputs, from its weights, with our layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from misc_utils.model_weights import weights_by_layer
from misc_utils.torchvision_weights import load_torchvision_weights, torchvision_ssd300_settings
from models.keras_ssd300 import SCALES_COCO, SCALES_VOC, ssd_300
from ssd_encoder_decoder.ssd_output_decoder import decode_detections
from tests.environments import run_in

N_CLASSES = 3
SHAPES = {
    **{
        f"backbone.features.{number}": (outputs, inputs, 3, 3)
        for number, inputs, outputs in (
            (0, 3, 64),
            (2, 64, 64),
            (5, 64, 128),
            (7, 128, 128),
            (10, 128, 256),
            (12, 256, 256),
            (14, 256, 256),
            (17, 256, 512),
            (19, 512, 512),
            (21, 512, 512),
        )
    },
    **{f"backbone.extra.0.{number}": (512, 512, 3, 3) for number in (1, 3, 5)},
    "backbone.extra.0.7.1": (1024, 512, 3, 3),
    "backbone.extra.0.7.3": (1024, 1024, 1, 1),
    "backbone.extra.1.0": (256, 1024, 1, 1),
    "backbone.extra.1.2": (512, 256, 3, 3),
    "backbone.extra.2.0": (128, 512, 1, 1),
    "backbone.extra.2.2": (256, 128, 3, 3),
    "backbone.extra.3.0": (128, 256, 1, 1),
    "backbone.extra.3.2": (256, 128, 3, 3),
    "backbone.extra.4.0": (128, 256, 1, 1),
    "backbone.extra.4.2": (256, 128, 3, 3),
    **{
        f"head.{kind}_head.module_list.{number}": (n_boxes * n, inputs, 3, 3)
        for kind, n in (("classification", N_CLASSES + 1), ("regression", 4))
        for number, (n_boxes, inputs) in enumerate(
            ((4, 512), (6, 1024), (6, 512), (6, 256), (4, 256), (4, 256))
        )
    },
}


@pytest.fixture(scope="module")
def state():
    """A state dict of random numbers, with arrays for tensors."""
    rng = np.random.default_rng(0)
    result = {"backbone.scale_weight": rng.uniform(5, 25, 512).astype(np.float32)}
    for prefix, shape in SHAPES.items():
        result[f"{prefix}.weight"] = rng.standard_normal(shape, dtype=np.float32)
        result[f"{prefix}.bias"] = rng.standard_normal(shape[0], dtype=np.float32)
    return result


@pytest.fixture(scope="module")
def model():
    return ssd_300(**torchvision_ssd300_settings(N_CLASSES))


def test_the_model_computes_what_torchvision_computes(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (15, 15, 3))
    image = image.repeat(20, axis=0).repeat(20, axis=1).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    run_in("torch", "torchvision_ssd.py", tmp_path / "image.npy", tmp_path / "results.npz")
    with np.load(tmp_path / "results.npz") as file:
        theirs = dict(file)
    state = {
        name.removeprefix("state/"): array
        for name, array in theirs.items()
        if name.startswith("state/")
    }
    model = ssd_300(**torchvision_ssd300_settings(N_CLASSES))
    report = load_torchvision_weights(model, state)
    assert report.is_complete
    predictions = keras.ops.convert_to_numpy(model(image[np.newaxis]))
    np.testing.assert_allclose(predictions[0, :, :4], theirs["scores"], atol=2e-3)
    np.testing.assert_allclose(corners(predictions[0]), theirs["boxes"], atol=0.05, rtol=1e-3)
    # Anchors larger than the image are among them, and get boxes of their own.
    assert np.all(predictions[0, -2:, 10:12].max(axis=-1) > 1.2)

    # The strongest detections are the same; clipping before NMS lets some weak ones differ.
    (detections,) = decode_detections(
        predictions, img_height=300, img_width=300, border_pixels="half"
    )
    detections = np.clip(detections[np.argsort(-detections[:, 1])], 0, 300)[:20]
    distances = np.abs(detections[:, np.newaxis, 2:] - theirs["detected_boxes"]).max(axis=-1)
    assert np.mean(distances.min(axis=1) < 0.1) >= 0.8


def corners(rows: np.ndarray) -> np.ndarray:
    """Decode raw predictions, step by step: offsets and anchors to corners in pixels."""
    dx, dy, dw, dh = rows[:, 4:8].astype(np.float64).T
    cx, cy, w, h = rows[:, 8:12].T
    cx, cy = cx + 0.1 * dx * w, cy + 0.1 * dy * h
    w, h = w * np.exp(0.2 * dw), h * np.exp(0.2 * dh)
    return 300 * np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)


def test_layers_get_their_weights(model, state):
    report = load_torchvision_weights(model, state)
    assert report.is_complete
    weights = weights_by_layer(model)
    for layer, prefix in (
        ("conv1_1", "backbone.features.0"),
        ("conv3_1", "backbone.features.10"),
        ("conv4_3", "backbone.features.21"),
        ("conv5_3", "backbone.extra.0.5"),
        ("fc6", "backbone.extra.0.7.1"),
        ("conv8_1", "backbone.extra.3.0"),
        ("conv9_2", "backbone.extra.4.2"),
        ("conv7_2_mbox_conf", "head.classification_head.module_list.3"),
        ("conv8_2_mbox_loc", "head.regression_head.module_list.4"),
    ):
        kernel, bias = weights[layer]
        np.testing.assert_array_equal(kernel, state[f"{prefix}.weight"].transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(bias, state[f"{prefix}.bias"])
    np.testing.assert_array_equal(weights["conv4_3_norm"][0], state["backbone.scale_weight"])


def test_a_model_that_swaps_channels_gets_a_swapped_kernel(state):
    settings = torchvision_ssd300_settings(N_CLASSES) | {"swap_channels": (2, 1, 0)}
    model = ssd_300(**settings)
    load_torchvision_weights(model, state)
    kernel = state["backbone.features.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(weights_by_layer(model)["conv1_1"][0], kernel[:, :, ::-1])


def test_names_of_training_scripts_are_understood(model, state):
    load_torchvision_weights(model, state)
    expected = weights_by_layer(model)
    doubled = {f"module.{name}": 2 * array for name, array in state.items()}
    load_torchvision_weights(model, {"model": doubled, "epoch": 3})
    load_torchvision_weights(model, {f"module.{name}": array for name, array in state.items()})
    np.testing.assert_array_equal(weights_by_layer(model)["fc7"][0], expected["fc7"][0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": SCALES_VOC}, "conv4_3_norm: boxes of 21x21"),
        ({"steps": None}, "conv4_3_norm: step 8"),
        ({"variances": (0.1, 0.1, 0.1, 0.1)}, "variances"),
        ({"subtract_mean": None}, "RGB images minus"),
        ({"subtract_mean": 123, "divide_by_stddev": 58}, "RGB images minus"),
    ],
)
def test_other_settings_are_a_warning(state, settings, message):
    model = ssd_300(**torchvision_ssd300_settings(N_CLASSES) | settings)
    with pytest.warns(UserWarning, match=message):
        load_torchvision_weights(model, state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.extra.4.2.weight": None}, "it lacks backbone.extra.4.2"),
        ({"backbone.scale_weight": None}, "it lacks backbone.scale_weight"),
        ({"backbone.features.0.weight": np.zeros((64, 1, 3, 3))}, "conv1_1"),
        ({"backbone.features.2.bias": np.full(64, np.inf)}, "not finite"),
        ({"backbone.features.2.bias": None}, "conv1_2"),
        ({"head.regression_head.module_list.5.bias": np.zeros(12)}, "conv9_2_mbox_loc"),
        ({"head.regression_head.module_list.5.bias": "text"}, "must be a tensor"),
        (
            {"head.classification_head.module_list.0.weight": np.zeros((8, 512, 3, 3))},
            "conv4_3_norm_mbox_conf",
        ),
    ],
)
def test_weights_that_do_not_fit_change_nothing(model, state, changes, message):
    load_torchvision_weights(model, state)
    before = weights_by_layer(model)
    changed = {name: 2 * array for name, array in state.items()} | changes
    changed = {name: array for name, array in changed.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        load_torchvision_weights(model, changed)
    for layer, arrays in weights_by_layer(model).items():
        for array, expected in zip(arrays, before[layer], strict=True):
            np.testing.assert_array_equal(array, expected)


def test_class_scores_of_other_classes_may_be_skipped(state):
    model = ssd_300(**torchvision_ssd300_settings(n_classes=1))
    with pytest.raises(ValueError, match="3 classes, yours 1"):
        load_torchvision_weights(model, state)
    report = load_torchvision_weights(model, state, skip_mismatch=True)
    assert all(layer.endswith("_mbox_conf") for layer in report.skipped)
    assert len(report.skipped) == 6


def test_boxes_that_are_no_centroids_are_refused(state):
    model = ssd_300((300, 300, 3), N_CLASSES, scales=SCALES_COCO, coords="minmax")
    with pytest.raises(ValueError, match="coords='minmax'"):
        load_torchvision_weights(model, state)


def test_files_are_read_without_running_them(model, state, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch reads its files")
    tensors = {name: torch.nn.Parameter(torch.from_numpy(a)) for name, a in state.items()}
    torch.save(tensors, tmp_path / "x.pth")
    assert load_torchvision_weights(model, tmp_path / "x.pth").is_complete
    torch.save({"model": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="save the `state_dict"):
        load_torchvision_weights(model, tmp_path / "trap.pth")
    assert not Trap.sprung
    (tmp_path / "cut.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:10_000])
    with pytest.raises(ValueError, match="damaged"):
        load_torchvision_weights(model, tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="a list"):
        load_torchvision_weights(model, tmp_path / "list.pth")


class Trap:
    """An object that notes when unpickling builds it."""

    sprung = False

    def __reduce__(self):
        return (_spring, ())


def _spring() -> None:
    Trap.sprung = True


def test_a_missing_file_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_torchvision_weights(model, tmp_path / "nowhere.pth")
