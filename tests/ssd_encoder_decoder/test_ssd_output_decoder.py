"""The NumPy decoders: recorded outputs, the plain greedy loop, and every corner of their rules."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_encoder_decoder.ssd_output_decoder import (
    decode_detections,
    decode_detections_debug,
    decode_detections_fast,
    get_num_boxes_per_pred_layer,
    get_pred_layers,
    greedy_nms,
)
from tests.raw_predictions import GOLDEN, VARIANCES, golden_predictions
from tests.slow_nms import slow_nms, slow_nms_per_class

DECODERS = {
    "decode_detections": decode_detections,
    "decode_detections_fast": decode_detections_fast,
    "decode_detections_debug": decode_detections_debug,
}
BORDER_WIDTHS = {"half": 0, "include": 1, "exclude": -1}
SIZE = {"img_height": 300, "img_width": 300}
CASES = json.loads((GOLDEN / "decode_numpy.json").read_text(encoding="utf-8"))["cases"]
DECODER_CASES = [case for case in CASES if case["fn"] in DECODERS]
NMS_CASES = [case for case in CASES if case["fn"] == "greedy_nms"]


def ids(cases):
    return [case["case"] for case in cases]


@pytest.fixture(scope="module")
def inputs():
    return golden_predictions()


@pytest.fixture(scope="module")
def recorded(golden):
    arrays = golden("decode_numpy").arrays

    def rows(case):
        lengths = arrays[f"{case}_len"]
        return np.split(arrays[f"{case}_flat"], np.cumsum(lengths)[:-1])

    return rows


def ordered(rows):
    """Sort rows by class, then descending confidence; the last 6 columns are a detection."""
    return rows[np.lexsort((-rows[:, -5], rows[:, -6]))]


def assert_same_detections(got, expected):
    assert len(got) == len(expected)
    for rows, expected_rows in zip(got, expected, strict=True):
        assert rows.shape == expected_rows.shape
        rows, expected_rows = ordered(rows), ordered(expected_rows)
        np.testing.assert_array_equal(rows[:, :-4], expected_rows[:, :-4])
        np.testing.assert_allclose(rows[:, -4:], expected_rows[:, -4:], rtol=1e-5, atol=1e-3)


def slow_decode(y_pred, case):
    """Decode by following the definition, box by box (formats with centroids or corners only)."""
    args = {"input_coords": "centroids", "normalize_coords": True, "border_pixels": "half"}
    args |= {"confidence_thresh": 0.01, "iou_threshold": 0.45, "top_k": 200} | case["args"]
    if case["fn"] == "decode_detections_fast":
        args = {"confidence_thresh": 0.5, "top_k": "all"} | args
    scale = [300, 300] * 2 if args["normalize_coords"] else [1] * 4
    results = []
    for image in y_pred.astype(float):
        offsets, anchors, variances = image[:, -12:-8], image[:, -8:-4], image[:, -4:]
        if args["input_coords"] == "centroids":
            centres = offsets[:, :2] * variances[:, :2] * anchors[:, 2:] + anchors[:, :2]
            half_sizes = np.exp(offsets[:, 2:] * variances[:, 2:]) * anchors[:, 2:] / 2
            boxes = np.hstack([centres - half_sizes, centres + half_sizes])
        else:
            order = [0, 1, 2, 3] if args["input_coords"] == "corners" else [0, 2, 1, 3]
            corners, shifts = anchors[:, order], (offsets * variances)[:, order]
            boxes = corners + shifts * np.tile(corners[:, 2:] - corners[:, :2], 2)
        boxes = boxes * scale
        confidences = image[:, :-12]
        if case["fn"] == "decode_detections_fast":
            class_ids = confidences.argmax(axis=1)
            scores = confidences.max(axis=1)
            entering = np.flatnonzero((class_ids > 0) & (scores >= args["confidence_thresh"]))
            kept = slow_nms(
                boxes[entering],
                scores[entering],
                args["iou_threshold"],
                BORDER_WIDTHS[args["border_pixels"]],
            )
            box_ids = entering[kept]
            rows = np.column_stack([class_ids[box_ids], scores[box_ids], boxes[box_ids]])
        else:
            by_class = confidences[:, 1:].T
            class_ids, box_ids = np.nonzero(by_class > args["confidence_thresh"])
            scores = by_class[class_ids, box_ids]
            kept = slow_nms_per_class(
                boxes[box_ids],
                scores,
                class_ids,
                args["iou_threshold"],
                BORDER_WIDTHS[args["border_pixels"]],
            )
            rows = np.column_stack([class_ids + 1, scores, boxes[box_ids]])[kept]
        results.append(rows if args["top_k"] == "all" else rows[: args["top_k"]])
    return results


# The original measured the intersection without the border pixels that it counted in the areas. Its
# numbers for 'include' and 'exclude' come from that; here the consistent rule decides.
CONSISTENT = [case for case in DECODER_CASES if case["args"].get("border_pixels", "half") == "half"]
BORDERED = [case for case in DECODER_CASES if case not in CONSISTENT]


@pytest.mark.parametrize("case", CONSISTENT, ids=ids(CONSISTENT))
def test_recorded_detections(case, inputs, recorded):
    detections = DECODERS[case["fn"]](inputs[case["input"]], **case["args"])
    n_columns = 7 if case["fn"] == "decode_detections_debug" else 6
    expected = [rows.reshape(-1, n_columns) for rows in recorded(case["case"])]
    assert_same_detections(detections, expected)
    assert {rows.dtype for rows in detections} == {np.dtype(np.float64)}


@pytest.mark.parametrize("case", BORDERED, ids=ids(BORDERED))
def test_border_pixels_follow_the_consistent_rule(case, inputs):
    y_pred = inputs[case["input"]]
    detections = DECODERS[case["fn"]](y_pred, **case["args"])
    assert_same_detections(detections, slow_decode(y_pred, case))


@pytest.mark.parametrize("case", NMS_CASES, ids=ids(NMS_CASES))
def test_recorded_greedy_nms(case, recorded):
    candidates = recorded("d45")
    kept = greedy_nms(candidates, **case["args"])
    if case["args"]["border_pixels"] == "half":
        assert_same_detections(kept, recorded(case["case"]))
    else:  # recorded with the inconsistent intersection
        d = BORDER_WIDTHS[case["args"]["border_pixels"]]
        for rows, all_rows in zip(kept, candidates, strict=True):
            taken = slow_nms(all_rows[:, 2:], all_rows[:, 1], case["args"]["iou_threshold"], d)
            np.testing.assert_array_equal(rows, all_rows[taken])


def test_recorded_predictor_layers(inputs, golden, recorded):
    case = next(case for case in CASES if case["case"] == "pred_layers_full2")
    detections = decode_detections_debug(inputs["FULL2"], 0.05, **SIZE)
    layers = get_pred_layers(detections, **case["args"])
    assert all(isinstance(layer, int) for layer in layers[0])
    # The order of rows beyond top_k was arbitrary in the original: compare the box ids' layers.
    expected = recorded("pred_layers_full2")
    for rows, found, expected_layers in zip(detections, layers, expected, strict=True):
        assert len(rows) == len(found)
        np.testing.assert_array_equal(sorted(found), sorted(expected_layers.ravel()))


# --- Rules, one by one -------------------------------------------------------------------------


def raw(confidences, boxes=None, offsets=0.0, dtype=np.float32):
    """Build a raw prediction `(1, n, C + 1 + 12)` from confidences and (cx, cy, w, h) in pixels."""
    confidences = np.asarray(confidences, float)
    if boxes is None:  # far apart from each other
        boxes = [[20 * i + 10, 10, 10, 10] for i in range(len(confidences))]
    columns = [np.full((len(confidences), 4), offsets), boxes, np.tile(VARIANCES, (len(boxes), 1))]
    return np.concatenate([confidences, *columns], axis=1, dtype=dtype)[np.newaxis]


PIXELS = {"normalize_coords": False}
SAME_PLACE = [[10, 10, 10, 10]] * 2


def test_order_is_by_class_unless_top_k_cuts():
    y_pred = raw([[0.1, 0.3, 0.6], [0.1, 0.5, 0.4], [0.8, 0.2, 0]])
    (detections,) = decode_detections(y_pred, top_k=5, **PIXELS)
    np.testing.assert_array_equal(detections[:, 0], [1, 1, 1, 2, 2])
    np.testing.assert_allclose(detections[:, 1], [0.5, 0.3, 0.2, 0.6, 0.4], rtol=1e-6)
    (best,) = decode_detections(y_pred, top_k=3, **PIXELS)
    np.testing.assert_allclose(best[:, 1], [0.6, 0.5, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(best[:, 0], [2, 1, 2])


def test_equal_confidences_lower_class_and_earlier_box_first():
    y_pred = raw([[0, 0.5, 0.5], [0, 0.5, 0.5]])
    (detections,) = decode_detections_debug(y_pred, top_k=3, **PIXELS)
    np.testing.assert_array_equal(detections[:, :2], [[0, 1], [1, 1], [0, 2]])


def test_confidence_threshold_is_strict_only_in_the_full_decoder():
    y_pred = raw([[0.25, 0.5, 0.25]])
    assert len(decode_detections(y_pred, 0.5, **PIXELS)[0]) == 0
    assert len(decode_detections_fast(y_pred, 0.5, **PIXELS)[0]) == 1


def test_fast_decoder_reports_a_box_once_and_background_wins_ties():
    y_pred = raw([[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    (detections,) = decode_detections_fast(y_pred, 0.1, **PIXELS)
    np.testing.assert_array_equal(detections[:, 0], [2])


def test_only_none_switches_nms_off():
    y_pred = raw([[0.4, 0.6], [0.1, 0.9]], SAME_PLACE)
    for decode in DECODERS.values():
        assert len(decode(y_pred, 0.5, iou_threshold=0.0, **PIXELS)[0]) == 1
        assert len(decode(y_pred, 0.5, iou_threshold=None, **PIXELS)[0]) == 2


def test_fast_decoder_without_nms_keeps_the_order_of_the_boxes_unless_top_k_cuts():
    y_pred = raw([[0.3, 0.7], [0.1, 0.9], [0.2, 0.8]])
    (everything,) = decode_detections_fast(y_pred, iou_threshold=None, **PIXELS)
    np.testing.assert_allclose(everything[:, 1], [0.7, 0.9, 0.8], rtol=1e-6)
    (best,) = decode_detections_fast(y_pred, iou_threshold=None, top_k=2, **PIXELS)
    np.testing.assert_allclose(best[:, 1], [0.9, 0.8], rtol=1e-6)


def test_max_candidates_per_class():
    y_pred = raw([[0, 0.9], [0, 0.8], [0, 0.7]], [[10, 10, 10, 10]] * 2 + [[50, 50, 10, 10]])
    assert len(decode_detections(y_pred, **PIXELS)[0]) == 2
    assert len(decode_detections(y_pred, max_candidates_per_class=2, **PIXELS)[0]) == 1


def test_relative_boxes_become_pixels_of_a_rectangular_image():
    y_pred = raw([[0, 1]], [[0.5, 0.5, 0.2, 0.4]])
    (detections,) = decode_detections(y_pred, img_height=100, img_width=200)
    np.testing.assert_allclose(detections, [[1, 1, 80, 30, 120, 70]], rtol=1e-6)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_no_detections_are_arrays_without_rows(decode):
    y_pred = np.repeat(raw([[1, 0, 0], [1, 0, 0]]), 2, axis=0)
    n_columns = 7 if decode is decode_detections_debug else 6
    for top_k in (1, "all"):
        for iou_threshold in (0.45, None):
            detections = decode(y_pred, 0.5, iou_threshold, top_k, **PIXELS)
            assert [rows.shape for rows in detections] == [(0, n_columns)] * 2
            assert detections[0].dtype == np.float64
    assert decode(y_pred[:0], **PIXELS) == []
    assert decode(y_pred[:, :0], **PIXELS)[1].shape == (0, n_columns)


def test_debug_decoder_takes_all_and_names_the_boxes():
    y_pred = raw([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    (detections,) = decode_detections_debug(y_pred, top_k="all", **PIXELS)
    np.testing.assert_array_equal(detections[:, 0], [1, 2, 0])
    np.testing.assert_array_equal(detections[:, 1:], decode_detections(y_pred, **PIXELS)[0])


@pytest.mark.parametrize("coords", ["centroids", "corners", "minmax"])
def test_offsets_without_variances(coords):
    y_pred = raw([[0, 1]], [[10, 40, 20, 60]], offsets=0.5)
    args = {"input_coords": coords, "variance_encoded_in_target": True, **PIXELS}
    (plain,) = decode_detections_debug(y_pred, **args)
    y_pred[..., -4:] = 1
    (ones,) = decode_detections_debug(y_pred, **args | {"variance_encoded_in_target": False})
    np.testing.assert_array_equal(plain, ones)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes(decode, dtype, inputs):
    y_pred = inputs["B"][:, ::3].astype(dtype)
    before = y_pred.copy()
    detections = decode(y_pred, 0.05, **SIZE)
    np.testing.assert_array_equal(y_pred, before)
    exact = decode(y_pred.astype(np.float64), 0.05, **SIZE)
    assert sum(map(len, detections)) > 10
    assert_same_detections(detections, exact)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_batch_equals_single_images(decode, inputs):
    together = decode(inputs["B"], 0.05, **SIZE)
    alone = [decode(inputs["B"][i : i + 1], 0.05, **SIZE)[0] for i in range(2)]
    for rows, single_rows in zip(together, alone, strict=True):
        np.testing.assert_array_equal(rows, single_rows)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_nan_confidences_are_no_detections(decode):
    y_pred = raw([[np.nan, np.nan, np.nan], [0.1, 0.2, 0.7], [0.1, 0.9, np.nan]])
    (detections,) = decode(y_pred, 0.6, **PIXELS)
    assert np.isfinite(detections).all()
    assert detections[:, -5].min() == np.float32(0.7)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 40),
    n_levels=st.sampled_from([4, 1000]),
    top_k=st.sampled_from(["all", 1, 7]),
)
@settings(max_examples=60, deadline=None)
def test_decoders_equal_the_definition(seed, n, n_levels, top_k):
    rng = np.random.default_rng(seed)
    confidences = rng.integers(0, n_levels, (n, 4)) / n_levels
    y_pred = raw(confidences, rng.integers(5, 25, (n, 4)), rng.integers(-1, 2, (n, 4)))
    args = {"confidence_thresh": 0.25, "top_k": top_k, "normalize_coords": False}
    for name, decode in DECODERS.items():
        expected = slow_decode(y_pred, {"fn": name, "args": args})
        got = [rows[:, -6:] for rows in decode(y_pred, **args)]
        if n_levels == 1000:
            assert_same_detections(got, expected)
        else:  # ordered() cannot tell equal confidences apart: the sets must agree
            got, expected = ({tuple(row) for row in rows[0].round(6)} for rows in (got, expected))
            assert got == expected


# --- Mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_height": 300}, "`img_height` and `img_width` are needed.*got 300 and None"),
        ({"normalize_coords": False, "input_coords": "xyxy"}, "`input_coords`.*'xyxy'"),
        ({"normalize_coords": False, "border_pixels": "inside"}, "`border_pixels`.*'inside'"),
        ({"normalize_coords": False, "iou_threshold": 45}, "`iou_threshold`.*got 45"),
        ({"normalize_coords": False, "top_k": 0}, "`top_k`.*got 0"),
        ({"normalize_coords": False, "top_k": "every"}, "`top_k`.*got 'every'"),
        ({"normalize_coords": False, "top_k": 1.5}, "`top_k`.*got 1.5"),
    ],
)
def test_arguments_are_checked(decode, arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        decode(raw([[1, 0]]), **arguments)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("shape", [(8, 33), (1, 200, 6), (33,), (1, 8, 13)])
def test_shapes_are_checked(decode, shape):
    with pytest.raises(ValueError, match="`y_pred` must have shape") as error:
        decode(np.zeros(shape, np.float32), **PIXELS)
    assert str(shape) in str(error.value)


def test_greedy_nms_of_empty_and_wrong_arrays():
    row = np.array([[1, 0.5, 0, 0, 10, 10]])
    kept = greedy_nms([np.array([]), row, np.zeros((0, 6))])
    assert [rows.shape for rows in kept] == [(0, 6), (1, 6), (0, 6)]
    with pytest.raises(ValueError, match=r"image 1 has an array of shape \(2, 5\)"):
        greedy_nms([row, np.ones((2, 5))])


def test_greedy_nms_in_other_formats():
    corners = np.array([[1, 0.5, 0, 0, 10, 10], [2, 0.6, 1, 0, 11, 10], [1, 0.4, 20, 20, 30, 30]])
    centroids = np.array([[1, 0.5, 5, 5, 10, 10], [2, 0.6, 6, 5, 10, 10], [1, 0.4, 25, 25, 10, 10]])
    np.testing.assert_array_equal(greedy_nms([corners])[0], corners[[1, 2]])
    np.testing.assert_array_equal(greedy_nms([centroids], coords="centroids")[0], centroids[[1, 2]])
    with pytest.raises(ValueError, match="`coords`"):
        greedy_nms([corners], coords="xywh")


# --- Anchor boxes per layer --------------------------------------------------------------------


def test_recorded_numbers_of_boxes(golden):
    for case in golden("decode_numpy").info["get_num_boxes_per_pred_layer"]:
        assert get_num_boxes_per_pred_layer(*case["args"]) == case["result"]


def test_only_layers_with_the_ratio_1_have_a_second_square_box():
    sizes, ratios = [[4, 5], [2, 3]], [[0.5, 2.0], [1.0, 2.0]]
    assert get_num_boxes_per_pred_layer(sizes, ratios, True) == [40, 18]
    assert get_num_boxes_per_pred_layer(sizes, ratios, False) == [40, 12]
    with pytest.raises(ValueError, match="got 1 for 2 layers"):
        get_num_boxes_per_pred_layer(sizes, ratios[:1], True)


def test_predictor_layers():
    detections = np.zeros((4, 7))
    detections[:, 0] = [0, 9, 10, 29]
    assert get_pred_layers([detections, np.zeros((0, 7)), np.array([])], [10, 20]) == [
        [0, 0, 1, 1],
        [],
        [],
    ]


@pytest.mark.parametrize("box_id", [-1, 30])
def test_box_ids_outside_of_the_layers(box_id):
    detections = np.zeros((2, 7))
    detections[1, 0] = box_id
    with pytest.raises(ValueError, match=f"detection 1 has the box id {box_id}, .* 30 boxes"):
        get_pred_layers([detections], [10, 20])


def test_absurdly_large_boxes_are_decoded_without_a_warning():
    # What an untrained network with variances of 1 predicts from unnormalised images.
    y_pred = np.zeros((1, 3, 2 + 12), np.float32)
    y_pred[0, :, 1] = [0.9, 0.8, 0.7]
    y_pred[0, :, -12:-8] = [[0, 0, 800, 800], [5, 0, 900, 400], [0, 0, 0, 0]]
    y_pred[0, :, -8:-4] = 0.5
    y_pred[0, :, -4:] = 1
    (detections,) = decode_detections(y_pred, img_height=300, img_width=300)
    assert len(detections) == 3
    np.testing.assert_allclose(detections[2], [1, 0.7, 75, 75, 225, 225], rtol=1e-6)
