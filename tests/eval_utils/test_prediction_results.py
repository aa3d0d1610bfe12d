import numpy as np
import pytest

from eval_utils.prediction_results import collect_predictions, prediction_arrays


def test_detections_are_sorted_by_class_and_not_rounded():
    detections = [
        ("a", np.array([[2, 0.123456789, 1.26, 2, 3, 4], [1, 0.5, 5, 6, 7, 8]])),
        (7, np.array([])),
        (8, np.empty((0, 6))),
        ("b", np.array([[2, 0.25, 0, 0, 1, 1]], dtype=np.float32)),
    ]
    results = collect_predictions(detections, n_classes=3)
    assert results == [
        [],
        [("a", 0.5, 5.0, 6.0, 7.0, 8.0)],
        [("a", 0.123456789, 1.26, 2.0, 3.0, 4.0), ("b", 0.25, 0.0, 0.0, 1.0, 1.0)],
        [],
    ]
    assert all(type(value) is float for value in results[2][1][1:])


def test_confidences_are_rounded_on_request():
    detections = [(0, np.array([[1, 0.123456, 0.123456, 0, 1, 1]]))]
    assert collect_predictions(detections, 1, round_confidences=3)[1] == [
        (0, 0.123, 0.123456, 0.0, 1.0, 1.0)
    ]


@pytest.mark.parametrize("class_id", [0, 3, 1.5, -1, np.nan])
def test_a_class_id_out_of_range_is_named(class_id):
    with pytest.raises(ValueError, match=f"image 'a' has the class id {class_id}.*n_classes = 2"):
        collect_predictions([("a", [[class_id, 0.5, 0, 0, 1, 1]])], n_classes=2)


def test_arrays_of_predictions():
    numbers = {"12": 0, "x" * 50: 1}
    predictions = [("x" * 50, 0.5, 1, 2, 3, 4), (12, 0.25, 5, 6, 7, 8), (b"12", 1, 0, 0, 1, 1)]
    images, confidences, boxes = prediction_arrays(predictions, numbers)
    assert images.tolist() == [1, 0, 0]
    assert confidences.tolist() == [0.5, 0.25, 1.0]
    assert boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 1, 1]]


def test_arrays_of_no_predictions():
    images, confidences, boxes = prediction_arrays([], {})
    assert images.shape == confidences.shape == (0,)
    assert boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([("a", 0.5, 0, 0, 1, 1), ("b", 0.5, 0, 0, 1)], r"got \('b', 0.5, 0, 0, 1\)"),
        ([("a", 0.5, 0, 0, 1, 1), ("z", 0.5, 0, 0, 1, 1)], "1 images.*does not hold.*'z'"),
    ],
)
def test_predictions_that_make_no_sense_are_named(predictions, message):
    with pytest.raises(ValueError, match=message):
        prediction_arrays(predictions, {"a": 0, "b": 1})
