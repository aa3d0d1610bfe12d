"""Box geometry: recorded numbers, a slow reference, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bounding_box_utils.bounding_box_utils import (
    BOX_FORMATS,
    border_width,
    check_box_format,
    convert_coordinates,
    convert_coordinates2,
    intersection_area,
    intersection_area_,
    iou,
)

BORDERS = ("half", "include", "exclude")
CONVERSIONS = [f"{a}2{b}" for a in BOX_FORMATS for b in BOX_FORMATS if a != b]


def slow_iou(box1, box2, border_pixels: str) -> float:
    """Compute the IoU of two corner boxes with nothing but Python's numbers."""
    d = {"half": 0, "include": 1, "exclude": -1}[border_pixels]
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = map(float, box1), map(float, box2)
    width = max(0.0, min(ax1, bx1) - max(ax0, bx0) + d)
    height = max(0.0, min(ay1, by1) - max(ay0, by0) + d)
    area1 = (ax1 - ax0 + d) * (ay1 - ay0 + d)
    area2 = (bx1 - bx0 + d) * (by1 - by0 + d)
    union = area1 + area2 - width * height
    return width * height / union if union else float("nan")


def corner_boxes(n: int, least_side: float = 2.0):
    """Draw `(n, 4)` corner boxes with sides of at least two pixels."""
    numbers = arrays.arrays(np.float64, (n, 2, 2), elements=st.floats(0, 500, width=32))
    return numbers.map(lambda a: np.concatenate([a[:, 0], a[:, 0] + a[:, 1] + least_side], axis=1))


@pytest.mark.parametrize(
    ("conversion", "border_pixels", "given_box", "expected"),
    [
        ("corners2centroids", "half", [10, 20, 30, 60], [20, 40, 20, 40]),
        ("corners2centroids", "include", [10, 20, 30, 60], [20, 40, 21, 41]),
        ("corners2centroids", "exclude", [10, 20, 30, 60], [20, 40, 19, 39]),
        ("centroids2corners", "half", [20, 40, 20, 40], [10, 20, 30, 60]),
        ("centroids2corners", "include", [20, 40, 21, 41], [10, 20, 30, 60]),
        ("centroids2corners", "exclude", [20, 40, 19, 39], [10, 20, 30, 60]),
        ("minmax2centroids", "include", [10, 30, 20, 60], [20, 40, 21, 41]),
        ("centroids2minmax", "include", [20, 40, 21, 41], [10, 30, 20, 60]),
        ("corners2minmax", "include", [10, 20, 30, 60], [10, 30, 20, 60]),
        ("minmax2corners", "exclude", [10, 30, 20, 60], [10, 20, 30, 60]),
    ],
)
def test_conversions_by_hand(conversion, border_pixels, given_box, expected):
    converted = convert_coordinates(np.array(given_box), 0, conversion, border_pixels)
    np.testing.assert_array_equal(converted, expected)
    assert converted.dtype == np.float64


def test_recorded_conversions(golden):
    recorded = golden("bounding_box_utils")
    functions = {
        "convert_coordinates": convert_coordinates,
        "convert_coordinates2": convert_coordinates2,
    }
    n_cases = 0
    for case in recorded.info["cases"]:
        if case["fn"] not in functions:
            continue
        boxes, arguments = recorded.arrays[case["input"]], case["args"]
        before = boxes.copy()
        converted = functions[case["fn"]](boxes, **arguments)
        np.testing.assert_array_equal(boxes, before)
        border_pixels = arguments.get("border_pixels", "half")
        if arguments["conversion"].startswith("centroids2") and border_pixels != "half":
            # Recorded from a defect: this direction ignored border_pixels. It must undo the other.
            source, target = arguments["conversion"].split("2")
            converted = convert_coordinates(
                converted, arguments["start_index"], f"{target}2{source}", border_pixels
            )
            np.testing.assert_allclose(converted, boxes, rtol=1e-6, atol=1e-9)
        else:
            np.testing.assert_allclose(
                converted, recorded.arrays[case["output"]], rtol=1e-6, atol=1e-9
            )
        n_cases += 1
    assert n_cases == 80


