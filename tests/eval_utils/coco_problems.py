"""Random detection problems in COCO's format, and what pycocotools itself makes of them."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def random_problem(
    seed: int, n_images: int = 12, n_detections: int = 30, crowds: bool = True, whole: bool = False
) -> tuple[dict, list[dict]]:
    """Draw ground truth and detections, most of these near an object.

    Confidences have one decimal, so that many are equal. With `whole` numbers as coordinates, many
    overlaps are equal too, and computed without rounding.
    """
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(1000)[:n_images] + 1
    category_ids = [1, 2, 13, 90]
    annotations, detections = [], []
    for image_id in image_ids.tolist():
        objects = _random_boxes(rng, rng.integers(0, 8))
        of_object = rng.choice(category_ids[:3], len(objects))
        if whole:
            objects = np.round(objects)
        for box, category in zip(objects.tolist(), of_object.tolist(), strict=True):
            annotations.append(
                {
                    "id": 1 + len(annotations),
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3] * float(rng.uniform(0.5, 1)),  # of a segmentation
                    "iscrowd": int(crowds and rng.random() < 0.15),
                }
            )
        for _ in range(rng.integers(0, n_detections + 1)):
            box, category = _random_boxes(rng, 1)[0], int(rng.choice(category_ids))
            if len(objects) and rng.random() < 0.8:
                index = rng.integers(len(objects))
                category = int(of_object[index])
                box = objects[index] + rng.normal(0, 0.08, 4) * objects[index][[2, 3, 2, 3]]
            box = np.round(box) if whole else box
            box[2:] = np.maximum(box[2:], 1)
            detections.append(
                {
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "score": round(float(rng.random()), 1),
                }
            )
    ground_truth = {
        "images": [{"id": image_id} for image_id in image_ids.tolist()],
        "categories": [{"id": category, "name": f"name {category}"} for category in category_ids],
        "annotations": annotations,
    }
    return ground_truth, detections


def _random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw `(n, 4)` boxes (x, y, width, height), small, medium and large ones."""
    return np.concatenate([rng.uniform(0, 300, (n, 2)), np.exp(rng.uniform(2, 5.3, (n, 2)))], 1)


def pycocotools_evaluation(ground_truth: dict, detections: list[dict]) -> COCOeval:
    """Let pycocotools evaluate all of a problem."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
