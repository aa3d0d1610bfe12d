from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.scoring import score_detections
from tests.eval_utils.coco_problems import pycocotools_evaluation, random_problem
from tests.eval_utils.slow_reference import (
    area_in_fractions,
    match_one_by_one,
    sampled_average_precision_in_fractions,
)

BOX, OTHER = (10, 20, 49, 59), (100, 100, 139, 139)
LABELS = [np.array([(1, *BOX), (2, *OTHER)]), np.zeros((0, 5)), [(2, *BOX)]]
FOUND = [np.array([(1, 0.9, *BOX), (2, 0.8, *OTHER)]), [], [(2, 0.7, *BOX)]]


@pytest.mark.parametrize("mode", ["sample", "integrate", "coco"])
@pytest.mark.parametrize("rule", ["voc", "coco"])
def test_a_perfect_detector_scores_one(mode, rule):
    scores = score_detections(LABELS, FOUND, average_precision_mode=mode, matching_rule=rule)
    assert scores.mean_average_precision == pytest.approx(1.0, rel=1e-12)
    assert scores.n_classes == 2
    one = score_detections([[(1, *BOX)]], [[(1, 0.5, *BOX)]], average_precision_mode=mode)
    assert one.mean_average_precision == 1.0


def test_by_image_id():
    labels = dict(zip(["a", 7, "b"], LABELS, strict=True))
    found = {"b": FOUND[2], np.int64(7): FOUND[1], "a": FOUND[0]}
    assert score_detections(labels, found).mean_average_precision == 1.0
    scores = score_detections(labels, {"a": FOUND[0]}, average_precision_mode="integrate")
    assert scores.average_precisions == [0.0, 1.0, 0.5]


def test_nothing_detected():
    assert score_detections(LABELS, [[], [], []]).mean_average_precision == 0.0
    assert score_detections(LABELS, {}).mean_average_precision == 0.0
    assert np.isnan(score_detections([[]], [[]]).mean_average_precision)


def test_a_data_set_brings_its_own_columns_names_and_neutral_boxes():
    data = SimpleNamespace(
        labels=[[(10, 49, 20, 59, 1), (100, 139, 100, 139, 1)]],
        image_ids=["a"],
        eval_neutral=[[False, True]],
        labels_format={"xmin": 0, "xmax": 1, "ymin": 2, "ymax": 3, "class_id": 4},
        class_names=["background", "cat", "dog"],
    )
    found = {"a": [(1, 0.9, *OTHER), (1, 0.8, *BOX)]}
    scores = score_detections(data, found)
    assert scores.summary()["average_precisions"] == {"cat": 1.0, "dog": None}
    one_of_two = score_detections(data, {"a": found["a"][:1]}, ignore_neutral_boxes=False)
    assert one_of_two.average_precisions[1] == pytest.approx(6 / 11)
    neither = score_detections(data, {"a": found["a"][:1]}, eval_neutral=[[True, True]])
    assert np.isnan(neither.average_precisions[1])


def test_a_data_set_stays_itself_so_that_reports_show_its_images(tmp_path):
    data = DataGenerator(
        labels=[[(1, *BOX)]],
        filenames=["never read"],
        verbose=False,
    )
    data.images = [np.full((120, 160, 3), 128, np.uint8)]
    for neutral in (None, [[False]]):
        score_detections(data, [[(1, 0.9, *OTHER)]], eval_neutral=neutral).report(
            tmp_path / "report.html"
        )
        assert "data:image/jpeg" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert data.eval_neutral is None


def test_details_of_the_matching():
    labels = [[(2, *OTHER), (1, *BOX)], [(1, *BOX)]]
    found = [[(1, 0.5, *BOX), (1, 0.9, *BOX), (1, 0.7, *OTHER)], []]
    scores = score_detections(labels, found)
    cats = scores.matched_classes[1]
    assert scores.matched_classes[0] is None
    assert cats.images.tolist() == [0, 0, 0]
    assert cats.confidences.tolist() == [0.9, 0.7, 0.5]
    assert cats.boxes.tolist() == [list(map(float, box)) for box in (BOX, OTHER, BOX)]
    assert cats.matches.true_positives.tolist() == [True, False, False]
    assert cats.duplicates.tolist() == [False, False, True]
    assert cats.neutral.tolist() == [False] * 3
    assert cats.matches.gt_indices.tolist() == [0, -1, 0]
    assert cats.gt_images.tolist() == [0, 1]
    assert cats.gt_rows.tolist() == [1, 0], "rows of the labels of the image"
    assert cats.gt_boxes.tolist() == [list(map(float, BOX))] * 2
    assert cats.missed.tolist() == [False, True]


def test_neither_ground_truth_nor_detections_are_changed():
    labels = [np.array([(1, *BOX)], np.int32)]
    found = [np.array([(1, 0.5, *BOX), (1, 0.9, *OTHER)], np.float32)]
    copies = [labels[0].copy(), found[0].copy()]
    score_detections(labels, found)
    np.testing.assert_array_equal(labels[0], copies[0])
    np.testing.assert_array_equal(found[0], copies[1])


