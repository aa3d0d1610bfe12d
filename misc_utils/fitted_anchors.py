"""The anchors of a recipe, fitted to the boxes that its network is going to learn from."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_generator.detection_dataset import DetectionDataset
from misc_utils.anchor_design import AnchorSuggestion, suggest_anchors
from misc_utils.recipe import Recipe
from misc_utils.recipe_network import build_network
from misc_utils.start_weights import starts_from_detector
from ssd_encoder_decoder.model_settings import read_model_settings

# The images whose sizes are read; their boxes tell as much as those of all of COCO.
_ENOUGH_IMAGES = 2000


def fit_anchors(recipe: Recipe, dataset: DetectionDataset) -> tuple[Recipe, AnchorSuggestion]:
    """Find the anchor scales and aspect ratios that fit a data set best.

    `suggest_anchors` says how. Boxes are taken as they are after the resize to the network's input,
    before any augmentation. If training starts from the weights of a whole detector, the aspect
    ratios stay as they are, and with them the number of anchors a cell, for which its predictors
    were made: they have learnt to look for objects of these shapes, and of a size relative to that
    of the anchor.

    Arguments:
        recipe: The recipe, whose anchors are those compared with.
        dataset: The training data.

    Returns:
        The recipe with the numbers found, and the suggestion, which says how much better they are.

    Raises:
        FileNotFoundError: The recipe names a file of weights that does not exist.
        ValueError: The data set has no box with an area, or the network cannot be built.
    """
    keep_ratios = starts_from_detector(recipe)
    network = read_model_settings(build_network(recipe, n_classes=1))
    compared_with = dataclasses.asdict(network.anchors)
    compared_with["aspect_ratios_per_layer"] = compared_with.pop("aspect_ratios")
    suggestion = suggest_anchors(
        _some_images(dataset, recipe.seed),
        recipe.image_size,
        predictor_sizes=network.predictor_sizes,
        compared_with=compared_with,
        seed=recipe.seed,
        keep_ratios=keep_ratios,
    )
    fitted = recipe.replace(
        scales=suggestion.scales, aspect_ratios=suggestion.aspect_ratios_per_layer
    )
    return fitted, suggestion


def _some_images(dataset: DetectionDataset, seed: int) -> DetectionDataset:
    with_boxes = [index for index, labels in enumerate(dataset.labels) if len(labels)]
    if len(with_boxes) <= _ENOUGH_IMAGES:
        return dataset
    rng = np.random.default_rng(seed)
    return dataset.subset(rng.choice(with_boxes, _ENOUGH_IMAGES, replace=False))
