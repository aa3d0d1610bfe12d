"""Freezing by the graph, and learning rates that differ from variable to variable."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from misc_utils.fine_tuning import LearningRateMultipliers, freeze, layers_up_to, unfreeze
from misc_utils.model_weights import weights_by_layer
from models.keras_ssd7 import build_model
from models.keras_ssd300 import SCALES_VOC, ssd_300

# --- Freezing ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ssd300():
    return ssd_300((300, 300, 3), n_classes=1, scales=SCALES_VOC)


def test_freezing_follows_the_graph(ssd300):
    frozen = freeze(ssd300, "conv4_3")
    assert frozen == [
        *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"),
        *("conv4_1", "conv4_2", "conv4_3"),
    ]
    trained = {variable.path.split("/")[0] for variable in ssd300.trainable_variables}
    assert "conv5_1" in trained
    assert "conv4_3_norm" in trained
    assert not trained & set(frozen)
    # A head hangs on a map in the middle: nothing that comes after that map is before the head.
    before = layers_up_to(ssd300, "conv4_3_norm_mbox_conf")
    assert "conv4_3_norm" in before
    assert "conv5_1" not in before
    unfreeze(ssd300)
    assert len(ssd300.trainable_variables) == len(ssd300.variables)


def test_unknown_layers_are_an_error_that_lists_similar_ones(ssd300):
    with pytest.raises(ValueError, match="no layer 'conv4'; it has conv4_1, conv4_2"):
        freeze(ssd300, "conv4")
    with pytest.raises(ValueError, match="no layer 'cnv4_3'; it has conv4_3"):
        freeze(ssd300, "cnv4_3")
    with pytest.raises(ValueError, match="no layer 'xyz'; it has input"):
        freeze(ssd300, "xyz")


def test_only_what_is_not_frozen_is_trained():
    model = build_model((96, 96, 3), n_classes=1)
    frozen = freeze(model, "bn3")
    assert frozen == ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3"]
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    before = weights_by_layer(model)
    x = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    model.fit(x, np.zeros((2, *model.output_shape[1:]), dtype=np.float32), verbose=0)
    for layer, arrays in weights_by_layer(model).items():
        for array, old in zip(arrays, before[layer], strict=True):
            # Frozen batch normalisation leaves its running statistics alone, too.
            assert np.array_equal(array, old) == (layer in frozen), layer


# --- Learning rates ----------------------------------------------------------------------------


def make_variables() -> list:
    rng = np.random.default_rng(0)
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, name="b")(keras.layers.Dense(2, name="a")(inputs))
    model = keras.Model(inputs, outputs)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model.trainable_variables


def run(optimizer, variables: list, steps: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    for _ in range(steps):
        gradients = [rng.normal(size=v.shape).astype(np.float32) for v in variables]
        gradients = [keras.ops.convert_to_tensor(gradient) for gradient in gradients]
        optimizer.apply(gradients, variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


OPTIMIZERS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate),
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "adamw": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.5),
    "rmsprop": lambda rate: keras.optimizers.RMSprop(rate),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_multiplier_is_another_learning_rate(name):
    make = OPTIMIZERS[name]
    multipliers = {"a/*": 0.1, "*/bias": 2.0}
    results = run(LearningRateMultipliers(make(0.1), multipliers), make_variables())
    # Order: a/kernel, a/bias, b/kernel, b/bias.
    for index, rate in enumerate((0.01, 0.02, 0.1, 0.2)):
        expected = run(make(rate), make_variables())
        np.testing.assert_allclose(results[index], expected[index], rtol=1e-4, atol=1e-6)


def test_multiplier_0_stands_still():
    variables = make_variables()
    before = keras.ops.convert_to_numpy(variables[0])
    after = run(LearningRateMultipliers(keras.optimizers.Adam(0.1), {"a/kernel": 0}), variables)
    np.testing.assert_array_equal(after[0], before)


def test_the_average_is_that_of_the_steps_taken():
    optimizer = LearningRateMultipliers(
        keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.75), {"a/kernel": 0.5}
    )
    variables, average = make_variables(), None
    for step in range(4):
        (value, *_) = run(optimizer, variables, steps=1)
        average = value if step == 0 else 0.75 * average + 0.25 * value
    copy = LearningRateMultipliers.from_config(optimizer.get_config())
    assert copy.use_ema
    assert copy.ema_momentum == 0.75
    optimizer.finalize_variable_values(variables)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variables[0]), average, rtol=1e-5)


def compiled_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = build_model((64, 64, 3), n_classes=1)
    optimizer = LearningRateMultipliers(
        keras.optimizers.SGD(0.01, momentum=0.9), {"conv[12]/*": 0.1, "conv3/*": 0}
    )
    model.compile(optimizer, loss="mse")
    return model


def fit(model: keras.Model) -> None:
    x = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    y = np.zeros((4, *model.output_shape[1:]), dtype=np.float32)
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)


def test_models_train_with_it_and_go_on_after_loading(tmp_path):
    model = compiled_model()
    before = weights_by_layer(model)
    fit(model)
    after = weights_by_layer(model)
    np.testing.assert_array_equal(after["conv3"][0], before["conv3"][0])
    assert not np.array_equal(after["conv1"][0], before["conv1"][0])
    model.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    assert loaded.optimizer.multipliers == {"conv[12]/*": 0.1, "conv3/*": 0.0}
    assert int(loaded.optimizer.iterations) == 2
    for each in (model, loaded):
        fit(each)
    for layer, arrays in weights_by_layer(model).items():
        for array, other in zip(arrays, weights_by_layer(loaded)[layer], strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-5, err_msg=layer)


def test_the_learning_rate_is_the_other_optimizers():
    optimizer = LearningRateMultipliers(keras.optimizers.SGD(0.1), {"a/kernel": 0.5})
    variables = make_variables()
    before = keras.ops.convert_to_numpy(variables[0])
    optimizer.learning_rate = 0.0
    assert float(optimizer.learning_rate) == 0
    np.testing.assert_array_equal(run(optimizer, variables)[0], before)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 0.5])
    optimizer = LearningRateMultipliers(keras.optimizers.SGD(schedule), {"a/kernel": 0.5})
    run(optimizer, make_variables(), steps=3)
    assert float(optimizer.learning_rate) == 0.5


def test_half_precision_scales_its_loss_around_it():
    def kernel_after_a_step(optimizer: keras.optimizers.Optimizer) -> np.ndarray:
        inputs = keras.Input((3,))
        model = keras.Model(
            inputs, keras.layers.Dense(2, kernel_initializer="ones", name="a")(inputs)
        )
        scaled = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
        model.compile(scaled, loss="mse")
        model.fit(np.ones((2, 3), np.float32), np.zeros((2, 2), np.float32), verbose=0)
        return weights_by_layer(model)["a"][0]

    np.testing.assert_allclose(
        kernel_after_a_step(LearningRateMultipliers(keras.optimizers.SGD(0.1), {"a/kernel": 0.5})),
        kernel_after_a_step(keras.optimizers.SGD(0.05)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("multiplier", [-1, float("inf"), float("nan")])
def test_senseless_multipliers_are_refused(multiplier):
    with pytest.raises(ValueError, match="multiplier of 'a/.'"):
        LearningRateMultipliers(keras.optimizers.SGD(0.1), {"a/*": multiplier})


def test_a_pattern_without_a_variable_is_an_error():
    optimizer = LearningRateMultipliers(keras.optimizers.SGD(0.1), {"c/*": 2})
    with pytest.raises(ValueError, match=r"'c/\*'. Variables have paths such as a/kernel"):
        optimizer.build(make_variables())


def test_overwriting_with_the_average_is_refused():
    inner = keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=2)
    with pytest.raises(ValueError, match="ema_overwrite_frequency"):
        LearningRateMultipliers(inner, {})
