"""The fused batch normalisation beside Keras' own."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_layers.batch_normalization import BatchNormalization

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="elsewhere the layer is Keras' own"
)


def pair(policy: str = "float32", shape=(6, 5, 7, 4), **arguments):
    """Return our layer and Keras', with the same random weights."""
    rng = np.random.default_rng(1)
    layers = []
    for cls in (BatchNormalization, keras.layers.BatchNormalization):
        layer = cls(axis=-1, dtype=keras.DTypePolicy(policy), name="bn", **arguments)
        layer.build(shape)
        layers.append(layer)
    weights = [rng.uniform(0.5, 1.5, w.shape) for w in layers[0].get_weights()]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def inputs_of(shape=(6, 5, 7, 4)) -> np.ndarray:
    return np.random.default_rng(2).normal(3, 2, shape).astype(np.float32)


def step(layer, x, training: bool, policy: str):
    """Return outputs, gradients by input, gamma and beta, and the moving statistics after."""
    import tensorflow as tf

    x = tf.cast(x, keras.DTypePolicy(policy).compute_dtype)
    weights = [layer.gamma.value, layer.beta.value]
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=training)
        # Not the plain sum, whose gradient by the input is zero.
        value = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
    gradients = tape.gradient(value, [x, *weights])
    arrays = [outputs, *gradients, layer.moving_mean.value, layer.moving_variance.value]
    return outputs.dtype, [tf.cast(array, tf.float32).numpy() for array in arrays]


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.05), ("mixed_float16", 0.01)]
)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("trainable", [False, True])
def test_outputs_gradients_and_statistics_are_those_of_keras(
    policy, tolerance, training, trainable
):
    ours, theirs = pair(policy)
    ours.trainable = theirs.trainable = trainable
    before = ours.moving_mean.numpy().copy()
    for _ in range(2):
        (dtype, made), (expected_dtype, expected) = (
            step(layer, inputs_of(), training, policy) for layer in (ours, theirs)
        )
        assert dtype == expected_dtype
        names = ("outputs", "by input", "by gamma", "by beta", "moving mean", "moving variance")
        for name, array, reference in zip(names, made, expected, strict=True):
            scale = max(1.0, np.abs(reference).max())
            np.testing.assert_allclose(array, reference, atol=tolerance * scale, err_msg=name)
        for moving, reference in zip(made[-2:], expected[-2:], strict=True):
            np.testing.assert_allclose(moving, reference, rtol=1e-3)
    moved = not np.array_equal(before, ours.moving_mean.numpy())
    assert moved == (training and trainable)  # a frozen layer keeps its statistics


@pytest.mark.parametrize(
    ("arguments", "shape", "policy"),
    [
        ({"scale": False}, (6, 5, 7, 4), "float32"),
        ({"center": False}, (6, 5, 7, 4), "float32"),
        ({"epsilon": 1e-7}, (6, 5, 7, 4), "float32"),
        ({}, (6, 5, 7, 4), "bfloat16"),
        ({}, (6, 5, 7, 4), "float64"),
        ({}, (6, 4), "float32"),
        ({}, (6, 5, 4), "float32"),
        ({}, (6, 2, 3, 2, 4), "float32"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_what_the_kernel_cannot_do_is_left_to_keras(arguments, shape, policy, training):
    ours, theirs = pair(policy, shape, **arguments)
    for layer in (ours, theirs):
        layer.output_array = keras.ops.convert_to_numpy(
            keras.ops.cast(layer(inputs_of(shape), training=training), "float32")
        )
    np.testing.assert_array_equal(ours.output_array, theirs.output_array)
    np.testing.assert_array_equal(ours.moving_mean.numpy(), theirs.moving_mean.numpy())


def test_a_mask_is_honoured():
    mask = np.zeros((6, 5, 7), bool)
    mask[:3] = True
    ours, theirs = pair()
    made, expected = (layer(inputs_of(), training=True, mask=mask) for layer in (ours, theirs))
    np.testing.assert_array_equal(made, expected)


def test_one_value_a_channel_has_no_variance():
    ours, theirs = pair(shape=(1, 1, 1, 4))
    x = inputs_of((1, 1, 1, 4))
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-6)


def test_weights_and_files_are_those_of_keras(tmp_path):
    inputs = keras.Input((5, 7, 4))
    ours = keras.Model(inputs, BatchNormalization(momentum=0.9, name="bn1")(inputs))
    theirs = keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.9, name="bn1")(inputs))
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    ours.layers[-1].set_weights([np.full(4, value, np.float32) for value in (2, 1, 3, 4)])
    ours.save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
    ours.save(tmp_path / "ours.keras")
    loaded = keras.saving.load_model(tmp_path / "ours.keras")
    assert isinstance(loaded.layers[-1], BatchNormalization)
    assert loaded.layers[-1].get_config() == ours.layers[-1].get_config()
    x = inputs_of()
    expected = theirs.predict(x, verbose=0)
    for model in (ours, loaded):
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5)


def test_compiled_training_is_that_of_keras():
    histories = []
    for cls in (BatchNormalization, keras.layers.BatchNormalization):
        inputs = keras.Input((5, 7, 4))
        model = keras.Model(inputs, cls(name="bn")(inputs))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        history = model.fit(
            inputs_of(), inputs_of() * 0.5, batch_size=3, epochs=2, verbose=0, shuffle=False
        )
        histories.append(history.history["loss"])
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)
