from __future__ import annotations

import numpy as np
import pytest

from data_generator.object_detection_2d_image_boxes_validation_utils import (
    BoundGenerator,
    BoxFilter,
    ImageValidator,
)

# (xmin, ymin, xmax, ymax) in an image that is 60 pixels high and 80 wide.
INSIDE = [10, 10, 30, 30]
HALF_OUT = [-10, 10, 10, 30]
MOSTLY_OUT = [-18, 10, 2, 30]
OUTSIDE = [-30, 10, -10, 30]
WHOLE = [0, 0, 80, 60]
TINY = [10, 10, 13, 13]
FLAT = [10, 10, 30, 10]
TURNED = [30, 10, 10, 30]


def labels_of(*boxes):
    return np.array([[1, *box] for box in boxes], np.float32)


def test_recorded_filters(golden):
    recorded = golden("data_ops")
    many = recorded.arrays["many"]
    n_changed = 0
    for case in recorded.info["filters"]:
        expected = recorded.arrays[case["case"]]
        box_filter = BoxFilter(**case["kwargs"])
        kept = box_filter.mask(many[:, 1:], **case["call"])
        np.testing.assert_array_equal(box_filter(many, **case["call"]), many[kept])
        if box_filter.overlap_criterion == "iou" and box_filter.border_pixels != "half":
            # Recorded with an IoU that left the border pixels out of the intersection.
            n_changed += np.count_nonzero(kept != expected)
            continue
        np.testing.assert_array_equal(kept, expected, err_msg=str(case))
    assert 0 < n_changed < 30


def test_recorded_validators(golden):
    recorded = golden("data_ops")
    for case in recorded.info["validators"]:
        first, last = map(int, case["labels"].removeprefix("many[").removesuffix("]").split(":"))
        labels = recorded.arrays["many"][first:last]
        assert ImageValidator(**case["kwargs"])(labels, **case["call"]) is case["result"], case


@pytest.mark.parametrize(
    ("box", "criterion", "bounds", "kept"),
    [
        (INSIDE, "center_point", (0.3, 1.0), True),
        (HALF_OUT, "center_point", (0.3, 1.0), True),  # the centre lies on the edge
        (MOSTLY_OUT, "center_point", (0.3, 1.0), False),
        ([10, -10, 30, 10], "center_point", (0.3, 1.0), True),  # on the upper edge
        ([69, 49, 89, 69], "center_point", (0.3, 1.0), True),  # in the middle of the last pixel
        ([70, 49, 89, 69], "center_point", (0.3, 1.0), False),
        ([69, 50, 89, 69], "center_point", (0.3, 1.0), False),
        (INSIDE, "area", (0.3, 1.0), True),
        (HALF_OUT, "area", (0.5, 1.0), True),  # the lower bound is included
        (HALF_OUT, "area", (0.51, 1.0), False),
        (MOSTLY_OUT, "area", (0.3, 1.0), False),
        (MOSTLY_OUT, "area", (0.0, 1.0), True),
        (OUTSIDE, "area", (0.0, 1.0), False),  # unless it is 0
        (INSIDE, "area", (0.3, 0.9), False),
        (WHOLE, "area", (0.96, 1.0), True),
        (WHOLE, "area", (0.98, 1.0), False),  # boxes are clipped to 79 x 59
        (WHOLE, "iou", (0.99, 1.0), True),
        (WHOLE, "iou", (1.0, 1.0), False),  # the lower bound is excluded
        (INSIDE, "iou", (400 / 4800 - 1e-9, 1.0), True),
        (INSIDE, "iou", (400 / 4800 + 1e-9, 1.0), False),
        (OUTSIDE, "iou", (0.0, 1.0), False),
    ],
)
def test_overlap_criteria(box, criterion, bounds, kept):
    box_filter = BoxFilter(
        overlap_criterion=criterion,
        overlap_bounds=bounds,
        check_min_area=False,
        check_degenerate=False,
    )
    assert len(box_filter(labels_of(box).astype(np.float64), 60, 80)) == kept


@pytest.mark.parametrize(
    ("checks", "kept"),
    [
        ({"check_min_area": True, "min_area": 9}, [INSIDE, TINY]),
        ({"check_min_area": True, "min_area": 9.1}, [INSIDE]),
        ({"check_degenerate": True}, [INSIDE, TINY]),
        ({}, [INSIDE, TINY, FLAT, TURNED]),
    ],
)
def test_area_and_degenerate_boxes(checks, kept):
    off = {"check_overlap": False, "check_min_area": False, "check_degenerate": False}
    filtered = BoxFilter(**{**off, **checks})(labels_of(INSIDE, TINY, FLAT, TURNED))
    assert filtered[:, 1:].tolist() == kept


