"""Tests of anchors that are fitted to the training data of a recipe."""

import numpy as np
import pytest

from data_generator.detection_dataset import DetectionDataset
from misc_utils.anchor_design import share_with_anchor
from misc_utils.fitted_anchors import fit_anchors
from misc_utils.recipe import Recipe, read_recipe
from misc_utils.recipe_network import build_network
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

SSD7 = Recipe(backbone="ssd7", image_size=(64, 96))


class LampPosts(DetectionDataset):
    """Images of 128 x 192 pixels, with a post of 30 x 90 in each of the first ones."""

    def __init__(self, n_posts=60, n_images=60):
        left, top = np.random.default_rng(0).uniform((0, 0), (162, 38), (n_images, 2)).T
        posts = np.column_stack([np.ones(n_images), left, top, left + 30, top + 90])
        labels = [posts[i : i + 1] if i < n_posts else np.zeros((0, 5)) for i in range(n_images)]
        super().__init__(filenames=[f"{i}.jpg" for i in range(n_images)], labels=labels)
        self.sizes_read = []

    def get_image_size(self, index):
        self.sizes_read.append(self.filenames[index])
        return 128, 192


def share_of_posts(recipe, dataset):
    """The share that an anchor of a recipe's network fits."""
    height, width = recipe.image_size
    labels = [boxes * (1, *[width / 192, height / 128] * 2) for boxes in dataset.labels]
    return share_with_anchor(SSDInputEncoder.from_model(build_network(recipe, 1)), labels)


@pytest.mark.parametrize("recipe", [SSD7, Recipe()], ids=lambda recipe: recipe.backbone)
def test_the_network_of_the_recipe_gets_anchors_that_fit(recipe):
    dataset = LampPosts()
    fitted, suggestion = fit_anchors(recipe, dataset)
    assert fitted == recipe.replace(scales=fitted.scales, aspect_ratios=fitted.aspect_ratios)
    assert suggestion.mean_iou_after > suggestion.mean_iou_before + 0.1
    assert share_of_posts(fitted, dataset) == pytest.approx(suggestion.recall_after, abs=0.02)


def test_the_anchors_of_the_recipe_are_those_compared_with():
    tiny = SSD7.replace(scales=(0.01,) * 5)
    assert fit_anchors(tiny, LampPosts())[1].recall_before == 0


def test_the_numbers_survive_the_file(tmp_path):
    fitted, _ = fit_anchors(SSD7, LampPosts())
    (tmp_path / "recipe.toml").write_text(fitted.to_toml())
    assert read_recipe([tmp_path / "recipe.toml"]) == fitted


def test_of_a_whole_detector_only_the_scales_change(tmp_path):
    ratios = ((1.0, 0.5),) * 4
    recipe = SSD7.replace(scales=(0.1, 0.12, 0.15, 0.2, 0.25), aspect_ratios=ratios)
    build_network(recipe, n_classes=2).save_weights(tmp_path / "detector.weights.h5")
    recipe = recipe.replace(weights=str(tmp_path / "detector.weights.h5"))
    fitted, suggestion = fit_anchors(recipe, LampPosts())
    assert fitted.aspect_ratios == ratios
    assert fitted.scales != recipe.scales
    assert suggestion.n_anchors_after == suggestion.n_anchors_before
    assert suggestion.recall_after > suggestion.recall_before + 0.5


def test_a_few_images_with_objects_are_enough():
    dataset = LampPosts(n_posts=2500, n_images=3000)
    fitted, _ = fit_anchors(SSD7, dataset)
    assert 1000 < len(set(dataset.sizes_read)) <= 2000
    assert fitted == fit_anchors(SSD7, dataset)[0]


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="without any box"):
        fit_anchors(SSD7, LampPosts(n_posts=0))
    with pytest.raises(FileNotFoundError, match=r"no file of weights 'none\.h5'"):
        fit_anchors(SSD7.replace(weights="none.h5"), LampPosts())
