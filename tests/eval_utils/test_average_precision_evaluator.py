import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.average_precision_evaluator import Evaluator

SIZE = 32  # height and width of the stub models' input, in pixels


class StubModel:
    """Gives out its predictions, one image after the other, and remembers the images it saw."""

    def __init__(self, predictions):
        self.predictions = np.asarray(predictions, dtype=np.float32)
        self.batches = []

    def predict(self, batch):
        start = sum(map(len, self.batches))
        self.batches.append(batch)
        return self.predictions[start : start + len(batch)]


def rows_of_class(class_id, *boxes):
    """What a model in mode 'inference' says of an image: detections, filled up with zeros."""
    rows = np.zeros((4, 6))
    for row, box in zip(rows, boxes, strict=False):
        row[:] = (class_id, 0.9, *box)
    return rows


def golden_predictions(seed, n_images):
    """The stub of the recorded `predict_on_dataset` (see the README of the golden numbers)."""
    predictions = np.zeros((n_images, 6, 6))
    for image in range(n_images):
        rng = np.random.default_rng(seed + image)
        for row in predictions[image, :4]:
            width, height = rng.uniform(6, 32 * 0.7, 1)[0], rng.uniform(6, 32 * 0.7, 1)[0]
            x, y = rng.uniform(0, 32 - width), rng.uniform(0, 32 - height)
            box = np.array([x, y, x + width, y + height], np.float32)
            row[:] = [rng.integers(1, 21), np.float32(rng.random()), *box]
    return predictions


@pytest.fixture
def voc(golden_dir):
    """The four images of the recorded VOC data set; the third one has no objects."""
    folder = golden_dir / "parsers" / "voc"
    data = DataGenerator(verbose=False)
    data.parse_xml(
        [str(folder / "JPEGImages")] * 2,
        [str(folder / "ImageSets" / "Main" / f"part{part}.txt") for part in (1, 2)],
        [str(folder / "Annotations")] * 2,
        verbose=False,
    )
    return data


@pytest.fixture
def make_data(tmp_path):
    """Return a maker of data sets of two black images, 64 pixels wide and 48 high.

    The first one holds an object; in the model's input of 32 x 32 it is MODEL_BOX.
    """

    def make(**settings):
        filenames = [str(tmp_path / name) for name in ("a.png", "b.png")]
        for filename in filenames:
            cv2.imwrite(filename, np.zeros((48, 64, 3), np.uint8))
        settings = {
            "labels": [np.array([[1, 8, 12, 40, 36]]), np.empty((0, 5), int)],
            "image_ids": ["a", "b"],
            **settings,
        }
        return DataGenerator(filenames=filenames, verbose=False, **settings)

    return make


MODEL_BOX = (4, 8, 20, 24)
IMAGE_BOX = (8.0, 12.0, 40.0, 36.0)


def evaluate(evaluator, **settings):
    return evaluator(SIZE, SIZE, batch_size=2, verbose=False, **settings)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_golden_predictions(golden, voc, batch_size):
    recorded = golden("parsers").info["predict_on_dataset"][0]
    model = StubModel(golden_predictions(recorded["seed0"], 4))
    evaluator = Evaluator(model, 20, voc)
    results = evaluator.predict_on_dataset(SIZE, SIZE, batch_size, verbose=False, ret=True)

    assert len(results) == 21
    for class_id, predictions in enumerate(results):
        expected = recorded["results"].get(str(class_id), [])
        assert [p[0] for p in predictions] == [p[0] for p in expected]
        assert [p[1] for p in predictions] == pytest.approx([p[1] for p in expected], rel=1e-6)
        # The recorded boxes were rounded to whole pixels on their way back to the original image.
        # Predictions are not rounded any more, so they may be half a pixel away.
        boxes = np.array([p[2:] for p in predictions]).reshape(-1, 4)
        np.testing.assert_allclose(
            boxes, np.reshape([p[2:] for p in expected], (-1, 4)), atol=0.5 + 1e-6
        )
    assert {batch.shape[1:] for batch in model.batches} == {(SIZE, SIZE, 3)}
    assert sum(map(len, model.batches)) == 4


