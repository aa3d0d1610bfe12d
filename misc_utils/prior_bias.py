"""A start that knows how rare objects are.

A fresh network gives all classes of an anchor about the same probability, and takes most of the
image for objects. With hard negative mining that does little harm. With a loss to which all anchors
contribute, such as `SSDFocalLoss`, thousands of wrong background anchors make the first steps huge.
Biases that say "an object here? hardly" spare the network from learning just that first (Lin et
al., Focal Loss for Dense Object Detection, arXiv:1708.02002, sections 3.3 and 4.1).
"""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_layers.class_scores import SigmoidScores
from misc_utils.predictor_heads import find_predictor_heads


def set_prior_bias(model: keras.Model, prior: float = 0.01) -> list[str]:
    """Set the biases of the class predictors such that each anchor is thought to be background.

    Without the kernels' share, the scores of every anchor become

        softmax:  background 1 - prior, each class prior / n_classes
        sigmoid:  each class prior

    Kernels stay as they are: call this for a fresh model. Loaded weights of predictors already know
    how rare objects are.

    Arguments:
        model: A model made by one of the builders.
        prior: The probability of an object, in (0, 1). The paper has 0.01.

    Returns:
        The names of the layers whose biases were set.

    Raises:
        ValueError: if `prior` is not as described, or if the model has no predictor layers.
    """
    if not 0 < prior < 1:
        raise ValueError(f"`prior` must be a probability between 0 and 1; got {prior}.")
    heads = find_predictor_heads(
        {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in model.layers}
    )
    if not heads:
        raise ValueError(
            f"Model {model.name!r} has no layers with the names and shapes of SSD's predictors "
            "(such as fc7_mbox_conf and fc7_mbox_loc, or classes4 and boxes4)."
        )
    is_sigmoid = any(isinstance(layer, SigmoidScores) for layer in model.layers)
    for name, head in heads.items():
        of_class = prior if is_sigmoid else prior / head.n_classes
        # Only differences to the background's logit count, so that it may be 0.
        logit = math.log(of_class / (1.0 - prior))
        bias = np.full((head.n_boxes, head.n_scores), logit, np.float32)
        bias[:, 0] = 0.0
        model.get_layer(name).bias.assign(bias.reshape(-1))
    return list(heads)
