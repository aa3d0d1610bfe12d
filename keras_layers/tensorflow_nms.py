"""Greedy non-maximum suppression around TensorFlow's C++ kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras_layers.nms import NEVER, Selection, nothing_selected

# With how many candidates of an image to begin; if they are not enough, four times as many follow.
# The 200 best detections of SSD300 can take 900.
FIRST = 1024


def tensorflow_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_total: int,
    max_candidates_per_class: int | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> Selection:
    """Implement `greedy_nms` with TensorFlow's combined NMS, on the best candidates alone.

    That kernel breaks ties between equal scores arbitrarily, and confident networks do output equal
    scores: several boxes at exactly 1.0. So it gets ranks in place of the scores.

    Arguments and result are those of `greedy_nms`.
    """
    import tensorflow as tf  # only on this backend: it need not be installed

    n_boxes, n_classes = scores.shape[1:]
    max_per_class = min(max_per_class, max_total)
    n_selectable = min(max_total, n_classes * max_per_class)
    candidates = _gather_candidates(scores, score_threshold)

    def too_few(n_compared, selection):
        n_selected = tf.reduce_sum(tf.cast(selection.is_valid, tf.int32), axis=1)
        return tf.reduce_any((candidates.counts > n_compared) & (n_selected < n_selectable))

    def compare_more(n_compared, _):
        # From the start again, as that costs little: all before was a quarter of this.
        n_compared = tf.maximum(FIRST, 4 * n_compared)
        n_compared = tf.minimum(n_compared, tf.shape(candidates.scores)[1])
        best_scores, best = tf.math.top_k(candidates.scores, n_compared)  # first among equals
        best = tf.gather(candidates.entries, best, batch_dims=1)  # (batch, n_compared)
        class_ids, box_ids = best // n_boxes, best % n_boxes
        corners = tf.gather(boxes, box_ids, batch_dims=1)
        corners = corners if decode is None else decode(corners)  # (batch, n_compared, 4)

        is_of_class = tf.one_hot(class_ids, n_classes, dtype=tf.int32)
        enters = best_scores > NEVER
        if max_candidates_per_class is not None:
            n_better = tf.cumsum(is_of_class, axis=1, exclusive=True) * is_of_class
            enters &= tf.reduce_sum(n_better, axis=-1) < max_candidates_per_class
        ranks = tf.where(enters, tf.range(n_compared, 0, -1), 0)[..., tf.newaxis] * is_of_class
        selected = tf.image.combined_non_max_suppression(
            corners[:, :, tf.newaxis],  # (y, x) pairs by its documentation: IoU allows a swap
            tf.cast(ranks, tf.float32),  # (batch, n_compared, n_classes); exact below 2 ** 24
            max_output_size_per_class=max_per_class,
            max_total_size=max_total,
            iou_threshold=iou_threshold,
            score_threshold=0.5,
            clip_boxes=False,
        )
        is_valid = tf.range(max_total) < selected.valid_detections[:, tf.newaxis]
        positions = n_compared - tf.cast(selected.nmsed_scores, tf.int32)
        positions = tf.where(is_valid, positions, 0)
        return n_compared, Selection(
            boxes=selected.nmsed_boxes,
            box_ids=tf.gather(box_ids, positions, batch_dims=1),
            class_ids=tf.gather(class_ids, positions, batch_dims=1),
            scores=tf.where(is_valid, tf.gather(best_scores, positions, batch_dims=1), 0.0),
            is_valid=is_valid,
        )

    nothing = nothing_selected(tf.shape(scores)[0], max_total)
    return tf.while_loop(too_few, compare_more, (0, nothing))[1]


class _Candidates(NamedTuple):
    """The entries above the threshold of each image, in ascending order, and what fills up."""

    scores: Any  # float32 `(batch, width)`
    entries: Any  # int32 `(batch, width)`
    counts: Any  # int32 `(batch,)`: how many are not there just to fill up


def _gather_candidates(scores: Any, score_threshold: float) -> _Candidates:
    """Bring the few scores above the threshold together, with TensorFlow."""
    import tensorflow as tf

    n_boxes = scores.shape[1]
    batch = tf.shape(scores)[0]
    is_candidate = tf.transpose(scores > score_threshold, (0, 2, 1))  # NaN is not greater
    places = tf.where(tf.reshape(is_candidate, (batch, -1)))  # (n, 2), ascending
    image_ids, entries = tf.unstack(tf.cast(places, tf.int32), axis=1)
    places = tf.stack([image_ids, entries % n_boxes, entries // n_boxes], axis=1)
    rows = tf.RaggedTensor.from_value_rowids(
        tf.range(tf.shape(entries)[0]), image_ids, nrows=batch, validate=False
    )
    # Fill up to whole SIMD registers: a lone box at the end of an array may be decoded to numbers
    # that differ in the last bit, and the result would depend on the rest of the batch.
    width = rows.bounding_shape(axis=1)
    width = -(-width // 16) * 16
    numbers = rows.to_tensor(-1, shape=tf.stack([batch, width]))
    is_real = numbers >= 0
    numbers = tf.maximum(numbers, 0)
    values = tf.gather_nd(scores, places)
    return _Candidates(
        scores=tf.where(is_real, tf.gather(values, numbers), NEVER),
        entries=tf.gather(entries, numbers),
        counts=rows.row_lengths(),
    )
