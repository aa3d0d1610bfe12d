"""Greedy non-maximum suppression inside a model's graph, with static shapes.

The rule is the one of `ssd_encoder_decoder.nms`, including what happens among equal scores (the
lower class, then the earlier box comes first), and there are two implementations of it:

- TensorFlow's C++ kernel, called once per class. (`combined_non_max_suppression` would be a little
  faster, but breaks ties between equal scores arbitrarily, and confident networks do output equal
  scores: several boxes at exactly 1.0.)
- `portable_nms`, written on `keras.ops` alone, for every other backend and for XLA.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

# How many candidates `portable_nms` takes on at once: it holds a few (batch, ROUND, ROUND) arrays.
ROUND = 256


class Selection(NamedTuple):
    """The boxes that NMS selected, best first, each of shape `(batch, max_total)`."""

    boxes: Any  # float32, with a further axis of length 4
    box_ids: Any  # int32
    class_ids: Any  # int32 index into the last axis of the scores
    scores: Any  # float32
    is_valid: Any  # bool: False where there were fewer than `max_total`, at the end of each row


def greedy_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_total: int,
    max_candidates_per_class: int | None = None,
) -> Selection:
    """Suppress boxes that overlap a better one of the same class, with the backend's best means.

    Arguments:
        boxes: float32 `(batch, n_boxes, 4)` corners.
        scores: float32 `(batch, n_boxes, n_classes)`.
        iou_threshold: A box is dropped if its IoU with a better surviving one of its class is
            greater than this, a number in [0, 1].
        score_threshold: Only scores greater than this count.
        max_per_class: Select at most this many boxes of a class.
        max_total: Select at most this many boxes of an image.
        max_candidates_per_class: Let only this many of the best boxes of each class take part;
            None lets all of them.

    Returns:
        The selected boxes of all classes together in descending order of their scores.
    """
    implementation = _tensorflow_nms if keras.backend.backend() == "tensorflow" else portable_nms
    return implementation(
        boxes,
        scores,
        iou_threshold,
        score_threshold,
        max_per_class,
        max_total,
        max_candidates_per_class,
    )


def _tensorflow_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_total: int,
    max_candidates_per_class: int | None,
) -> Selection:
    """Implement `greedy_nms` with TensorFlow's kernel for one class of one image."""
    import tensorflow as tf

    n_classes = scores.shape[2]
    max_per_class = min(max_per_class, max_total)
    n_selectable = min(max_total, n_classes * max_per_class)

    def select_in_class(boxes, scores):
        """Return box ids `(max_per_class,)` and how many of them are valid."""
        return tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes,  # (y, x) pairs by its documentation, but IoU does not mind a swap
            scores=scores,
            max_output_size=max_per_class,
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
            pad_to_max_output_size=True,
        )

    def select_in_best_of_class(boxes, scores):
        k = tf.minimum(max_candidates_per_class, tf.shape(scores)[0])
        best_scores, best_ids = tf.math.top_k(scores, k)
        positions, n_valid = select_in_class(tf.gather(boxes, best_ids), best_scores)
        return tf.gather(best_ids, positions), n_valid

    def select_in_image(boxes_and_scores):
        boxes, scores = boxes_and_scores  # (n_boxes, 4), (n_classes, n_boxes)
        select = select_in_class if max_candidates_per_class is None else select_in_best_of_class
        per_class = [select(boxes, class_scores) for class_scores in tf.unstack(scores, n_classes)]
        box_ids, n_valid = (tf.stack(parts) for parts in zip(*per_class, strict=True))

        is_valid = tf.range(max_per_class) < n_valid[:, tf.newaxis]  # (n_classes, max_per_class)
        scores = tf.where(is_valid, tf.gather(scores, box_ids, batch_dims=1), -float("inf"))
        scores, best = tf.math.top_k(tf.reshape(scores, (-1,)), n_selectable)  # first among equals
        box_ids = tf.gather(tf.reshape(box_ids, (-1,)), best)
        return tf.gather(boxes, box_ids), box_ids, best // max_per_class, scores

    boxes, box_ids, class_ids, scores = tf.map_fn(
        select_in_image,
        (boxes, tf.transpose(scores, (0, 2, 1))),
        fn_output_signature=(
            tf.TensorSpec((n_selectable, 4), tf.float32),
            tf.TensorSpec((n_selectable,), tf.int32),
            tf.TensorSpec((n_selectable,), tf.int32),
            tf.TensorSpec((n_selectable,), tf.float32),
        ),
    )
    fill = [[0, 0], [0, max_total - n_selectable]]
    scores = tf.pad(scores, fill, constant_values=-float("inf"))
    is_valid = scores > -float("inf")
    return Selection(
        boxes=tf.pad(boxes, [*fill, [0, 0]]),
        box_ids=tf.pad(box_ids, fill),
        class_ids=tf.pad(class_ids, fill),
        scores=tf.where(is_valid, scores, 0.0),
        is_valid=is_valid,
    )