def test_golden_counts_with_padding(golden, voc):
    recorded = golden("parsers").info["predict_on_dataset"][1]
    runs = []
    for _ in range(2):
        model = StubModel(golden_predictions(recorded["seed0"], 4))
        evaluator = Evaluator(model, 20, voc)
        runs.append(
            evaluator.predict_on_dataset(
                SIZE, SIZE, 2, data_generator_mode="pad", verbose=False, ret=True
            )
        )
    counts = {str(c): len(predictions) for c, predictions in enumerate(runs[0]) if predictions}
    assert counts == recorded["results"]
    assert runs[0] == runs[1], "where images are padded is random, but the same in every evaluation"


@pytest.mark.parametrize("mode", ["resize", "pad"])
def test_boxes_are_mapped_back_to_the_original_image(make_data, mode):
    box = (4.25, 8.5, 20.125, 24)
    evaluator = Evaluator(StubModel([rows_of_class(1, box), rows_of_class(1)]), 1, make_data())
    evaluator.predict_on_dataset(SIZE, SIZE, 2, data_generator_mode=mode, verbose=False)
    ((image_id, confidence, *mapped),) = evaluator.prediction_results[1]
    assert image_id == "a"
    assert confidence == pytest.approx(0.9, rel=1e-6)
    width, height = mapped[2] - mapped[0], mapped[3] - mapped[1]
    if mode == "resize":  # 64 x 48 stretched to 32 x 32
        assert mapped == pytest.approx([8.5, 12.75, 40.25, 36])
    else:  # padded to 64 x 64, then halved: the position depends on the padding, the size does not
        assert (width, height) == pytest.approx((31.75, 31))
        assert mapped[0::2] == pytest.approx([8.5, 40.25])


def test_a_perfect_model_scores_one(make_data):
    model = StubModel([rows_of_class(1, MODEL_BOX), rows_of_class(1)])
    evaluator = Evaluator(model, 2, make_data(), class_names=["background", "cat", "dog"])
    assert evaluate(evaluator) == 1.0
    assert evaluator.classes_without_gt == [2]
    assert evaluator.summary()["average_precisions"] == {"cat": 1.0, "dog": None}


def named_model(*names):
    """Return a stub of a model that knows what its classes are called."""
    model = StubModel([rows_of_class(1, MODEL_BOX), rows_of_class(1)])
    model.layers = [SimpleNamespace(name="predictions", class_names=names)]
    return model


@pytest.mark.parametrize(
    ("of_data", "given", "expected"),
    [
        (None, None, ["background", "cat", "dog"]),  # the model's
        (["background", "tom", "dog"], None, ["background", "tom", "dog"]),
        (None, ["-", "a", "b"], ["-", "a", "b"]),
        (["background", "dog", "cat"], ["-", "a", "b"], ["-", "a", "b"]),
    ],
)
def test_names_come_from_the_caller_the_data_or_the_model(of_data, given, expected, make_data):
    data = make_data()
    data.class_names = of_data
    model = named_model("background", "cat", "dog")
    assert Evaluator(model, 2, data, class_names=given).class_names == expected


def test_data_with_the_classes_in_another_order_are_refused(make_data):
    data = make_data()
    data.class_names = ["background", "dog", "cat"]
    with pytest.raises(ValueError, match="'dog' is number 2 of the model, but number 1 of the da"):
        Evaluator(named_model("background", "cat", "dog"), 2, data)


