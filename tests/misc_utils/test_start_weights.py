"""Tests of the weights that a training starts from."""

import numpy as np
import pytest

from misc_utils.recipe import Recipe
from misc_utils.recipe_network import build_network
from misc_utils.start_weights import (
    build_with_start_weights,
    is_detector_file,
    load_detector_weights,
)
from ssd_encoder_decoder.class_names import set_class_names

RECIPE = Recipe(backbone="ssd7", image_size=(64, 96))
NAMES = ["background", "cat", "dog"]


@pytest.fixture(scope="module")
def trained():
    return build_network(RECIPE, n_classes=2)


@pytest.fixture(params=["model.keras", "model.weights.h5"])
def detector(request, trained, tmp_path):
    path = tmp_path / request.param
    (trained.save_weights if ".weights." in request.param else trained.save)(path)
    return path


def class_scores(model, name, class_id, n_classes):
    """The kernel of a class in a layer of class scores."""
    kernel = np.asarray(model.get_layer(name).get_weights()[0])
    return kernel.reshape(*kernel.shape[:3], -1, n_classes + 1)[..., class_id]


def test_classes_are_paired_by_name(detector, trained, capsys):
    (detector.parent / "classes.txt").write_text("cat\ndog\n")
    recipe = RECIPE.replace(weights=str(detector))
    model = build_with_start_weights(recipe, ["background", "bird", "dog", "cat"])
    for new, old in ((3, 1), (2, 2), (0, 0)):
        found = class_scores(model, "classes4", new, 3)
        np.testing.assert_array_equal(found, class_scores(trained, "classes4", old, 2))
    np.testing.assert_array_equal(
        np.asarray(model.get_layer("conv3").get_weights()[0]),
        np.asarray(trained.get_layer("conv3").get_weights()[0]),
    )
    assert "class 1 <- fresh start" in capsys.readouterr().out


def test_the_names_in_a_file_win_over_those_beside_it(trained, tmp_path):
    named = build_network(RECIPE, n_classes=2)
    set_class_names(named, ["background", "dog", "cat"])
    named.save(tmp_path / "model.keras")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    model = build_with_start_weights(RECIPE.replace(weights=str(tmp_path / "model.keras")), NAMES)
    for new, old in ((1, 2), (2, 1)):
        found = class_scores(model, "classes4", new, 2)
        np.testing.assert_array_equal(found, class_scores(named, "classes4", old, 2))


def test_without_names_equally_many_classes_are_the_same_ones(detector, trained):
    model = build_with_start_weights(
        RECIPE.replace(weights=str(detector)), ["background", "a", "b"]
    )
    for a, b in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_names_other_classes_start_afresh(detector, trained, capsys):
    recipe = RECIPE.replace(weights=str(detector))
    build_with_start_weights(recipe, ["background", "a", "b", "c"])
    assert capsys.readouterr().out.count("<- fresh start") == 3


def test_a_whole_detector_must_know_all_classes(detector):
    (detector.parent / "classes.txt").write_text("cat\ndog\n")
    model = build_network(RECIPE, n_classes=2)
    before = model.get_weights()
    with pytest.raises(ValueError, match="knows nothing of the classes bird"):
        load_detector_weights(model, detector, ["background", "bird", "dog"], is_whole=True)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("nowhere.h5", FileNotFoundError, "no file of weights 'nowhere.h5'"),
        ("imagenet", ValueError, "SSD7 has no base network"),
    ],
)
def test_what_cannot_be_a_start_is_explained(weights, error, message):
    with pytest.raises(error, match=message):
        build_with_start_weights(RECIPE.replace(weights=weights), NAMES)


def test_files_are_told_apart(detector, tmp_path):
    assert is_detector_file(detector)
    np.savez(tmp_path / "vgg.npz", a=np.zeros(1))
    assert not is_detector_file(tmp_path / "vgg.npz")
    assert not is_detector_file(tmp_path / "VGG_ILSVRC_16_layers_fc_reduced.caffemodel")
    assert is_detector_file(tmp_path / "VGG_VOC0712_SSD_300x300_iter_120000.h5")


def test_a_file_of_a_base_network_is_no_detector(tmp_path):
    np.savez(tmp_path / "vgg.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match="no weights of a detector"):
        load_detector_weights(build_network(RECIPE, 2), tmp_path / "vgg.npz", NAMES, is_whole=True)


def test_fresh_predictors_may_think_objects_rare_and_trained_ones_keep_their_mind(
    detector, trained
):
    recipe = RECIPE.replace(prior_bias=0.01)
    _, bias = build_with_start_weights(recipe, NAMES).get_layer("classes4").get_weights()
    assert bias.min() == pytest.approx(np.log(0.005 / 0.99), rel=1e-5)
    kept = build_with_start_weights(recipe.replace(weights=str(detector)), NAMES)
    np.testing.assert_array_equal(
        kept.get_layer("classes4").get_weights()[1], trained.get_layer("classes4").get_weights()[1]
    )
