"""Verdicts on detections and objects, by hand; and what confusion matrices must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_utils.error_analysis import MISTAKES, Verdict, confusion_matrix, judge
from eval_utils.scoring import score_detections

CAT, DOG = 1, 2
BOX, ELSEWHERE = (10, 10, 50, 50), (100, 100, 140, 140)
# IoU with BOX: 30 * 40 / (2 * 1600 - 1200) = 0.6, and 8 * 40 / (3200 - 320) = 0.11.
NEAR, TOUCHING = (20, 10, 60, 50), (42, 10, 82, 50)


def judged(labels, detections, threshold=0.0, neutral=None, rule="voc"):
    scores = score_detections(
        [np.array(labels).reshape(-1, 5)],
        [np.array(detections).reshape(-1, 6)],
        n_classes=2,
        eval_neutral=neutral,
        border_pixels="half",
        matching_rule=rule,
    )
    return judge(scores.matched_classes, threshold, 0.5, "half")


@pytest.mark.parametrize("rule", ["voc", "coco"])
@pytest.mark.parametrize(
    ("labels", "detections", "verdicts", "matrix"),
    [
        ([(CAT, *BOX)], [(CAT, 0.9, *NEAR)], [Verdict.CORRECT], {(CAT, CAT): 1}),
        (
            [(CAT, *BOX), (DOG, *BOX), (DOG, *ELSEWHERE)],
            [(DOG, 0.9, *ELSEWHERE), (CAT, 0.8, *BOX), (DOG, 0.7, *BOX)],
            [Verdict.CORRECT, Verdict.CORRECT, Verdict.CORRECT],
            {(CAT, CAT): 1, (DOG, DOG): 2},
        ),
        ([(CAT, *BOX)], [], [], {(CAT, 0): 1}),
        ([], [(CAT, 0.9, *BOX)], [Verdict.BACKGROUND], {(0, CAT): 1}),
        ([(CAT, *BOX)], [(DOG, 0.9, *NEAR)], [Verdict.WRONG_CLASS], {(CAT, DOG): 1}),
        (
            [(CAT, *BOX)],
            [(CAT, 0.9, *TOUCHING)],
            [Verdict.POOR_BOX],
            {(CAT, 0): 1, (0, CAT): 1},
        ),
        (
            [(CAT, *BOX)],
            [(DOG, 0.9, *TOUCHING)],
            [Verdict.BACKGROUND],
            {(CAT, 0): 1, (0, DOG): 1},
        ),
        (
            [(CAT, *BOX)],
            [(CAT, 0.8, *BOX), (CAT, 0.9, *NEAR)],
            [Verdict.CORRECT, Verdict.DUPLICATE],
            {(CAT, CAT): 1, (0, CAT): 1},
        ),
        # A cat that was found stays found: the dog on it is wrong, but replaces no object.
        (
            [(CAT, *BOX)],
            [(DOG, 0.9, *BOX), (CAT, 0.8, *NEAR)],
            [Verdict.WRONG_CLASS, Verdict.CORRECT],
            {(CAT, CAT): 1, (0, DOG): 1},
        ),
        # Two dogs on one missed cat: it was taken for a dog once.
        (
            [(CAT, *BOX), (DOG, *ELSEWHERE)],
            [(DOG, 0.9, *BOX), (DOG, 0.8, *NEAR)],
            [Verdict.WRONG_CLASS, Verdict.WRONG_CLASS],
            {(CAT, DOG): 1, (0, DOG): 1, (DOG, 0): 1},
        ),
    ],
)
def test_verdicts_by_hand(labels, detections, verdicts, matrix, rule):
    detections_judged, objects = judged(labels, detections, rule=rule)
    assert detections_judged.verdicts.tolist() == verdicts
    counts = confusion_matrix(detections_judged, objects, 2)
    assert {tuple(cell): counts[tuple(cell)] for cell in np.argwhere(counts).tolist()} == matrix


def test_detections_below_the_threshold_do_not_exist():
    labels, detections = [(CAT, *BOX)], [(CAT, 0.3, *BOX), (DOG, 0.6, *NEAR)]
    found, objects = judged(labels, detections, threshold=0.5)
    assert found.class_ids.tolist() == [DOG]
    assert objects.missed.tolist() == [True]
    assert objects.taken_for.tolist() == [DOG]
    assert judged(labels, detections, threshold=0.3)[1].found.tolist() == [True]


def test_neutral_objects_are_left_out():
    labels = [(CAT, *BOX), (DOG, *ELSEWHERE)]
    detections = [(CAT, 0.9, *BOX), (CAT, 0.8, *ELSEWHERE)]
    found, objects = judged(labels, detections, neutral=[[True, True]])
    assert found.verdicts.tolist() == [Verdict.NEUTRAL, Verdict.BACKGROUND]
    assert not objects.missed.any()
    assert confusion_matrix(found, objects, 2).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


boxes = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(2, 9)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
objects_drawn = st.lists(
    st.tuples(st.integers(1, 3), boxes).map(lambda p: (p[0], *p[1])), max_size=6
)
detections_drawn = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([0.2, 0.5, 0.9]), boxes).map(
        lambda p: (p[0], p[1], *p[2])
    ),
    max_size=10,
)


@settings(max_examples=60)
@given(objects_drawn, detections_drawn, st.sampled_from(["voc", "coco"]), st.data())
def test_rows_sum_up_to_objects_and_columns_to_detections(labels, found, rule, data):
    neutral = [data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))]
    scores = score_detections(
        [np.array(labels).reshape(-1, 5)],
        [np.array(found).reshape(-1, 6)],
        n_classes=3,
        eval_neutral=neutral,
        matching_rule=rule,
    )
    detections, objects = judge(scores.matched_classes, 0.4)
    counts = confusion_matrix(detections, objects, 3)
    for class_id, matched in enumerate(scores.matched_classes[1:], start=1):
        is_in = matched.confidences >= 0.4
        assert counts[class_id].sum() == scores.num_gt_per_class[class_id]
        assert counts[:, class_id].sum() == np.sum(is_in & ~matched.neutral)
        assert counts[class_id, class_id] == np.sum(is_in & matched.matches.true_positives)
    is_mistake = np.isin(detections.verdicts, MISTAKES)
    assert is_mistake.sum() == sum(
        np.sum((m.confidences >= 0.4) & m.matches.false_positives)
        for m in scores.matched_classes[1:]
    )
