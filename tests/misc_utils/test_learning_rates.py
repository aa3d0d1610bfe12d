"""Tests of learning rates by the step."""

import keras
import numpy as np
import pytest

from misc_utils.learning_rates import SteppedLearningRate


def rate(schedule, step):
    return float(keras.ops.convert_to_numpy(schedule(step)))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.025), (1, 0.05), (3, 0.1), (4, 0.1), (9, 0.1), (10, 0.05), (29, 0.05), (30, 0.025)],
)
def test_rates_of_steps(step, expected):
    schedule = SteppedLearningRate(0.1, (10, 30), 0.5, warmup_steps=4)
    assert rate(schedule, step) == pytest.approx(expected, rel=1e-6)
    assert rate(schedule, keras.ops.convert_to_tensor(step, "int32")) == pytest.approx(expected)


def test_a_saved_optimizer_keeps_its_schedule():
    optimizer = keras.optimizers.SGD(SteppedLearningRate(0.1, (2,), 0.5, 3))
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == optimizer.get_config()
    copy.iterations.assign(5)
    found = float(keras.ops.convert_to_numpy(copy.learning_rate))
    np.testing.assert_allclose(found, 0.05, rtol=1e-6)
