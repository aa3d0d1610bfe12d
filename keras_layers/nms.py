"""Greedy non-maximum suppression inside a model's graph.

The rule is the one of `ssd_encoder_decoder.nms`, including what happens among equal scores (the
lower class, then the earlier box comes first). Whether a candidate survives depends only on better
ones, and only the best few hundred survivors are asked for. So all implementations begin with the
best candidates, and go on only if too few of them survived; thousands of poor ones are never looked
at, nor are their boxes decoded:

- `portable_nms`, on `keras.ops` alone and with static shapes: for JAX, for XLA, and for PyTorch on
  a GPU or compiled.
- `tensorflow_nms` around TensorFlow's C++ kernel, which works on classes and images in parallel.
- `numpy_nms`, the kernel of the decoders outside of a model: for PyTorch on a CPU, as eager tensor
  operations take several times as long.

An *entry* is a box as a candidate for a class: the number `class_id * n_boxes + box_id`. The order
of entries is the order among equal scores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from ssd_encoder_decoder.nms import nms_per_class, rank_in_class

# How many candidates `portable_nms` fetches at a time: generous with XLA, as only the first top-k
# is fast there. And how many it compares at a time, which must divide the former: it holds a few
# (batch, max_total + ROUND, ROUND) arrays.
PORTION = 1024 if keras.backend.backend() == "torch" else 4096
ROUND = 256

NEVER = -float("inf")
"""The score of what takes no part."""


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
    decode: Callable[[Any], Any] | None = None,
) -> Selection:
    """Suppress boxes that overlap a better one of the same class, with the backend's best means.

    Arguments:
        boxes: float32 `(batch, n_boxes, 4)` corners, or whatever `decode` makes corners of.
        scores: float32 `(batch, n_boxes, n_classes)`.
        iou_threshold: A box is dropped if its IoU with a better surviving one of its class is
            greater than this, a number in [0, 1].
        score_threshold: Only scores greater than this count.
        max_per_class: Select at most this many boxes of a class.
        max_total: Select at most this many boxes of an image.
        max_candidates_per_class: Let only this many of the best boxes of each class take part;
            None lets all of them.
        decode: Turns float32 `(batch, n, columns)` rows of `boxes` into `(batch, n, 4)` corners;
            None if they are corners. It is asked for the best candidates only.

    Returns:
        The selected boxes of all classes together in descending order of their scores.
    """
    implementation = _best_implementation(scores)
    return implementation(
        boxes,
        scores,
        iou_threshold,
        score_threshold,
        max_per_class,
        max_total,
        max_candidates_per_class,
        decode,
    )


def _best_implementation(scores: Any) -> Callable[..., Selection]:
    """Choose the one that is fastest where the scores are."""
    backend = keras.backend.backend()
    if backend == "tensorflow" and not _is_compiled_by_xla():
        from keras_layers.tensorflow_nms import tensorflow_nms

        return tensorflow_nms
    if backend == "jax":
        return _compiled_by_jax()
    if backend == "torch":
        import torch

        if scores.device.type == "cpu" and not torch.compiler.is_compiling():
            return numpy_nms
    return portable_nms


def _is_compiled_by_xla() -> bool:
    """Tell whether TensorFlow is tracing for XLA, which has no NMS kernel and no dynamic shapes."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        # TensorFlow has no public name for this; the graphs of loops and branches lie in others.
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


@cache
def _compiled_by_jax() -> Callable[..., Selection]:
    """Return `portable_nms` for JAX, which would compile the loops anew for each call otherwise."""
    import jax

    counts = ("max_per_class", "max_total", "max_candidates_per_class")
    return jax.jit(portable_nms, static_argnames=(*counts, "decode"))


