"""The layer that puts predictions together computes what Keras' own does, names or not."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_layers.predictions import Predictions

NAMES = ["background", "cat", "dog"]


@pytest.mark.parametrize("names", [None, NAMES])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_columns_stand_side_by_side_in_float32(names, policy):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(2, 5, n)).astype(np.float32) for n in (3, 4, 8)]
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        made = Predictions(class_names=names)(parts)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(made), np.concatenate(parts, axis=-1))


def test_names_are_in_the_configuration_as_json_has_them():
    assert Predictions(class_names=tuple(NAMES)).get_config()["class_names"] == NAMES
    assert Predictions().get_config()["class_names"] is None