def portable_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_total: int,
    max_candidates_per_class: int | None = None,
) -> Selection:
    """Implement `greedy_nms` on `keras.ops`: whole batches, no loop over boxes or classes.

    All candidates of an image are sorted by score and taken on in rounds of `ROUND`. Whether one
    survives depends only on better ones: those selected in earlier rounds, and those of its own
    round. So rounds end as soon as `max_total` boxes are selected, and memory does not grow with
    the number of boxes.

    Arguments and result are those of `greedy_nms`; shapes must be static but for the batch.
    """
    n_boxes, n_classes = scores.shape[1:]
    scores = ops.transpose(scores, (0, 2, 1))  # (batch, n_classes, n_boxes)
    scores = ops.where(scores > score_threshold, scores, -float("inf"))  # NaN is not greater
    n_entering = min(n_boxes, max_candidates_per_class or n_boxes)
    best_of_class = None
    if n_entering < n_boxes:
        best_of_class = ops.argsort(-scores, axis=-1)[..., :n_entering]
        scores = ops.take_along_axis(scores, best_of_class, axis=-1)
        best_of_class = ops.reshape(best_of_class, (-1, n_classes * n_entering))

    # From here on an *entry* is a number: class_id * n_entering + rank. Fill up to whole rounds.
    n_entries = n_classes * n_entering
    n_rounds = -(-max(n_entries, max_total) // ROUND)
    scores = ops.reshape(scores, (-1, n_entries))
    scores = ops.pad(
        scores, [[0, 0], [0, n_rounds * ROUND - n_entries]], constant_values=-float("inf")
    )
    order = ops.argsort(-scores, axis=-1)  # stable: entries ascend among equal scores
    sorted_scores = ops.take_along_axis(scores, order, axis=-1)

    def look_up(entries):
        """Return the box ids, class ids and boxes of `(batch, n)` entries."""
        entries = ops.minimum(entries, n_entries - 1)
        box_ids = entries % n_entering
        if best_of_class is not None:
            box_ids = ops.take_along_axis(best_of_class, entries, axis=1)
        selected = ops.take_along_axis(boxes, box_ids[..., None], axis=1)
        return box_ids, entries // n_entering, selected

    def selection_is_open(round_, selected, is_valid):
        best_left = ops.take(sorted_scores, ops.minimum(round_, n_rounds - 1) * ROUND, axis=1)
        unfinished = ops.logical_and(best_left > -float("inf"), ops.logical_not(is_valid[:, -1]))
        return ops.logical_and(round_ < n_rounds, ops.any(unfinished))

    def play_round(round_, selected, is_valid):
        positions = round_ * ROUND + ops.arange(ROUND, dtype="int32")
        entries = ops.take(order, positions, axis=1)
        _, class_ids, entry_boxes = look_up(entries)
        _, selected_class_ids, selected_boxes = look_up(selected)

        same_class = ops.logical_and(
            selected_class_ids[:, :, None] == class_ids[:, None, :], is_valid[:, :, None]
        )
        overlaps = ops.logical_and(same_class, _iou(selected_boxes, entry_boxes) > iou_threshold)
        candidates = ops.take(sorted_scores, positions, axis=1) > -float("inf")
        candidates = ops.logical_and(candidates, ops.logical_not(ops.any(overlaps, axis=1)))

        better = positions[:, None] < positions[None, :]
        same_class_in_round = ops.logical_and(
            class_ids[:, :, None] == class_ids[:, None, :], better
        )
        overlaps = ops.logical_and(
            same_class_in_round, _iou(entry_boxes, entry_boxes) > iou_threshold
        )
        survives = _resolve(candidates, overlaps)
        if max_per_class < max_total:
            n_better = _count(same_class, is_valid) + _count(same_class_in_round, survives)
            survives = ops.logical_and(survives, n_better < max_per_class)

        # Append the survivors: bring all valid entries to the front, in order.
        selected = ops.concatenate([selected, entries], axis=1)
        is_valid = ops.concatenate([is_valid, survives], axis=1)
        front = ops.argsort(ops.where(is_valid, 0, 1), axis=-1)[:, :max_total]
        return (
            round_ + 1,
            ops.take_along_axis(selected, front, axis=1),
            ops.take_along_axis(is_valid, front, axis=1),
        )

    nothing = ops.zeros_like(order[:, :max_total])
    _, selected, is_valid = ops.while_loop(
        selection_is_open,
        play_round,
        (ops.zeros((), "int32"), nothing, ops.cast(nothing, "bool")),
        maximum_iterations=n_rounds,
    )
    box_ids, class_ids, boxes = look_up(selected)
    scores = ops.where(is_valid, ops.take_along_axis(scores, selected, axis=1), 0.0)
    return Selection(boxes, box_ids, class_ids, scores, is_valid)


def _resolve(candidates: Any, overlaps: Any) -> Any:
    """Play greedy NMS among the candidates of a round.

    A candidate survives if no survivor overlaps it. Starting from "all survive", apply that
    sentence to all candidates at once until nothing changes: the first is right from the start, and
    every pass makes right all whose better neighbours were, so that the end is the greedy result.
    It takes a few passes, as many as the longest chain of boxes that save each other.

    Arguments:
        candidates: bool `(batch, n)`, best first.
        overlaps: bool `(batch, n, n)`; `[:, i, j]` says that i is better than j and overlaps it.

    Returns:
        bool `(batch, n)`: which candidates survive.
    """

    def passed(survives, _):
        beaten = ops.any(ops.logical_and(overlaps, survives[:, :, None]), axis=1)
        return ops.logical_and(candidates, ops.logical_not(beaten)), survives

    def changed(survives, before):
        return ops.any(ops.not_equal(survives, before))

    survives, _ = ops.while_loop(changed, passed, passed(candidates, None))
    return survives


def _count(pairs: Any, is_counted: Any) -> Any:
    """Count for each j the counted i with `pairs[:, i, j]`."""
    pairs = ops.logical_and(pairs, is_counted[:, :, None])
    return ops.sum(ops.cast(pairs, "int32"), axis=1)


def _iou(boxes1: Any, boxes2: Any) -> Any:
    """Return the `(batch, m, n)` IoU of `(batch, m, 4)` and `(batch, n, 4)` corners."""
    boxes1, boxes2 = boxes1[:, :, None, :], boxes2[:, None, :, :]
    sides = ops.minimum(boxes1[..., 2:], boxes2[..., 2:]) - ops.maximum(
        boxes1[..., :2], boxes2[..., :2]
    )
    sides = ops.maximum(sides, 0.0)
    intersections = sides[..., 0] * sides[..., 1]
    areas1, areas2 = (
        (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        for boxes in (boxes1, boxes2)
    )
    return intersections / (areas1 + areas2 - intersections)  # 0 / 0 is NaN: not greater
