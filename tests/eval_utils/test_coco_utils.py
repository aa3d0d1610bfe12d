import copy
import json
import sys

import cv2
import numpy as np
import pytest

from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.coco_utils import evaluate_coco, get_coco_category_maps, predict_all_to_json
from tests.eval_utils.coco_problems import pycocotools_evaluation, random_problem

PERFECT = np.ones(12)


def truth_of(annotations, n_images=1, categories=("cat",)):
    """Ground truth with annotations (image, category, box); ids count from 1."""
    return {
        "images": [{"id": image} for image in range(1, n_images + 1)],
        "categories": [{"id": id_, "name": name} for id_, name in enumerate(categories, 1)],
        "annotations": [
            {"image_id": image, "category_id": category, "bbox": box}
            for image, category, box in annotations
        ],
    }


def detection(image_id, category_id, bbox, score=0.9):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


@pytest.mark.parametrize("whole", [False, True], ids=["fractions", "whole numbers"])
@pytest.mark.parametrize("seed", range(6))
def test_random_problems_score_as_with_pycocotools(seed, whole):
    ground_truth, detections = random_problem(seed, whole=whole)
    reference = pycocotools_evaluation(ground_truth, detections)
    scores = evaluate_coco(ground_truth, detections)
    np.testing.assert_allclose(scores.stats, reference.stats, rtol=0, atol=1e-9)

    categories = ground_truth["categories"]
    assert list(scores.per_category) == [category["name"] for category in categories]
    for k, numbers in enumerate(scores.per_category.values()):
        precision, recall = reference.eval["precision"][:, :, k], reference.eval["recall"][:, k]
        expected = {
            "ap": precision[:, :, 0, 2],
            "ap50": precision[0, :, 0, 2],
            "ap75": precision[5, :, 0, 2],
            "ap_small": precision[:, :, 1, 2],
            "ap_large": precision[:, :, 3, 2],
            "ar1": recall[:, 0, 0],
            "ar10": recall[:, 0, 1],
            "ar_medium": recall[:, 2, 2],
        }
        for name, values in expected.items():
            value = values[values > -1].mean() if (values > -1).any() else np.nan
            assert getattr(numbers, name) == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_without_an_area_that_of_the_box_counts():
    """Also where the file says `null`, as some tools write what they do not know."""
    ground_truth = truth_of([(1, 1, [0, 0, 40, 40]), (1, 1, [50, 50, 10, 10])])
    ground_truth["annotations"][0]["area"] = None
    scores = evaluate_coco(ground_truth, [detection(1, 1, [0, 0, 40, 40])])
    assert (scores.ap_medium, scores.ap_small) == (1, 0)


def test_more_than_a_hundred_detections_in_an_image():
    ground_truth, detections = random_problem(seed=7, n_images=3, n_detections=600)
    assert (
        max(sum(d["image_id"] == i["id"] for d in detections) for i in ground_truth["images"]) > 300
    )
    reference = pycocotools_evaluation(ground_truth, detections)
    np.testing.assert_allclose(
        evaluate_coco(ground_truth, detections).stats, reference.stats, rtol=0, atol=1e-9
    )


def test_the_table_is_the_one_people_know(capsys):
    ground_truth, detections = random_problem(seed=3)
    evaluation = pycocotools_evaluation(ground_truth, detections)
    capsys.readouterr()
    evaluation.summarize()
    expected = capsys.readouterr().out
    assert str(evaluate_coco(ground_truth, detections)) + "\n" == expected.replace("-1.000", "n/a")
    assert capsys.readouterr().out == "", "evaluating prints nothing"


def test_files_and_their_content_are_the_same(tmp_path):
    ground_truth, detections = random_problem(seed=4)
    before = copy.deepcopy((ground_truth, detections))
    scores = evaluate_coco(ground_truth, detections)
    assert (ground_truth, detections) == before, "what is given is not changed"

    (tmp_path / "truth.json").write_text(json.dumps(ground_truth))
    (tmp_path / "detections.json").write_text(json.dumps(detections))
    from_files = evaluate_coco(str(tmp_path / "truth.json"), tmp_path / "detections.json")
    assert from_files == scores


