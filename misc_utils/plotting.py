"""Figures of a training run, an evaluation and a data set (needs matplotlib: extra `examples`)."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from misc_utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from data_generator.dataset_statistics import DatasetStatistics

_RATE_NAMES = ("learning_rate", "lr")


def plot_history(
    history: Mapping[str, Sequence[float]] | str | os.PathLike,
    path: str | os.PathLike | None = None,
) -> Figure:
    """Plot losses, and below them mean average precision and learning rate, over epochs.

    There is a panel for what the history has: every column whose name ends with 'loss' (training
    solid, validation dashed in the same colour), every column with 'map' or 'average_precision' in
    its name, and 'learning_rate'. Epochs without a value, such as those that were not evaluated,
    are left out. A panel has a logarithmic axis if its values span more than a factor of eight.

    Arguments:
        history: the `history` dict of what `model.fit` returns, or the file that
            `keras.callbacks.CSVLogger` writes.
        path: an image file to write too; its suffix chooses the format.

    Returns:
        The figure, which belongs to no window and no global state.

    Raises:
        ValueError: if there is no loss with a finite value.
        ImportError: if matplotlib is missing.
    """
    figure_class = _figure_class()
    columns = _read_columns(history)
    losses = {name: values for name, values in columns.items() if name.endswith("loss")}
    if not any(np.isfinite(values).any() for values in losses.values()):
        raise ValueError(
            f"Expected a history with a column whose name ends with 'loss' and finite values in "
            f"it, got the columns {sorted(columns)}."
        )
    panels = {
        "loss": losses,
        "average precision": {name: columns[name] for name in columns if _is_precision(name)},
        "learning rate": {name: columns[name] for name in columns if name in _RATE_NAMES},
    }
    panels = {label: lines for label, lines in panels.items() if lines}

    heights = [3] + [1.5] * (len(panels) - 1)
    figure = figure_class(figsize=(8, 1 + 1.3 * sum(heights)), layout="constrained")
    ratios = {"height_ratios": heights}
    axes = figure.subplots(len(panels), squeeze=False, sharex=True, gridspec_kw=ratios)[:, 0]
    epochs = _epochs(columns)
    for axis, (label, lines) in zip(axes, panels.items(), strict=True):
        _plot_lines(axis, epochs, lines)
        axis.set_ylabel(label)
        if label == "average precision":
            axis.set_ylim(0, 1)
        elif _spans_decades(lines):
            axis.set_yscale("log")
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return _finish(figure, path)


def plot_precision_recall(
    precisions: Sequence[Sequence[float]],
    recalls: Sequence[Sequence[float]],
    average_precisions: Sequence[float | None],
    class_names: Sequence[str],
    path: str | os.PathLike | None = None,
) -> Figure:
    """Plot precision over recall of every class, with average precisions in the legend.

    Arguments:
        precisions: for each class id, with a dummy for the background at 0, the precision after
            each detection in order of confidence, as `Evaluator` has it in
            `cumulative_precisions`. Empty for a class without detections.
        recalls: the same for recall.
        average_precisions: AP for each class id; None or NaN for a class without ground truth,
            which the legend lists as 'n/a' and which has no part in the mean.
        class_names: names by class id, with 'background' at 0.
        path: an image file to write too; its suffix chooses the format.

    Returns:
        The figure, which belongs to no window and no global state.

    Raises:
        ValueError: if the four sequences differ in length, or precision and recall of a class do.
        ImportError: if matplotlib is missing.
    """
    figure_class = _figure_class()
    lengths = [len(part) for part in (precisions, recalls, average_precisions, class_names)]
    if len(set(lengths)) > 1 or lengths[0] < 2:
        raise ValueError(
            "Expected precisions, recalls, average_precisions and class_names with one entry for "
            f"each class and one for the background at index 0, got lengths {lengths}."
        )
    scores = np.array([math.nan if ap is None else ap for ap in average_precisions], dtype=float)
    scores[0] = math.nan  # the background's dummy
    has_score = np.isfinite(scores)
    # Best class first; classes without ground truth last.
    order = sorted(range(1, lengths[0]), key=lambda i: -scores[i] if has_score[i] else math.inf)

    n_columns = math.ceil(len(order) / 28)
    figure = figure_class(figsize=(6.5 + 2.2 * n_columns, 5.5), layout="constrained")
    axis = figure.subplots()
    for rank, class_id in enumerate(order):
        recall, precision = np.asarray(recalls[class_id]), np.asarray(precisions[class_id])
        if recall.shape != precision.shape:
            raise ValueError(
                f"Class {class_id} ('{class_names[class_id]}') has {recall.size} recalls but "
                f"{precision.size} precisions."
            )
        shown = f"{scores[class_id]:.3f}" if has_score[class_id] else "n/a"
        # A line of no points still stands in the legend.
        points = (recall, precision) if has_score[class_id] else ([], [])
        axis.plot(*points, label=f"{shown}  {class_names[class_id]}", **_style(rank))
    axis.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axis.grid(alpha=0.3)
    n_scored = int(has_score.sum())
    mean = f"mAP {scores[has_score].mean():.3f} over {n_scored} classes" if n_scored else "mAP n/a"
    axis.set_title(mean if n_scored != 1 else mean.removesuffix("es"))
    figure.legend(
        loc="outside right upper", ncols=n_columns, fontsize=8, title="AP", labelspacing=0.3
    )
    return _finish(figure, path)


def plot_dataset(statistics: DatasetStatistics, path: str | os.PathLike | None = None) -> Figure:
    """Plot what a data set consists of: boxes per class, box sizes, and shapes.

    Arguments:
        statistics: what `DataGenerator.describe` returns.
        path: an image file to write too; its suffix chooses the format.

    Returns:
        The figure, which belongs to no window and no global state.

    Raises:
        ValueError: if there are no boxes.
        ImportError: if matplotlib is missing.
    """
    figure_class = _figure_class()
    if statistics.n_boxes == 0:
        raise ValueError("Expected statistics of a data set with boxes, got none to plot.")
    # Most common class first; of very many classes, these are what fits on a page.
    counts = statistics.boxes_per_class
    classes = sorted(counts, key=counts.get, reverse=True)[:40]
    labels = [f"{statistics.class_name(class_id)} {class_id}".strip() for class_id in classes]

    figure = figure_class(figsize=(13, max(4, 0.22 * len(classes))), layout="constrained")
    bars, sizes, shapes = figure.subplots(1, 3)
    bars.barh(labels, [counts[class_id] for class_id in classes], color="C0")
    bars.invert_yaxis()
    more = len(counts) - len(classes)
    bars.set(xlabel="boxes", title=f"boxes per class ({more} more)" if more else "boxes per class")

    widths, heights = statistics.box_sizes.T
    sizes.scatter(widths, heights, s=6, alpha=0.3, linewidths=0)
    sizes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
    sizes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="width / image width", ylabel="height / image height"
    )
    sizes.set_title("box shapes, as shares of the image")

    shapes.hist(statistics.relative_sizes, bins=np.linspace(0, 1, 41), color="C0")
    shapes.set(xlim=(0, 1), xlabel="square root of the share of the image area", ylabel="boxes")
    shapes.set_title("box sizes")
    for axis in (sizes, shapes):
        axis.grid(alpha=0.3)
    return _finish(figure, path)


def show_image(axis: Axes, image: np.ndarray, title: str = "", brightness: float = 1.0) -> None:
    """Show an image in a plot, pixel (0, 0) from 0 to 1, so that boxes in pixel edges fit.

    Arguments:
        axis: where to; its ticks vanish.
        image: uint8 image `(height, width[, 3])`.
        title: written above.
        brightness: from 0, white, to 1, the image as it is: pale images make boxes stand out.

    Raises:
        ValueError: if the image is not uint8, or brightness not from 0 to 1.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not 0 <= brightness <= 1:
        raise ValueError(
            "Expected a uint8 image (height, width[, 3]) and a brightness from 0 to 1, got "
            f"{image.dtype} of shape {image.shape} and {brightness}."
        )
    height, width = image.shape[:2]
    pale = 255 - brightness * (255.0 - image)
    axis.imshow(pale.astype(np.uint8), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], title=title)


