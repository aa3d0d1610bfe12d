"""In-graph NMS: all implementations against the plain loop, equal scores included."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_layers import nms, tensorflow_nms
from tests.slow_nms import slow_nms

# On JAX the portable version runs compiled; uncompiled, every call would compile its loops anew.
IMPLEMENTATIONS = {"backend": nms.greedy_nms, "numpy": nms.numpy_nms}
if keras.backend.backend() != "jax":
    IMPLEMENTATIONS["portable"] = nms.portable_nms


@pytest.fixture(params=IMPLEMENTATIONS)
def in_graph_nms(request, monkeypatch):
    # Little rounds, so that quick tests go through many of them.
    monkeypatch.setattr(nms, "ROUND", 16)
    monkeypatch.setattr(nms, "PORTION", 32)
    monkeypatch.setattr(tensorflow_nms, "FIRST", 16)
    return IMPLEMENTATIONS[request.param]


def slow_selection(
    boxes, scores, iou_threshold, score_threshold, max_per_class, max_total, max_candidates=None
):
    """Select `(class_id, box_id)` of one image by following the definition."""
    selected = []
    for class_id, class_scores in enumerate(scores.T):
        order = np.argsort(-class_scores, kind="stable")[:max_candidates]
        order = order[class_scores[order] > score_threshold]
        kept = slow_nms(boxes[order], class_scores[order], iou_threshold)
        selected += [(class_id, order[i]) for i in kept[:max_per_class]]
    selected.sort(key=lambda pair: -scores[pair[1], pair[0]])  # stable: by class, then as kept
    return selected[:max_total]


def selections(selection):
    """Turn a `Selection` into one list of `(class_id, box_id)` an image."""
    box_ids, class_ids, is_valid = (
        ops.convert_to_numpy(part)
        for part in (selection.box_ids, selection.class_ids, selection.is_valid)
    )
    return [
        list(zip(class_ids[i][valid], box_ids[i][valid], strict=True))
        for i, valid in enumerate(is_valid)
    ]


def random_image(rng, n_boxes, n_classes, n_scores):
    """Boxes on a coarse grid with few different scores: equal scores and equal IoUs abound."""
    corners = rng.integers(0, 12, (n_boxes, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 9, (n_boxes, 2))], axis=1)
    scores = rng.integers(0, n_scores, (n_boxes, n_classes)) / n_scores
    return boxes.astype(np.float32), scores.astype(np.float32)


@pytest.mark.parametrize(
    ("max_per_class", "max_total", "max_candidates"),
    [(400, 200, None), (400, 10, None), (3, 200, None), (3, 5, None), (400, 30, 10), (2, 9, 7)],
)
@pytest.mark.parametrize("n_scores", [4, 10**6])
def test_equals_the_plain_loop(in_graph_nms, n_scores, max_per_class, max_total, max_candidates):
    rng = np.random.default_rng(5)
    images = [random_image(rng, 70, 3, n_scores) for _ in range(3)]
    boxes, scores = (np.stack(parts) for parts in zip(*images, strict=True))
    arguments = (0.45, 0.2, max_per_class, max_total, max_candidates)
    selection = in_graph_nms(
        ops.convert_to_tensor(boxes), ops.convert_to_tensor(scores), *arguments
    )

    assert tuple(selection.boxes.shape) == (3, max_total, 4)
    expected = [slow_selection(*image, *arguments) for image in images]
    assert selections(selection) == expected
    for i, pairs in enumerate(expected):
        class_ids, box_ids = np.array(pairs).T
        got_scores = ops.convert_to_numpy(selection.scores)[i]
        np.testing.assert_array_equal(got_scores[: len(pairs)], scores[i, box_ids, class_ids])
        assert not got_scores[len(pairs) :].any()
        got_boxes = ops.convert_to_numpy(selection.boxes)[i]
        np.testing.assert_array_equal(got_boxes[: len(pairs)], boxes[i, box_ids])


@given(
    seed=st.integers(0, 2**32 - 1),
    n_scores=st.sampled_from([2, 6, 1000]),
    iou_threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.45, 0.5, 1.0]),
    score_threshold=st.sampled_from([-1.0, 0.0, 0.5]),
)
@settings(max_examples=25, deadline=None)
def test_implementations_agree(seed, n_scores, iou_threshold, score_threshold):
    boxes, scores = random_image(np.random.default_rng(seed), 40, 2, n_scores)
    arguments = (iou_threshold, score_threshold, 400, 50)
    tensors = ops.convert_to_tensor(boxes[None]), ops.convert_to_tensor(scores[None])
    expected = [slow_selection(boxes, scores, *arguments)]
    for implementation in IMPLEMENTATIONS.values():
        assert selections(implementation(*tensors, *arguments)) == expected


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "kept"),
    [
        ([[0, 0, 10, 10], [0, 0, 5, 10]], [0.6, 0.4], 0.5, [0, 1]),  # equality survives
        ([[0, 0, 10, 10], [0, 0, 5, 10]], [0.6, 0.4], 0.49, [0]),
        ([[0, 0, 10, 10], [0, 0, 10, 10]], [1.0, 1.0], 0.45, [0]),  # the first among equals
        ([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], [0.9, 0.8, 0.7], 0.45, [0, 2]),
        ([[3, 3, 3, 3], [3, 3, 3, 3]], [0.6, 0.4], 0.45, [0, 1]),  # 0 / 0 is no overlap
        ([[0, 0, 10, 10], [0, 0, 10, 10]], [np.nan, 0.4], 0.45, [1]),
        ([[0, 0, 10, 10], [0, 0, 10, 10]], [0.2, 0.1], 0.45, []),  # greater than 0.2 only
    ],
)
def test_cases_by_hand(in_graph_nms, boxes, scores, threshold, kept):
    boxes = ops.convert_to_tensor(np.array([boxes], np.float32))
    scores = ops.convert_to_tensor(np.array(scores, np.float32)[None, :, None])
    (selected,) = selections(in_graph_nms(boxes, scores, threshold, 0.2, 400, 5))
    assert [box_id for _, box_id in selected] == kept


def test_classes_do_not_suppress_each_other(in_graph_nms):
    boxes = np.zeros((1, 2, 4), np.float32) + np.array([0, 0, 10, 10], np.float32)
    scores = np.array([[[0.9, 0.7], [0.8, 0.7]]], np.float32)
    tensors = ops.convert_to_tensor(boxes), ops.convert_to_tensor(scores)
    assert selections(in_graph_nms(*tensors, 0.45, 0.2, 400, 5)) == [[(0, 0), (1, 0)]]