def test_one_object_found():
    # The annotation has the id 0: engines take that for "no match" if it is not renumbered.
    truth = truth_of([(1, 1, [10, 10, 50, 50])])
    truth["annotations"][0]["id"] = 0
    scores = evaluate_coco(truth, [detection(1, 1, [10, 10, 50, 50])])
    assert scores.ap == scores.ap50 == scores.ar1 == scores.ap_medium == 1.0
    assert np.isnan(scores.ap_small)
    assert np.isnan(scores.ar_large)
    assert scores.as_dict()["ap_small"] is None
    assert (
        json.loads(json.dumps(scores.as_dict(), allow_nan=False))["per_category"]["cat"]["ap"] == 1
    )


def test_no_detections():
    scores = evaluate_coco(truth_of([(1, 1, [10, 10, 50, 50])]), [])
    assert scores.ap == scores.ar100 == 0.0
    assert np.isnan(scores.ap_small)


def test_no_objects():
    scores = evaluate_coco(truth_of([]), [detection(1, 1, [10, 10, 50, 50])])
    assert scores.stats.tolist() == [-1] * 12
    assert set(scores.as_dict().pop("per_category")["cat"].values()) == {None}


def test_a_category_without_objects_is_no_part_of_the_mean():
    truth = truth_of([(1, 1, [0, 0, 50, 50])], categories=("cat", "dog"))
    scores = evaluate_coco(truth, [detection(1, 1, [0, 0, 50, 50]), detection(1, 2, [0, 0, 9, 9])])
    assert scores.ap == scores.per_category["cat"].ap == 1.0
    assert np.isnan(scores.per_category["dog"].ap)


def test_a_detection_inside_a_crowd_is_neither_right_nor_wrong():
    truth = truth_of([(1, 1, [0, 0, 200, 200]), (1, 1, [300, 300, 50, 50])])
    truth["annotations"][0]["iscrowd"] = 1
    inside = [detection(1, 1, [x, 20, 40, 40], 0.95) for x in (10, 60, 110)]
    found = detection(1, 1, [300, 300, 50, 50], 0.5)
    assert evaluate_coco(truth, [*inside, found]).ap == 1.0
    del truth["annotations"][0]
    assert evaluate_coco(truth, [*inside, found]).ap == pytest.approx(0.25)


def test_ids_may_be_strings_or_a_mixture():
    ground_truth, detections = random_problem(seed=5)
    expected = evaluate_coco(ground_truth, detections).stats
    images = sorted(image["id"] for image in ground_truth["images"])
    # Numbers go before strings, so that the images keep their order, which decides ties.
    names = {image: image if n < 4 else f"frame {n:02d}.jpg" for n, image in enumerate(images)}
    for entry in [*ground_truth["annotations"], *detections]:
        entry["image_id"] = names[entry["image_id"]]
        entry["category_id"] = f"{entry['category_id']:03d}"
    for image in ground_truth["images"]:
        image["id"] = names[image["id"]]
    for category in ground_truth["categories"]:
        category["id"] = f"{category['id']:03d}"
    np.testing.assert_array_equal(evaluate_coco(ground_truth, detections).stats, expected)


def test_categories_of_one_name_go_by_their_ids():
    truth = truth_of([(1, 1, [0, 0, 50, 50])], categories=("bat", "bat"))
    assert list(evaluate_coco(truth, []).per_category) == [1, 2]


def test_a_selection_of_images_and_categories():
    truth = truth_of(
        [(1, 1, [0, 0, 50, 50]), (2, 1, [0, 0, 50, 50]), (1, 2, [0, 0, 50, 50])],
        n_images=2,
        categories=("cat", "dog"),
    )
    found = [detection(1, 1, [0, 0, 50, 50]), detection(3, 1, [0, 0, 9, 9])]
    found.append(detection(1, 77, [0, 0, 9, 9]))
    scores = evaluate_coco(truth, found, image_ids=[1], category_ids=[1])
    assert scores.ap == 1.0
    assert list(scores.per_category) == ["cat"]