@pytest.mark.parametrize("criterion", ["center_point", "area", "iou"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32"])
def test_integers_do_not_wrap_around(criterion, dtype):
    """The areas of the boxes are beyond 16 bits, and that of the last one is beyond 32."""
    size = 30_000 if dtype == "int16" else 65_535
    labels = np.array([[1, 0, 0, 256, 256], [1, 0, 0, 300, 300], [1, 10, 10, size, size]], dtype)
    box_filter = BoxFilter(overlap_criterion=criterion, overlap_bounds=(1e-6, 1.0))
    expected = box_filter(labels.astype(np.float64), size, size)
    assert len(expected) == 3
    np.testing.assert_array_equal(box_filter(labels, size, size), expected)
    # The same without the detour by labels, which are widened on their own.
    assert box_filter.mask(labels[:, 1:], size, size).all()


def test_all_tests_are_on_by_default():
    assert BoxFilter()(labels_of(INSIDE, TINY, FLAT, OUTSIDE), 60, 80)[:, 1:].tolist() == [INSIDE]


def test_filter_without_boxes():
    assert BoxFilter()(np.zeros((0, 5), np.float32), 60, 80).shape == (0, 5)
    assert BoxFilter()([], 60, 80).shape == (0, 5)


def test_filter_returns_a_copy():
    labels = labels_of(INSIDE)
    assert not np.shares_memory(BoxFilter()(labels, 60, 80), labels)


def test_filter_follows_the_column_order():
    labels = labels_of(INSIDE, OUTSIDE)[:, [1, 2, 3, 4, 0]]
    order = {"class_id": 4, "xmin": 0, "ymin": 1, "xmax": 2, "ymax": 3}
    assert BoxFilter(labels_format=order)(labels, 60, 80).tolist() == [[*INSIDE, 1]]


def test_overlap_needs_an_image_size():
    with pytest.raises(ValueError, match="`image_height` and `image_width`; got None and 80"):
        BoxFilter()(labels_of(INSIDE), image_width=80)


class TestImageValidator:
    labels = labels_of(INSIDE, MOSTLY_OUT, OUTSIDE)

    @pytest.mark.parametrize(
        ("n_boxes_min", "valid"), [(1, True), (2, False), ("all", False), (np.int64(1), True)]
    )
    def test_counts(self, n_boxes_min, valid):
        assert ImageValidator(n_boxes_min=n_boxes_min)(self.labels, 60, 80) is valid

    def test_no_box_is_enough_for_all_but_not_for_one(self):
        none = np.zeros((0, 5))
        assert ImageValidator(n_boxes_min="all")(none, 60, 80) is True
        assert ImageValidator(n_boxes_min=1)(none, 60, 80) is False

    def test_bounds_may_be_replaced(self):
        validator = ImageValidator("area", (0.05, 1.0), n_boxes_min=2)
        assert validator(self.labels, 60, 80)
        validator.bounds = (0.5, 1.0)
        assert not validator(self.labels, 60, 80)

    def test_bounds_may_be_drawn(self):
        validator = ImageValidator("area", BoundGenerator([(0.05, 1), (0.5, 1)]), n_boxes_min=2)
        rng = np.random.default_rng(0)
        assert {validator(self.labels, 60, 80, rng) for _ in range(30)} == {True, False}

    @pytest.mark.parametrize("n_boxes_min", [0, -1, 1.0, "none", None, True])
    def test_bad_counts(self, n_boxes_min):
        with pytest.raises(ValueError, match="positive integer or 'all'"):
            ImageValidator(n_boxes_min=n_boxes_min)


class TestBoundGenerator:
    def test_recorded_defaults(self, golden):
        info = golden("data_ops").info
        generator = BoundGenerator()
        assert generator.sample_space == info["BoundGenerator_default_sample_space"]
        np.testing.assert_allclose(generator.weights, info["BoundGenerator_weights"])
        assert generator.sample_space_size == 6

    def test_draws_by_weight(self):
        generator = BoundGenerator([(0.1, 0.2), (0.3, None), (None, 0.5)], [0.7, 0.3, 0], rng=0)
        drawn = [tuple(generator()) for _ in range(400)]
        assert set(drawn) == {(0.1, 0.2), (0.3, 1.0)}
        assert 240 < drawn.count((0.1, 0.2)) < 320

    def test_the_generator_of_the_call_wins(self):
        generator = BoundGenerator(rng=0)
        first = [generator(np.random.default_rng(5)) for _ in range(3)]
        assert first[0] == first[1] == first[2]

    @pytest.mark.parametrize(
        ("sample_space", "weights", "message"),
        [
            ([(0.1, 0.2, 0.3)], None, "must be a pair"),
            ([(0.5, 0.2)], None, "lower=0.5, upper=0.2"),
            ([(0.1, 0.2)], [0.5, 0.5], "expected 1, got 2"),
        ],
    )
    def test_bad_arguments(self, sample_space, weights, message):
        with pytest.raises(ValueError, match=message):
            BoundGenerator(sample_space, weights)


@pytest.mark.parametrize("make", [BoxFilter, ImageValidator])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"overlap_criterion": "overlap"}, "center_point, area, iou; got 'overlap'"),
        ({"bounds": 0.3}, r"\(lower, upper\) pair"),
        ({"bounds": (0.3, 0.2)}, "lower=0.3, upper=0.2"),
        ({"border_pixels": "none"}, "half, include, exclude; got 'none'"),
    ],
)
def test_bad_arguments(make, kwargs, message):
    if make is BoxFilter and "bounds" in kwargs:
        kwargs = {"overlap_bounds": kwargs["bounds"]}
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


@pytest.mark.parametrize("criterion", ["center_point", "area", "iou"])
@pytest.mark.parametrize("n_boxes_min", [1, 2, "all"])
@pytest.mark.parametrize("border_pixels", ["half", "include"])
@pytest.mark.parametrize("bounds", [(0.2, 0.9), BoundGenerator(), (0.0, 0.8)])
def test_judging_many_images_equals_judging_each(criterion, n_boxes_min, border_pixels, bounds):
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(-30, 50, (300, 2, 2)), rng.uniform(0, 60, (300, 2, 2))
    boxes = np.concatenate([corner, corner + size], axis=-1)
    heights, widths = rng.integers(10, 80, (2, 300))
    validator = ImageValidator(criterion, bounds, n_boxes_min, border_pixels=border_pixels)
    each = validator.accepts_each(boxes, heights, widths, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    expected = [validator.accepts(*one, rng) for one in zip(boxes, heights, widths, strict=True)]
    assert each.tolist() == expected
    assert 0 < sum(expected) < 300
