import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_utils.average_precision import (
    area_average_precision,
    average_precision,
    coco_average_precision,
    precision_and_recall,
    sampled_average_precision,
)
from tests.eval_utils.slow_reference import (
    area_in_fractions,
    sampled_average_precision_in_fractions,
)


def test_precision_and_recall_by_hand():
    hits, misses = np.cumsum([0, 1, 0, 1]), np.cumsum([0, 0, 1, 0])  # the first one is neutral
    precisions, recalls = precision_and_recall(hits, misses, num_gt=4)
    np.testing.assert_allclose(precisions, [0, 1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(recalls, [0, 1 / 4, 1 / 4, 2 / 4])


def test_recall_of_a_class_without_objects_is_not_a_number():
    precisions, recalls = precision_and_recall(np.array([0, 0]), np.array([1, 2]), num_gt=0)
    np.testing.assert_array_equal(precisions, [0, 0])
    assert np.isnan(recalls).all()


AVERAGES = [
    # hits (T) and misses (F) in the order of falling confidence, objects, 11 points, area
    ("T", 1, 1.0, 1.0),
    ("TTTT", 4, 1.0, 1.0),
    ("", 3, 0.0, 0.0),
    ("FFF", 3, 0.0, 0.0),
    ("FT", 1, 0.5, 0.5),
    ("TF", 1, 1.0, 1.0),
    ("TT", 4, 6 / 11, 0.5),  # levels 0, .1, ..., .5
    ("TFT", 2, (6 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2),
    ("FTT", 2, 2 / 3, 2 / 3),  # precision 1/2 at recall 1/2 is raised to 2/3
    # 3 / 10 < numpy.linspace(0, 1, 11)[3] in floating point; the level 0.3 counts nevertheless.
    ("TTT", 10, 4 / 11, 0.3),
    ("TTTTTTT", 10, 8 / 11, 0.7),
]


@pytest.mark.parametrize(("outcomes", "num_gt", "sampled", "area"), AVERAGES)
def test_average_precision_table(outcomes, num_gt, sampled, area):
    hits = np.cumsum([outcome == "T" for outcome in outcomes])
    misses = np.cumsum([outcome == "F" for outcome in outcomes])
    curve = precision_and_recall(hits, misses, num_gt)
    assert average_precision(*curve) == pytest.approx(sampled, abs=1e-12)
    assert average_precision(*curve, mode="integrate") == pytest.approx(area, abs=1e-12)


@given(
    outcomes=st.lists(st.sampled_from("TF-"), max_size=40),
    n_missed=st.integers(0, 30),
    num_points=st.sampled_from([2, 5, 11, 101]),
)
def test_average_precision_equals_whole_number_arithmetic(outcomes, n_missed, num_points):
    hits = [outcome == "T" for outcome in outcomes]
    misses = [outcome == "F" for outcome in outcomes]
    num_gt = max(1, sum(hits) + n_missed)
    curve = precision_and_recall(np.cumsum(hits), np.cumsum(misses), num_gt)

    sampled = sampled_average_precision(*curve, num_points)
    area = area_average_precision(*curve)
    expected = sampled_average_precision_in_fractions(hits, misses, num_gt, num_points)
    assert sampled == pytest.approx(expected, abs=1e-12)
    assert area == pytest.approx(area_in_fractions(hits, misses, num_gt), abs=1e-12)
    assert type(sampled) is type(area) is float


@pytest.mark.parametrize(
    ("mode", "num_recall_points", "message"),
    [("integral", 11, "'coco'.*got 'integral'"), ("sample", 0, "num_recall_points.*got 0")],
)
def test_unknown_rules_are_refused(mode, num_recall_points, message):
    with pytest.raises(ValueError, match=message):
        average_precision(np.ones(1), np.ones(1), mode, num_recall_points)


def test_a_single_recall_level_is_that_of_no_recall():
    precisions, recalls = [1.0, 0.5, 2 / 3], [0.25, 0.25, 0.5]
    assert average_precision(precisions, recalls, "sample", num_recall_points=1) == 1.0
    assert average_precision([0.0, 0.5], [0.0, 0.25], "sample", num_recall_points=1) == 0.5


def test_coco_compares_recalls_as_they_are():
    # Level 70 of numpy.linspace(0, 1, 101) is a little more than 7 / 10.
    curve = precision_and_recall(np.arange(1, 8), np.zeros(7), num_gt=10)
    assert sampled_average_precision(*curve, 101) == pytest.approx(71 / 101)
    assert coco_average_precision(*curve) == pytest.approx(70 / 101)
    assert average_precision(*curve, mode="coco") == coco_average_precision(*curve)


@pytest.mark.parametrize("num_gt", [1, 2, 4, 50])
def test_a_perfect_curve_is_one_by_the_rule_of_coco(num_gt):
    curve = precision_and_recall(np.arange(1, num_gt + 1), np.zeros(num_gt), num_gt)
    assert coco_average_precision(*curve) == 1.0


def test_no_detections_are_zero_by_the_rule_of_coco():
    assert coco_average_precision(np.zeros(0), np.zeros(0)) == 0.0
