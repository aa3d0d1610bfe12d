"""Schedules of learning rates: values by hand, files, use in an optimizer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from misc_utils.training_schedules import Warmup, caffe_multistep


def rates(schedule, steps: list[int]) -> list[float]:
    return [float(schedule(step)) for step in steps]


def test_caffe_lowers_the_rate_at_the_boundary_itself():
    schedule = caffe_multistep(0.001, [80, 100])
    expected = [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    np.testing.assert_allclose(rates(schedule, [0, 79, 80, 99, 100, 5000]), expected, rtol=1e-6)


@pytest.mark.parametrize("boundaries", [[0], [10, 10], [20, 10], [-1, 5]])
def test_boundaries_must_ascend(boundaries):
    with pytest.raises(ValueError, match="`boundaries` must be positive and ascend"):
        caffe_multistep(0.1, boundaries)


def test_a_rate_that_rises():
    schedule = Warmup(0.5, steps=4, start=0.2)
    made = rates(schedule, [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(made, [0.1, 0.2, 0.3, 0.4, 0.5, 0.5], rtol=1e-6)
    assert rates(Warmup(0.5, steps=0), [0, 1]) == [0.5, 0.5]


def test_another_schedule_keeps_its_boundaries():
    schedule = Warmup(caffe_multistep(1.0, [2]), steps=4, start=0)
    np.testing.assert_allclose(rates(schedule, [0, 1, 2, 3, 4]), [0, 0.25, 0.05, 0.075, 0.1])


def test_files_keep_it():
    optimizer = keras.optimizers.SGD(Warmup(caffe_multistep(1.0, [2, 3]), steps=4, start=0.5))
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    schedule = copy.get_config()["learning_rate"]
    assert schedule == optimizer.get_config()["learning_rate"]
    assert Warmup.from_config(Warmup(0.5, 7).get_config()).get_config() == {
        "schedule": 0.5,
        "steps": 7,
        "start": 0.001,
    }


def test_an_optimizer_steps_along_it():
    variable = keras.Variable(np.zeros(1, np.float32))
    optimizer = keras.optimizers.SGD(Warmup(1.0, steps=4, start=0))
    path = []
    for _ in range(6):
        optimizer.apply([keras.ops.ones(1)], [variable])
        path.append(float(keras.ops.convert_to_numpy(variable)[0]))
    np.testing.assert_allclose(np.diff(path), [-0.25, -0.5, -0.75, -1, -1], rtol=1e-6)


@pytest.mark.parametrize(("steps", "start"), [(-1, 0.1), (10, -0.1), (10, 1.1)])
def test_wrong_arguments_are_named(steps, start):
    with pytest.raises(ValueError, match=f"got {steps if steps < 0 else start}"):
        Warmup(0.1, steps, start)
