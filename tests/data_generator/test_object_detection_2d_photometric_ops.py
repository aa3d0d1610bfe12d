from __future__ import annotations

import numpy as np
import pytest

from data_generator import object_detection_2d_photometric_ops as ops
from data_generator.object_detection_2d_patch_sampling_ops import Crop
from data_generator.transformation import TransformationChain
from tests.data_generator.recorded_ops import build, cases_of, grey_levels_apart

RECORDED = [
    "ConvertColor",
    "ConvertDataType",
    "ConvertTo3Channels",
    "Hue",
    "Saturation",
    "Brightness",
    "Contrast",
    "HistogramEqualization",
    "ChannelSwap",
    "Gamma",
]


@pytest.mark.parametrize("class_name", RECORDED)
def test_recorded_cases(golden, class_name):
    recorded = golden("data_ops")
    for case in cases_of(recorded, class_name):
        image = recorded.arrays[case["image"]]
        tolerance = 1 if class_name == "ConvertColor" else 1e-4  # OpenCV versions differ
        changed = build(case)(image)
        assert grey_levels_apart(changed, recorded, case).max() <= tolerance, case
        if case.get("labels"):
            labels = recorded.arrays[case["labels"]]
            assert build(case)(image, labels)[1] is labels


@pytest.mark.parametrize("gamma", [0.5, 1.8])
def test_recorded_gamma_tables(golden, gamma):
    expected = golden("data_ops").arrays[f"gamma_{gamma}_table"]
    np.testing.assert_array_equal(ops.Gamma(gamma).table(), expected)


VALUE_MAPS = [
    ops.Brightness(-40),
    ops.Brightness(25.5),
    ops.Contrast(0.3),
    ops.Contrast(1.7),
    ops.Saturation(0.3),
    ops.Saturation(1.7),
    ops.Hue(17.3),
    ops.Hue(-90),
]


@pytest.mark.parametrize("value_map", VALUE_MAPS, ids=lambda v: f"{type(v).__name__}{vars(v)}")
def test_look_up_tables_equal_arithmetic(value_map):
    """What a uint8 image gets is what its float copy gets, rounded half to even."""
    image = np.random.default_rng(0).integers(0, 180, (60, 70, 3), np.uint8)
    by_arithmetic = np.rint(value_map(image.astype(np.float32)))
    if isinstance(value_map, ops.Hue):
        by_arithmetic[..., 0] %= 180  # the circle closes where 179.6 is rounded up
    np.testing.assert_array_equal(value_map(image), by_arithmetic)
    assert value_map(image).dtype == np.uint8


def test_gamma_table_and_arithmetic_differ_by_less_than_a_level():
    image = np.arange(256, dtype=np.float32).reshape(16, 16)
    difference = ops.Gamma(1.3)(image) - ops.Gamma(1.3)(image.astype(np.uint8))
    assert (difference >= -1e-4).all()
    assert (difference < 1).all()


def test_composed_tables_round_once():
    """10 * 0.3 about the middle is 92.25, and 92.25 + 0.25 is rounded to 92, half to even."""
    maps = [ops.Contrast(0.3), ops.Brightness(0.25)]
    values = np.arange(256, dtype=np.float32)
    expected = np.rint(np.clip(127.5 + 0.3 * (values - 127.5), 0, 255) + 0.25)
    np.testing.assert_array_equal(ops.lookup_table(maps), expected)
    assert ops.lookup_table(maps)[10] == 92


def test_look_up_by_channel():
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    doubled = (np.arange(256) * 2 % 256).astype(np.uint8)
    expected = image.copy()
    expected[..., 1] *= 2
    expected[..., 3] *= 2
    np.testing.assert_array_equal(ops.look_up(image, {1: doubled, 3: doubled}), expected)


@pytest.mark.parametrize(
    ("pixel", "hue", "saturation", "value"),
    [((255, 0, 0), 0, 255, 255), ((0, 255, 0), 60, 255, 255), ((0, 0, 128), 120, 255, 128)],
)
def test_hsv_layout(pixel, hue, saturation, value):
    image = np.array([[pixel]], np.uint8)
    assert ops.ConvertColor()(image).tolist() == [[[hue, saturation, value]]]
    back = ops.ConvertColor("HSV", "RGB")(ops.ConvertColor()(image))
    assert back.tolist() == image.tolist()


def test_hsv_to_gray():
    image = np.array([[(255, 0, 0), (10, 10, 10)]], np.uint8)
    hsv = ops.ConvertColor()(image)
    gray = ops.ConvertColor("HSV", "GRAY")(hsv)
    np.testing.assert_array_equal(gray, ops.ConvertColor("RGB", "GRAY")(image))
    assert gray.tolist() == [[[76] * 3, [10] * 3]]  # .299 of 255
    assert ops.ConvertColor("HSV", "GRAY", keep_3ch=False)(hsv).shape == (1, 2)


def test_same_colour_space_changes_nothing():
    image = np.zeros((2, 2, 3), np.uint8)
    assert ops.ConvertColor("HSV", "HSV")(image) is image


