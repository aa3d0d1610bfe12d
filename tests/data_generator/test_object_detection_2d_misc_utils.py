from __future__ import annotations

import numpy as np
import pytest

from data_generator.object_detection_2d_geometric_ops import Flip, Resize
from data_generator.object_detection_2d_misc_utils import apply_inverse_transforms
from data_generator.object_detection_2d_patch_sampling_ops import Pad
from data_generator.transformation import TransformationChain


@pytest.fixture
def recorded(golden):
    return golden("data_ops").arrays


@pytest.fixture
def inverters(recorded):
    image = recorded["image"]
    return [op(image, return_inverter=True)[1] for op in (Resize(30, 40), Pad(3, 5, 7, 2))]


def test_recorded_list(recorded, inverters):
    resize, pad = inverters
    pred = recorded["pred"]
    predictions = [pred, np.zeros((0, 6)), pred[:2]]
    restored = apply_inverse_transforms(predictions, [[resize, pad], [resize], [None, pad]])
    assert isinstance(restored, list)
    # The recorded inverter of Resize rounded boxes to whole pixels.
    np.testing.assert_allclose(restored[0][:, :2], recorded["ait_list0"][:, :2])
    np.testing.assert_array_equal(np.rint(restored[0][:, 2:]), recorded["ait_list0"][:, 2:])
    assert restored[1].shape == (0, 6)
    np.testing.assert_allclose(restored[2], recorded["ait_list2"])


def test_recorded_array(recorded, inverters):
    resize, pad = inverters
    pred = recorded["pred"]
    batch = np.stack([pred, pred + 1])
    before = batch.copy()
    restored = apply_inverse_transforms(batch, [[resize], [pad, None]])
    assert isinstance(restored, np.ndarray)
    np.testing.assert_array_equal(np.rint(restored[0, :, 2:]), recorded["ait_array"][0, :, 2:])
    np.testing.assert_allclose(restored[1], recorded["ait_array"][1])
    np.testing.assert_array_equal(batch, before)


def test_inverters_are_applied_in_the_order_given():
    image, box = np.zeros((40, 60, 3), np.uint8), np.array([[1, 6, 8, 30, 20]], np.float64)
    inverters = []
    for op in (Resize(20, 90), Flip(), Pad(1, 2, 3, 4)):
        image, box, inverter = op(image, box, return_inverter=True)
        inverters.insert(0, inverter)
    predictions = np.insert(box, 1, 0.9, axis=1)
    (restored,) = apply_inverse_transforms([predictions], [inverters])
    np.testing.assert_allclose(restored, [[1, 0.9, 6, 8, 30, 20]])


def test_chains_of_inverters_count_as_one():
    chain = TransformationChain([Resize(20, 90), Flip()])
    image, box = np.zeros((40, 60, 3), np.uint8), np.array([[1, 6, 8, 30, 20]], np.float64)
    _, moved, inverter = chain(image, box, return_inverter=True)
    predictions = [np.insert(moved, 1, 0.9, axis=1)]
    for nested in ([[inverter]], [inverter]):  # in a list of inverters, or as that list
        (restored,) = apply_inverse_transforms(predictions, nested)
        np.testing.assert_allclose(restored, [[1, 0.9, 6, 8, 30, 20]])


def test_empty_inputs():
    assert apply_inverse_transforms([], []) == []
    assert apply_inverse_transforms(np.zeros((0, 4, 6)), []).shape == (0, 4, 6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="got tuple"):
        apply_inverse_transforms((np.zeros((1, 6)),), [[]])
    with pytest.raises(ValueError, match="for 2 images and 1 lists"):
        apply_inverse_transforms([np.zeros((1, 6))] * 2, [[]])
