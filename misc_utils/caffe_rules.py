"""Training by the rules of the original SSD in Caffe, where its Keras port has others.

    model = ssd_300((300, 300, 3), n_classes=20, scales=SCALES_VOC, caffe_faithful=True)
    load_vgg16_weights(model, "vgg16.npz")
    encoder = SSDInputEncoder.from_model(model, neg_iou_limit=0.5)
    augmentation = SSDDataAugmentation(300, 300, variant="caffe")
    caffe_training(model)

| | the port | Caffe | where |
|---|---|---|---|
| start of fresh kernels | normal, variance 2 / fan-in | uniform, variance 1 / fan-in | builder |
| weight decay | L2(0.0005), twice Caffe's | L2(0.00025), the L2 norm's scale, too | builder |
| boxes of a class before NMS | all | the best 400 | builder |
| learning rate of biases | that of kernels | twice that of kernels | `caffe_training` |
| hard negatives | the hardest of the batch | the hardest of each image | `caffe_training` |
| half-matched anchors | neutral above IoU 0.3 | negative below 0.5 | encoder |
| augmentation | rounded boxes, crop by centre | see `SSDDataAugmentation` | augmentation |

"Builder" is `caffe_faithful=True` of `ssd_300` and `ssd_512`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from keras_loss_function.keras_ssd_loss import SSDLoss
from keras_loss_function.metrics import loss_metrics
from misc_utils.fine_tuning import LearningRateMultipliers
from misc_utils.training_schedules import Warmup, caffe_multistep


def caffe_training(
    model: keras.Model,
    learning_rate: float = 0.001,
    boundaries: Sequence[int] = (80_000, 100_000),
    momentum: float = 0.9,
    weight_decay: float | None = 0.0005,
    warmup_steps: int = 0,
    global_clipnorm: float | None = None,
) -> keras.Model:
    """Compile a model with the optimizer and the loss of the original.

    That is SGD with momentum, twice the rate for biases, a rate that falls to a tenth at each
    boundary, and hard negatives image by image. The defaults are those for Pascal VOC, where
    training ends after 120,000 steps of 32 images; for COCO the boundaries are 280,000 and 360,000,
    the end 400,000.

    The weight decay is a penalty in the model's layers and must be there already: see
    `caffe_faithful`. It is checked, because the port's default is twice as large.

    Arguments:
        model: A model in mode ``'training'``, with any weights.
        learning_rate: The rate of kernels until the first boundary.
        boundaries: Numbers of steps after which the rate falls to a tenth.
        momentum: Share of the last step that goes into the next one.
        weight_decay: Caffe's decay d that all kernels are expected to have, as L2(d / 2); None
            leaves it to you.
        warmup_steps: Steps in which the rate rises. The original has none; batches of fewer than
            32 images may need some.
        global_clipnorm: Greatest length of the gradient of all weights; longer ones are shortened.
            The original has no limit.

    Returns:
        The same model, compiled.

    Raises:
        ValueError: if kernels have another penalty than the weight decay asks for.
    """
    if weight_decay is not None:
        _check_weight_decay(model, weight_decay)
    schedule = caffe_multistep(learning_rate, boundaries)
    if warmup_steps:
        schedule = Warmup(schedule, warmup_steps)
    optimizer = LearningRateMultipliers(
        keras.optimizers.SGD(schedule, momentum=momentum, global_clipnorm=global_clipnorm),
        {"*/bias": 2.0},
    )
    loss = SSDLoss(mining="per_image")
    model.compile(optimizer, loss, metrics=loss_metrics(loss))
    return model


def _check_weight_decay(model: keras.Model, weight_decay: float) -> None:
    """Raise a ValueError unless every trainable kernel has Caffe's penalty."""
    for variable in model.trainable_variables:
        is_kernel = variable.path.endswith("kernel")
        penalty = float(getattr(variable.regularizer, "l2", 0.0))
        if is_kernel and not math.isclose(penalty, weight_decay / 2, rel_tol=1e-5, abs_tol=1e-12):
            raise ValueError(
                f"Caffe's weight decay of {weight_decay:g} is a penalty L2({weight_decay / 2:g}); "
                f"{variable.path} has L2({penalty:g}). Build the model with "
                "`caffe_faithful=True` (SSD300, SSD512) or "
                f"`l2_regularization={weight_decay / 2:g}` (others), or pass the decay that it has "
                f"as `weight_decay={2 * penalty:g}`, or None."
            )