def test_results_come_in_a_fixed_order(make_data):
    def run(**wanted):
        model = StubModel([rows_of_class(1, MODEL_BOX, (0, 0, 3, 3)), rows_of_class(1)])
        return evaluate(Evaluator(model, 1, make_data()), **wanted)

    mean, average_precisions, precisions, recalls = run(
        return_recalls=True, return_precisions=True, return_average_precisions=True
    )
    assert mean == average_precisions[1] == 1.0
    assert len(average_precisions) == len(precisions) == len(recalls) == 2
    np.testing.assert_allclose(precisions[1], [1, 1 / 2])
    np.testing.assert_allclose(recalls[1], [1, 1])

    mean, recalls = run(return_recalls=True)
    np.testing.assert_allclose(recalls[1], [1, 1])
    assert run() == 1.0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 6 / 11),  # one of two objects found: the levels 0, .1, ..., .5
        ({"num_recall_points": 5}, 3 / 5),
        ({"average_precision_mode": "integrate"}, 1 / 2),
        ({"ignore_neutral_boxes": False}, 4 / 11),  # one of three: 0, .1, .2, .3
        # The overlap is 33 * 19 / (33 * 25) = .76 with borders, 32 * 18 / (32 * 24) = .75 without.
        ({"matching_iou_threshold": 0.755}, 6 / 11),
        ({"matching_iou_threshold": 0.765}, 0.0),
        ({"average_precision_mode": "coco"}, 51 / 101),
        ({"matching_iou_threshold": 0.755, "border_pixels": "half"}, 0.0),
    ],
)
def test_settings_reach_their_stages(make_data, settings, expected):
    labels = [np.array([[1, 8, 12, 40, 30], [1, 0, 0, 5, 5], [1, 50, 0, 60, 9]]), []]
    data = make_data(labels=labels, eval_neutral=[[False, False, True], []])
    evaluator = Evaluator(StubModel([rows_of_class(1, MODEL_BOX), rows_of_class(1)]), 1, data)
    assert evaluate(evaluator, **settings) == pytest.approx(expected)


def test_decoding_settings_reach_the_decoder(make_data, monkeypatch):
    received = {}

    def decode(y_pred, **settings):
        received.update(settings)
        return [np.empty((0, 6))] * len(y_pred)

    monkeypatch.setattr("eval_utils.prediction.decode_detections", decode)
    model = StubModel([raw_prediction(MODEL_BOX)] * 2)
    evaluate(
        Evaluator(model, 2, make_data(), model_mode="training"),
        border_pixels="exclude",
        decoding_confidence_thresh=0.125,
        decoding_iou_threshold=0.25,
        decoding_top_k=7,
        decoding_pred_coords="minmax",
        decoding_normalize_coords=False,
    )
    assert received == {
        "confidence_thresh": 0.125,
        "iou_threshold": 0.25,
        "top_k": 7,
        "input_coords": "minmax",
        "normalize_coords": False,
        "img_height": SIZE,
        "img_width": SIZE,
        "border_pixels": "exclude",
    }


