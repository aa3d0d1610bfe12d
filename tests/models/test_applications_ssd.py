"""The builders on networks of `keras.applications`: what the network sees, what it is built of.

All but MobileNetV2 are large; what takes them longer than seconds is slow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import keras
import numpy as np
import pytest
from keras import applications

from data_generator.object_detection_2d_geometric_ops import Resize
from keras_loss_function.keras_ssd_loss import SSDLoss
from misc_utils.class_transfer import transfer_weights
from misc_utils.fine_tuning import LearningRateMultipliers, freeze
from models.keras_ssd_densenet import ssd_densenet
from models.keras_ssd_inception_resnet_v2 import ssd_inception_resnet_v2
from models.keras_ssd_mobilenet_v2 import ssd_mobilenet_v2
from models.keras_ssd_resnet50 import ssd_resnet50
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
from tests.blood_cells import few_images

N_CLASSES = 3
# To trace some hundred layers takes longer than a step with two images, but not on JAX, which
# compiles every single operation otherwise.
EAGERLY = keras.backend.backend() != "jax"


@dataclass(frozen=True)
class Builder:
    """A builder, and what it is checked with."""

    build: object
    network: object
    module: object  # of keras.applications: knows the preprocessing
    size: tuple
    features: dict  # {layer: (height, width)}
    arguments: dict = field(default_factory=dict)


BUILDERS = {
    "mobilenet_v2": Builder(
        ssd_mobilenet_v2,
        applications.MobileNetV2,
        applications.mobilenet_v2,
        (96, 128, 3),
        {"block_13_expand_relu": (6, 8), "out_relu": (3, 4)},
        {"alpha": 0.35},
    ),
    "resnet50": Builder(
        ssd_resnet50,
        applications.ResNet50,
        applications.resnet50,
        (64, 64, 3),
        {"conv3_block4_out": (8, 8), "conv4_block6_out": (4, 4), "conv5_block3_out": (2, 2)},
    ),
    "densenet": Builder(
        ssd_densenet,
        applications.DenseNet121,
        applications.densenet,
        (64, 96, 3),
        {"pool3_relu": (8, 12), "pool4_relu": (4, 6), "relu": (2, 3)},
    ),
    "inception_resnet_v2": Builder(
        ssd_inception_resnet_v2,
        applications.InceptionResNetV2,
        applications.inception_resnet_v2,
        (139, 107, 3),
        {"block35_10_ac": (15, 11), "block17_20_ac": (7, 5), "conv_7b_ac": (3, 2)},
    ),
}
each_builder = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "mobilenet_v2" else pytest.mark.slow)
        for name in BUILDERS
    ],
)


@cache
def weights_file(name: str, folder) -> tuple[keras.Model, object]:
    """Return a network of Keras with random weights and statistics, and a file of these."""
    builder = BUILDERS[name]
    network = builder.network(
        input_shape=builder.size, include_top=False, weights=None, **builder.arguments
    )
    random = np.random.default_rng(0)
    for variable in network.weights:
        if variable.path.endswith(("moving_mean", "beta", "moving_variance")):
            variable.assign(random.uniform(0.5, 1.0, variable.shape))
    path = folder / f"{name}.weights.h5"
    network.save_weights(path)
    return network, path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def make(name: str, mode: str = "training", **settings) -> keras.Model:
    builder = BUILDERS[name]
    return builder.build(builder.size, N_CLASSES, mode, **{**builder.arguments, **settings})


def images_of(name: str, n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *BUILDERS[name].size)).astype(np.float32)


@each_builder
def test_the_feature_maps_are_those_of_keras(name, folder):
    # Of Keras' own network with Keras' own preprocessing, whatever the weights.
    builder = BUILDERS[name]
    network, path = weights_file(name, folder)
    model, sizes = make(name, weights=path, return_predictor_sizes=True)
    assert [tuple(size) for size in sizes[: len(builder.features)]] == [*builder.features.values()]
    assert tuple(sizes[-1]) == (1, 1)
    images = images_of(name)
    seen = builder.module.preprocess_input(images.copy())
    found, expected = (
        keras.Model(each.inputs, [each.get_layer(layer).output for layer in builder.features])
        for each in (model, network)
    )
    for ours, theirs in zip(
        found.predict(images, verbose=0), expected.predict(seen, verbose=0), strict=True
    ):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=2e-4)


@each_builder
def test_trains_saves_loads_and_decodes(name, real_data, tmp_path):
    size = BUILDERS[name].size
    model = make(name)
    encoder = SSDInputEncoder.from_model(model)
    images, targets = next(
        few_images(real_data, 2).generate(
            2, transformations=[Resize(*size[:2])], label_encoder=encoder, seed=0
        )
    )
    loss = SSDLoss(n_neg_min=10**5)  # all negatives count, so that all maps do
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=EAGERLY)
    before = {w.path: np.array(w) for w in model.trainable_weights}
    assert np.isfinite(model.train_on_batch(images, targets))
    unchanged = {w.path for w in model.trainable_weights if np.array_equal(before[w.path], w)}
    # On maps where no anchor is positive nothing tells where boxes are.
    assert {path for path in unchanged if "_mbox_loc" not in path} == set()

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    expected = model.predict(images, verbose=0)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)
    np.testing.assert_array_equal(
        SSDInputEncoder.from_model(loaded).generate_encoding_template(2)[..., -8:],
        expected[..., -8:],
    )
    for mode in ("inference", "inference_fast"):
        decoding = make(name, mode, top_k=9, confidence_thresh=0.0)
        decoding.set_weights(model.get_weights())
        decoding.run_eagerly = EAGERLY
        assert decoding.predict_on_batch(images).shape == (2, 9, 6)


@each_builder
def test_names_are_the_same_in_each_model(name):
    source, model = make(name), make(name)
    report = transfer_weights(source, model, {})
    assert not report.fresh
    assert not report.unused


def test_the_last_layers_of_the_network_can_be_frozen():
    model = make("mobilenet_v2")
    frozen = freeze(model, "out_relu")
    assert {"Conv1", "bn_Conv1", "block_13_depthwise", "Conv_1_bn"} <= set(frozen)
    trained = {weight.path.split("/")[0] for weight in model.trainable_weights}
    assert {name.split("_")[0] for name in trained} == {"block", "out", "extra1", "extra2"}
    assert {name for name in trained if name.startswith(("block", "out"))} == {
        f"{source}_mbox_{head}{part}"
        for source in ("block_13_expand_relu", "out_relu")
        for head in ("conf", "loc")
        for part in ("", "_depthwise", "_depthwise_bn")
    }


def test_parts_can_have_their_own_learning_rates():
    model = make("mobilenet_v2")
    optimizer = LearningRateMultipliers(
        keras.optimizers.SGD(1.0), {"block_?_*": 0.0, "*/bias": 2.0}
    )
    optimizer.build(model.trainable_variables)
    assert optimizer.multiplier("block_3_expand/kernel") == 0
    assert optimizer.multiplier("out_relu_mbox_loc/bias") == 2


def test_width():
    model = ssd_mobilenet_v2((64, 64, 3), 2, alpha=0.5)
    assert model.get_layer("block_13_expand_relu").output.shape[-1] == 576 / 2


def test_momentum_of_batch_normalisation():
    # Keras' MobileNetV2 has 0.999, with which a short training has no statistics to detect with.
    model = make("mobilenet_v2")
    layers = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in layers} == {0.99}


def test_settings_win_over_the_defaults():
    model = ssd_mobilenet_v2(
        (64, 64, 1), 2, alpha=0.35, subtract_mean=None, swap_channels=(0, 0, 0), separable=False
    )
    names = [layer.name for layer in model.layers]
    assert "input_mean_normalization" not in names
    assert model.get_layer("input_stddev_normalization").value == 127.5
    assert model.get_layer("Conv1").input.shape[-1] == 3
    assert "out_relu_mbox_loc_depthwise" not in names


@pytest.mark.parametrize(
    ("build", "arguments", "error", "message"),
    [
        (ssd_densenet, {"depth": 120}, ValueError, "`depth` must be one of 121, 169, 201; got 120"),
        (ssd_mobilenet_v2, {"stride": 8}, TypeError, "'stride'"),
        (ssd_mobilenet_v2, {"weights": "nowhere"}, FileNotFoundError, "'nowhere'"),
        (ssd_mobilenet_v2, {"mode": "evaluation"}, ValueError, "`mode`"),
        (
            ssd_resnet50,
            {"image_size": (64, 64, 1), "weights": "imagenet", "swap_channels": None},
            ValueError,
            "ImageNet's weights expect RGB",
        ),
    ],
)
def test_wrong_arguments_are_named(build, arguments, error, message):
    with pytest.raises(error, match=message):
        build(**{"image_size": (64, 64, 3), "n_classes": 2, **arguments})