def test_recorded_overlaps(golden):
    recorded = golden("bounding_box_utils")
    n_cases = 0
    for case in recorded.info["cases"]:
        if case["fn"] not in ("intersection_area", "iou"):
            continue
        arguments = case["args"]
        boxes1 = recorded.arrays[case["boxes1"]]
        name, *first = case["boxes2"].split("[0]")
        boxes2 = recorded.arrays[name][0] if first else recorded.arrays[name]
        expected = recorded.arrays[case["output"]]
        function = iou if case["fn"] == "iou" else intersection_area
        with np.errstate(invalid="ignore"):  # the recorded boxes include some without area
            overlaps = function(boxes1, boxes2, **arguments)
            if case["fn"] == "iou" and arguments["border_pixels"] != "half":
                # Recorded from a defect: the intersection ignored border_pixels.
                expected = consistent_iou(recorded.arrays, case["output"], boxes1, boxes2)
        np.testing.assert_allclose(overlaps, expected, rtol=1e-6, atol=1e-9)
        assert overlaps.dtype == expected.dtype, case["output"]
        n_cases += 1
    assert n_cases == 72


def consistent_iou(recorded: dict, output: str, boxes1, boxes2) -> np.ndarray:
    """Return the IoU with border pixels in the intersection, too: recorded, or made slowly."""
    _, kind, coords, border_pixels = output.split("_")
    if kind == "outer":
        return recorded[f"iouconsistent_outer_{coords}_{border_pixels}"]
    if coords != "corners":
        boxes1, boxes2 = (
            convert_coordinates(boxes, 0, f"{coords}2corners") for boxes in (boxes1, boxes2)
        )
    if kind == "int":  # an outer product
        return np.array([[slow_iou(a, b, border_pixels) for b in boxes2] for a in boxes1])
    pairs = zip(boxes1, np.broadcast_to(boxes2, boxes1.shape), strict=True)
    return np.array([slow_iou(a, b, border_pixels) for a, b in pairs])


@given(boxes=corner_boxes(5), data=st.data())
def test_conversions_undo_each_other(boxes, data):
    source, target = data.draw(st.sampled_from(CONVERSIONS)).split("2")
    border_pixels = data.draw(st.sampled_from(BORDERS))
    if source != "corners":
        boxes = convert_coordinates(boxes, 0, f"corners2{source}", border_pixels)
    there = convert_coordinates(boxes, 0, f"{source}2{target}", border_pixels)
    back = convert_coordinates(there, 0, f"{target}2{source}", border_pixels)
    np.testing.assert_allclose(back, boxes, atol=1e-9)


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("start_index", [0, 2, -4, -5])
def test_the_rest_of_the_axis_is_copied(conversion, start_index):
    tensor = np.arange(42, dtype=np.float32).reshape(2, 3, 7)
    converted = convert_coordinates(tensor, start_index, conversion)
    first = start_index % 7
    others = [i for i in range(7) if not first <= i < first + 4]
    np.testing.assert_array_equal(converted[..., others], tensor[..., others])
    np.testing.assert_array_equal(
        converted[..., first : first + 4],
        convert_coordinates(tensor[..., first : first + 4], 0, conversion),
    )


def test_no_boxes_are_converted_to_no_boxes():
    assert convert_coordinates(np.zeros((0, 5)), 1, "corners2centroids").shape == (0, 5)


@given(boxes1=corner_boxes(4), boxes2=corner_boxes(3), border_pixels=st.sampled_from(BORDERS))
def test_iou_is_that_of_the_slow_reference(boxes1, boxes2, border_pixels):
    expected = [[slow_iou(a, b, border_pixels) for b in boxes2] for a in boxes1]
    for coords in BOX_FORMATS:
        pair = [boxes1, boxes2]
        if coords != "corners":
            pair = [convert_coordinates(boxes, 0, f"corners2{coords}") for boxes in pair]
        overlaps = iou(*pair, coords, "outer_product", border_pixels)
        np.testing.assert_allclose(overlaps, expected, rtol=1e-6, atol=1e-9)


@given(boxes=corner_boxes(4), border_pixels=st.sampled_from(BORDERS))
def test_iou_is_symmetric_at_most_one_and_one_with_itself(boxes, border_pixels):
    overlaps = iou(boxes, boxes, "corners", border_pixels=border_pixels)
    np.testing.assert_array_equal(overlaps, overlaps.T)
    np.testing.assert_array_equal(np.diag(overlaps), 1)
    assert overlaps.min() >= 0
    assert overlaps.max() <= 1
    pairs = iou(boxes, boxes[::-1], "corners", "element-wise", border_pixels)
    np.testing.assert_array_equal(pairs, overlaps[range(4), range(3, -1, -1)])


@pytest.mark.parametrize(
    ("border_pixels", "intersection"), [("half", 25), ("include", 36), ("exclude", 16)]
)
def test_intersection_by_hand(border_pixels, intersection):
    boxes1, boxes2 = np.array([0, 0, 10, 10]), np.array([[5, 5, 15, 15], [30, 0, 40, 10]])
    areas = intersection_area(boxes1, boxes2, "corners", border_pixels=border_pixels)
    np.testing.assert_array_equal(areas, [[intersection, 0]])
    assert np.issubdtype(areas.dtype, np.integer)
    unchecked = intersection_area_(boxes1[None], boxes2, "corners", "outer_product", border_pixels)
    np.testing.assert_array_equal(unchecked, areas)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64", "int8", "int16", "int32"])
