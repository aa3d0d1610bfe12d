"""Building transformations from the recorded cases of the golden topic `data_ops`."""

from __future__ import annotations

import numpy as np

from data_generator import (
    object_detection_2d_geometric_ops,
    object_detection_2d_image_boxes_validation_utils,
    object_detection_2d_patch_sampling_ops,
    object_detection_2d_photometric_ops,
)

_MODULES = (
    object_detection_2d_geometric_ops,
    object_detection_2d_image_boxes_validation_utils,
    object_detection_2d_patch_sampling_ops,
    object_detection_2d_photometric_ops,
)


def build(case: dict):
    """Construct what {"cls": name, "kwargs": {...}} describes, nested objects included."""
    kwargs = {
        name: build(value) if isinstance(value, dict) and "cls" in value else value
        for name, value in case["kwargs"].items()
    }
    (constructor,) = {
        getattr(module, case["cls"]) for module in _MODULES if hasattr(module, case["cls"])
    }
    return constructor(**kwargs)


def cases_of(recorded, class_name: str) -> list[dict]:
    """Return the recorded cases of one class, of which there must be some."""
    cases = [case for case in recorded.info["cases"] if case["cls"] == class_name]
    assert cases, f"no recorded case of {class_name}"
    return cases


def grey_levels_apart(image: np.ndarray, recorded, case: dict) -> np.ndarray:
    """Compare an image with the recorded one: how many grey levels each value differs by."""
    name = case["image"] if case["image_out"] == "(identical to input)" else case["image_out"]
    expected = recorded.arrays[name]
    assert image.shape == expected.shape, case
    assert image.dtype == expected.dtype, case
    return np.abs(image.astype(np.float64) - expected)
