from __future__ import annotations

import random

import numpy as np
import pytest

from data_generator.caffe_random_crop import CaffeCrop, CaffeRandomCrop
from tests.data_generator import slow_caffe_crop

HEIGHT, WIDTH = 240, 400
IMAGE = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
LABELS = np.array(
    [[1, 40, 30, 200, 190], [2, 220, 20, 280, 60], [3, 60, 150, 390, 235]], np.float64
)
FRACTIONS = [tuple(box) for box in LABELS[:, 1:] / [WIDTH, HEIGHT, WIDTH, HEIGHT]]


def described(crop: tuple[float, ...], kept: dict[int, tuple[float, ...]]) -> list[float]:
    """Put a crop and the boxes that are left, all in fractions of the image, into numbers."""
    xmin, ymin, xmax, ymax = crop
    boxes = np.array(list(kept.values()) or [[np.nan] * 4])
    return [
        crop == (0, 0, 1, 1),
        xmin,
        ymin,
        xmax - xmin,
        ymax - ymin,
        (xmax - xmin) * (ymax - ymin),
        *(number in kept for number in range(3)),
        np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).mean(),
    ]


def test_distribution_is_that_of_trial_by_trial():
    n, rng = 1500, random.Random(1)
    expected = []
    for _ in range(n):
        crop = slow_caffe_crop.draw_crop(FRACTIONS, rng)
        expected.append(described(crop, dict(slow_caffe_crop.emitted(FRACTIONS, crop))))

    measured, sides = [], [WIDTH, HEIGHT, WIDTH, HEIGHT]
    cropper = CaffeRandomCrop(rng=2)
    for _ in range(n):
        image, labels, inverter = cropper(IMAGE, LABELS, return_inverter=True)
        height, width = image.shape[:2]
        crop = inverter(np.array([[0, 0, 0, 0, width, height]]))[0, 2:] / sides
        boxes = inverter(np.insert(labels, 1, 0.5, axis=1))[:, 2:] / sides
        kept = {int(c) - 1: tuple(box) for c, box in zip(labels[:, 0], boxes, strict=True)}
        measured.append(described(tuple(crop), kept))

    means, other_means = np.nanmean(measured, axis=0), np.nanmean(expected, axis=0)
    stds = np.nanstd(expected, axis=0)
    # Whole pixels: a crop begins and ends up to a pixel earlier than its fractions.
    assert (np.abs(means - other_means) <= 4 * stds * np.sqrt(2 / n) + 1 / HEIGHT).all()
    np.testing.assert_allclose(np.nanstd(measured, axis=0), stds, rtol=0.15)
    assert 0.12 < means[0] < 0.3  # the whole image is drawn at least once in seven times


def test_every_patch_fits_into_the_image_and_keeps_its_limits():
    patches = CaffeRandomCrop().draw_patches(HEIGHT, WIDTH, np.random.default_rng(0))
    assert patches.shape == (6, 50, 4)
    fractions = patches.reshape(-1, 4) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    assert (fractions >= 0).all()
    assert (fractions <= 1 + 1e-12).all()
    width, height = (fractions[:, 2:] - fractions[:, :2]).T
    scale, ratio = np.sqrt(width * height), width / height
    assert (scale >= 0.3 - 1e-9).all()
    assert (ratio >= np.maximum(0.5, scale**2) - 1e-9).all()
    assert (ratio <= np.minimum(2, 1 / scale**2) + 1e-9).all()


def test_each_way_is_equally_likely_among_the_possible_ones():
    """One huge box: every demand can be met, so the whole image has a share of one in three."""
    whole = np.array([[1, 0, 0, WIDTH, HEIGHT]], np.float64)
    cropper = CaffeRandomCrop(min_overlaps=(0.1, None), rng=0)
    share = np.mean([cropper(IMAGE, whole)[0].shape == IMAGE.shape for _ in range(900)])
    assert share == pytest.approx(1 / 3, abs=0.06)
    # A tiny one overlaps no patch by 90 %, so that only the whole image is left.
    tiny = np.array([[1, 10, 10, 12, 12]], np.float64)
    cropper = CaffeRandomCrop(min_overlaps=(0.9,), rng=0)
    assert all(cropper(IMAGE, tiny)[0] is IMAGE for _ in range(30))


def test_images_without_objects_stay_whole_and_images_without_labels_do_not():
    assert CaffeRandomCrop(rng=0)(IMAGE, np.zeros((0, 5)))[0] is IMAGE
    cropper = CaffeRandomCrop(rng=0)
    share = np.mean([cropper(IMAGE) is IMAGE for _ in range(500)])
    assert share == pytest.approx(1 / 7, abs=0.05)


def test_boxes_are_clipped_from_edge_to_edge():
    crop = CaffeCrop(10, 20, 100, 200)
    labels = np.array(
        [
            [1, 0, 0, 400, 200],  # larger than the crop
            [2, 0, 0, 40, 20],  # centre in the corner: inside
            [3, 0, 0, 39.9, 20],  # just outside
            [4, 50, 60, 70, 80],
        ]
    )
    expected = [[1, 0, 0, 200, 100], [2, 0, 0, 20, 10], [4, 30, 50, 50, 70]]
    assert crop(IMAGE, labels)[1].tolist() == expected


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_scale": 1.5}, "The scales must satisfy 0 < min_scale <= max_scale <= 1; got 0.3"),
        ({"min_scale": 0}, "The scales must satisfy"),
        ({"min_aspect_ratio": 1.1}, "so that every scale has one; got 1.1 and 2.0"),
        ({"max_aspect_ratio": 0.9}, "The aspect ratios must satisfy"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CaffeRandomCrop(**kwargs)