@pytest.mark.parametrize(
    ("found", "settings", "message"),
    [
        ([[]], {}, "detections for 1 images, but ground truth for 3"),
        ({"z": [(1, 0.5, *BOX)]}, {}, "does not hold, for example 'z'"),
        ([[(1, 0.5, 1, 2, 3)], [], []], {}, r"image 0 must be \(k, 6\).*got shape \(1, 5\)"),
        ([[(3, 0.5, *BOX)], [], []], {"n_classes": 2}, "class id 3.*n_classes = 2"),
        ([[], [], []], {"matching_rule": "kitti"}, "got 'kitti'"),
        ([[], [], []], {"border_pixels": "none"}, "border_pixels"),
    ],
)
def test_what_makes_no_sense_is_named(found, settings, message):
    with pytest.raises(ValueError, match=message):
        score_detections(LABELS, found, **settings)


def test_labels_that_are_no_table_are_named():
    with pytest.raises(ValueError, match=r"labels of image 0 must be a \(k, 5\).*got shape \(5,\)"):
        score_detections([np.array([1, *BOX])], [[]])


def test_ground_truth_without_labels_is_refused():
    with pytest.raises(ValueError, match="without labels"):
        score_detections(SimpleNamespace(labels=None), [])


corner, side = st.integers(0, 6), st.integers(1, 6)
boxes = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
class_ids = st.integers(1, 2)


@given(
    truth=st.lists(st.lists(st.tuples(class_ids, boxes, st.booleans()), max_size=4), min_size=1),
    guesses=st.lists(st.tuples(st.integers(0, 20), class_ids, st.integers(0, 9), boxes)),
)
def test_a_whole_evaluation_equals_the_slow_reference(truth, guesses):
    """All of Pascal VOC at once: included borders, difficult objects, ranking, both averages."""
    labels = [[(c, *box) for c, box, _ in objects] for objects in truth]
    neutral = [[flag for *_, flag in objects] for objects in truth]
    found = [[] for _ in truth]
    for image, class_id, confidence, box in guesses:
        found[image % len(truth)].append((class_id, confidence / 10, *box))

    sampled = score_detections(labels, found, 2, neutral)
    area = score_detections(labels, found, 2, neutral, average_precision_mode="integrate")
    for class_id in (1, 2):
        objects = {
            image: [(box, flag) for c, box, flag in boxes_ if c == class_id]
            for image, boxes_ in enumerate(truth)
        }
        ranked = [(i, row) for i, rows in enumerate(found) for row in rows if row[0] == class_id]
        ranked.sort(key=lambda guess: -guess[1][1])
        hits, misses = match_one_by_one([(i, r[2:]) for i, r in ranked], objects, 0.5, "include")
        assert sampled.true_positives[class_id].tolist() == hits
        assert sampled.false_positives[class_id].tolist() == misses
        num_gt = sum(not flag for boxes_ in objects.values() for _, flag in boxes_)
        if num_gt == 0:
            assert np.isnan(sampled.average_precisions[class_id])
            continue
        expected = sampled_average_precision_in_fractions(hits, misses, num_gt, 11)
        assert sampled.average_precisions[class_id] == pytest.approx(expected, abs=1e-12)
        expected = area_in_fractions(hits, misses, num_gt)
        assert area.average_precisions[class_id] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("whole", [False, True], ids=["fractions", "whole numbers"])
@pytest.mark.parametrize("seed", range(20, 26))
def test_the_rules_of_coco_without_its_engine_equal_pycocotools(seed, whole):
    ground_truth, detections = random_problem(seed, crowds=False, whole=whole)
    precision = pycocotools_evaluation(ground_truth, detections).eval["precision"][..., 0, 2]
    categories = [category["id"] for category in ground_truth["categories"]]
    images = sorted(image["id"] for image in ground_truth["images"])

    def rows(entries, *columns):
        by_image = {image: [] for image in images}
        for entry in entries:
            x, y, width, height = entry["bbox"]
            class_id = categories.index(entry["category_id"]) + 1
            scores = [entry[column] for column in columns]
            by_image[entry["image_id"]].append((class_id, *scores, x, y, x + width, y + height))
        return by_image

    for threshold, index in ((0.5, 0), (0.75, 5)):
        scores = score_detections(
            rows(ground_truth["annotations"]),
            rows(detections, "score"),
            n_classes=len(categories),
            matching_iou_threshold=threshold,
            border_pixels="half",
            matching_rule="coco",
            average_precision_mode="coco",
        )
        expected = np.where(precision[index] > -1, precision[index], np.nan).mean(axis=0)
        np.testing.assert_allclose(scores.average_precisions[1:], expected, rtol=0, atol=1e-9)
        assert scores.mean_average_precision == pytest.approx(np.nanmean(expected), abs=1e-9)
