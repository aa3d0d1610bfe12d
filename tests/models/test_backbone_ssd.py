"""SSD on any base network: what is built, what is left alone, what is learned, what is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import models
from keras_loss_function.keras_ssd_loss import SSDLoss
from misc_utils.class_transfer import transfer_weights
from misc_utils.detection import detect
from misc_utils.fine_tuning import freeze
from models.backbone_ssd import ssd_from_backbone
from ssd_encoder_decoder.class_names import get_class_names
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = (48, 64, 3)
MODES = ("training", "inference", "inference_fast")
FEATURES = ("fine", "coarse")  # strides 4 and 8


def make_backbone(shape=SIZE) -> keras.Model:
    """Build a classifier that has all that matters: batch normalisation, a branch, a penalty."""
    inputs = keras.Input(shape)
    x = layers.Conv2D(4, 3, strides=2, padding="same", kernel_regularizer="l2", name="stem")(inputs)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="before")(x)
    y = layers.Conv2D(6, 3, padding="same", activation="relu", name="branch")(x)
    x = layers.Add(name="fine")([x, y])
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="coarse_conv")(x)
    x = layers.BatchNormalization(name="coarse_bn")(x)
    coarse = layers.ReLU(name="coarse")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(coarse)
    return keras.Model(inputs, layers.Dense(10, name="classifier")(x))


def make_ssd(mode="training", **settings):
    """Build a small one: with one extra stage, unless told otherwise."""
    arguments = {"image_size": SIZE, "n_classes": 2, "extra_filters": (8,), **settings}
    backbone = arguments.pop("backbone", None) or make_backbone(arguments["image_size"])
    return ssd_from_backbone(
        backbone, arguments.pop("feature_layers", FEATURES), mode=mode, **arguments
    )


def images_of(size=SIZE, n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *size)).astype(np.float32)


def targets_of(model: keras.Model) -> np.ndarray:
    encoder = SSDInputEncoder.from_model(model)
    return encoder([[[1, 5, 5, 40, 44]], [[2, 20, 10, 60, 30], [1, 50, 30, 63, 47]]])


def names_of(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers]


def outputs_of(model: keras.Model, names: tuple[str, ...], images: np.ndarray) -> list[np.ndarray]:
    part = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    return part.predict(images, verbose=0)


def values_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: np.array(variable) for variable in model.weights}


# ---------------------------------------------------------------------------- what is built


def test_the_parts_and_their_names():
    model, sizes = make_ssd(extra_filters=None, return_predictor_sizes=True)
    np.testing.assert_array_equal(sizes, [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)])
    n_boxes = 6 * sum(height * width for height, width in sizes)
    assert model.output_shape == (None, n_boxes, 3 + 12)
    names = names_of(model)
    assert {"stem", "stem_bn", "branch", "fine", "coarse"} <= set(names)
    assert not {"pool", "classifier"} & set(names), "no feature map depends on these"
    for source in (*FEATURES, "extra1", "extra2", "extra3"):
        for head in ("conf", "loc", "priorbox"):
            assert f"{source}_mbox_{head}" in names
    filters = [model.get_layer(f"extra{i}_conv").filters for i in (1, 2, 3)]
    assert filters == [512, 256, 256]


@pytest.mark.parametrize(
    ("extra_filters", "sizes"),
    [
        ((), [(12, 16), (6, 8)]),
        ([10], [(12, 16), (6, 8), (3, 4)]),
        ([10, 6, 4], [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]),
    ],
)
def test_as_many_extra_stages_as_asked_for(extra_filters, sizes):
    model, found = make_ssd(extra_filters=extra_filters, return_predictor_sizes=True)
    np.testing.assert_array_equal(found, sizes)
    assert ("extra1_conv" in names_of(model)) == bool(extra_filters)


def test_stages_go_on_until_a_single_cell_is_left():
    size = (800, 90, 1)
    model, sizes = make_ssd(image_size=size, extra_filters=None, return_predictor_sizes=True)
    assert [tuple(each) for each in sizes[-3:]] == [(4, 1), (2, 1), (1, 1)]
    filters = [model.get_layer(f"extra{i}_conv").filters for i in range(1, len(sizes) - 1)]
    assert filters == [512, 256, 256, 128, 128, 128, 128]


def test_feature_layers_by_name_by_layer_and_by_tensor():
    backbone = make_backbone()
    expected = names_of(make_ssd(backbone=backbone))[1:]  # all but the input's
    fine, coarse = (backbone.get_layer(name) for name in FEATURES)
    for chosen in ([fine, coarse], [fine.output, "coarse"]):
        assert names_of(make_ssd(backbone=backbone, feature_layers=chosen))[1:] == expected


def test_scales_by_the_formula_of_the_paper():
    anchors = SSDInputEncoder.from_model(make_ssd(extra_filters=(8, 8)))
    np.testing.assert_allclose(anchors.scales, [0.2, 0.375, 0.55, 0.725, 0.9])


@pytest.mark.parametrize("size", [(48, 64, 3), (90, 33, 1), (40, 40, 5)])
def test_any_image_size_also_with_a_backbone_that_leaves_it_open(size):
    backbone = make_backbone((None, None, size[-1]))
    model = make_ssd(backbone=backbone, image_size=size, clip_boxes=True)
    y_pred = model.predict(images_of(size), verbose=0)
    np.testing.assert_allclose(y_pred[..., :3].sum(axis=-1), 1, rtol=1e-5)
    template = SSDInputEncoder.from_model(model).generate_encoding_template(2)
    np.testing.assert_array_equal(y_pred[..., -8:], template[..., -8:])


def test_a_grey_image_for_a_backbone_of_three_channels():
    backbone = make_backbone()
    model = make_ssd(backbone=backbone, image_size=(48, 64, 1), swap_channels=(0, 0, 0))
    images = images_of((48, 64, 1))
    found = outputs_of(model, FEATURES, images)
    expected = outputs_of(backbone, FEATURES, np.repeat(images, 3, axis=-1))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------------------- the base network


def with_operators() -> tuple[keras.Model, tuple[str, ...]]:
    inputs = keras.Input(SIZE)
    x = layers.Conv2D(4, 3, strides=4, padding="same", name="first")(inputs)
    x = keras.ops.relu(x * 2.0 + 1.0)
    fine = layers.Identity(name="fine")(x)
    return keras.Model(inputs, layers.MaxPooling2D(name="coarse")(fine)), FEATURES


def with_a_network_inside() -> tuple[keras.Model, tuple[str, ...]]:
    inside = keras.Model((whole := make_backbone()).inputs, whole.get_layer("fine").output)
    inputs = keras.Input(SIZE)
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    x = layers.Identity(name="fine")(inside(x))
    return keras.Model(inputs, layers.AveragePooling2D(2, name="coarse")(x)), FEATURES


def a_sequence() -> tuple[keras.Model, tuple[str, ...]]:
    stack = [keras.Input(SIZE), layers.Conv2D(4, 3, strides=4, padding="same", name="fine")]
    return keras.Sequential(
        [*stack, layers.MaxPooling2D(name="coarse"), layers.Flatten()]
    ), FEATURES


def with_a_shared_layer() -> tuple[keras.Model, tuple[str, ...]]:
    inputs = keras.Input(SIZE)
    shared = layers.Conv2D(3, 3, strides=2, padding="same", name="shared")
    x = layers.Identity(name="fine")(shared(shared(inputs)))
    return keras.Model(inputs, layers.Identity(name="coarse")(shared(x))), FEATURES


def plain() -> tuple[keras.Model, tuple[str, ...]]:
    return make_backbone(), FEATURES


@pytest.mark.parametrize(
    "make", [plain, with_operators, with_a_network_inside, a_sequence, with_a_shared_layer]
)
def test_the_feature_maps_are_those_of_the_backbone(make, tmp_path):
    backbone, features = make()
    for variable in backbone.weights:  # also the statistics: nothing is at its initial value
        variable.assign(np.random.default_rng(1).uniform(0.1, 0.5, variable.shape))
    model = make_ssd(
        backbone=backbone, feature_layers=features, subtract_mean=120, divide_by_stddev=60
    )
    images = images_of()
    expected = outputs_of(backbone, features, (images - 120) / 60)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        for ours, theirs in zip(outputs_of(each, features, images), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_backbone_stays_as_it_is():
    backbone = make_backbone()
    names, before = names_of(backbone), values_of(backbone)
    first, second = make_ssd(backbone=backbone), make_ssd(backbone=backbone)
    untrained = values_of(second)
    freeze(first, "stem_bn")
    first.compile(keras.optimizers.SGD(0.1), SSDLoss())
    first.train_on_batch(images_of(), targets_of(first))
    assert names_of(backbone) == names
    assert all(layer.trainable for layer in [*backbone.layers, *second.layers])
    for model, values in ((backbone, before), (second, untrained)):
        for path, value in values_of(model).items():
            np.testing.assert_array_equal(value, values[path])


# ---------------------------------------------------------------------------- separable


def test_separable_heads_and_stages():
    names = names_of(make_ssd(separable=True))
    for source in (*FEATURES, "extra1"):
        for head in (f"{source}_mbox_conf", f"{source}_mbox_loc"):
            start = names.index(f"{head}_depthwise")
            assert {f"{head}_depthwise_bn", f"{head}_depthwise_relu", head} <= set(names[start:])
    assert "extra1_depthwise" in names
    model = make_ssd(separable=True, extra_filters=None)
    kernel, bias = model.get_layer("fine_mbox_conf").weights
    assert tuple(kernel.shape) == (1, 1, 6, 6 * 3)
    assert tuple(bias.shape) == (6 * 3,)
    assert model.get_layer("fine_mbox_conf_depthwise").weights[0].shape[:3] == (3, 3, 6)
    assert model.count_params() < make_ssd(extra_filters=None).count_params() / 4


@pytest.mark.parametrize("separable", [False, True])
def test_class_scores_move_to_a_model_with_other_classes(separable):
    source = make_ssd(n_classes=3, separable=separable)
    model = make_ssd(n_classes=2, separable=separable)
    report = transfer_weights(source, model, {1: 3, 2: 1})
    assert not report.fresh
    assert len(report.resampled) == 3
    images = images_of()
    logits, their_logits = (
        outputs_of(each, FEATURES_CONF, images)[0].reshape(2, 12, 16, 6, -1)
        for each in (model, source)
    )
    np.testing.assert_allclose(logits, their_logits[..., [0, 3, 1]], rtol=1e-4, atol=1e-4)


FEATURES_CONF = ("fine_mbox_conf", "coarse_mbox_conf")


# ---------------------------------------------------------------------------- training


def penalties(model: keras.Model) -> set[str]:
    return {
        layer.name
        for layer in model.layers
        for kind in ("kernel_regularizer", "depthwise_regularizer")
        if getattr(layer, kind, None) is not None and float(getattr(layer, kind).l2) > 0
    }


@pytest.mark.parametrize("separable", [False, True])
def test_the_penalty_is_on_new_layers_only(separable):
    model = make_ssd(l2_regularization=0.25, separable=separable)
    sources = (*FEATURES, "extra1")
    heads = {f"{source}_mbox_{head}" for source in sources for head in ("conf", "loc")}
    new = heads | {"extra1_squeeze", "extra1_conv"}
    if separable:
        new |= {f"{head}_depthwise" for head in heads} | {"extra1_depthwise"}
    assert penalties(model) == new | {"stem"}, "the stem keeps its own"
    assert float(model.get_layer("stem").kernel_regularizer.l2) == pytest.approx(0.01)
    assert float(model.get_layer("fine_mbox_loc").kernel_regularizer.l2) == 0.25


@pytest.mark.parametrize("separable", [False, True])
def test_a_step_changes_every_weight(separable):
    keras.utils.set_random_seed(0)
    model = make_ssd(separable=separable, subtract_mean=127.5, divide_by_stddev=127.5)
    model.compile(keras.optimizers.Adam(1e-3), SSDLoss())
    before = values_of(model)
    assert np.isfinite(model.train_on_batch(images_of(), targets_of(model)))
    after = values_of(model)
    unchanged = {path for path in after if np.array_equal(after[path], before[path])}
    assert unchanged == set()


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_normalisation_can_be_frozen(frozen, tmp_path):
    model = make_ssd(freeze_batch_normalization=frozen)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")  # files remember it
    model.compile(keras.optimizers.Adam(1e-2), SSDLoss())
    before = values_of(model)
    model.train_on_batch(images_of(), targets_of(model))
    changed = {path for path, value in values_of(model).items() if (value != before[path]).any()}
    own = {f"stem_bn/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    assert own.isdisjoint(changed) if frozen else own <= changed
    assert {"stem/kernel", "extra1_bn/moving_mean"} <= changed


@pytest.mark.parametrize(("given", "expected"), [(None, 0.99), (0.7, 0.7)])
def test_momentum_of_batch_normalisation(given, expected, tmp_path):
    model = make_ssd(batch_normalization_momentum=given)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert each.get_layer("stem_bn").momentum == expected
        assert each.get_layer("extra1_bn").momentum == 0.99  # a layer of the SSD


@pytest.mark.parametrize("momentum", [1.0, -0.1])
def test_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=rf"batch_normalization_momentum.*\[0, 1\).*{momentum}"):
        make_ssd(batch_normalization_momentum=momentum)


def test_class_names_are_kept(tmp_path):
    names = ["background", "cat", "dog"]
    make_ssd(class_names=names).save(tmp_path / "model.keras")
    assert get_class_names(keras.saving.load_model(tmp_path / "model.keras")) == names


def test_training_fits_two_images():
    keras.utils.set_random_seed(0)
    model = make_ssd(separable=True, subtract_mean=127.5, divide_by_stddev=127.5)
    model.compile(keras.optimizers.Adam(1e-2), SSDLoss())
    images, targets = images_of(), targets_of(model)
    losses = [float(model.train_on_batch(images, targets)) for _ in range(40)]
    assert losses[-1] < losses[0] / 4


# ---------------------------------------------------------------------------- modes and files


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("mode", MODES[1:])
def test_modes_decode(mode, separable):
    model = make_ssd(mode, top_k=7, confidence_thresh=0.0, separable=separable)
    detections = model.predict(images_of(), verbose=0)
    assert detections.shape == (2, 7, 6)
    found = detect(model, [np.zeros((20, 30, 3), np.uint8)], confidence_thresh=0.0)
    assert found[0].shape[1] == 6


FRESH_PROCESS = textwrap.dedent(
    """
    import sys
    import keras, numpy as np
    import models

    for mode in ("training", "inference", "inference_fast"):
        model = keras.saving.load_model(f"{sys.argv[1]}/{mode}.keras", safe_mode=True)
        images = np.load(f"{sys.argv[1]}/images.npy")
        np.save(f"{sys.argv[1]}/{mode}.npy", model.predict(images, verbose=0))
    """
)


def test_a_process_that_only_imports_models(tmp_path):
    np.save(tmp_path / "images.npy", images_of())
    trained = make_ssd(separable=True)
    expected = {}
    for mode in MODES:
        model = make_ssd(mode, separable=True, swap_channels=(2, 1, 0), subtract_mean=(1, 2, 3))
        model.set_weights(trained.get_weights())
        model.save(tmp_path / f"{mode}.keras")
        expected[mode] = model.predict(images_of(), verbose=0)
    command = [sys.executable, "-W", "ignore", "-c", FRESH_PROCESS, str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for mode in MODES:
        np.testing.assert_array_equal(np.load(tmp_path / f"{mode}.npy"), expected[mode])


def test_half_precision_keeps_predictions_and_anchors_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_ssd(separable=True, subtract_mean=127.5)
    finally:
        keras.config.set_dtype_policy(before)
    for name in ("stem", "extra1_conv", "fine_mbox_conf", "fine_mbox_conf_depthwise"):
        assert model.get_layer(name).compute_dtype == "bfloat16"
    y_pred = model.predict(images_of(), verbose=0)
    assert y_pred.dtype == np.float32
    template = SSDInputEncoder.from_model(model).generate_encoding_template(2)
    np.testing.assert_array_equal(y_pred[..., -8:], template[..., -8:])


def test_the_door_stands_open_in_the_package():
    assert models.ssd_from_backbone is ssd_from_backbone


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "evaluation"}, "`mode` must be one of"),
        ({"image_size": (48, None, 3)}, "`image_size`.*all known"),
        ({"n_classes": 0}, "`n_classes`"),
        ({"scales": [0.1, 0.2]}, "`scales` must have 4.*got 2"),
        ({"min_scale": None}, "`min_scale`"),
        ({"aspect_ratios_per_layer": [[1.0]]}, "`aspect_ratios_per_layer` must have 3.*got 1"),
        ({"steps": [8]}, "`steps` must have 3.*got 1"),
        ({"extra_filters": [1]}, "`extra_filters`.*at least 2.*got 1"),
        ({"extra_filters": [8, 8.5]}, "`extra_filters`.*got 8.5"),
        ({"extra_filters": [8] * 4}, "finest to the coarsest.*extra4 1 x 1.*`extra_filters`"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_ssd(backbone=make_backbone(), **arguments)
