r"""Evaluate a detector by the rules of Pascal VOC or MS COCO.

    python examples/evaluate.py --model out/voc300/model.keras --output out/voc300/test \
        --data VOC2007/ImageSets/Main/test.txt

prints the average precision of every class, and writes metrics.json and report.html (curves, best
thresholds, mistakes with pictures). Data are named as for train_ssd.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.average_precision_evaluator import Evaluator
from eval_utils.coco_files import write_json_list
from eval_utils.coco_format import coco_detections, coco_ground_truth
from eval_utils.coco_utils import evaluate_coco
from misc_utils.command_line import (
    Detector,
    add_detector_options,
    add_threshold_options,
    at_least,
    errors_in_one_line,
    open_detector,
)
from misc_utils.dataset_sources import dataset_format, open_dataset
from misc_utils.files import atomic_folder, write_text
from ssd_encoder_decoder.model_settings import read_model_settings

PRESETS = Path(__file__).resolve().parent / "presets"
# The rule of matching and the mean over recall of each set of rules; all with an IoU of 0.5.
RULES = {
    "voc2007": {"matching_rule": "voc", "average_precision_mode": "sample"},
    "voc2010": {"matching_rule": "voc", "average_precision_mode": "integrate"},
    "coco": {"matching_rule": "coco", "average_precision_mode": "coco"},
}


def parse_arguments(
    arguments: list[str] | None = None,
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_detector_options(parser, PRESETS)
    add_threshold_options(parser, confidence=0.01)
    add = parser.add_argument
    # fmt: off
    add("--data", required=True, nargs="+", type=Path, metavar="SOURCE",
        help="an image set of VOC (FOLDER/ImageSets/Main/NAME.txt), a .json file of COCO, a .csv "
             "file, or an image folder of YOLO")
    add("--images", nargs="+", default=[], type=Path, metavar="FOLDER",
        help="folders of the images, for COCO and CSV; by default looked for beside the file")
    add("--output", required=True, type=Path, help="folder for the results")
    add("--rules", choices=RULES, default="voc2007",
        help="11 recall points, the area under the curve, or COCO's twelve numbers [voc2007]")
    add("--predictions", action="store_true",
        help="write the detections, too: comp3_det_*.txt of VOC, and results.json of COCO")
    add("--batch-size", type=at_least(1), default=8, metavar="INT", help="images at a time [8]")
    add("--title", default="Evaluation", help="of the report")
    # fmt: on
    return parser, parser.parse_args(arguments)


def evaluate(
    detector: Detector, dataset: DataGenerator, options: argparse.Namespace
) -> tuple[Evaluator, dict]:
    """Run the detector over the data, and score what it finds.

    Returns:
        The evaluator with all results, and what goes into metrics.json.
    """
    settings = read_model_settings(detector.model)
    evaluator = Evaluator(
        detector.model,
        settings.n_classes,
        dataset,
        settings.mode,
        class_names=detector.class_names,
    )
    evaluator(
        settings.img_height,
        settings.img_width,
        options.batch_size,
        border_pixels="half" if options.rules == "coco" else "include",
        decoding_confidence_thresh=options.confidence,
        decoding_iou_threshold=options.iou,
        decoding_top_k=options.top_k,
        decoding_pred_coords=settings.coords,
        decoding_normalize_coords=settings.normalize_coords,
        verbose=False,
        **RULES[options.rules],
    )
    metrics = {
        **evaluator.summary(),
        "rules": options.rules,
        "images": dataset.get_dataset_size(),
        "confidence_thresh": options.confidence,
        "iou_threshold": options.iou,
        "top_k": options.top_k,
    }
    if options.rules == "coco":
        scores = evaluate_coco(_coco_ground_truth(dataset, options.data), _detections(evaluator))
        print(scores)
        metrics["coco"] = scores.as_dict()
    return evaluator, metrics


def _coco_ground_truth(dataset: DataGenerator, sources: list[Path]) -> dict | Path:
    """Return COCO's own file, whose areas are those of the outlines; of other data, the boxes."""
    if dataset_format(sources) == "coco" and len(sources) == 1:
        return sources[0]
    return coco_ground_truth(
        dataset.labels,
        dataset.image_ids,
        dataset.class_names,
        dataset.labels_format,
        dataset.eval_neutral,
        dataset.classes_to_cats,
    )


def _detections(evaluator: Evaluator) -> list[dict]:
    """Return the detections in COCO's format, with the categories of the data set if it has any."""
    categories = evaluator.data_generator.classes_to_cats
    return coco_detections(evaluator.prediction_results, categories)


def print_classes(metrics: dict) -> None:
    """Print a line for each class, and the mean."""
    precisions = metrics["average_precisions"]
    width = max(map(len, precisions))
    for name, precision in precisions.items():
        value = "  n/a" if precision is None else f"{precision:.3f}"
        print(f"{name:{width}}  AP {value}  {metrics['num_gt_per_class'][name]:7} objects")
    mean = math.nan if metrics["mAP"] is None else metrics["mAP"]
    print(f"{'mean':{width}}  AP {mean:.3f}  (IoU 0.5, rules {metrics['rules']})")


def write_results(
    output: Path, evaluator: Evaluator, metrics: dict, options: argparse.Namespace
) -> None:
    """Write the files, each in one step."""
    if options.predictions:
        with atomic_folder(output / "comp3") as folder:
            prefix = str(folder / "comp3_det_test_")
            evaluator.write_predictions_to_txt(evaluator.class_names, prefix, verbose=False)
        write_json_list(output / "results.json", _detections(evaluator))
    evaluator.report(output / "report.html", title=options.title)
    write_text(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> dict:
    """Run the whole job; return what is in metrics.json."""
    parser, options = parse_arguments(arguments)
    with errors_in_one_line(parser):
        detector = open_detector(options, PRESETS)
        dataset = open_dataset(options.data, options.images, detector.class_names)
        evaluator, metrics = evaluate(detector, dataset, options)
        print_classes(metrics)
        write_results(options.output, evaluator, metrics, options)
    print(f"the report is in {options.output / 'report.html'}")
    return metrics


if __name__ == "__main__":
    main()
