"""The network, the loss and the optimizer that a `Recipe` describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_loss_function.keras_ssd_focal_loss import SSDFocalLoss
from keras_loss_function.keras_ssd_loss import SSDLoss
from keras_loss_function.metrics import loss_metrics
from misc_utils.fine_tuning import LearningRateMultipliers, freeze
from misc_utils.recipe import Recipe
from misc_utils.training_schedules import Warmup, caffe_multistep
from models import keras_ssd300, keras_ssd512
from models.keras_ssd7 import build_model
from models.keras_ssd300 import ssd_300
from models.keras_ssd512 import ssd_512
from models.keras_ssd_densenet import ssd_densenet
from models.keras_ssd_inception_resnet_v2 import ssd_inception_resnet_v2
from models.keras_ssd_mobilenet_v2 import ssd_mobilenet_v2
from models.keras_ssd_resnet50 import ssd_resnet50

# The image size that the default steps of a builder are made for, and its scales for Pascal VOC.
_VGG_NETWORKS = {
    "ssd300": (ssd_300, (300, 300), keras_ssd300.SCALES_VOC),
    "ssd512": (ssd_512, (512, 512), keras_ssd512.SCALES_VOC),
}
_OTHER_BACKBONES = {
    "mobilenet_v2": ssd_mobilenet_v2,
    "resnet50": ssd_resnet50,
    "densenet121": ssd_densenet,
    "inception_resnet_v2": ssd_inception_resnet_v2,
}


def build_network(
    recipe: Recipe, n_classes: int, mode: str = "training", base_weights: str | None = None
) -> keras.Model:
    """Build the network of a recipe, with fresh weights.

    Arguments:
        recipe: The recipe.
        n_classes: Number of object classes, without the background class.
        mode: ``'training'``, ``'inference'`` or ``'inference_fast'``.
        base_weights: For backbones of `keras.applications`: ``'imagenet'`` or a file of weights.

    Returns:
        The model, in the current dtype policy, not compiled.

    Raises:
        FileNotFoundError: There is no file `base_weights`.
        ValueError: naming the setting that does not suit the network.
    """
    arguments = {
        "image_size": (*recipe.image_size, 3),
        "n_classes": n_classes,
        "mode": mode,
        "class_activation": recipe.class_activation,
        "confidence_thresh": recipe.confidence_thresh,
        "iou_threshold": recipe.iou_threshold,
        "top_k": recipe.top_k,
        "nms_max_output_size": max(400, recipe.top_k),
        "max_candidates_per_class": recipe.max_candidates or None,
        # The gradient of Keras' L2(x) is 2 x w, that of Caffe's weight decay d is d w. AdamW
        # shrinks weights by itself.
        "l2_regularization": 0.0 if recipe.optimizer == "adamw" else recipe.weight_decay / 2,
    }
    if recipe.aspect_ratios:
        arguments["aspect_ratios_per_layer"] = recipe.aspect_ratios
    if recipe.scales:
        arguments["scales"] = recipe.scales
    if recipe.backbone == "vgg16":
        return _vgg_network(recipe, arguments)
    if recipe.caffe_network:
        raise ValueError("`caffe_network` is for the backbone vgg16, which the original has.")
    if recipe.backbone == "ssd7":
        return build_model(
            **arguments,
            variances=(0.1, 0.1, 0.2, 0.2),
            normalize_coords=True,
            subtract_mean=127.5,
            divide_by_stddev=127.5,
        )
    return _OTHER_BACKBONES[recipe.backbone](
        **arguments,
        weights=base_weights,
        freeze_batch_normalization=recipe.frozen_statistics,
    )


def _vgg_network(recipe: Recipe, arguments: dict[str, Any]) -> keras.Model:
    builder, own_size, scales = _VGG_NETWORKS[recipe.network]
    if recipe.image_size != own_size:
        arguments["steps"] = None
    if recipe.caffe_network:  # takes Caffe's weight decay as it is
        arguments["l2_regularization"] *= 2
    return builder(**{"scales": scales, **arguments, "caffe_faithful": recipe.caffe_network})


def compile_network(recipe: Recipe, model: keras.Model) -> None:
    """Freeze what the recipe says, and compile a model with its optimizer and its loss.

    Arguments:
        recipe: The recipe.
        model: What `build_network` returned, with the weights to start from.

    Raises:
        ValueError: if the model has no layer that is called as the last one to freeze, or naming
            the setting of the loss that is not as described.
    """
    if recipe.freeze:
        freeze(model, recipe.freeze)
    loss = make_loss(recipe)
    on_jax = keras.backend.backend() == "jax"  # where nothing is quick without compilation
    model.compile(
        optimizer=make_optimizer(recipe),
        loss=loss,
        metrics=loss_metrics(loss),
        jit_compile=True if recipe.jit else "auto" if on_jax else False,
    )


def make_loss(recipe: Recipe) -> keras.losses.Loss:
    """Make the loss of a recipe.

    Arguments:
        recipe: The recipe.

    Returns:
        An `SSDLoss` or an `SSDFocalLoss`.

    Raises:
        ValueError: naming the setting that is not as described.
    """
    common = {"alpha": recipe.alpha, "box_loss": recipe.box_loss}
    if recipe.loss == "focal":
        return SSDFocalLoss(
            gamma=recipe.focal_gamma,
            focal_alpha=recipe.focal_alpha,
            class_activation=recipe.class_activation,
            **common,
        )
    if recipe.class_activation != "softmax":
        raise ValueError("`class_activation` 'sigmoid' needs the loss 'focal'.")
    return SSDLoss(
        neg_pos_ratio=recipe.neg_pos_ratio,
        mining=recipe.mining,
        class_weights=recipe.class_weights or None,
        label_smoothing=recipe.label_smoothing,
        **common,
    )


def make_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """Make the optimizer of a recipe, its learning rate being a schedule by the step.

    Arguments:
        recipe: The recipe.

    Returns:
        A new optimizer.
    """
    common = {
        "learning_rate": _schedule(recipe),
        "global_clipnorm": recipe.clip_norm or None,
        "use_ema": recipe.average > 0,
        "ema_momentum": recipe.average or 0.99,
    }
    makers: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "sgd": lambda: keras.optimizers.SGD(momentum=recipe.momentum, **common),
        "adam": lambda: keras.optimizers.Adam(**common),
        "adamw": lambda: keras.optimizers.AdamW(weight_decay=recipe.weight_decay, **common),
    }
    optimizer = makers[recipe.optimizer]()
    if recipe.bias_rate != 1:
        optimizer = LearningRateMultipliers(optimizer, {"*/bias": recipe.bias_rate})
    return optimizer


def _schedule(recipe: Recipe) -> keras.optimizers.schedules.LearningRateSchedule | float:
    """Return the learning rate by the step, which is the optimizer's own count."""
    schedule = recipe.learning_rate
    if recipe.schedule == "cosine":
        # alpha is the share of the rate that the last step has; a rate of 0 teaches nothing.
        schedule = keras.optimizers.schedules.CosineDecay(schedule, recipe.steps, alpha=0.01)
    elif recipe.decay_at:
        schedule = caffe_multistep(schedule, recipe.decay_at, recipe.decay_factor)
    return Warmup(schedule, recipe.warmup_steps) if recipe.warmup_steps else schedule
