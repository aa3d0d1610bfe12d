from __future__ import annotations

import numpy as np
import pytest

from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.data_augmentation_chain_original_ssd import (
    SSDDataAugmentation,
    SSDExpand,
    SSDPhotometricDistortions,
    SSDRandomCrop,
)
from data_generator.data_augmentation_chain_satellite import DataAugmentationSatellite
from data_generator.data_augmentation_chain_variable_input_size import (
    DataAugmentationVariableInputSize,
)
from data_generator.object_detection_2d_geometric_ops import (
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
)
from data_generator.object_detection_2d_photometric_ops import (
    RandomBrightness,
    RandomChannelSwap,
    RandomContrast,
)

CLASSES = {
    cls.__name__: cls
    for cls in (
        SSDDataAugmentation,
        SSDRandomCrop,
        SSDExpand,
        SSDPhotometricDistortions,
        DataAugmentationConstantInputSize,
        DataAugmentationVariableInputSize,
        DataAugmentationSatellite,
        RandomFlip,
        RandomTranslate,
        RandomScale,
        RandomRotate,
        RandomChannelSwap,
        RandomBrightness,
        RandomContrast,
    )
}
N_CALLS = 400


def measure(image: np.ndarray, labels: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """Measure one augmented image the way the recorded statistics were."""
    height, width = image.shape[:2]
    boxes = labels[:, 1:] / [width, height, width, height]
    if len(boxes) == 0:
        boxes = np.full((1, 4), np.nan)  # a patch may show parts of boxes, but no centre
    return {
        "n_boxes": len(labels),
        "out_height": height,
        "out_width": width,
        "pixel_mean": image.mean(),
        "pixel_std": image.std(),
        "unchanged": image.shape == before.shape and np.array_equal(image, before),
        "mean_box_rel_width": (boxes[:, 2] - boxes[:, 0]).mean(),
        "mean_box_rel_height": (boxes[:, 3] - boxes[:, 1]).mean(),
        "mean_box_rel_cx": ((boxes[:, 2] + boxes[:, 0]) / 2).mean(),
        "mean_box_rel_cy": ((boxes[:, 3] + boxes[:, 1]) / 2).mean(),
        **{f"class{c}_kept": c in labels[:, 0] for c in (1, 2, 3, 4)},
    }


@pytest.mark.parametrize("class_name", CLASSES)
def test_recorded_statistics(golden, class_name):
    recorded = golden("augmentation_stats")
    (case,) = (case for case in recorded.info["cases"] if case["cls"] == class_name)
    image, labels = recorded.arrays["image"], recorded.arrays["labels"]
    if class_name in ("RandomBrightness", "RandomContrast"):
        image = image.astype(np.float32)
    augment = CLASSES[class_name](**case["kwargs"], rng=11)
    measured = [measure(*augment(image, labels), image) for _ in range(N_CALLS)]
    for name, expected in case["stats"].items():
        if class_name == "RandomRotate" and name.startswith("pixel"):
            continue  # the recorded rotations have a black border, ours keep every pixel
        values = [m[name] for m in measured]
        standard_error = expected["std"] * np.sqrt(1 / N_CALLS + 1 / case["n"])
        assert abs(np.nanmean(values) - expected["mean"]) <= 4 * standard_error + 1e-4, name
        assert abs(np.nanstd(values) - expected["std"]) <= 0.25 * expected["std"] + 1e-4, name


def test_rotations_keep_every_pixel(golden):
    image = golden("augmentation_stats").arrays["image"]
    rotate = RandomRotate(prob=1, rng=0)
    for _ in range(5):
        assert rotate(image).mean() == pytest.approx(image.mean(), abs=1e-9)


@pytest.mark.parametrize("prob", [0, 0.25, 1])
def test_probability_to_act(prob):
    image = np.zeros((4, 6, 3), np.uint8)
    image[0, 0] = 1
    flip = RandomFlip(prob=prob, rng=0)
    share = np.mean([flip(image)[0, 0, 0] == 0 for _ in range(1000)])
    assert share == pytest.approx(prob, abs=0.06 if 0 < prob < 1 else 0)


@pytest.mark.parametrize("prob", [-0.1, 1.1, np.nan])
def test_what_is_no_probability(prob):
    with pytest.raises(ValueError, match="`prob` must be a probability between 0 and 1"):
        RandomFlip(prob=prob)


def test_a_constructor_seed_decides_the_sequence():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    first, second = RandomScale(prob=1, rng=4), RandomScale(prob=1, rng=np.random.default_rng(4))
    other = RandomScale(prob=1, rng=5)
    images = [[op(image) for _ in range(5)] for op in (first, second, other)]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0][0], images[0][1])


def test_the_generator_of_the_call_leaves_the_own_one_alone():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    plain, interrupted = RandomScale(prob=1, rng=4), RandomScale(prob=1, rng=4)
    interrupted(image, rng=99)
    np.testing.assert_array_equal(plain(image), interrupted(image))