def raw_prediction(box):
    """Output in mode 'training': two anchors, the first one of class 1, its offsets zero."""
    xmin, ymin, xmax, ymax = np.array(box) / SIZE
    anchor = [(xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin]
    variances = [0.1, 0.1, 0.2, 0.2]
    return [
        [0.1, 0.8, 0.1, *[0] * 4, *anchor, *variances],
        [1.0, 0.0, 0.0, *[0] * 4, *anchor, *variances],
    ]


def test_raw_output_is_decoded(make_data):
    model = StubModel([raw_prediction(MODEL_BOX)] * 2)
    evaluator = Evaluator(model, 2, make_data(), model_mode="training")
    assert evaluate(evaluator, average_precision_mode="integrate") == 1.0
    for image_id, prediction in zip("ab", evaluator.prediction_results[1], strict=True):
        assert prediction[0] == image_id
        assert prediction[1:] == pytest.approx((0.8, *IMAGE_BOX), rel=1e-5)

    model = StubModel([raw_prediction(MODEL_BOX)] * 2)
    evaluator = Evaluator(model, 2, make_data(), model_mode="training")
    evaluate(evaluator, decoding_confidence_thresh=0.85)
    assert evaluator.prediction_results == [[], [], []]


@pytest.mark.parametrize(
    ("model_mode", "shape", "message"),
    [
        ("inference", (2, 8, 15), r"\(batch, boxes, 6\); got \(2, 8, 15\)"),
        ("training", (2, 8, 6), r"\(batch, boxes, 15\); got \(2, 8, 6\)"),
        ("training", (2, 8, 16), r"n_classes=2 .*\(batch, boxes, 15\); got \(2, 8, 16\)"),
        ("inference_fast", (2, 6), r"got \(2, 6\)"),
    ],
)
def test_output_that_does_not_suit_the_model_mode_is_refused(make_data, model_mode, shape, message):
    evaluator = Evaluator(StubModel(np.zeros(shape)), 2, make_data(), model_mode=model_mode)
    with pytest.raises(ValueError, match=message):
        evaluator.predict_on_dataset(SIZE, SIZE, 2, verbose=False)


@pytest.mark.parametrize(
    "labels_output_format",
    [
        ("xmin", "ymin", "xmax", "ymax", "class_id"),
        ("class_id", "xmin", "xmax", "ymin", "ymax"),
        ("ymax", "class_id", "xmax", "ymin", "xmin"),
    ],
)
def test_label_columns_may_have_any_order(make_data, labels_output_format):
    row = dict(zip(("class_id", "xmin", "ymin", "xmax", "ymax"), (1, *IMAGE_BOX), strict=True))
    data = make_data(
        labels=[np.array([[row[name] for name in labels_output_format]]), []],
        labels_output_format=labels_output_format,
    )
    evaluator = Evaluator(StubModel([rows_of_class(1, MODEL_BOX), rows_of_class(1)]), 1, data)
    assert evaluate(evaluator, matching_iou_threshold=0.99) == 1.0


def test_prediction_columns_may_have_any_order(make_data):
    pred_format = {"xmin": 0, "ymin": 1, "xmax": 2, "ymax": 3, "conf": 4, "class_id": 5}
    rows = [rows_of_class(1, MODEL_BOX), rows_of_class(1)]
    model = StubModel([image[:, [2, 3, 4, 5, 1, 0]] for image in rows])
    evaluator = Evaluator(model, 1, make_data(), pred_format=pred_format)
    assert evaluate(evaluator, matching_iou_threshold=0.99) == 1.0
    assert evaluator.prediction_results[1][0] == pytest.approx(
        ("a", pytest.approx(0.9), *IMAGE_BOX)
    )


def test_images_without_ids_count_from_zero_and_the_data_set_stays_as_it_is(make_data):
    data = make_data(image_ids=None)
    labels = [rows.copy() for rows in data.labels]
    evaluator = Evaluator(StubModel([rows_of_class(1, MODEL_BOX)] * 2), 1, data)
    assert evaluator(SIZE, SIZE, batch_size=1, verbose=False) == 1.0
    assert [prediction[0] for prediction in evaluator.prediction_results[1]] == [0, 1]
    assert data.image_ids is None
    assert data.eval_neutral is None
    assert data.dataset_indices.tolist() == [0, 1]
    for before, after in zip(labels, data.labels, strict=True):
        np.testing.assert_array_equal(before, after)


def test_no_labels_are_noticed_before_predicting(make_data):
    model = StubModel([rows_of_class(1)] * 2)
    evaluator = Evaluator(model, 1, make_data(labels=None))
    with pytest.raises(ValueError, match="no ground truth labels"):
        evaluate(evaluator)
    assert model.batches == []
    evaluator.predict_on_dataset(SIZE, SIZE, 2, verbose=False)  # works without labels
    assert sum(map(len, model.batches)) == 2


@pytest.mark.parametrize(
    "setting",
    [
        {"average_precision_mode": "area"},
        {"num_recall_points": 0},
        {"border_pixels": "whole"},
        {"data_generator_mode": "crop"},
        {"matching_rule": "kitti"},
    ],
)
def test_unknown_settings_are_noticed_before_predicting(make_data, setting):
    model = StubModel([rows_of_class(1)] * 2)
    with pytest.raises(ValueError, match=str(next(iter(setting.values())))):
        evaluate(Evaluator(model, 1, make_data()), **setting)
    assert model.batches == []


def test_confidences_are_rounded_on_request(make_data):
    rows = rows_of_class(1, MODEL_BOX)
    rows[0, 1] = 0.123456
    evaluator = Evaluator(StubModel([rows, rows]), 1, make_data())
    evaluate(evaluator, round_confidences=2)
    assert [prediction[1] for prediction in evaluator.prediction_results[1]] == [0.12, 0.12]


def test_verbose_is_handed_to_models_that_have_it(make_data, capsys):
    class TalkativeModel(StubModel):
        def predict(self, batch, verbose=1):
            if verbose:
                print("noise")
            return super().predict(batch)

    evaluate(Evaluator(TalkativeModel([rows_of_class(1, MODEL_BOX)] * 2), 1, make_data()))
    assert capsys.readouterr().out == ""


def test_grey_images_stay_grey_for_a_model_of_one_channel(make_data):
    model = StubModel([rows_of_class(1, MODEL_BOX)] * 2)
    evaluator = Evaluator(model, 1, make_data(image_channels=1))
    assert evaluate(evaluator) == 1.0
    assert model.batches[0].shape == (2, SIZE, SIZE, 1)


def test_images_of_more_channels_than_colours_stay_as_they_are(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((48, 64, 5), np.uint8))
    data = DataGenerator(
        filenames=[str(tmp_path / "a.npy")],
        labels=[np.array([[1, 8, 12, 40, 36]])],
        image_ids=["a"],
        image_channels=5,
        verbose=False,
    )
    model = StubModel([rows_of_class(1, MODEL_BOX)])
    assert evaluate(Evaluator(model, 1, data)) == 1.0
    assert model.batches[0].shape == (1, SIZE, SIZE, 5)


def test_predictions_are_written_by_class(make_data, tmp_path):
    evaluator = Evaluator(StubModel([rows_of_class(2, MODEL_BOX)] * 2), 2, make_data())
    with pytest.raises(ValueError, match="`predict_on_dataset`"):
        evaluator.write_predictions_to_txt(out_file_prefix=f"{tmp_path}/det_")
    evaluator.predict_on_dataset(SIZE, SIZE, 2, verbose=False)
    evaluator.write_predictions_to_txt(out_file_prefix=f"{tmp_path}/det_", verbose=False)
    evaluator.write_predictions_to_txt(
        ["background", "cat", "dog"], out_file_prefix=f"{tmp_path}/named_", verbose=False
    )
    assert (tmp_path / "det_0001.txt").read_text() == ""
    lines = "a 0.9 8.0 12.0 40.0 36.0\nb 0.9 8.0 12.0 40.0 36.0\n"
    assert (tmp_path / "det_0002.txt").read_text() == lines
    assert (tmp_path / "named_dog.txt").read_text() == lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_mode": "test"}, "training, inference, inference_fast; got 'test'"),
        ({"n_classes": 0}, "at least 1"),
        ({"class_names": ["cat"]}, "2 names in all; got 1"),
    ],
)
def test_wrong_constructor_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Evaluator(**{"model": None, "n_classes": 1, "data_generator": DataGenerator(), **arguments})


def test_other_data_generators_are_accepted_with_a_warning():
    data = SimpleNamespace(labels=[[(1, *IMAGE_BOX)]], image_ids=["a"], eval_neutral=None)
    with pytest.warns(UserWarning, match="a SimpleNamespace, not a `DataGenerator`"):
        evaluator = Evaluator(None, 1, data)
    evaluator.prediction_results = [[], [("a", 0.9, *IMAGE_BOX)]]
    assert evaluator.score(verbose=False) == 1.0


def test_predicting_needs_a_model_images_and_batches(make_data):
    with pytest.raises(ValueError, match="needs a model.*`prediction_results`"):
        Evaluator(None, 1, make_data()).predict_on_dataset(SIZE, SIZE, 2)
    with pytest.raises(ValueError, match="holds no images"):
        Evaluator(StubModel([]), 1, DataGenerator()).predict_on_dataset(SIZE, SIZE, 2)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1; got 0"):
        Evaluator(StubModel([]), 1, make_data()).predict_on_dataset(SIZE, SIZE, 0)


def test_importing_the_evaluator_imports_no_deep_learning_framework():
    program = (
        "import sys, eval_utils.average_precision_evaluator\n"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"