BAD = [
    ([detection(5, 1, [0, 0, 9, 9])], {}, r"detections\[0\].* no image 5.*belong together"),
    ([detection(1, 5, [0, 0, 9, 9])], {}, r"detections\[0\].* no category 5.*classes_to_cats"),
    ([], {"image_ids": [1, 9]}, "`image_ids` names the image 9"),
    ([], {"category_ids": []}, "nothing to evaluate"),
    ([detection(1, 1, [0, 0, 9])], {}, r"detections\[0\]: expected .*'score'"),
    ([detection(1, 1, [0, 0, 9, float("nan")])], {}, "finite"),
    ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}], {}, "'score'"),
    ({"annotations": []}, {}, "list of detections .* got a dict"),
]


@pytest.mark.parametrize(("detections", "selection", "message"), BAD)
def test_detections_that_make_no_sense_are_named(detections, selection, message):
    with pytest.raises(ValueError, match=message):
        evaluate_coco(truth_of([(1, 1, [0, 0, 50, 50])]), detections, **selection)


def without(key):
    truth = truth_of([(1, 1, [0, 0, 50, 50])])
    del truth[key]
    return truth


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (without("annotations"), "list 'annotations'.*test images have no annotations"),
        (without("categories"), "list 'categories'"),
        ([], "dictionary.*got a list"),
        (truth_of([(3, 1, [0, 0, 9, 9])]), r"annotations\[0\].*no image 3"),
        (truth_of([(1, 3, [0, 0, 9, 9])]), r"annotations\[0\].*no category 3"),
        (truth_of([(1, 1, "box")]), r"annotations\[0\]: expected .*'bbox'"),
        ({**truth_of([]), "images": [{}]}, r"images\[0\]: 'id' is missing"),
        (truth_of([], n_images=0), "nothing to evaluate: no image"),
    ],
)
def test_ground_truth_that_makes_no_sense_is_named(truth, message):
    with pytest.raises(ValueError, match=message):
        evaluate_coco(truth, [])


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "truth.json").write_text("{'images': []}")
    with pytest.raises(ValueError, match=r"truth\.json: not a JSON file"):
        evaluate_coco(tmp_path / "truth.json", [])


def test_a_missing_engine_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"pip install 'ssd-keras\[coco\]'"):
        evaluate_coco(truth_of([]), [])


def test_golden_category_maps(golden, golden_dir):
    recorded = golden("parsers").info["get_coco_category_maps"]
    maps = get_coco_category_maps(golden_dir / "parsers" / recorded["arg"])
    names, *numberings = recorded["values"][3], *recorded["values"][:3]
    for found, expected in zip(maps, numberings, strict=False):
        assert found == {int(key): value for key, value in expected.items()}
    assert maps[3] == names


def test_categories_without_names_are_refused(tmp_path):
    (tmp_path / "truth.json").write_text('{"categories": [{"id": 3}]}')
    with pytest.raises(ValueError, match=r"categories\[0\]: expected 'id' and 'name'"):
        get_coco_category_maps(tmp_path / "truth.json")


SIZE = 32  # height and width of the stub model's input, in pixels


class StubModel:
    """Finds the same boxes in every image."""

    def __init__(self, *rows):
        self.rows = np.zeros((4, 6), np.float32)
        for row, values in zip(self.rows, rows, strict=False):
            row[:] = values

    def predict(self, batch):
        return np.stack([self.rows] * len(batch))


@pytest.fixture
def images(tmp_path):
    """Three images, 64 pixels wide and 48 high."""
    filenames = [str(tmp_path / f"{name}.png") for name in "abc"]
    for filename in filenames:
        cv2.imwrite(filename, np.zeros((48, 64, 3), np.uint8))
    return DataGenerator(filenames=filenames, image_ids=[7, np.int64(8), "nine"], verbose=False)


def predict(images, model, out_file, classes_to_cats=None, **settings):
    settings = {"model_mode": "inference", "verbose": False, **settings}
    classes_to_cats = {1: 18, 2: 90} if classes_to_cats is None else classes_to_cats
    predict_all_to_json(out_file, model, SIZE, SIZE, classes_to_cats, images, 2, **settings)
    return json.loads(out_file.read_text())


def test_predictions_are_written_in_pixels_of_the_images(images, tmp_path):
    model = StubModel((2, 0.1, 4.25, 8, 20.125, 24), (1, 0.123456, 0, 0, 4, 4))
    entries = predict(images, model, tmp_path / "out.json")
    assert [entry["image_id"] for entry in entries] == [7, 7, 8, 8, "nine", "nine"]
    assert entries[0] == {
        "image_id": 7,
        "category_id": 90,
        "bbox": [8.5, 12.0, 31.75, 24.0],
        "score": 0.1,  # and not the 0.10000000149011612 of a float32
    }
    assert entries[1]["category_id"] == 18
    assert entries[1]["score"] == 0.123456, "not rounded: equal scores change the ranking"


