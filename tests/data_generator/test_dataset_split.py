"""Dividing data sets: sizes, seeds, nothing twice, and rare classes in every part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_generator.dataset_split import rarest_classes, split_indices


@given(
    st.integers(10, 200),
    st.lists(st.integers(1, 10), min_size=1, max_size=5),
    st.integers(0, 5),
    st.integers(0, 9),
    st.booleans(),
)
def test_every_image_is_in_one_part_at_most(n_images, weights, rest, seed, with_strata):
    fractions = np.array(weights) / (sum(weights) + rest)
    strata = np.random.default_rng(seed).integers(0, 4, n_images) if with_strata else None
    try:
        parts = split_indices(n_images, fractions, seed, strata)
    except ValueError:
        assert (fractions * n_images).min() < 1
        return
    joined = np.concatenate(parts)
    assert len(set(joined.tolist())) == len(joined)
    if rest == 0:
        assert sorted(joined.tolist()) == list(range(n_images))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * n_images) <= 2
        assert (np.diff(part) > 0).all()
    again = split_indices(n_images, fractions, seed, strata)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_the_seed_counts():
    first, second = (split_indices(100, (0.5, 0.5), seed)[0].tolist() for seed in (0, 1))
    assert first != second
    assert first != list(range(50))


def test_strata_are_divided_alike():
    strata = np.repeat([0, 1, 2, 3], [800, 150, 40, 10])
    np.random.default_rng(3).shuffle(strata)
    for part, fraction in zip(
        split_indices(1000, (0.7, 0.2, 0.1), 0, strata), (0.7, 0.2, 0.1), strict=True
    ):
        counts = np.bincount(strata[part], minlength=4)
        assert np.abs(counts - fraction * np.array([800, 150, 40, 10])).max() <= 2
        assert counts[3] > 0


def test_rarest_classes():
    images = [[1, 1, 2], [1], [3, 1], [], [2.0, 3], [2]]
    assert rarest_classes([np.array(ids) for ids in images]) == [1, 1, 3, -1, 3, 2]
    assert rarest_classes([np.zeros(0)]) == [-1]
    assert rarest_classes([]) == []


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((), "must be a list of positive numbers"),
        (0.5, "must be a list of positive numbers"),
        ((0.5, 0), "must be a list of positive numbers"),
        ((0.5, -0.1), "must be a list of positive numbers"),
        ((0.5, float("nan")), "must be a list of positive numbers"),
        ((0.8, 0.3), "must sum up to 1 at most, got .* with sum 1.1"),
        ((80, 20), "must sum up to 1 at most"),
        ((0.999, 0.001), "of 10 images would leave a part without images"),
    ],
)
def test_wrong_fractions(fractions, message):
    with pytest.raises(ValueError, match=message):
        split_indices(10, fractions)