def numpy_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_total: int,
    max_candidates_per_class: int | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> Selection:
    """Implement `greedy_nms` on the arrays behind tensors, outside of any graph; without gradients.

    Arguments and result are those of `greedy_nms`.
    """
    scores = ops.convert_to_numpy(scores)
    boxes = ops.convert_to_numpy(boxes)
    batch = len(scores)
    selection = Selection(
        boxes=np.zeros((batch, max_total, 4), np.float32),
        box_ids=np.zeros((batch, max_total), np.int32),
        class_ids=np.zeros((batch, max_total), np.int32),
        scores=np.zeros((batch, max_total), np.float32),
        is_valid=np.zeros((batch, max_total), bool),
    )
    for i, image_scores in enumerate(scores):
        class_ids, box_ids = np.nonzero((image_scores > score_threshold).T)  # NaN is not
        entry_scores = image_scores[box_ids, class_ids]
        corners = boxes[i, box_ids]
        if decode is not None:
            corners = ops.convert_to_numpy(decode(ops.convert_to_tensor(corners[np.newaxis])))[0]
        kept = nms_per_class(
            corners,
            entry_scores,
            class_ids,
            iou_threshold,
            max_output_size=max_total if max_per_class >= max_total else None,
            max_candidates_per_class=max_candidates_per_class,
        )
        kept = kept[rank_in_class(class_ids[kept]) < max_per_class][:max_total]
        described = (corners, box_ids, class_ids, entry_scores, np.ones(len(corners), bool))
        for rows, entries in zip(selection, described, strict=True):
            rows[i, : len(kept)] = entries[kept]
    return Selection(*(ops.convert_to_tensor(rows) for rows in selection))


