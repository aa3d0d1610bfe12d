from __future__ import annotations

import numpy as np
import pytest

from data_generator import object_detection_2d_patch_sampling_ops as ops
from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoundGenerator,
    BoxFilter,
    ImageValidator,
)
from tests.data_generator.recorded_ops import build, cases_of, grey_levels_apart

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
LABELS = np.array([[1, 10, 10, 40, 50], [2, 50, 5, 70, 30]], np.float32)
NEVER = ImageValidator("iou", (0.999, 1.0))


@pytest.mark.parametrize("class_name", ["CropPad", "Crop", "Pad"])
def test_recorded_cases(golden, class_name):
    recorded = golden("data_ops")
    for case in cases_of(recorded, class_name):
        labels = recorded.arrays[case["labels"]]
        image, moved, inverter = build(case)(recorded.arrays[case["image"]], labels, True)
        assert grey_levels_apart(image, recorded, case).max() == 0, case
        np.testing.assert_array_equal(moved, recorded.arrays[case["labels_out"]], str(case))
        if case.get("inverter"):
            restored = inverter(recorded.arrays[case["inverter"]["input"]])
            expected = recorded.arrays[case["inverter"]["output"]]
            np.testing.assert_allclose(restored, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("window", "where"),
    [
        ((61, 0, 5, 5), "below"),
        ((0, 81, 5, 5), "right"),
        ((-6, 0, 5, 5), "above"),
        ((0, -6, 5, 5), "left"),
    ],
)
def test_patches_away_from_the_image_are_rejected(window, where):
    with pytest.raises(ValueError, match="outside the image, which is 60 pixels high and 80 wide"):
        ops.CropPad(*window)(IMAGE)


