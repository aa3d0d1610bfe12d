"""Precision, recall and F1 at a threshold: by hand, and beside trying all thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_utils.matched_class import MatchedClass
from eval_utils.matching import Matches
from eval_utils.operating_point import best_operating_point, operating_point


def matched(confidences, outcomes, n_missed=0) -> MatchedClass:
    """Make a class from one letter for each detection: t(rue), f(alse) or n(eutral)."""
    right, wrong = (np.array([o == letter for o in outcomes], bool) for letter in "tf")
    n_neutral = outcomes.count("n")
    n_objects = int(right.sum()) + n_missed + n_neutral
    neutral = np.arange(n_objects) >= n_objects - n_neutral
    matches = Matches(np.full(len(outcomes), -1), right, wrong, np.zeros(n_objects, bool))
    n = len(outcomes)
    return MatchedClass(
        np.zeros(n, int),
        np.array(confidences, float),
        np.zeros((n, 4)),
        matches,
        np.zeros(n_objects, int),
        np.arange(n_objects),
        np.zeros((n_objects, 4)),
        neutral,
    )


def test_counting_at_a_threshold():
    cats = matched([0.9, 0.8, 0.7, 0.5, 0.4], "tfntt", n_missed=1)
    point = operating_point([cats], 0.5)  # 0.5 itself is let in
    assert (point.true_positives, point.false_positives, point.n_objects) == (2, 1, 4)
    assert point.precision == pytest.approx(2 / 3)
    assert point.recall == pytest.approx(2 / 4)
    assert point.f1 == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))


def test_classes_are_counted_together():
    point = operating_point([matched([0.9], "t"), matched([0.8, 0.1], "ff", n_missed=2)], 0.5)
    assert (point.true_positives, point.false_positives, point.n_objects) == (1, 1, 3)


@pytest.mark.parametrize(
    ("outcomes", "n_missed", "precision", "recall", "f1"),
    [
        ("", 0, math.nan, math.nan, math.nan),
        ("", 3, math.nan, 0.0, 0.0),
        ("f", 0, 0.0, math.nan, math.nan),
        ("f", 2, 0.0, 0.0, 0.0),
        ("n", 0, math.nan, math.nan, math.nan),
    ],
)
def test_where_there_is_nothing_to_divide_by(outcomes, n_missed, precision, recall, f1):
    cats = matched([0.9] * len(outcomes), outcomes, n_missed)
    point = operating_point([cats], 0.5)
    found = (point.precision, point.recall, point.f1)
    assert found == pytest.approx((precision, recall, f1), nan_ok=True)
    assert best_operating_point([cats]) is None


def test_detections_of_equal_confidence_come_together():
    # Stopping between the two would be best, but no threshold does.
    best = best_operating_point([matched([0.5, 0.5, 0.3], "tft")])
    assert (best.threshold, best.true_positives, best.false_positives) == (0.3, 2, 1)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), st.sampled_from("tfn"))),
    st.integers(0, 4),
)
def test_no_threshold_is_better_than_the_best(detections, n_missed):
    detections = sorted(detections, reverse=True)
    cats = matched([c for c, _ in detections], "".join(o for _, o in detections), n_missed)
    best = best_operating_point([cats])
    points = [operating_point([cats], c) for c in {c for c, _ in detections}]
    if best is None:
        assert all(point.true_positives == 0 for point in points)
    else:
        assert best == operating_point([cats], best.threshold)
        assert best.f1 == max(point.f1 for point in points)
        assert best.threshold == max(p.threshold for p in points if p.f1 == best.f1)