def test_conversion_to_uint8_wraps_around():
    image = np.array([[-1.0, 0.5, 1.5, 254.5, 256.0, 300.2]], np.float32)
    assert ops.ConvertDataType()(image).tolist() == [[255, 0, 2, 254, 0, 44]]


def test_hue_turns_around_the_circle():
    image = np.array([[[170, 9, 9]]], np.float32)
    assert ops.Hue(30)(image).tolist() == [[[20, 9, 9]]]
    assert ops.Hue(-175)(image).tolist() == [[[175, 9, 9]]]


def test_random_channel_swap_reaches_all_other_orders():
    image = np.array([[[1, 2, 3]]], np.uint8)
    swap = ops.RandomChannelSwap(prob=1, rng=0)
    seen = {tuple(swap(image)[0, 0]) for _ in range(100)}
    assert len(seen) == 5
    assert (1, 2, 3) not in seen


@pytest.mark.parametrize(
    ("make", "draws", "lower", "upper"),
    [
        (lambda: ops.RandomBrightness(-10, 30, prob=1), "delta", -10, 30),
        (lambda: ops.RandomContrast(0.2, 0.9, prob=1), "factor", 0.2, 0.9),
        (lambda: ops.RandomSaturation(0.2, 0.9, prob=1), "factor", 0.2, 0.9),
        (lambda: ops.RandomGamma(0.2, 0.9, prob=1), "gamma", 0.2, 0.9),
        (lambda: ops.RandomHue(7, prob=1), "delta", -7, 7),
    ],
)
def test_random_arguments_fill_their_range(make, draws, lower, upper):
    rng, random_op = np.random.default_rng(1), make()
    values = [getattr(random_op.sample(4, 4, None, rng), draws) for _ in range(500)]
    assert lower <= min(values) < lower + 0.05 * (upper - lower)
    assert upper - 0.05 * (upper - lower) < max(values) <= upper


def test_hue_that_must_not_turn():
    assert ops.RandomHue(0, prob=1).sample(4, 4, None, np.random.default_rng(0)).delta == 0


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Saturation", "Gamma"])
def test_empty_ranges_are_rejected(name):
    random_class = getattr(ops, f"Random{name}")
    with pytest.raises(ValueError, match="`lower` must be below `upper`; got 1.5 and 1.5"):
        random_class(1.5, 1.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ops.Hue(180.5), r"`delta` must lie in \[-180, 180\]; got 180.5"),
        (lambda: ops.RandomHue(-1), r"`max_delta` must lie in \[0, 180\]; got -1"),
        (lambda: ops.RandomHue(181), "`max_delta`"),
        (lambda: ops.Saturation(0), "`factor` must be greater than 0; got 0"),
        (lambda: ops.Contrast(-1.0), "`factor`"),
        (lambda: ops.Gamma(0), "`gamma`"),
        (lambda: ops.RandomContrast(-0.5, 1), "`lower` must not be negative; got -0.5"),
        (lambda: ops.RandomBrightness(prob=1.5), "`prob` must be a probability"),
        (lambda: ops.ConvertDataType("int16"), "`to` must be 'uint8' or 'float32'; got 'int16'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("spaces", [("BGR", "RGB"), ("GRAY", "RGB"), ("RGB", "LAB")])
def test_unknown_colour_spaces(spaces):
    with pytest.raises(NotImplementedError, match="current='"):
        ops.ConvertColor(*spaces)


@pytest.mark.parametrize(
    ("op", "image", "message"),
    [
        (ops.ConvertColor(), np.zeros((4, 4), np.uint8), "three channels"),
        (ops.ConvertColor(), np.zeros((4, 4, 4), np.uint8), "ConvertTo3Channels"),
        (ops.ConvertTo3Channels(), np.zeros((4, 4, 5), np.uint8), "got 5 channels"),
        (ops.HistogramEqualization(), np.zeros((4, 4, 3), np.float32), "uint8"),
        (ops.Brightness(3), np.zeros((4, 4, 3), np.int32), "uint8 or float images; got int32"),
        (ops.ChannelSwap((2, 1, 0)), np.zeros((4, 4), np.uint8), "channel order"),
    ],
)
def test_unsuitable_images(op, image, message):
    with pytest.raises(ValueError, match=message):
        op(image)


def test_contrast_about_another_pivot():
    image = np.array([[[0.0, 40.0, 200.0]]], np.float32)
    assert ops.Contrast(1.5, pivot=0)(image).ravel().tolist() == [0, 60, 255]
    assert ops.Contrast(0.5, pivot=0)(image).ravel().tolist() == [0, 20, 100]
    assert ops.RandomContrast(prob=1, pivot=40)(image, rng=0).ravel()[1] == 40


def test_a_histogram_is_that_of_what_is_visible():
    """Unlike the other operations, it must not be put off until after a crop."""
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, :, 2] = np.arange(16).reshape(4, 4) * 9
    whole = ops.HistogramEqualization()(image)
    chain = TransformationChain([ops.HistogramEqualization(), Crop(0, 2, 0, 2)])
    np.testing.assert_array_equal(chain(image), whole[:2, :2])
    assert not np.array_equal(ops.HistogramEqualization()(image[:2, :2]), whole[:2, :2])