def test_padding_keeps_the_proportions(images, tmp_path):
    entries = predict(
        images, StubModel((1, 0.5, 4, 8, 20, 24)), tmp_path / "out.json", data_generator_mode="pad"
    )
    for entry in entries:
        assert entry["bbox"][2:] == [32, 32]  # 64 x 64 after padding, then halved
        assert entry["bbox"][0] == 8


def test_raw_output_is_decoded(images, tmp_path):
    class RawModel:
        def predict(self, batch):
            anchor = [0.5, 0.5, 0.25, 0.5, 0.1, 0.1, 0.2, 0.2]
            return np.array([[[0.1, 0.2, 0.7, 0, 0, 0, 0, *anchor]]] * len(batch), np.float32)

    entries = predict(
        images, RawModel(), tmp_path / "out.json", model_mode="training", confidence_thresh=0.5
    )
    assert entries[0] == {
        "image_id": 7,
        "category_id": 90,
        "bbox": [24, 12, 16, 24],
        "score": pytest.approx(0.7),
    }
    assert len(entries) == 3


def test_no_detections_make_an_empty_list(images, tmp_path):
    assert predict(images, StubModel(), tmp_path / "out.json") == []


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([(3, 0.5, 0, 0, 9, 9)], {}, "image 7 has the class id 3.*it has: 1, 2"),
        ([(1, np.nan, 0, 0, 9, 9)], {}, "image 7 are not finite"),
        ([(1, 0.5, -3e38, 0, 3e38, 9)], {}, "image 7 are not finite"),  # its width is not
        ([], {"data_generator_mode": "crop"}, "'resize' or 'pad'; got 'crop'"),
        ([], {"model_mode": "test"}, "`model_mode` must be one of .* got 'test'"),
    ],
)
def test_an_earlier_file_survives_a_failure(images, tmp_path, rows, settings, message):
    (tmp_path / "out.json").write_text("[1]")
    files = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message):
        predict(images, StubModel(*rows), tmp_path / "out.json", **settings)
    assert (tmp_path / "out.json").read_text() == "[1]"
    assert sorted(tmp_path.iterdir()) == files


def test_from_a_model_on_real_photographs_to_the_numbers(real_data, tmp_path):
    """A model that knows the answers: it goes through resizing, predicting, writing and reading."""
    folder = real_data / "coco_cc"
    annotations = folder / "annotations" / "instances_val2017.json"
    data = DataGenerator(verbose=False)
    data.parse_json(
        [str(folder / "val2017")],
        [str(annotations)],
        ground_truth_available=True,
        exclude_crowd=True,
        verbose=False,
    )
    sizes = {
        i["id"]: (i["width"], i["height"]) for i in json.loads(annotations.read_text())["images"]
    }

    class Oracle:
        n_seen = 0

        def predict(self, batch):
            rows = np.zeros((len(batch), 200, 6), np.float32)
            for image in range(len(batch)):
                boxes = np.asarray(data.labels[self.n_seen], float).reshape(-1, 5)
                width, height = sizes[data.image_ids[self.n_seen]]
                scale = SIZE / np.array([width, height, width, height])
                rows[image, : len(boxes), 0] = boxes[:, 0]
                rows[image, : len(boxes), 1] = 0.9
                rows[image, : len(boxes), 2:] = boxes[:, 1:] * scale
                self.n_seen += 1
            return rows

    out_file = tmp_path / "out.json"
    predict_all_to_json(
        out_file, Oracle(), SIZE, SIZE, get_coco_category_maps(annotations)[1], data, 8,
        model_mode="inference", verbose=False,
    )  # fmt: skip
    scores = evaluate_coco(annotations, out_file)
    assert scores.ap == scores.ap50 == pytest.approx(1.0)
    reference = pycocotools_evaluation(
        json.loads(annotations.read_text()), json.loads(out_file.read_text())
    )
    np.testing.assert_allclose(scores.stats, reference.stats, rtol=0, atol=1e-9)
