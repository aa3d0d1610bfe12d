"""Biases of class predictors for rare objects."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from misc_utils.prior_bias import set_prior_bias
from models.keras_ssd7 import build_model

SIZE = (64, 96, 3)


@pytest.mark.parametrize("class_activation", ["softmax", "sigmoid"])
def test_without_the_kernels_share_scores_are_the_prior(class_activation):
    model = build_model(SIZE, 4, class_activation=class_activation)
    names = set_prior_bias(model, 0.02)
    assert names == ["classes4", "classes5", "classes6", "classes7"]
    black = np.zeros((1, *SIZE), np.float32)  # all activations are 0
    scores = model.predict(black, verbose=0)[..., :5]
    of_class = 0.02 if class_activation == "sigmoid" else 0.02 / 4
    np.testing.assert_allclose(scores[..., 1:], of_class, rtol=1e-4)
    np.testing.assert_allclose(scores[..., 0], 0.98, rtol=1e-4)


def test_nothing_else_is_touched():
    keras.utils.set_random_seed(0)
    model = build_model(SIZE, 4)
    before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    biases = {f"{name}/bias" for name in set_prior_bias(model)}
    for weight in model.weights:
        unchanged = np.array_equal(keras.ops.convert_to_numpy(weight), before[weight.path])
        assert unchanged == (weight.path not in biases), weight.path


@pytest.mark.parametrize("prior", [0, 1, -0.1, float("nan")])
def test_priors_that_are_no_probability_are_refused(prior):
    with pytest.raises(ValueError, match=f"`prior`.*got {prior}"):
        set_prior_bias(build_model(SIZE, 1), prior)


def test_models_without_predictors_are_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="other")
    with pytest.raises(ValueError, match="'other' has no layers.*fc7_mbox_conf"):
        set_prior_bias(model)
