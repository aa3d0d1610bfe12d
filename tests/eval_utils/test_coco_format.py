import json

import numpy as np
import pytest

from eval_utils.coco_format import coco_detections, coco_ground_truth, plain_id
from eval_utils.coco_utils import evaluate_coco
from eval_utils.detection_scorer import GT_FORMAT

NAMES = ["background", "cat", "dog"]
LABELS = [np.array([[2, 10, 20, 60, 80]]), [], [(1, 0, 0, 40, 50), (1, 90, 90, 200, 200)]]


def test_labels_in_coco_format():
    truth = coco_ground_truth(
        LABELS,
        [np.int64(7), "b", b"c"],
        NAMES,
        GT_FORMAT,
        eval_neutral=[[False], [], [False, True]],
        classes_to_cats={1: 17, 2: 18},
    )
    assert json.loads(json.dumps(truth)) == truth, "plain numbers only"
    assert truth["images"] == [{"id": 7}, {"id": "b"}, {"id": "c"}]
    assert truth["categories"] == [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
    assert truth["annotations"][0] == {
        "id": 1,
        "image_id": 7,
        "category_id": 18,
        "bbox": [10, 20, 50, 60],
        "area": 3000,
        "iscrowd": 0,
    }
    assert [entry["iscrowd"] for entry in truth["annotations"]] == [0, 0, 1]
    assert [entry["image_id"] for entry in truth["annotations"]] == [7, "c", "c"]


def test_columns_may_have_any_order():
    columns = {"xmin": 0, "xmax": 1, "ymin": 2, "ymax": 3, "class_id": 4}
    truth = coco_ground_truth([[(10, 60, 20, 80, 1)]], ["a"], NAMES, columns)
    assert truth["annotations"][0]["bbox"] == [10, 20, 50, 60]
    assert truth["annotations"][0]["category_id"] == 1


def test_predictions_in_coco_format():
    results = [[], [("a", 0.5, 1.0, 2.0, 4.0, 6.0)], [(np.int64(3), 0.25, 0.0, 0.0, 1.0, 1.0)]]
    expected = [
        {"image_id": "a", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 3, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 0.25},
    ]
    assert coco_detections(results) == expected
    assert [e["category_id"] for e in coco_detections(results, {1: 17, 2: 18})] == [17, 18]


def test_perfect_predictions_of_any_data_set_score_one():
    ids = ["a", "b", "c"]
    truth = coco_ground_truth(LABELS, ids, NAMES, GT_FORMAT, [[False], [], [False, True]])
    results = [[], [("c", 0.9, 0, 0, 40, 50)], [("a", 0.8, 10, 20, 60, 80)]]
    scores = evaluate_coco(truth, coco_detections(results))
    assert scores.ap == scores.ar100 == 1.0


@pytest.mark.parametrize(
    ("image_id", "plain"),
    [(7, 7), (np.int32(7), 7), ("000007", "000007"), (b"a", "a"), (np.str_("a"), "a")],
)
def test_plain_ids(image_id, plain):
    assert plain_id(image_id) == plain
    assert type(plain_id(image_id)) is type(plain)
