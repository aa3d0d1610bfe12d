"""What a loss must know of the rest of a batch that several devices share.

With `tf.distribute`, each device runs the training step on its own part of the batch, and Keras
adds up what comes out: with R devices, each device's mean loss divided by R. That is right for a
loss that treats every image by itself. The multibox loss does not: it is divided by the positives
of the whole batch, and the hard negatives are the hardest of the whole batch. The functions here
let a device ask the others, so that the loss and its gradient are those of one device with all the
images.

On one device they return what they are given. So they do with `keras.distribution` on JAX, where
every array in a step *is* the whole batch and the compiler divides the work.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def total(values: Any) -> Any:
    """Sum values over the images of the whole batch.

    Arguments:
        values: `(own images,)` numbers, one for each image of this device.

    Returns:
        A scalar, the same on all devices; it has no gradient where there are several.
    """
    own = ops.sum(values)
    context = _replica_context()
    return own if context is None else context.all_reduce("sum", ops.stop_gradient(own))


def of_all_devices(values: Any) -> Any:
    """Put the rows of all devices together.

    Arguments:
        values: `(own images, ...)`, of which only the first size may differ between devices.

    Returns:
        `(images of the whole batch, ...)`, the same on all devices, in the order of the devices;
        it has no gradient where there are several.
    """
    context = _replica_context()
    return values if context is None else context.all_gather(ops.stop_gradient(values), axis=0)


def of_this_device(values: Any, n_own: Any) -> Any:
    """Take this device's rows out of what `of_all_devices` has put together.

    Arguments:
        values: `(images of the whole batch, ...)`.
        n_own: The number of images of this device.

    Returns:
        `(own images, ...)`.
    """
    context = _replica_context()
    if context is None:
        return values
    sizes = context.all_gather(ops.reshape(ops.cast(n_own, "int32"), (1,)), axis=0)
    before = ops.arange(ops.shape(sizes)[0]) < context.replica_id_in_sync_group
    first = ops.sum(ops.where(before, sizes, 0))
    return values[first : first + n_own]


def per_positive(shares: Any, positives: Any) -> Any:
    """Scale the images' shares of a loss such that their mean is their sum for each positive.

    The multibox loss is the sum over all anchors of the batch, divided by the number of positives
    (Caffe's normalisation VALID). Keras takes the mean over the images: hence times their number.

    Where devices have different numbers of images (the last batch of an epoch), the mean over each
    device's images, summed over devices, is no longer the mean over all images. The *value* is left
    as it is, since that is what Keras averages for its reports; the *gradient* is corrected.

    Arguments:
        shares: float32 `(own images,)`.
        positives: float32 `(own images,)`, the number of positives in each image.

    Returns:
        float32 `(own images,)`, `shares * images / max(1, positives)`, both counted over the whole
        batch.
    """
    n_own = ops.cast(ops.shape(shares)[0], "float32")
    n_images = total(ops.ones_like(shares))
    values = shares * (n_images / ops.maximum(1.0, total(positives)))
    context = _replica_context()
    if context is None:
        return values
    # Keras will divide by the device's images and by the number of devices, not by all images.
    correction = n_own * float(context.num_replicas_in_sync) / n_images
    return values * correction + ops.stop_gradient(values * (1.0 - correction))


def _replica_context() -> Any:
    """Return TensorFlow's handle of a device among several, or None.

    There is none on other backends, with a single device, and outside of the devices' steps, such
    as where Keras only finds out shapes.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return tf.distribute.get_replica_context() if several else None
