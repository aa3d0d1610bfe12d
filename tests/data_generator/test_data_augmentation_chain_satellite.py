"""What sets images from above apart; what both chains share is tested with the other one."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from data_generator.data_augmentation_chain_satellite import DataAugmentationSatellite
from data_generator.data_augmentation_chain_variable_input_size import (
    DataAugmentationVariableInputSize,
)

UPRIGHT = {
    "random_brightness": (-1, 1, 0.0),
    "random_contrast": (0.5, 1.5, 0.0),
    "random_saturation": (0.5, 1.5, 0.0),
    "random_hue": (1, 0.0),
    "min_scale": 0.999,
    "max_scale": 1.0,
    "min_aspect_ratio": 0.99,
    "max_aspect_ratio": 1.01,
}


def test_all_eight_positions_are_equally_likely_to_be_reached():
    """Two flips and four turns show one corner of a square in eight ways."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, 8:24] = 255  # half of the upper edge, and not symmetric about the diagonal
    augment = DataAugmentationSatellite(8, 8, **UPRIGHT, rng=0)
    positions = [tuple(augment(image)[:, :, 0].ravel() > 127) for _ in range(300)]
    assert len(set(positions)) >= 8


@pytest.mark.parametrize("random_rotate", [((180,), 1.0), ((90, 270), 1.0), ((90,), 0.0)])
def test_only_the_angles_asked_for(random_rotate):
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 1:] = 255  # wide: a quarter turn makes it high
    augment = DataAugmentationSatellite(
        20, 20, **UPRIGHT, random_flip=0.0, random_rotate=random_rotate
    )
    for seed in range(10):
        *_, inverter = augment(image, return_inverter=True, rng=seed)
        x0, y0, x1, y1 = inverter(np.array([[0, 0, 0, 0, 20, 0]]))[0, 2:]
        goes_along_x = abs(x1 - x0) > abs(y1 - y0)
        assert goes_along_x == (random_rotate[0] == (180,) or random_rotate[1] == 0)


def test_arguments_are_those_of_the_other_chain_plus_the_rotation():
    def arguments(cls):
        return list(inspect.signature(cls).parameters)

    without = [name for name in arguments(DataAugmentationSatellite) if name != "random_rotate"]
    assert without == arguments(DataAugmentationVariableInputSize)
    defaults = inspect.signature(DataAugmentationSatellite).parameters
    assert defaults["random_rotate"].default == ((90, 180, 270), 0.5)
    assert defaults["min_aspect_ratio"].default == 0.8
    assert defaults["max_aspect_ratio"].default == 1.25


def test_bad_angle():
    with pytest.raises(ValueError, match="`angle` must be 90, 180 or 270; got 45"):
        DataAugmentationSatellite(20, 20, random_rotate=((45,), 0.5))
