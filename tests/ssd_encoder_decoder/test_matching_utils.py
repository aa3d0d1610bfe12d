"""Matching: by hand, recorded, and against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ssd_encoder_decoder.matching_utils import NO_MATCH, match_bipartite_greedy, match_multi


def slow_bipartite(weights: np.ndarray, min_weight: float = 0.0) -> list[int]:
    """Walk through all pairs from the largest weight on; first row, then first column, on ties."""
    n_rows, n_columns = weights.shape
    pairs = sorted(
        (-weights[row, column], row, column) for row in range(n_rows) for column in range(n_columns)
    )
    matches, taken = [NO_MATCH] * n_rows, set()
    for negative_weight, row, column in pairs:
        if -negative_weight > min_weight and matches[row] == NO_MATCH and column not in taken:
            matches[row] = column
            taken.add(column)
    return matches


def slow_multi(weights: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Ask every column for its best row."""
    pairs = []
    for column in range(weights.shape[1]):
        best_row = max(range(weights.shape[0]), key=lambda row: (weights[row, column], -row))
        if weights[best_row, column] >= threshold:
            pairs.append((best_row, column))
    return pairs


# Few different values, so that ties and rows of zeros are common.
weight_matrices = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 9)),
    elements=st.one_of(st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.floats(0, 1, width=32)),
)


@pytest.mark.parametrize(
    ("weights", "matches"),
    [
        ([[0.1, 0.9, 0.2]], [1]),
        ([[0.5, 0.5]], [0]),  # the first column among equals
        ([[0.2, 0.9], [0.1, 0.8]], [1, 0]),  # row 1 has to make do with the other column
        ([[0.2, 0.8], [0.1, 0.9]], [0, 1]),
        ([[0.9, 0.1], [0.9, 0.2]], [0, 1]),  # the first row among equals
        ([[0, 0], [0, 0.5]], [NO_MATCH, 1]),  # an object without overlap has no anchor
        ([[0, 0.5], [0, 0.4]], [1, NO_MATCH]),  # nor one whose only anchor is taken
        ([[0.3], [0.4], [0.2]], [NO_MATCH, 0, NO_MATCH]),  # more objects than anchors
        ([[0, 0]], [NO_MATCH]),
        ([[3, 7], [5, 6]], [1, 0]),  # integers
    ],
)
def test_bipartite_matches_by_hand(weights, matches):
    np.testing.assert_array_equal(match_bipartite_greedy(np.array(weights)), matches)


@pytest.mark.parametrize(
    ("bound", "matches"), [(0.0, [0, 1]), (0.1, [NO_MATCH, 1]), (0.5, [NO_MATCH, NO_MATCH])]
)
def test_weights_up_to_the_bound_make_no_match(bound, matches):
    weights = np.array([[0.1, 0.1], [0.05, 0.5]])
    np.testing.assert_array_equal(match_bipartite_greedy(weights, bound), matches)


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_to_match(rows, columns):
    np.testing.assert_array_equal(match_bipartite_greedy(np.zeros((rows, columns))), [-1] * rows)
    objects, anchors = match_multi(np.zeros((rows, columns)), 0.5)
    assert len(objects) == len(anchors) == 0
    assert objects.dtype == anchors.dtype == np.int64


@given(weights=weight_matrices, min_weight=st.sampled_from([0.0, 0.25, 0.6]))
def test_bipartite_matching_is_that_of_the_slow_reference(weights, min_weight):
    before = weights.copy()
    matches = match_bipartite_greedy(weights, min_weight)
    np.testing.assert_array_equal(matches, slow_bipartite(weights, min_weight))
    np.testing.assert_array_equal(weights, before)


@given(weights=weight_matrices, threshold=st.floats(0, 1))
def test_multi_matching_is_that_of_the_slow_reference(weights, threshold):
    before = weights.copy()
    objects, anchors = match_multi(weights, threshold)
    pairs = list(zip(objects.tolist(), anchors.tolist(), strict=True))
    assert pairs == slow_multi(weights, np.float32(threshold))
    np.testing.assert_array_equal(weights, before)


def test_recorded_matches(golden):
    recorded = golden("matching_utils")
    without_a_match = []
    for case in recorded.info["cases"]:
        weights = recorded.arrays[case["input"]]
        if case["fn"] == "match_multi":
            expected = [recorded.arrays[name] for name in case["outputs"]]
            made = match_multi(weights, **case["args"])
            np.testing.assert_array_equal(made[0], expected[0])
            np.testing.assert_array_equal(made[1], expected[1])
            continue
        matches, expected = match_bipartite_greedy(weights), recorded.arrays[case["output"]]
        if (matches != NO_MATCH).all():
            np.testing.assert_array_equal(matches, expected, case["kind"])
            continue
        # Recorded from a defect: rows without any weight left took column 0, and then also
        # overwrote the match of the first row. Right: they have none, and all others keep theirs.
        without_a_match.append(case["kind"])
        np.testing.assert_array_equal(matches, slow_bipartite(weights))
        agree = matches == expected
        assert (agree | (expected == 0)).all(), case["kind"]
    assert sorted(without_a_match) == ["all rows want column 2", "all zero", "two all-zero rows"]
    assert len(recorded.info["cases"]) == 65
