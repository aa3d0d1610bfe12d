"""A report on the results of an evaluation, for people to read: one HTML file.

All numbers come from pure functions: `operating_point`, `error_analysis`, `object_sizes`. Here they
are only arranged.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from eval_utils.error_analysis import MISTAKES, confusion_matrix
from eval_utils.operating_point import OperatingPoint, best_operating_point, operating_point
from eval_utils.report_charts import confusion_chart, precision_recall_chart
from eval_utils.report_gallery import MEANINGS, galleries
from eval_utils.report_page import (
    bar,
    cards,
    escape,
    number,
    number_with_bar,
    page,
    section,
    table,
    table_row,
)
from eval_utils.report_results import ReportResults, gather_results
from misc_utils.files import write_text

if TYPE_CHECKING:
    from eval_utils.detection_scorer import DetectionScorer


def write_report(
    scorer: DetectionScorer,
    path: str | os.PathLike,
    confidence_thresh: float | None = None,
    n_pictures: int = 24,
    title: str = "Evaluation",
    object_sizes: str = "coco",
) -> None:
    """Write a report as one HTML file: see `DetectionScorer.report`.

    Arguments:
        scorer: A scorer, all stages of which have run.
        path: As there.
        confidence_thresh: As there.
        n_pictures: As there.
        title: As there.
        object_sizes: As there.

    Raises:
        ValueError: if `object_sizes` or `n_pictures` is not as described.

    Example:
        >>> import numpy as np
        >>> from eval_utils.report import write_report
        >>> from eval_utils.scoring import score_detections
        >>> labels = [np.array([[1, 10, 10, 50, 50]])]
        >>> detections = [np.array([[1, 0.9, 12, 10, 50, 50]])]
        >>> scores = score_detections(labels, detections, class_names=["background", "car"])
        >>> write_report(scores, "report.html")
    """
    if n_pictures < 0:
        raise ValueError(f"`n_pictures` must not be negative; got {n_pictures}.")
    results = gather_results(scorer, confidence_thresh, object_sizes)
    sections = [
        _header(results, title),
        _class_section(results),
        _curve_section(results),
        _size_section(results, object_sizes),
        _mistake_section(results),
        _confusion_section(results),
        *galleries(results, n_pictures),
    ]
    write_text(path, page(title, sections))


def _header(results: ReportResults, title: str) -> str:
    scorer, overall = results.scorer, results.overall
    n_images = len(scorer.data_generator.labels)
    n_scored = sum(not math.isnan(value) for value in scorer.average_precisions[1:])
    classes = _count(len(results.classes), "class", "classes")
    if n_scored < len(results.classes):
        classes += f" ({n_scored} with ground truth)"
    facts = [
        ("mean average precision", _plain(scorer.mean_average_precision)),
        ("precision", _plain(overall.precision)),
        ("recall", _plain(overall.recall)),
        ("F1", _plain(overall.f1)),
        ("confidence threshold", f"{overall.threshold:.3f}"),
    ]
    links = {
        "classes": "Classes",
        "curves": "Curves",
        "sizes": "Object sizes",
        "mistakes": "Mistakes",
        "confusion": "Confusion",
        "pictures-mistakes": "Pictures",
    }
    menu = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in links.items())
    return (
        f"<header>\n<h1>{escape(title)}</h1>\n"
        f'<p class="soft">{_count(n_images, "image", "images")}, '
        f"{_count(overall.n_objects, 'object', 'objects')}, {classes}. {_rules(scorer)} "
        "Precision, recall and F1 are those of all classes together at the confidence threshold."
        f"</p>\n<nav>{menu}</nav>\n{cards(facts)}\n</header>"
    )


def _rules(scorer: DetectionScorer) -> str:
    """Say by which rules the numbers were computed."""
    matching, averaging = scorer.matching_settings, scorer.average_precision_settings
    rule = {"voc": "Pascal VOC", "coco": "MS COCO"}[matching["matching_rule"]]
    average = {
        "sample": f"mean precision at {averaging['num_recall_points']} recall levels",
        "integrate": "area under the precision/recall curve",
        "coco": "mean precision at 101 recall levels",
    }[averaging["mode"]]
    return (
        f"An object is found if a box overlaps it with an IoU of {matching['iou_threshold']:g} or "
        f"more (matching rule of {rule}). Average precision (AP) is the {average}."
    )


def _class_section(results: ReportResults) -> str:
    rows, left_out = [], ""
    for class_id in results.best_first:
        matched = [results.classes[class_id - 1]]
        point = operating_point(matched, results.threshold)
        average_precision = results.scorer.average_precisions[class_id]
        if point.n_objects == 0 and point.false_positives == 0:
            left_out = " Classes without ground truth and wrong detections are left out."
        else:
            name = results.names[class_id]
            rows.append(_class_row(name, average_precision, point, best_operating_point(matched)))
    best = best_operating_point(results.classes)
    mean = results.scorer.mean_average_precision
    rows.append(_class_row("all classes", mean, results.overall, best, of_all=True))
    columns = ("class", "AP", "objects", "found", "wrong", "precision", "recall", "F1")
    return section(
        "classes",
        "Classes",
        f"Found and wrong are numbers of detections with a confidence of {results.threshold:.3f} "
        "or more. The last two columns are the best F1 that any threshold gives, and this "
        f"threshold. Best classes first.{left_out}",
        table((*columns, "best F1", "at"), rows),
    )


def _class_row(
    name: str,
    average_precision: float,
    point: OperatingPoint,
    best: OperatingPoint | None,
    of_all: bool = False,
) -> str:
    counts = (point.n_objects, point.true_positives, point.false_positives)
    cells = [
        number_with_bar(average_precision),
        *(f"{count:,}" for count in counts),
        *(number(value) for value in (point.precision, point.recall, point.f1)),
        number(math.nan if best is None else best.f1),
        number(math.nan) if best is None else f"{best.threshold:.3f}",
    ]
    return table_row(name, cells, of_all)


def _curve_section(results: ReportResults) -> str:
    scorer, figures = results.scorer, []
    for class_id in results.best_first:
        if math.isnan(scorer.average_precisions[class_id]):
            continue
        chart = precision_recall_chart(
            scorer.cumulative_precisions[class_id],
            scorer.cumulative_recalls[class_id],
            operating_point([results.classes[class_id - 1]], results.threshold),
            results.names[class_id],
        )
        figures.append(
            f'<figure class="chart"><figcaption><h3>{escape(results.names[class_id])}</h3>'
            f"<span>AP&nbsp;{number(scorer.average_precisions[class_id])}</span></figcaption>"
            f"{chart}</figure>"
        )
    content = (
        f'<div class="grid">{"".join(figures)}</div>'
        if figures
        else "<p>No class has ground truth.</p>"
    )
    return section(
        "curves",
        "Precision over recall",
        "At each recall the greatest precision at this or any higher recall, which is what average "
        f"precision is computed from. The circle is at confidence {results.threshold:.3f}.",
        content,
    )


def _size_section(results: ReportResults, object_sizes: str) -> str:
    columns = ["class"]
    for scores in results.sizes:
        columns += [f"{scores.size.name} objects", "AP"]
    rows = []
    for class_id in results.best_first:
        if any(scores.num_gt_per_class[class_id] > 0 for scores in results.sizes):
            cells = []
            for scores in results.sizes:
                value = float(scores.average_precisions[class_id])
                cells += [f"{scores.num_gt_per_class[class_id]:,}", number_with_bar(value)]
            rows.append(table_row(results.names[class_id], cells))
    cells = []
    for scores in results.sizes:
        count, value = scores.num_gt_per_class.sum(), scores.mean_average_precision
        cells += [f"{count:,}", number_with_bar(value)]
    rows.append(table_row("all classes", cells, of_all=True))
    limits = [math.sqrt(scores.size.upper) for scores in results.sizes[:2]]
    chosen = (
        "as in MS COCO"
        if object_sizes == "coco"
        else "chosen so that each size has a third of the objects"
    )
    return section(
        "sizes",
        "Object sizes",
        f"Small is below {limits[0]:.0f} × {limits[0]:.0f} pixels of the original image, large is "
        f"{limits[1]:.0f} × {limits[1]:.0f} and more: {chosen}.",
        table(columns, rows),
    )


def _mistake_section(results: ReportResults) -> str:
    counts = {kind: int(np.sum(results.detections.verdicts == kind)) for kind in MISTAKES}
    n_wrong = max(1, sum(counts.values()))
    rows = [
        table_row(
            str(kind),
            [f"{count:,}", bar(count / n_wrong, "wrong"), escape(MEANINGS[kind])],
        )
        for kind, count in counts.items()
    ]
    missed = results.objects.missed
    n_missed, n_confused = int(missed.sum()), int((results.objects.taken_for > 0).sum())
    share = n_missed / max(1, results.overall.n_objects)
    meaning = f"of {results.overall.n_objects:,}; {n_confused:,} of them taken for another class"
    rows.append(
        table_row("missed objects", [f"{n_missed:,}", bar(share, "wrong"), escape(meaning)])
    )
    content = table(("kind", "number", "share", ""), rows, style="wordy")
    return section(
        "mistakes",
        "Mistakes",
        f"Wrong detections with a confidence of {results.threshold:.3f} or more, by kind, "
        "and objects that no detection of this confidence has found.",
        content,
    )


def _confusion_section(results: ReportResults) -> str:
    matrix = confusion_matrix(results.detections, results.objects, len(results.classes))
    names = ["background", *results.names[1:]]
    return section(
        "confusion",
        "Confusion matrix",
        "Each row says what the objects of a class were taken for: the diagonal holds those that "
        "were found, the first column those that were missed. The first row holds detections that "
        "belong to no object, or to one that another detection stands for already.",
        f'<div class="scroll">{confusion_chart(matrix, names)}</div>',
    )


def _plain(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _count(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"
