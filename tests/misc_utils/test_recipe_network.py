"""Tests of networks, losses and optimizers made from recipes."""

import keras
import numpy as np
import pytest

from keras_loss_function.keras_ssd_focal_loss import SSDFocalLoss
from keras_loss_function.keras_ssd_loss import SSDLoss
from misc_utils.fine_tuning import LearningRateMultipliers
from misc_utils.recipe import Recipe
from misc_utils.recipe_network import build_network, compile_network, make_loss, make_optimizer
from ssd_encoder_decoder.model_settings import read_model_settings


def ssd7(**settings):
    return Recipe(backbone="ssd7", image_size=(64, 96), **settings)


def test_ssd7_with_its_settings():
    settings = read_model_settings(build_network(ssd7(), n_classes=3))
    assert (settings.img_height, settings.img_width, settings.n_classes) == (64, 96, 3)
    assert settings.mode == "training"
    np.testing.assert_allclose(settings.anchors.variances, (0.1, 0.1, 0.2, 0.2))


def test_an_inference_mode_has_the_thresholds():
    recipe = ssd7(confidence_thresh=0.2, iou_threshold=0.3, top_k=17, max_candidates=50)
    settings = read_model_settings(build_network(recipe, 3, mode="inference"))
    found = settings.confidence_thresh, settings.iou_threshold, settings.top_k
    assert found == (0.2, 0.3, 17)


def test_ssd300_has_the_original_decay_and_steps():
    recipe = Recipe()
    model = build_network(recipe, n_classes=2)
    assert read_model_settings(model).anchors.steps[0] == 8
    assert float(model.get_layer("conv1_1").kernel_regularizer.l2) == pytest.approx(0.00025)
    faithful = build_network(recipe.replace(caffe_network=True), n_classes=2)
    assert float(faithful.get_layer("conv1_1").kernel_regularizer.l2) == pytest.approx(0.00025)
    assert faithful.get_layer("conv4_3_norm").gamma_regularizer is not None


def test_adamw_decays_weights_by_itself():
    model = build_network(ssd7(optimizer="adamw", weight_decay=0.1), n_classes=1)
    assert float(model.get_layer("conv1").kernel_regularizer.l2) == 0
    assert make_optimizer(ssd7(optimizer="adamw", weight_decay=0.1)).weight_decay == 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"caffe_network": True}, "caffe_network"),
        ({"scales": (0.1, 0.2)}, "scales"),
        ({"image_size": (8, 8)}, "image_size|size"),
    ],
)
def test_what_does_not_suit_the_network_is_named(settings, message):
    recipe = Recipe(**{"backbone": "ssd7", "image_size": (64, 96), **settings})
    with pytest.raises(ValueError, match=message):
        build_network(recipe, n_classes=1)


def test_losses():
    loss = make_loss(Recipe(mining="per_image", alpha=0.5, neg_pos_ratio=2.0, box_loss="giou"))
    assert isinstance(loss, SSDLoss)
    assert (loss.mining, loss.alpha, loss.neg_pos_ratio) == ("per_image", 0.5, 2.0)
    focal = make_loss(Recipe(loss="focal", focal_gamma=1.5, class_activation="sigmoid"))
    assert isinstance(focal, SSDFocalLoss)
    assert (focal.gamma, focal.class_activation) == (1.5, "sigmoid")
    with pytest.raises(ValueError, match="focal"):
        make_loss(Recipe(class_activation="sigmoid"))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimizers(name):
    optimizer = make_optimizer(Recipe(optimizer=name, clip_norm=3.0, average=0.9))
    assert (optimizer.global_clipnorm, optimizer.use_ema, optimizer.ema_momentum) == (3, True, 0.9)


def test_biases_may_learn_at_twice_the_rate():
    optimizer = make_optimizer(Recipe(bias_rate=2.0))
    assert isinstance(optimizer, LearningRateMultipliers)
    assert optimizer.multiplier("conv1_1/bias") == 2
    assert optimizer.multiplier("conv1_1/kernel") == 1


def rates(recipe, steps):
    optimizer, found = make_optimizer(recipe), []
    for step in steps:
        optimizer.iterations.assign(step)
        found.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    return found


def test_the_rate_falls_by_steps():
    recipe = Recipe(learning_rate=0.1, decay_at=(10, 20))
    found = rates(recipe, (0, 9, 10, 19, 20, 100))
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_the_rate_falls_along_a_cosine_after_a_warm_up():
    recipe = Recipe(learning_rate=0.1, schedule="cosine", steps=100)
    np.testing.assert_allclose(rates(recipe, (0, 50, 100)), [0.1, 0.0505, 0.001], rtol=1e-4)
    warm = recipe.replace(warmup_steps=10)
    np.testing.assert_allclose(rates(warm, (50, 100)), rates(recipe, (50, 100)), rtol=1e-6)
    assert rates(warm, (0,))[0] < 0.001
    assert rates(warm, (5,))[0] == pytest.approx(0.5 * rates(recipe, (5,))[0], rel=1e-2)


def test_the_rate_may_stay():
    np.testing.assert_allclose(rates(Recipe(learning_rate=0.1, decay_at=()), (0, 10**6)), 0.1)


def test_compiling_freezes_what_the_recipe_says():
    recipe = ssd7(freeze="pool2")
    model = build_network(recipe, n_classes=1)
    compile_network(recipe, model)
    assert not model.get_layer("conv2").trainable
    assert model.get_layer("conv3").trainable
    assert model.optimizer is not None
