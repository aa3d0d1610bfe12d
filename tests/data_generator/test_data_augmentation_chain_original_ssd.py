from __future__ import annotations

import time

import numpy as np
import pytest

from data_generator.data_augmentation_chain_original_ssd import (
    SSDDataAugmentation,
    SSDExpand,
    SSDPhotometricDistortions,
    SSDRandomCrop,
)
from data_generator.object_detection_2d_misc_utils import apply_inverse_transforms

HEIGHT, WIDTH = 240, 320
VARIANTS = ("port", "caffe")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def labels():
    return np.array(
        [[1, 20, 30, 150, 200], [2, 160, 20, 220, 90], [3, 100, 120, 310, 230]], np.float64
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_gives_what_a_model_expects(image, labels, variant):
    augment = SSDDataAugmentation(90, 110, variant=variant, rng=0)
    for _ in range(60):
        augmented, boxes = augment(image, labels)
        assert augmented.shape == (90, 110, 3)
        assert augmented.dtype == np.uint8
        assert (boxes[:, 1:] >= -1e-9).all()
        assert (boxes[:, [1, 3]] <= 110 + 1e-9).all()
        assert (boxes[:, [2, 4]] <= 90 + 1e-9).all()
        assert (boxes[:, 3:] > boxes[:, 1:3]).all()
    assert augment(image).shape == (90, 110, 3)


def test_defaults():
    augment = SSDDataAugmentation()
    assert (augment.resize.height, augment.resize.width) == (300, 300)
    assert augment.expand.background == (123, 117, 104)
    assert augment.variant == "port"


@pytest.mark.parametrize("variant", VARIANTS)
def test_boxes_follow_the_pixels(variant):
    """Paint a box white, and find it again where its label went, in spite of all distortions."""
    box = np.array([[1, 110, 90, 210, 150]], np.float64)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[90:150, 110:210] = 255
    augment = SSDDataAugmentation(48, 64, background=0, variant=variant)
    n_found = 0
    for seed in range(60):
        painted, moved = augment(image, box, rng=seed)
        if len(moved) == 0:
            continue
        painted = painted.mean(axis=2)
        threshold = {"port": 127, "caffe": 80}[variant]  # black gets up to 80, white down to 111
        rows, columns = np.nonzero(painted > threshold)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found, moved[0, 1:], atol=2)
        n_found += 1
    assert n_found > 40


@pytest.mark.parametrize("variant", VARIANTS)
def test_inverters_bring_boxes_back(image, labels, variant):
    """As recorded, the flip had no inverter, and the list of them was nested once too often."""
    augment = SSDDataAugmentation(90, 110, variant=variant)
    for seed in range(30):
        _, moved, inverter = augment(image, labels, return_inverter=True, rng=seed)
        predictions = [np.insert(moved, 1, 0.9, axis=1)]
        (restored,) = apply_inverse_transforms(predictions, [inverter])
        for row in restored:
            original = labels[int(row[0]) - 1, 1:]
            # What was clipped stays clipped, by up to a pixel of the crop (see `clip_boxes`).
            assert (row[2:4] >= original[:2] - 1e-6).all()
            assert (row[4:6] <= original[2:] + 1e-6).all()
            center = (original[:2] + original[2:]) / 2
            assert (row[2:4] <= center + 1).all()
            assert (row[4:6] >= center - 1).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_without_objects_end_quickly(image, variant):
    augment = SSDDataAugmentation(variant=variant, rng=0)
    start = time.perf_counter()
    for _ in range(20):
        augmented, boxes = augment(image[:24, :32], np.zeros((0, 5), np.float32))
        assert augmented.shape == (300, 300, 3)
        assert boxes.shape == (0, 5)
    assert time.perf_counter() - start < 5  # far more than it takes, far less than endless trials
    assert SSDRandomCrop()(image, np.zeros((0, 5)), rng=1)[0] is image


def test_integer_boxes_are_rounded_by_the_port_only(image, labels):
    labels = labels.astype(np.int64)
    for seed in range(10):
        assert SSDDataAugmentation()(image, labels, rng=seed)[1].dtype == np.int64
    augment = SSDDataAugmentation(variant="caffe")
    boxes = np.concatenate([augment(image, labels, rng=seed)[1][:, 1:] for seed in range(10)])
    assert boxes.dtype == np.float32
    assert (boxes % 1 != 0).any()


def test_mirroring_comes_after_resizing_in_caffe():
    names = {
        variant: [type(t).__name__ for t in SSDDataAugmentation(variant=variant).transformations]
        for variant in VARIANTS
    }
    assert names["port"][2:] == ["SSDRandomCrop", "RandomFlip", "ResizeRandomInterp"]
    assert names["caffe"][2:] == ["CaffeRandomCrop", "ResizeRandomInterp", "RandomFlip"]


class TestExpand:
    def test_canvas(self, image, labels):
        expand = SSDExpand(background=(1, 2, 3), rng=0)
        ratios = []
        for _ in range(200):
            canvas, moved, inverter = expand(image[:12, :16], labels, return_inverter=True)
            height, width = canvas.shape[:2]
            xmin, ymin = -inverter(np.zeros((1, 6)))[0, 2:4].astype(int)
            np.testing.assert_array_equal(
                canvas[ymin : ymin + 12, xmin : xmin + 16], image[:12, :16]
            )
            np.testing.assert_array_equal(moved[:, 1:3], labels[:, 1:3] + [xmin, ymin])
            assert (canvas[:ymin] == (1, 2, 3)).all()
            ratios.append(width / 16)
            assert abs(height / 12 - width / 16) < 1 / 12
        unchanged = np.mean(np.array(ratios) == 1)
        assert 0.38 < unchanged < 0.62
        assert max(ratios) > 3.5
        assert max(ratios) <= 4


class TestPhotometricDistortions:
    def test_caffe_changes_contrast_about_zero(self):
        """Black stays black, and gray gets darker or brighter; the port keeps the middle."""
        black = np.zeros((2, 2, 3), np.uint8)
        gray = np.full((2, 2, 3), 127, np.uint8)
        for variant, dark_changes in (("caffe", False), ("port", True)):
            distort = SSDPhotometricDistortions(variant)
            for chain in distort.alternatives:
                chain.brightness.prob, chain.contrast.prob = 0, 1
            changed = [distort(black, rng=seed).any() for seed in range(40)]
            assert any(changed) == dark_changes
            grays = [distort(gray, rng=seed).mean() for seed in range(40)]
            assert (max(grays) - min(grays) > 60) == (variant == "caffe")

    def test_caffe_leaves_images_alone_for_which_nothing_was_drawn(self, image):
        same = {
            variant: sum(
                np.array_equal(
                    SSDPhotometricDistortions(variant)(image[:9, :9], rng=seed), image[:9, :9]
                )
                for seed in range(200)
            )
            for variant in VARIANTS
        }
        assert same["port"] == 0  # the detour by 8-bit HSV
        assert 4 <= same["caffe"] <= 25  # 1 in 16

    def test_labels_are_optional(self, image, labels):
        assert SSDPhotometricDistortions()(image).shape == image.shape
        np.testing.assert_array_equal(SSDPhotometricDistortions()(image, labels)[1], labels)


@pytest.mark.parametrize("make", [SSDDataAugmentation, SSDPhotometricDistortions])
def test_unknown_variant(make):
    with pytest.raises(ValueError, match="`variant` must be one of port, caffe; got 'paper'"):
        make(variant="paper")