def portable_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_total: int,
    max_candidates_per_class: int | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> Selection:
    """Implement `greedy_nms` on `keras.ops`: whole batches, no loop over boxes or classes.

    The best `PORTION` entries of each image are compared in rounds of `ROUND`, then the next best,
    until `max_total` boxes are selected or no candidate is left. Sorting all entries would take
    longer than all the rest; and memory does not grow with the number of boxes.

    Arguments and result are those of `greedy_nms`; shapes must be static but for the batch.
    """
    n_boxes, n_classes = scores.shape[1:]
    scores = ops.transpose(scores, (0, 2, 1))  # (batch, n_classes, n_boxes)
    scores = ops.where(scores > score_threshold, scores, NEVER)  # NaN is not greater
    n_entering = min(n_boxes, max_candidates_per_class or n_boxes)
    best_of_class = None
    if n_entering < n_boxes:
        scores, best_of_class = _top_k(scores, n_entering)
        best_of_class = ops.reshape(best_of_class, (-1, n_classes * n_entering))
    # From here on an entry is class_id * n_entering + rank.
    n_entries = n_classes * n_entering
    scores = ops.reshape(scores, (-1, n_entries))
    portion = min(PORTION, -(-n_entries // ROUND) * ROUND)
    scores = ops.pad(scores, [[0, 0], [0, max(0, portion - n_entries)]], constant_values=NEVER)

    def look_up(entries, scores):
        """Describe `(batch, n)` entries."""
        entries = ops.minimum(entries, n_entries - 1)  # there may be some to fill up
        box_ids = entries % n_entering
        if best_of_class is not None:
            box_ids = ops.take_along_axis(best_of_class, entries, axis=1)
        corners = ops.take_along_axis(boxes, box_ids[..., None], axis=1)
        corners = corners if decode is None else decode(corners)
        return Selection(corners, box_ids, entries // n_entering, scores, scores > NEVER)

    def next_best(last_score, last_entry):
        """Return the scores and entries of a portion behind `(batch, 1)` last ones."""
        entries = ops.arange(scores.shape[1], dtype="int32")
        is_left = ops.logical_and(ops.equal(scores, last_score), entries > last_entry)
        is_left = ops.logical_or(is_left, scores < last_score)
        return _top_k(ops.where(is_left, scores, NEVER), portion)

    def is_open(best_scores, best, selected):
        return _is_open(best_scores[:, :1], selected)

    def play_portion(best_scores, best, selected):
        candidates = look_up(best, best_scores)
        selected = _play_portion(selected, candidates, iou_threshold, max_per_class)
        last_score, last_entry = best_scores[:, -1:], best[:, -1:]
        best_scores, best = ops.cond(
            _is_open(last_score, selected),
            lambda: next_best(last_score, last_entry),
            lambda: (ops.full_like(best_scores, NEVER), best),
        )
        return best_scores, best, selected

    # Outside of the loop, as XLA sorts all scores inside of one.
    start = (*_top_k(scores, portion), nothing_selected(ops.shape(scores)[0], max_total))
    return ops.while_loop(is_open, play_portion, start)[2]


def nothing_selected(batch: Any, max_total: int) -> Selection:
    """Return the selection to begin with: rows of zeros, none of them valid."""
    numbers = ops.zeros((batch, max_total), "int32")
    return Selection(
        boxes=ops.zeros((batch, max_total, 4), "float32"),
        box_ids=numbers,
        class_ids=numbers,
        scores=ops.zeros((batch, max_total), "float32"),
        is_valid=ops.zeros((batch, max_total), "bool"),
    )


def _top_k(scores: Any, k: int) -> tuple[Any, Any]:
    """Return the k best scores of each row and their int32 places, the first among equals first."""
    if keras.backend.backend() != "torch":
        scores, places = ops.top_k(scores, k)
        return scores, ops.cast(places, "int32")

    # PyTorch's top-k takes any among equals, and its stable sort takes 40 times as long. So no two
    # may be equal: an integer that orders as the score does, and behind it the place from the end.
    import torch

    n = scores.shape[-1]
    bits = scores.view(torch.int32)
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # negative floats descend
    keys = (bits.to(torch.int64) << 32) + torch.arange(n - 1, -1, -1, device=scores.device)
    places = n - 1 - (torch.topk(keys, k).values & 0xFFFFFFFF)
    return torch.gather(scores, -1, places), places.to(torch.int32)


def _is_open(best_left: Any, selected: Selection) -> Any:
    """Tell whether any image has a candidate left, the best of them given, and room for it."""
    has_room = ops.logical_not(selected.is_valid[:, -1:])
    return ops.any(ops.logical_and(best_left > NEVER, has_room))


def _play_portion(
    selected: Selection, candidates: Selection, iou_threshold: float, max_per_class: int
) -> Selection:
    """Select among candidates, best first, in rounds of `ROUND`."""
    n_rounds = candidates.scores.shape[1] // ROUND
    rounds = Selection(*(ops.reshape(x, (-1, n_rounds, ROUND, *x.shape[2:])) for x in candidates))

    def is_open(number, selected):
        first_scores = ops.take(rounds.scores[:, :, 0], ops.minimum(number, n_rounds - 1), axis=1)
        return ops.logical_and(number < n_rounds, _is_open(first_scores[:, None], selected))

    def play(number, selected):
        candidates = Selection(*(ops.take(x, number, axis=1) for x in rounds))
        return number + 1, _play_round(selected, candidates, iou_threshold, max_per_class)

    return ops.while_loop(is_open, play, (ops.zeros((), "int32"), selected))[1]


def _play_round(
    selected: Selection, candidates: Selection, iou_threshold: float, max_per_class: int
) -> Selection:
    """Select among candidates, each compared with all selected before and all of this round."""
    max_total, n = selected.scores.shape[1], candidates.scores.shape[1]
    both = [ops.concatenate(pair, axis=1) for pair in zip(selected, candidates, strict=True)]
    is_better = np.concatenate([np.ones((max_total, n), bool), np.triu(np.ones((n, n), bool), 1)])
    boxes, _, class_ids, *_ = both
    rivals = ops.equal(class_ids[:, :, None], candidates.class_ids[:, None, :])
    rivals = ops.logical_and(rivals, is_better)  # (batch, max_total + n, n)
    overlaps = ops.logical_and(rivals, _iou(boxes, candidates.boxes) > iou_threshold)
    overlaps = ops.cast(overlaps, "float32")  # for `_count`

    beaten = _count(selected.is_valid, overlaps[:, :max_total]) > 0
    left = ops.logical_and(candidates.is_valid, ops.logical_not(beaten))
    survives = _resolve(left, overlaps[:, max_total:])
    if max_per_class < max_total:
        is_valid = ops.concatenate([selected.is_valid, survives], axis=1)
        survives = ops.logical_and(survives, _count(is_valid, rivals) < max_per_class)

    # Append the survivors: bring all valid ones to the front, in order.
    is_valid = ops.concatenate([selected.is_valid, survives], axis=1)
    front = ops.argsort(ops.where(is_valid, 0, 1), axis=-1)[:, :max_total]
    boxes, box_ids, class_ids, scores, _ = both
    is_valid = ops.take_along_axis(is_valid, front, axis=1)
    return Selection(
        boxes=ops.take_along_axis(boxes, front[..., None], axis=1),
        box_ids=ops.take_along_axis(box_ids, front, axis=1),
        class_ids=ops.take_along_axis(class_ids, front, axis=1),
        scores=ops.where(is_valid, ops.take_along_axis(scores, front, axis=1), 0.0),
        is_valid=is_valid,
    )


def _resolve(candidates: Any, overlaps: Any) -> Any:
    """Play greedy NMS among the candidates of a round.

    A candidate survives if no survivor overlaps it. Starting from "all survive", apply that
    sentence to all candidates at once until nothing changes: the first is right from the start, and
    every pass makes right all whose better neighbours were, so that the end is the greedy result.
    It takes a few passes, as many as the longest chain of boxes that save each other.

    Arguments:
        candidates: bool `(batch, n)`, best first.
        overlaps: `(batch, n, n)`; `[:, i, j]` is 1 if i is better than j and overlaps it, else 0.

    Returns:
        bool `(batch, n)`: which candidates survive.
    """

    def passed(survives, _):
        beaten = _count(survives, overlaps) > 0
        return ops.logical_and(candidates, ops.logical_not(beaten)), survives

    def changed(survives, before):
        return ops.any(ops.not_equal(survives, before))

    survives, _ = ops.while_loop(changed, passed, passed(candidates, None))
    return survives


def _count(is_counted: Any, pairs: Any) -> Any:
    """Count for each j the counted i with `pairs[:, i, j]`: a matrix product, exact and fast."""
    is_counted = ops.cast(is_counted, "float32")[:, None, :]
    return ops.matmul(is_counted, ops.cast(pairs, "float32"))[:, 0]


def _iou(boxes1: Any, boxes2: Any) -> Any:
    """Return the `(batch, m, n)` IoU of `(batch, m, 4)` and `(batch, n, 4)` corners."""
    xmin1, ymin1, xmax1, ymax1 = (x[:, :, None] for x in _coordinates(boxes1))
    xmin2, ymin2, xmax2, ymax2 = (x[:, None, :] for x in _coordinates(boxes2))
    widths = ops.minimum(xmax1, xmax2) - ops.maximum(xmin1, xmin2)
    heights = ops.minimum(ymax1, ymax2) - ops.maximum(ymin1, ymin2)
    intersections = ops.maximum(widths, 0.0) * ops.maximum(heights, 0.0)
    areas1 = (xmax1 - xmin1) * (ymax1 - ymin1)
    areas2 = (xmax2 - xmin2) * (ymax2 - ymin2)
    return intersections / (areas1 + areas2 - intersections)  # 0 / 0 is NaN: not greater


def _coordinates(boxes: Any) -> list[Any]:
    """Split `(batch, n, 4)` into four `(batch, n)` arrays, each in one piece: PyTorch needs that.

    It works number by number on slices, and several times as fast on whole arrays.
    """
    n = boxes.shape[1]
    columns = ops.reshape(ops.transpose(boxes, (2, 0, 1)), (4, -1))  # a copy
    return [ops.reshape(columns[i], (-1, n)) for i in range(4)]
