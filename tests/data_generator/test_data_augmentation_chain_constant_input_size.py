from __future__ import annotations

import numpy as np
import pytest

from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.object_detection_2d_geometric_ops import Flip

NO_COLOURS = {
    "random_brightness": (-1, 1, 0),
    "random_contrast": (0.5, 1.5, 0),
    "random_saturation": (0.5, 1.5, 0),
    "random_hue": (18, 0),
}
NOTHING = {
    **NO_COLOURS,
    "random_flip": 0,
    "random_translate": ((0.1, 0.2), (0.1, 0.2), 0),
    "random_scale": (0.5, 2.0, 0),
}


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 256, (60, 80, 3), np.uint8)


@pytest.fixture
def labels():
    return np.array([[1, 10, 10, 40, 50], [2, 50, 5, 70, 30]], np.float32)


def test_size_stays(image, labels):
    augment = DataAugmentationConstantInputSize(rng=0)
    for _ in range(50):
        augmented, boxes = augment(image, labels)
        assert augmented.shape == image.shape
        assert augmented.dtype == np.uint8
        assert (boxes[:, 1:] >= 0).all()
        assert (boxes[:, [1, 3]] <= 80).all()
        assert (boxes[:, [2, 4]] <= 60).all()
        assert ((boxes[:, 3:] - boxes[:, 1:3]) > 0).all()
    assert augment(image).shape == image.shape  # works without labels as well


def test_everything_can_be_switched_off(image, labels):
    same, same_labels = DataAugmentationConstantInputSize(**NOTHING)(image, labels, rng=0)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(same_labels, labels)


@pytest.mark.parametrize(
    ("argument", "dim"), [("random_flip", "horizontal"), ("random_flip_vertical", "vertical")]
)
def test_flips(image, labels, argument, dim):
    flip = DataAugmentationConstantInputSize(**{**NOTHING, argument: 1.0})
    flipped, moved = flip(image, labels, rng=0)
    expected_image, expected_labels = Flip(dim)(image, labels)
    np.testing.assert_array_equal(flipped, expected_image)
    np.testing.assert_array_equal(moved, expected_labels)


def test_both_sequences_are_used(image):
    """One zooms in only, the other one out only."""
    augment = DataAugmentationConstantInputSize(**{**NOTHING, "random_scale": (0.5, 2.0, 1.0)})
    corners = [augment(image, rng=seed)[0, 0].any() for seed in range(60)]
    zoomed_in = np.mean(corners)
    assert 0.25 < zoomed_in < 0.75


def test_background_reaches_shift_and_zoom(image):
    colour = (5, 6, 7)
    for overrides in (
        {"random_translate": ((0.2, 0.3), (0.2, 0.3), 1.0)},
        {"random_scale": (0.3, 1.0001, 1.0)},
    ):
        augment = DataAugmentationConstantInputSize(**{**NOTHING, **overrides}, background=colour)
        seen = [augment(image, rng=seed)[[0, 0, -1, -1], [0, -1, 0, -1]] for seed in range(10)]
        assert (np.array(seen) == colour).all(axis=-1).any()
        assert not (np.array(seen) == 0).all(axis=-1).any()


def test_inverter_leads_back(image, labels):
    augment = DataAugmentationConstantInputSize(
        clip_boxes=False, bounds_box_filter=(0.0, 1.0), bounds_validator=(0.0, 1.0)
    )
    labels = np.column_stack([labels, [0, 1]]).astype(np.float64)
    for seed in range(30):
        _, moved, inverter = augment(image, labels, return_inverter=True, rng=seed)
        restored = inverter(np.insert(moved[:, :5], 1, 0.5, axis=1))
        kept = moved[:, 5].astype(int)
        np.testing.assert_allclose(restored[:, 2:], labels[kept, 1:5], atol=1e-9)


@pytest.mark.parametrize(
    ("keep_channels", "channels", "expected"),
    [(False, 1, 3), (False, 4, 3), (True, 1, 1), (True, 4, 4), (False, 6, 6)],
)
def test_channels(labels, keep_channels, channels, expected):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, channels), np.uint8)
    augment = DataAugmentationConstantInputSize(keep_channels=keep_channels)
    for seed in range(5):
        assert augment(image, labels, rng=seed)[0].shape == (60, 80, expected)


def test_column_order_can_be_given_at_construction(image, labels):
    order = {"class_id": 4, "xmin": 0, "ymin": 1, "xmax": 2, "ymax": 3}
    usual = DataAugmentationConstantInputSize()
    other = DataAugmentationConstantInputSize(labels_format=order)
    for seed in range(20):
        _, expected = usual(image, labels, rng=seed)
        _, moved = other(image, labels[:, [1, 2, 3, 4, 0]], rng=seed)
        np.testing.assert_array_equal(moved[:, [4, 0, 1, 2, 3]], expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"random_scale": (1.0, 2.0, 0.5)}, "`random_scale` must begin with a factor below 1"),
        ({"random_scale": (0.5, 1.0, 0.5)}, "`random_scale`"),
        ({"overlap_criterion": "x"}, "`overlap_criterion`"),
        ({"n_boxes_min": 0}, "`n_boxes_min`"),
        ({"random_flip": 2}, "`prob`"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DataAugmentationConstantInputSize(**kwargs)
