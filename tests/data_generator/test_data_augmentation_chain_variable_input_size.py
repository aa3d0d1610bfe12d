from __future__ import annotations

import numpy as np
import pytest

from data_generator.data_augmentation_chain_satellite import DataAugmentationSatellite
from data_generator.data_augmentation_chain_variable_input_size import (
    DataAugmentationVariableInputSize,
)
from data_generator.object_detection_2d_geometric_ops import Resize

NOTHING = {
    "random_brightness": (-1, 1, 0.0),
    "random_contrast": (0.5, 1.5, 0.0),
    "random_saturation": (0.5, 1.5, 0.0),
    "random_hue": (1, 0.0),
    "random_flip": 0.0,
}
BOTH = [DataAugmentationVariableInputSize, DataAugmentationSatellite]
both = pytest.mark.parametrize("cls", BOTH, ids=lambda cls: cls.__name__)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 256, (60, 80, 3), np.uint8)


@pytest.fixture
def labels():
    return np.array([[1, 10, 10, 40, 50], [2, 50, 5, 70, 30]], np.float64)


@both
@pytest.mark.parametrize("size", [(60, 80), (33, 90), (200, 20)])
def test_size_is_fixed(cls, size, labels):
    image = np.zeros((*size, 3), np.uint8)
    labels[:, 1:] *= np.tile([size[1] / 80, size[0] / 60], 2)  # in the image
    augment = cls(48, 64, rng=0)
    for _ in range(30):
        augmented, boxes = augment(image, labels)
        assert augmented.shape == (48, 64, 3)
        assert (boxes[:, 1:] >= 0).all()
        assert (boxes[:, [1, 3]] <= 64).all()
        assert (boxes[:, [2, 4]] <= 48).all()
    assert augment(image).shape == (48, 64, 3)  # an AttributeError in the original


@both
def test_background_is_that_of_the_caller(cls, image, labels):
    """The original stored it and stayed black."""
    augment = cls(48, 64, **NOTHING, min_scale=1.9, background=(5, 6, 7), rng=0)
    seen = np.array([augment(image)[[0, 0, -1, -1], [0, -1, 0, -1]] for _ in range(20)])
    assert (seen == (5, 6, 7)).all(axis=-1).any()
    assert not (seen == 0).all(axis=-1).any()


@both
def test_a_patch_shows_enough_of_the_objects(cls, image, labels):
    augment = cls(48, 64, n_trials_max=50, n_boxes_min="all", bounds_validator=(0.99, 1.0))
    for seed in range(30):
        assert len(augment(image, labels, rng=seed)[1]) == 2


@both
def test_boxes_that_get_too_small_are_dropped(cls, image):
    speck = np.array([[1, 10, 10, 20, 20]], np.float64)
    assert len(cls(48, 64, max_scale=1.0, n_boxes_min="all")(image, speck, rng=0)[1]) == 1
    assert len(cls(6, 8, max_scale=1.0, n_boxes_min="all")(image, speck, rng=0)[1]) == 0


def test_without_a_patch_the_image_is_only_resized(image, labels):
    impossible = {"min_scale": 0.01, "max_scale": 0.02, "bounds_validator": (0.99, 1.0)}
    augment = DataAugmentationVariableInputSize(48, 64, **NOTHING, **impossible)
    augmented, moved, inverter = augment(image, labels, return_inverter=True, rng=0)
    expected_image, expected_labels = Resize(48, 64)(image, labels)
    np.testing.assert_array_equal(augmented, expected_image)
    np.testing.assert_array_equal(moved, expected_labels)
    assert len(inverter) == 1


@both
def test_inverter_leads_back(cls, image, labels):
    augment = cls(
        48, 64, clip_boxes=False, bounds_box_filter=(0.0, 1.0), bounds_validator=(0.0, 1.0)
    )
    for seed in range(30):
        _, moved, inverter = augment(image, labels, return_inverter=True, rng=seed)
        restored = inverter(np.insert(moved, 1, 0.5, axis=1))
        for row in restored:
            np.testing.assert_allclose(row[2:], labels[int(row[0]) - 1, 1:], atol=1e-9)


@both
@pytest.mark.parametrize(
    ("keep_channels", "channels", "expected"), [(False, 1, 3), (True, 1, 1), (True, 4, 4)]
)
def test_channels(cls, keep_channels, channels, expected):
    image = np.zeros((60, 80, channels), np.uint8)
    assert cls(48, 64, keep_channels=keep_channels)(image, rng=0).shape == (48, 64, expected)


@both
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"overlap_criterion": "x"}, "`overlap_criterion`"),
        ({"n_boxes_min": 0}, "`n_boxes_min`"),
        ({"random_flip": 2}, "`prob`"),
        ({"min_scale": 2.0}, "`min_scale` must be below"),
        ({"resize_height": 0}, "`height` and `width` must be positive"),
    ],
)
def test_bad_arguments(cls, kwargs, message):
    with pytest.raises(ValueError, match=message):
        cls(**{"resize_height": 48, "resize_width": 64, **kwargs})