@pytest.mark.parametrize("coords", ["corners", "minmax"])
def test_integers_do_not_wrap_around(dtype, coords):
    """Neither where boxes are apart, so that sides are negative, nor where areas are large."""
    far = np.iinfo(dtype).max
    boxes = np.array([[0, 0, 10, 20], [30, 30, 50, 60], [0, 0, min(far, 60_000), 20]])
    if coords == "minmax":
        boxes = boxes[:, [0, 2, 1, 3]]
    areas = intersection_area(boxes.astype(dtype), boxes.astype(dtype), coords)
    np.testing.assert_array_equal(areas, intersection_area(boxes.astype(float), boxes, coords))
    assert areas.dtype == np.int64
    overlaps = iou(boxes.astype(dtype), boxes.astype(dtype), coords)
    np.testing.assert_array_equal(overlaps, iou(boxes.astype(float), boxes, coords))


def test_half_precision_does_not_overflow():
    boxes = np.array([[0, 0, 300, 300], [0, 0, 300, 150]], np.float16)
    np.testing.assert_array_equal(iou(boxes, boxes, "corners"), [[1, 0.5], [0.5, 1]])


def test_inputs_are_not_modified():
    boxes1, boxes2 = np.array([[5.0, 6, 3, 4]]), np.array([[4.0, 5, 3, 4], [9, 9, 1, 1]])
    copies = boxes1.copy(), boxes2.copy()
    for coords in BOX_FORMATS:
        iou(boxes1, boxes2, coords, border_pixels="include")
    np.testing.assert_array_equal(boxes1, copies[0])
    np.testing.assert_array_equal(boxes2, copies[1])


def test_no_boxes_overlap_nothing():
    nothing, boxes = np.zeros((0, 4)), np.array([[0.0, 0, 2, 2]])
    assert iou(nothing, boxes, "corners").shape == (0, 1)
    assert iou(boxes, nothing, "corners").shape == (1, 0)
    assert iou(nothing, nothing, "corners", "element-wise").shape == (0,)


def test_two_boxes_without_area_have_no_iou():
    point = np.array([3.0, 3, 3, 3])
    with pytest.warns(RuntimeWarning, match="invalid value"):
        assert np.isnan(iou(point, point, "corners"))
    assert iou(point, point, "corners", border_pixels="include") == 1  # a pixel


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4), 0, "corners2corners"), "corners2corners"),
        ((np.zeros(4), 0, "corners2yolo"), "corners2yolo"),
        ((np.zeros(4), 0, "corners2minmax", "all"), "border_pixels.*'all'"),
        ((np.zeros(5), 2, "corners2minmax"), "`start_index` 2.*5 entries"),
        ((np.zeros(5), -3, "corners2minmax"), "`start_index` -3.*5 entries"),
        ((np.zeros(5), -6, "corners2minmax"), "`start_index` -6.*5 entries"),
        ((np.zeros((3, 0)), 0, "corners2minmax"), "0 entries"),
    ],
)
def test_wrong_conversions_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        convert_coordinates(*arguments)


def test_convert_coordinates2_knows_two_conversions():
    with pytest.raises(ValueError, match="corners2centroids"):
        convert_coordinates2(np.zeros(4), 0, "corners2centroids")


@pytest.mark.parametrize("function", [iou, intersection_area])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes1": np.zeros((1, 1, 4))}, r"`boxes1`.*\(1, 1, 4\)"),
        ({"boxes2": np.zeros((1, 1, 4))}, r"`boxes2`.*\(1, 1, 4\)"),
        ({"boxes1": np.zeros((3, 5))}, "`boxes1` has 5 columns"),
        ({"boxes2": np.zeros(3)}, "`boxes2` has 3 columns"),
        ({"mode": "outer"}, "'outer'"),
        ({"coords": "yolo"}, "'yolo'"),
        ({"border_pixels": "all"}, "'all'"),
        (
            {"boxes1": np.ones((3, 4)), "boxes2": np.ones((2, 4)), "mode": "element-wise"},
            "got 3 and 2",
        ),
    ],
)
def test_wrong_arguments_are_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**{"boxes1": np.ones(4), "boxes2": np.ones(4), **arguments})


def test_settings_are_checked_by_name():
    assert [border_width(border) for border in BORDERS] == [0, 1, -1]
    with pytest.raises(ValueError, match="xyxy"):
        check_box_format("xyxy")
