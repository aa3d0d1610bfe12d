"""Evaluation by the rules of MS COCO: from a model to a results file, from there to the numbers."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from types import ModuleType

import numpy as np

from data_generator.category_maps import CategoryMaps
from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.coco_files import read_coco_categories, write_json_list
from eval_utils.coco_format import plain_id
from eval_utils.coco_problem import read_coco_problem
from eval_utils.coco_scores import CocoScores, coco_scores
from eval_utils.prediction import (
    PRED_FORMAT,
    check_model_mode,
    input_transformations,
    make_detection_function,
    predict_images,
)


def get_coco_category_maps(
    annotations_file: str | os.PathLike,
) -> tuple[dict[int, int], dict[int, int], dict[int, str], list[str]]:
    """Read the two numberings of categories from an annotations file of MS COCO.

    COCO's category ids have gaps (80 categories with ids up to 90); a model needs class ids
    1..n without gaps, and 0 for the background.

    Arguments:
        annotations_file: A JSON file with 'categories', which are numbered in their order.

    Returns:
        `cats_to_classes` {category id: class id}, `classes_to_cats` {class id: category id},
        `cats_to_names` {category id: name}, and `classes_to_names`, a list of names by class id
        with 'background' first.

    Raises:
        ValueError: if the file is no JSON or has no categories with ids and names.
    """
    maps = CategoryMaps.of(read_coco_categories(annotations_file))
    return maps.cats_to_classes, maps.classes_to_cats, maps.cats_to_names, maps.classes_to_names


def predict_all_to_json(
    out_file: str | os.PathLike,
    model: object,
    img_height: int,
    img_width: int,
    classes_to_cats: Mapping[int, int],
    data_generator: DataGenerator,
    batch_size: int,
    data_generator_mode: str = "resize",
    model_mode: str = "training",
    confidence_thresh: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int | str = 200,
    pred_coords: str = "centroids",
    normalize_coords: bool = True,
    border_pixels: str = "half",
    pred_format: Mapping[str, int] | None = None,
    verbose: bool = True,
) -> None:
    """Run a model over a data set and write its detections in the results format of MS COCO.

    The file holds a list of ``{'image_id': ..., 'category_id': ..., 'bbox': [x, y, width, height],
    'score': ...}`` with boxes in pixels of the original images. Nothing is rounded beyond the
    precision of float32. The file appears when it is complete; it is written while the model runs,
    so memory does not grow with the data set.

    Arguments:
        out_file: The file to make or to replace.
        model: Any object with `predict(batch)`.
        img_height: The height of the model's input in pixels.
        img_width: The width of the model's input in pixels.
        classes_to_cats: The category id of each class id, see `get_coco_category_maps`.
        data_generator: The images. It is not changed. In a data set without image ids, images count
            from 0.
        batch_size: The number of images predicted at a time.
        data_generator_mode: ``'resize'`` stretches images to the model's input, ``'pad'`` pads
            them to its aspect ratio first.
        model_mode: ``'training'`` if the model's output is raw and has to be decoded, otherwise
            ``'inference'`` or ``'inference_fast'``.
        confidence_thresh: As in `decode_detections`, like the next four and `border_pixels`; for
            the model mode ``'training'`` only.
        iou_threshold: As in `decode_detections`.
        top_k: As in `decode_detections`.
        pred_coords: As `input_coords` in `decode_detections`.
        normalize_coords: As in `decode_detections`.
        border_pixels: As in `decode_detections`.
        pred_format: The columns of 'class_id', 'conf', 'xmin', 'ymin', 'xmax' and 'ymax' in decoded
            output; None means this order.
        verbose: Whether to show a progress bar.

    Raises:
        ValueError: if the data set is empty, a mode is unknown, the model's output does not suit
            the model mode, or a detection has no category or is not finite.
    """
    check_model_mode(model_mode)
    detect = make_detection_function(
        model,
        model_mode,
        max(classes_to_cats),
        PRED_FORMAT if pred_format is None else pred_format,
        confidence_thresh=confidence_thresh,
        iou_threshold=iou_threshold,
        top_k=top_k,
        input_coords=pred_coords,
        normalize_coords=normalize_coords,
        img_height=img_height,
        img_width=img_width,
        border_pixels=border_pixels,
    )
    channels = getattr(data_generator, "image_channels", 3)
    transformations = input_transformations(data_generator_mode, img_height, img_width, channels)
    detections = predict_images(detect, data_generator, transformations, batch_size, verbose)
    entries = (
        entry
        for image_id, rows in detections
        for entry in _coco_entries(image_id, rows, classes_to_cats)
    )
    write_json_list(out_file, entries)


def evaluate_coco(
    ground_truth: str | os.PathLike | Mapping,
    detections: str | os.PathLike | Sequence[Mapping],
    image_ids: Collection[Hashable] | None = None,
    category_ids: Collection[Hashable] | None = None,
) -> CocoScores:
    """Compute the twelve numbers of MS COCO for detections of any origin.

    The engine is faster-coco-eval, whose results are those of pycocotools: a detection takes the
    free object it overlaps most; objects of other sizes than the number is about, and crowds, are
    neutral; a crowd is found by what lies inside of it, as often as you like; per image and
    category the 100 most confident detections count; categories without objects do not.

        print(evaluate_coco("instances_val2017.json", "predictions.json"))

    Arguments:
        ground_truth: A COCO annotations file, or its content: a dictionary with 'images',
            'categories' and 'annotations'. Annotations need 'image_id', 'category_id' and 'bbox'
            (x, y, width, height in pixels); without 'area' that of the box counts, without
            'iscrowd' they are single objects. Ids may be numbers or strings. See
            `coco_format.coco_ground_truth` for other labels.
        detections: A COCO results file, see `predict_all_to_json`, or the list in it, which may be
            empty. See `coco_format.coco_detections` for other predictions.
        image_ids: The images to evaluate on; None: all. Detections in others are left out.
        category_ids: The categories to evaluate; None: all. Detections of others are left out.

    Returns:
        The numbers over all categories, and for each one; `str` makes the well-known table.

    Raises:
        ImportError: if faster-coco-eval is missing.
        ValueError: if something is missing or malformed, or if there are detections in an image or
            of a category that the ground truth does not hold (unless `image_ids` or `category_ids`
            say what counts); the message names the entry.
    """
    engine = _engine()
    problem = read_coco_problem(ground_truth, detections, image_ids, category_ids)
    evaluation = engine.COCOeval_faster(
        engine.COCO(problem.ground_truth), engine.COCO(problem.detections), "bbox"
    )
    evaluation.evaluate()
    evaluation.accumulate()
    return coco_scores(
        np.asarray(evaluation.eval["precision"]).reshape(evaluation.eval["counts"]),
        np.asarray(evaluation.eval["recall"]),
        problem.categories,
    )


def _engine() -> ModuleType:
    try:
        import faster_coco_eval
    except ImportError as error:
        raise ImportError(
            "The numbers of COCO are computed by faster-coco-eval, which is not installed: "
            "pip install 'ssd-keras[coco]' (or: pip install faster-coco-eval)"
        ) from error
    return faster_coco_eval


def _coco_entries(
    image_id: Hashable, rows: np.ndarray, classes_to_cats: Mapping[int, int]
) -> Iterator[dict]:
    """Yield the `(k, 6)` detections of one image in COCO's format."""
    with np.errstate(over="ignore", invalid="ignore"):  # told below, with the image
        score, xmin, ymin, xmax, ymax = rows[:, 1:].T
        columns = np.column_stack([score, xmin, ymin, xmax - xmin, ymax - ymin]).astype(np.float32)
    if not (np.isfinite(rows).all() and np.isfinite(columns).all()):
        raise ValueError(
            f"The model's detections in image {image_id!r} are not finite numbers, which JSON "
            "cannot express. Has the training of this model diverged, or has it no weights yet?"
        )
    # By way of text: the shortest decimal number that is the same float32, 0.1 and not
    # 0.10000000149011612.
    numbers = columns.astype(str).astype(np.float64)
    for class_id, (score, *box) in zip(rows[:, 0].tolist(), numbers.tolist(), strict=True):
        if class_id not in classes_to_cats:
            raise ValueError(
                f"A detection in image {image_id!r} has the class id {class_id:g}, for which "
                f"`classes_to_cats` has no category; it has: {', '.join(map(str, classes_to_cats))}"
            )
        category = classes_to_cats[class_id]
        yield {
            "image_id": plain_id(image_id),
            "category_id": plain_id(category),
            "bbox": box,
            "score": score,
        }