def add_boxes(
    axis: Axes,
    boxes: np.ndarray,
    color: object = "C1",
    labels: Sequence[str] = (),
    linestyle: str = "-",
    linewidth: float = 2.0,
) -> None:
    """Add boxes to a plot, in the unit of its axes.

    Arguments:
        axis: where to.
        boxes: `(n, 4)` corners (xmin, ymin, xmax, ymax); n may be 0.
        color: any colour of matplotlib.
        labels: nothing, or a text for each box, written above its top left corner, or below it
            where the plot ends.
        linestyle: such as '-' or '--'.
        linewidth: in points.

    Raises:
        ValueError: if `boxes` has another shape, or there are not as many labels as boxes.
        ImportError: if matplotlib is missing.
    """
    boxes = np.asarray(boxes, dtype=float)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(labels) not in (0, len(boxes)):
        raise ValueError(
            f"Expected boxes (n, 4), and no label or one for each box, got shape {boxes.shape} and "
            f"{len(labels)} labels."
        )
    _figure_class()
    from matplotlib.patches import Rectangle

    style = {"edgecolor": color, "linestyle": linestyle, "linewidth": linewidth, "fill": False}
    for xmin, ymin, xmax, ymax in boxes:
        axis.add_patch(Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, **style))
    for box, label in zip(boxes, labels, strict=False):
        ground = {"facecolor": color, "edgecolor": "none", "boxstyle": "square,pad=0.15"}
        place, vertical = _label_place(axis, box)
        axis.text(*place, label, color="white", fontsize=8, va=vertical, bbox=ground)


