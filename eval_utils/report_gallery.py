"""The galleries of a report: pictures of the worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval_utils.error_analysis import MISTAKES, Verdict
from eval_utils.object_sizes import box_areas
from eval_utils.report_page import escape, section
from eval_utils.report_picture import Mark, picture, window_around
from eval_utils.report_results import ReportResults

MEANINGS = {
    Verdict.DUPLICATE: "on an object that another detection has found",
    Verdict.WRONG_CLASS: "on an object of another class",
    Verdict.POOR_BOX: "touches an object of its class, but overlaps it too little",
    Verdict.BACKGROUND: "on nothing at all, or hardly touching anything",
}


def galleries(results: ReportResults, n_pictures: int) -> list[str]:
    """Show the most confident mistakes and the largest missed objects.

    Arguments:
        results: The results.
        n_pictures: The number of pictures of either kind at most.

    Returns:
        Two sections as HTML. Where the data set cannot give an image, a sentence says so.
    """
    detections, objects = results.detections, results.objects
    wrong = np.flatnonzero(np.isin(detections.verdicts, MISTAKES))
    missed = np.flatnonzero(objects.missed)
    missed = missed[np.argsort(-box_areas(objects.boxes[missed]), kind="stable")]
    mistakes = [_mistake_figure(results, int(d)) for d in wrong[:n_pictures]]
    overlooked = [_missed_figure(results, int(g)) for g in missed[:n_pictures]]
    return [
        _gallery(
            "pictures-mistakes",
            "Most confident mistakes",
            "mistake",
            "wrong detection",
            mistakes,
            f"There are no wrong detections at confidence {results.threshold:.3f}.",
        ),
        _gallery(
            "pictures-missed",
            "Largest missed objects",
            "missed",
            "missed object",
            overlooked,
            "No object was missed.",
        ),
    ]


def _gallery(
    anchor: str,
    heading: str,
    kind: str,
    meaning: str,
    figures: Sequence[str | None],
    if_empty: str,
) -> str:
    shown = [figure for figure in figures if figure is not None]
    n_lost = len(figures) - len(shown)
    if not figures:
        return section(anchor, heading, if_empty, "")
    if not shown:
        return section(anchor, heading, "There are no pictures: no image could be read.", "")
    lost = f" {n_lost} more could not be read." if n_lost else ""
    key = (
        f'<ul class="key"><li class="{kind}">{meaning}</li><li class="truth">ground truth</li>'
        '<li class="detection">other detections</li></ul>'
    )
    content = f'{key}<div class="grid">{"".join(shown)}</div>'
    return section(anchor, heading, f"Parts of images, around the box in question.{lost}", content)


def _mistake_figure(results: ReportResults, index: int) -> str | None:
    detections = results.detections
    label = results.detection_label(index)
    kind = detections.verdicts[index]
    reason = MEANINGS[kind]
    if detections.objects[index] >= 0:
        true_class = results.objects.class_ids[detections.objects[index]]
        reason = f"ground truth: {results.names[true_class]}"
    mark = Mark(tuple(detections.boxes[index]), label, "mistake")
    return _figure(
        results,
        int(detections.images[index]),
        mark,
        f"<h3>{escape(label)}</h3>{escape(kind)}: {escape(reason)}",
        but=index,
    )


def _missed_figure(results: ReportResults, index: int) -> str | None:
    objects = results.objects
    name = results.names[objects.class_ids[index]]
    other = objects.taken_for[index]
    reason = f"taken for {results.names[other]}" if other else "not found"
    mark = Mark(tuple(objects.boxes[index]), name, "missed")
    caption = f"<h3>{escape(name)}</h3>{escape(reason)}"
    return _figure(results, int(objects.images[index]), mark, caption, but_object=index)


def _figure(
    results: ReportResults,
    image_index: int,
    mark: Mark,
    caption: str,
    but: int = -1,
    but_object: int = -1,
) -> str | None:
    """Show a box, and around it all other objects and detections; None without the image."""
    image = _read_image(results.scorer.data_generator, image_index)
    if image is None:
        return None
    detections, objects = results.detections, results.objects
    marks = [
        Mark(tuple(objects.boxes[g]), results.names[objects.class_ids[g]], "truth")
        for g in np.flatnonzero(objects.images == image_index).tolist()
        if g != but_object
    ]
    marks += [
        Mark(tuple(detections.boxes[d]), results.detection_label(d), "detection")
        for d in np.flatnonzero(detections.images == image_index)[::-1].tolist()
        if d != but
    ]
    image_ids = getattr(results.scorer.data_generator, "image_ids", None)
    image_id = image_index if image_ids is None else image_ids[image_index]
    window = window_around(mark.box, image.shape[:2])
    shown = picture(image, [*marks, mark], window, f"{mark.kind}: {mark.label}")
    return (
        f"<figure>{shown}<figcaption>{caption}"
        f'<br><span class="soft">image {escape(image_id)}</span></figcaption></figure>'
    )


def _read_image(dataset: object, index: int) -> np.ndarray | None:
    """Return an image of the data set, or None if it has none to give."""
    if not hasattr(dataset, "get_image"):
        return None
    has_images = any(
        getattr(dataset, name, None) is not None for name in ("images", "hdf5_dataset", "filenames")
    )
    try:
        return dataset.get_image(index) if has_images else None
    except (OSError, ValueError):  # files that are missing, damaged or no images
        return None
