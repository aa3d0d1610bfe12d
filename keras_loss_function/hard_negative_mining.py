"""Hard negative mining: which of the many background anchors a classifier learns from."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_loss_function.global_batch import of_all_devices, of_this_device, total

MINING = ("batch", "per_image")


def hard_negatives(
    negative_losses: Any,
    positives_per_image: Any,
    neg_pos_ratio: float,
    n_neg_min: int,
    mining: str,
) -> Any:
    """Mark the negatives with the highest losses, the first ones among equals.

    Arguments:
        negative_losses: float32 `(batch, n_boxes)`; 0 where an anchor is not a negative.
        positives_per_image: float32 `(batch,)`.
        neg_pos_ratio: Largest number of negatives a positive.
        n_neg_min: Number of negatives to keep at least (of the batch, or of every image).
        mining: ``'batch'``: the hardest of the whole batch. ``'per_image'``: of each image its own,
            in proportion to its own positives, as Caffe does.

    Returns:
        float32 `(batch, n_boxes)`: 1 for the negatives to keep, else 0. A negative whose loss is 0
        is never kept: there is nothing to learn from it.
    """
    if mining == "per_image":
        return _hardest(negative_losses, positives_per_image, neg_pos_ratio, n_neg_min)
    # All boxes of the batch are ranked together, those of the images on other devices, too.
    of_batch = of_all_devices(negative_losses)  # (images of the whole batch, n_boxes)
    pool = ops.reshape(of_batch, (1, -1))
    n_positive = ops.reshape(total(positives_per_image), (1,))
    kept = ops.reshape(_hardest(pool, n_positive, neg_pos_ratio, n_neg_min), ops.shape(of_batch))
    return of_this_device(kept, ops.shape(negative_losses)[0])


def _hardest(losses: Any, n_positive: Any, neg_pos_ratio: float, n_neg_min: int) -> Any:
    """Mark the hardest of each pool: `losses` is `(pools, boxes)`, `n_positive` `(pools,)`."""
    wanted = ops.maximum(neg_pos_ratio * n_positive, float(n_neg_min))
    # A static-shape form of "top k with a k that only the data knows": the k-th largest loss is a
    # threshold; all above it are kept, and of those equal to it the first few.
    available = ops.sum(ops.cast(losses > 0, "float32"), axis=-1)
    k = ops.cast(ops.minimum(wanted, available), "int32")[:, None]  # (pools, 1), whole
    ascending = ops.sort(losses, axis=-1)
    position = ops.clip(ops.shape(losses)[1] - k, 0, ops.shape(losses)[1] - 1)
    threshold = ops.take_along_axis(ascending, position, axis=-1)
    above = losses > threshold
    tied = ops.cast(losses == threshold, "int32")
    room = k - ops.sum(ops.cast(above, "int32"), axis=-1, keepdims=True)
    kept = ops.logical_or(above, ops.logical_and(tied > 0, ops.cumsum(tied, axis=-1) <= room))
    return ops.cast(kept, "float32")