def test_a_patch_may_touch_the_image_from_outside():
    assert (ops.CropPad(60, 0, 5, 5, background=(7, 7, 7))(IMAGE) == 7).all()
    assert (ops.CropPad(-5, 0, 5, 5, background=(7, 7, 7))(IMAGE) == 7).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ops.CropPad(0, 0, 0, 5), "at least one pixel; got 0 and 5"),
        (lambda: ops.Crop(-1, 0, 0, 0), "`crop_top` must not be negative; got -1"),
        (lambda: ops.Pad(0, 0, -2, 0), "`pad_left`"),
        (lambda: ops.Crop(30, 30, 0, 0)(IMAGE), r"30 \+ 30 rows .* leaves nothing"),
        (lambda: ops.RandomPatch(None), "PatchCoordinateGenerator; got NoneType"),
        (
            lambda: ops.RandomPatch(ops.PatchCoordinateGenerator(), image_validator=BoxFilter()),
            "`image_validator`",
        ),
        (lambda: ops.RandomPatch(ops.PatchCoordinateGenerator(), box_filter=NEVER), "`box_filter`"),
        (lambda: ops.RandomPatchInf("x"), "`patch_coord_generator`"),
        (
            lambda: ops.RandomPatchInf(ops.PatchCoordinateGenerator(), bound_generator=(0, 1)),
            "BoundGenerator; got tuple",
        ),
        (lambda: ops.RandomMaxCropFixedAR(0), "`patch_aspect_ratio` must be greater than 0"),
        (lambda: ops.RandomPadFixedAR(-1), "`patch_aspect_ratio`"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class TestRandomPatch:
    coordinates = ops.PatchCoordinateGenerator(max_scale=0.5)

    def test_failing_drops_the_image_if_it_may(self):
        patch = ops.RandomPatch(self.coordinates, image_validator=NEVER, can_fail=True)
        assert patch(IMAGE, LABELS, True, rng=0) == (None, None, None)
        assert patch(IMAGE, LABELS, rng=0) == (None, None)
        # Nothing can fail without labels.
        assert patch(IMAGE, rng=0).shape[0] <= 30

    def test_failing_leaves_the_image_alone_otherwise(self):
        patch = ops.RandomPatch(self.coordinates, image_validator=NEVER)
        image, labels, inverter = patch(IMAGE, LABELS, True, rng=0)
        assert image is IMAGE
        assert labels is LABELS
        assert inverter is None

    def test_not_acting_is_no_failure(self):
        patch = ops.RandomPatch(self.coordinates, image_validator=NEVER, prob=0, can_fail=True)
        image, labels, inverter = patch(IMAGE, LABELS, True, rng=0)
        assert image is IMAGE
        np.testing.assert_array_equal(inverter(labels), LABELS)

    def test_validator_sees_boxes_before_they_are_clipped(self):
        """Clipping would move the centres of all boxes into the patch."""
        coordinates = ops.PatchCoordinateGenerator(min_scale=0.6, max_scale=0.9)
        patch = ops.RandomPatch(coordinates, None, ImageValidator(n_boxes_min="all"), 200)
        for seed in range(20):
            image, labels, inverter = patch(IMAGE, LABELS, True, rng=seed)
            assert image is not IMAGE
            centres = (LABELS[:, 1:3] + LABELS[:, 3:5]) / 2
            corner = inverter(np.zeros((1, 6)))[0, 2:4]
            inside = centres - corner
            assert (inside >= 0).all()
            assert (inside <= np.array(image.shape[1::-1]) - 1).all()


class TestRandomPatchInf:
    def test_ends_where_no_patch_is_good(self):
        patch = ops.RandomPatchInf(
            ops.PatchCoordinateGenerator(max_scale=0.4), None, NEVER, n_trials_max=1, prob=1.0
        )
        image, labels, inverter = patch(IMAGE, LABELS, True, rng=0)
        assert image is IMAGE
        np.testing.assert_array_equal(inverter(labels), LABELS)

    def test_starts_over_until_a_patch_is_good(self):
        """One trial a round seldom suffices; with prob=1 only a good patch ends the rounds."""
        patch = ops.RandomPatchInf(
            ops.PatchCoordinateGenerator(max_scale=0.5),
            None,
            ImageValidator("area", (0.6, 1.0)),
            n_trials_max=1,
            prob=1.0,
        )
        for seed in range(20):
            assert patch(IMAGE, LABELS, rng=seed)[0] is not IMAGE

    def test_stays_within_the_aspect_ratio_limits(self):
        patch = ops.RandomPatchInf(ops.PatchCoordinateGenerator(min_scale=0.1), prob=1.0)
        for seed in range(50):
            height, width = patch(IMAGE, rng=seed).shape[:2]
            assert 0.5 <= width / height <= 2

    def test_meets_the_bounds_that_were_drawn(self):
        """With a minimal IoU of 0.7 of box and patch, the patch nearly is the box."""
        patch = ops.RandomPatchInf(
            ops.PatchCoordinateGenerator(),
            None,
            ImageValidator("iou", (0, 1)),
            BoundGenerator([(0.7, None)]),
            prob=1.0,
        )
        big = np.array([[1, 10, 10, 60, 50]], np.float64)
        for seed in range(5):
            image, _, inverter = patch(IMAGE, big, True, rng=seed)
            assert image is not IMAGE
            height, width = image.shape[:2]
            window = inverter(np.array([[0, 0, 0, 0, width, height]]))[0, 2:]
            low, high = np.maximum(window[:2], big[0, 1:3]), np.minimum(window[2:], big[0, 3:])
            common = np.prod(high - low)
            assert common / (2000 + width * height - common) > 0.7
        assert patch.image_validator.bounds == (0, 1)  # drawing bounds changes no validator


@pytest.mark.parametrize("aspect_ratio", [0.5, 0.8, 1.0, 4 / 3, 1.6, 3.0])
@pytest.mark.parametrize("size", [(60, 80), (80, 60), (50, 50)])
class TestFixedAspectRatio:
    def test_crop_is_the_largest(self, aspect_ratio, size):
        image = np.zeros((*size, 3), np.uint8)
        height, width = ops.RandomMaxCropFixedAR(aspect_ratio)(image, rng=0).shape[:2]
        assert min(abs(width - height * aspect_ratio), abs(height - width / aspect_ratio)) <= 0.5
        assert height == size[0] or width == size[1]
        assert height <= size[0]
        assert width <= size[1]

    def test_padding_never_crops(self, aspect_ratio, size):
        image = np.full((*size, 3), 200, np.uint8)
        labels = np.array([[1, 0, 0, size[1], size[0]]], np.float64)
        for seed in range(5):
            padded, moved = ops.RandomPadFixedAR(aspect_ratio)(image, labels, rng=seed)
            height, width = padded.shape[:2]
            error = min(abs(width - height * aspect_ratio), abs(height - width / aspect_ratio))
            assert error <= 0.5
            assert height == size[0] or width == size[1]
            assert np.count_nonzero(padded) == image.size
            assert (moved[0, 3:5] - moved[0, 1:3]).tolist() == [size[1], size[0]]


def test_places_of_fixed_aspect_ratios_reach_both_ends():
    corner = np.zeros((1, 6))
    crop, pad = ops.RandomMaxCropFixedAR(1.0, rng=0), ops.RandomPadFixedAR(1.6, rng=0)
    places = [crop(IMAGE, return_inverter=True)[1](corner)[0, 2:4] for _ in range(200)]
    assert np.min(places, axis=0).tolist() == [0, 0]
    assert np.max(places, axis=0).tolist() == [20, 0]  # 60 x 60 in 80 x 60
    places = [pad(IMAGE, return_inverter=True)[1](corner)[0, 2:4] for _ in range(200)]
    assert np.min(places, axis=0).tolist() == [-16, 0]  # 80 x 60 in 96 x 60
    assert np.max(places, axis=0).tolist() == [0, 0]


def test_recorded_sizes_of_fixed_aspect_ratios(golden):
    for case in golden("data_ops").info["fixed_ar"]:
        op = getattr(ops, case["cls"])(case["patch_aspect_ratio"])
        expected = case["output_shape"]
        if case["cls"] == "RandomPadFixedAR" and case["patch_aspect_ratio"] == 2.0:
            expected = [60, 120, 3]  # what was recorded, (40, 80), had lost a third of the image
        assert list(op(np.zeros((*case["input_hw"], 3), np.uint8), rng=0).shape) == expected
