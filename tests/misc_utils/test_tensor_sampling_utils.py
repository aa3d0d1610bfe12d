"""Sampling of tensors: recorded index picks, random picks, fillers, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from misc_utils.tensor_sampling_utils import sample_tensors

KERNEL = np.arange(3 * 3 * 6 * 10, dtype=np.float32).reshape(3, 3, 6, 10) + 1
BIAS = np.arange(10, dtype=np.float32) + 1


def test_recorded_picks(golden):
    recorded = golden("sample_tensors")
    cases = [case for case in recorded.info["cases"] if "outputs" in case]
    assert len(cases) == 9
    for case in cases:
        sampled = sample_tensors(
            [recorded.arrays[name] for name in case["weights"]],
            case["sampling_instructions"],
            axes=case["axes"],
        )
        for values, name in zip(sampled, case["outputs"], strict=True):
            np.testing.assert_array_equal(values, recorded.arrays[name], err_msg=case["case"])
            assert values.dtype == recorded.arrays[name].dtype, case["case"]


def test_recorded_shapes_of_random_samples(golden):
    recorded = golden("sample_tensors")
    cases = [case for case in recorded.info["cases"] if "outputs" not in case]
    assert len(cases) == 5
    for case in cases:
        sampled = sample_tensors(
            [recorded.arrays[name] for name in case["weights"]],
            case["sampling_instructions"],
            axes=case["axes"],
            init=case["init"],
            rng=1,
        )
        assert [list(values.shape) for values in sampled] == case["output_shapes"]
        assert [values.dtype.name for values in sampled] == case["output_dtypes"]


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_fewer_entries_are_the_first_and_others_in_order(n, seed):
    kernel, bias = sample_tensors([KERNEL, BIAS], [3, 3, 6, n], axes=[[3]], rng=seed)
    assert kernel.shape == (3, 3, 6, n)
    assert bias[0] == BIAS[0]
    assert (np.diff(bias) > 0).all()
    # Kernel and bias were sampled alike.
    np.testing.assert_array_equal(kernel, KERNEL[..., bias.astype(int) - 1])


@given(st.integers(11, 30), st.integers(6, 9), st.integers(0, 2**32 - 1))
def test_more_entries_keep_the_old_ones_in_order(n_outputs, n_inputs, seed):
    kernel, bias = sample_tensors(
        [KERNEL, BIAS], [3, 3, n_inputs, n_outputs], axes=[[3]], init=["zeros", "zeros"], rng=seed
    )
    assert kernel.shape == (3, 3, n_inputs, n_outputs)
    assert bias[0] == BIAS[0]
    np.testing.assert_array_equal(bias[bias != 0], BIAS)
    np.testing.assert_array_equal(kernel[kernel != 0], KERNEL.ravel())
    assert (kernel[..., bias == 0] == 0).all()
    assert kernel.dtype == bias.dtype == np.float64


def test_growing_and_shrinking_at_once():
    (sampled,) = sample_tensors([KERNEL], [[2], 3, [5, 0], 12], init=["zeros"], rng=0)
    np.testing.assert_array_equal(sampled[sampled != 0], KERNEL[[2]][:, :, [5, 0]].ravel())


def test_gaussian_filler_has_the_given_moments():
    (sampled,) = sample_tensors([np.full(1, 9.0)], [20_001], mean=2.0, stddev=0.5, rng=3)
    assert sampled[0] == 9
    assert abs(sampled[1:].mean() - 2) < 0.02
    assert abs(sampled[1:].std() - 0.5) < 0.02


def test_a_seed_decides_everything_and_the_global_generator_nothing():
    arguments = ([KERNEL, BIAS], [2, 3, 8, 12], [[3]])
    first, again, other = (sample_tensors(*arguments, rng=rng) for rng in (5, 5, 6))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)


def test_inputs_are_not_shared_or_changed():
    before = KERNEL.copy()
    (sampled,) = sample_tensors([KERNEL], [3, 3, 6, 10])
    sampled[:] = 0
    np.testing.assert_array_equal(KERNEL, before)


def test_negative_indices_count_from_the_end():
    (sampled,) = sample_tensors([BIAS], [[-1, 0, -10]])
    np.testing.assert_array_equal(sampled, [10, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "`weights_list` is empty"),
        (([BIAS], 10), "list or tuple with one entry for each of the 1 axes"),
        (([BIAS], [10, 1]), r"shape is \(10,\)"),
        (([BIAS], [[0, 10]]), r"indices \[10\], but axis 0 .* 10 entries"),
        (([BIAS], [[-11]]), r"indices \[-11\]"),
        (([BIAS], [np.int64(3)]), "got .* of type int64"),
        (([BIAS], [np.array([1, 2])]), "of type ndarray"),
        (([BIAS], [3.0]), "of type float"),
        (([BIAS], [0]), "must be a positive int"),
        (([KERNEL, BIAS], [3, 3, 6, 10]), "`axes` must have one list for each of the 1 tensors"),
        (([KERNEL, BIAS], [3, 3, 6, 10], [[2]]), r"tensor 1 of shape \(10,\)"),
        (([KERNEL, BIAS], [3, 3, 6, 10], [[2, 3]]), r"got \[2, 3\]"),
        (([BIAS], [10], None, ["zeros", "zeros"]), "one entry for each of the 1 tensors"),
        (([BIAS], [12], None, ["ones"]), "'gaussian' or 'zeros'; got 'ones'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_tensors(*arguments)
