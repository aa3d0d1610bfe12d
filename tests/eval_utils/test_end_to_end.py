"""From pictures through SSD7 to the numbers: a real model in all its modes."""

import json

import numpy as np
import pytest

from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.average_precision_evaluator import Evaluator
from eval_utils.coco_format import coco_detections, coco_ground_truth
from eval_utils.coco_utils import evaluate_coco, predict_all_to_json
from examples.digit_scenes import CLASSES, make_digit_scenes
from models.keras_ssd7 import build_model
from tests.eval_utils.coco_problems import pycocotools_evaluation

INPUT = (96, 112)  # height and width; the scenes are 100 x 150, so both modes change them
N_CLASSES = len(CLASSES) - 1
CATEGORIES = {class_id: 100 + class_id for class_id in range(1, N_CLASSES + 1)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = make_digit_scenes(
        tmp_path_factory.mktemp("scenes") / "digits", 0, 0, n_test=5, image_size=(100, 150)
    )
    data = DataGenerator(verbose=False)
    data.parse_xml(
        [str(folder / "JPEGImages")],
        [str(folder / "ImageSets" / "Main" / "test.txt")],
        [str(folder / "Annotations")],
        classes=CLASSES,
        verbose=False,
    )
    return data


@pytest.fixture(scope="module")
def models():
    """SSD7 as it is before any training: it sees digits everywhere."""
    settings = {
        "variances": (0.1, 0.1, 0.2, 0.2),
        "normalize_coords": True,
        "subtract_mean": 127.5,
        "divide_by_stddev": 127.5,
    }
    modes = ("training", "inference", "inference_fast")
    made = {
        mode: build_model((*INPUT, 3), N_CLASSES, mode=mode, confidence_thresh=0.2, **settings)
        for mode in modes
    }
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(0, np.sqrt(1 / w[..., 0].size), w.shape) if w.ndim > 1 else w
        for w in made["training"].get_weights()
    ]
    for model in made.values():
        model.set_weights(weights)
    return made


@pytest.mark.parametrize("generator_mode", ["resize", "pad"])
@pytest.mark.parametrize("model_mode", ["training", "inference", "inference_fast"])
def test_both_ways_to_predict_agree(scenes, models, tmp_path, model_mode, generator_mode):
    model = models[model_mode]
    predict_all_to_json(
        tmp_path / "detections.json",
        model,
        *INPUT,
        CATEGORIES,
        scenes,
        batch_size=2,
        data_generator_mode=generator_mode,
        model_mode=model_mode,
        confidence_thresh=0.2,
        verbose=False,
    )
    written = json.loads((tmp_path / "detections.json").read_text())
    evaluator = Evaluator(model, N_CLASSES, scenes, model_mode)
    evaluator.predict_on_dataset(
        *INPUT,
        batch_size=2,
        data_generator_mode=generator_mode,
        decoding_confidence_thresh=0.2,
        decoding_border_pixels="half",
        verbose=False,
    )
    expected = coco_detections(evaluator.prediction_results, CATEGORIES)
    assert 10 < len(expected) < 200 * len(scenes.filenames)
    assert len(written) == len(expected)

    def table(entries):
        rows = [(int(e["image_id"]), e["category_id"], e["score"], *e["bbox"]) for e in entries]
        return np.array(sorted(rows))

    np.testing.assert_allclose(table(written), table(expected), rtol=1e-4, atol=1e-3)

    truth = coco_ground_truth(
        scenes.labels, scenes.image_ids, CLASSES, scenes.labels_format, classes_to_cats=CATEGORIES
    )
    scores = evaluate_coco(truth, tmp_path / "detections.json")
    for entry in [*truth["images"], *truth["annotations"], *written]:
        key = "image_id" if "bbox" in entry else "id"
        entry[key] = int(entry[key])  # pycocotools wants numbers
    reference = pycocotools_evaluation(truth, written)
    np.testing.assert_allclose(scores.stats, reference.stats, rtol=0, atol=1e-9)