def _label_place(axis: Axes, box: np.ndarray) -> tuple[tuple[float, float], str]:
    """Return (x, y) of a box's label, and which side of the text that is ('bottom' or 'top')."""
    (left, right), (bottom, top) = sorted(axis.get_xlim()), sorted(axis.get_ylim())
    x, y = float(np.clip(box[0], left, right)), float(np.clip(box[1], bottom, top))
    # An image's vertical axis points down: its top is where y is smallest.
    has_room = not axis.yaxis_inverted() or y - bottom > 0.08 * (top - bottom)
    return (x, y), "bottom" if has_room else "top"


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib, which is not installed: pip install 'ssd-keras[examples]'"
        ) from error
    return Figure


def _is_precision(name: str) -> bool:
    name = name.lower()
    return "map" in name.split("_") or "average_precision" in name


def _read_columns(history: Mapping | str | os.PathLike) -> dict[str, np.ndarray]:
    """Return float columns of equal length; what is not a number becomes NaN."""
    if not isinstance(history, Mapping):
        with open(Path(history), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        history = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return {
        name: np.array([_number(value) for value in column]) for name, column in history.items()
    }


def _number(value: object) -> float:
    """Return a float; `CSVLogger` writes 'NA' or nothing for a value that is missing."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _epochs(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Number the epochs from 1, as Keras prints them; `CSVLogger` counts from 0."""
    if "epoch" in columns:
        counts_from_zero = np.nanmin(columns["epoch"]) == 0
        return columns["epoch"] + counts_from_zero
    return np.arange(1, 1 + max(len(values) for values in columns.values()))


def _plot_lines(axis: Axes, epochs: np.ndarray, lines: dict[str, np.ndarray]) -> None:
    """Plot columns; a validation column shares the colour of its training column."""
    plain_names = list(dict.fromkeys(name.removeprefix("val_") for name in lines))
    for name, values in lines.items():
        known = np.isfinite(values)
        axis.plot(
            epochs[: len(values)][known],
            values[known],
            linestyle="--" if name.startswith("val_") else "-",
            color=f"C{plain_names.index(name.removeprefix('val_'))}",
            marker="." if known.sum() <= 60 else None,
            label=name,
        )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _spans_decades(lines: dict[str, np.ndarray]) -> bool:
    values = np.concatenate(list(lines.values()))
    values = values[np.isfinite(values)]
    return bool(values.size) and values.min() > 0 and values.max() > 8 * values.min()


def _style(rank: int) -> dict[str, object]:
    """Return one of 80 looks of a line: 20 colours times 4 ways to draw it."""
    from matplotlib import colormaps

    return {
        # "tab20" has ten strong colours, each followed by a pale one: the strong ones come first.
        "color": colormaps["tab20"](rank % 10 * 2 + rank // 10 % 2),
        "linestyle": ("-", "--", ":", "-.")[rank // 20 % 4],
        "linewidth": 1.6,
    }


def _finish(figure: Figure, path: str | os.PathLike | None) -> Figure:
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
    return figure
