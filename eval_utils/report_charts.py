"""Charts of a report as inline SVG: precision/recall curves and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval_utils.average_precision import interpolated_precisions
from eval_utils.operating_point import OperatingPoint
from eval_utils.report_page import escape

# The plot of a curve within its viewBox, in the units of the SVG.
_LEFT, _TOP, _WIDTH, _HEIGHT = 46, 10, 178, 120


def curve_steps(
    precisions: np.ndarray, recalls: np.ndarray, resolution: int = 200
) -> list[tuple[float, float]]:
    """List the corners of the interpolated precision/recall curve.

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order; no NaN.
        resolution: Recalls and precisions are rounded to multiples of 1 / `resolution`, so that a
            curve has few corners, however many detections there are.

    Returns:
        (recall, precision) from recall 0 to the greatest recall. Empty without detections.
    """
    if len(recalls) == 0:
        return []
    levels = np.round(np.asarray(recalls) * resolution) / resolution
    values = np.round(interpolated_precisions(precisions) * resolution) / resolution
    corners = [(0.0, float(values[0]))]
    for recall, precision in zip(levels.tolist(), values.tolist(), strict=True):
        last_recall, last_precision = corners[-1]
        if recall > last_recall:
            if precision < last_precision:
                corners.append((last_recall, precision))
            corners.append((recall, precision))
    return corners


def precision_recall_chart(
    precisions: np.ndarray,
    recalls: np.ndarray,
    point: OperatingPoint,
    name: str,
) -> str:
    """Draw the interpolated precision/recall curve of a class.

    Arguments:
        precisions: `(n,)` precisions, in the order of falling confidence.
        recalls: `(n,)` recalls in the same order; no NaN.
        point: The point of the curve to mark.
        name: The class name as plain text.

    Returns:
        An SVG element.
    """
    corners = [(_x(r), _y(p)) for r, p in curve_steps(precisions, recalls)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    parts = [_axes()]
    if corners:
        last = corners[-1][0]
        parts.append(
            f'<polygon class="under" points="{_LEFT},{_y(0)} {line} {last:.1f},{_y(0)}"/>'
            f'<polyline class="curve" points="{line}"/>'
        )
    if point.true_positives > 0:
        parts.append(
            f'<circle class="point" cx="{_x(point.recall):.1f}" cy="{_y(point.precision):.1f}" '
            f'r="4.5"><title>confidence {point.threshold:.3f}: precision {point.precision:.3f}, '
            f"recall {point.recall:.3f}</title></circle>"
        )
    label = escape(f"Precision over recall of {name}")
    return (
        f'<svg viewBox="0 0 232 166" role="img" aria-label="{label}">' + "".join(parts) + "</svg>"
    )


def confusion_chart(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Draw a confusion matrix; the darker a cell, the greater its share of the row.

    Arguments:
        matrix: `(n, n)` counts: rows are true, columns are predicted classes.
        names: n class names as plain text, that of the background first.

    Returns:
        An SVG element of fixed size, to be put where it can scroll.
    """
    n = len(matrix)
    cell = int(np.clip(640 // n, 14, 52))
    margin = 34 + min(150, 7 * max(len(_short(name)) for name in names))
    side = margin + n * cell + 12
    parts = [
        f'<text class="axis-name" x="{margin}" y="14">predicted</text>'
        f'<text class="axis-name" transform="translate(14 {margin + n * cell / 2}) rotate(-90)" '
        'text-anchor="middle">ground truth</text>'
    ]
    for k, name in enumerate(names):
        middle = margin + (k + 0.5) * cell
        title = f"<title>{escape(name)}</title>"
        parts.append(
            f'<text x="{margin - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(_short(name))}'
            f'{title}</text><text transform="translate({middle + 4:.1f} {margin - 8}) rotate(-90)">'
            f"{escape(_short(name))}{title}</text>"
        )
    parts += [
        f'<path class="axis" d="M{margin} {margin + k * cell}h{n * cell}'
        f'M{margin + k * cell} {margin}v{n * cell}"/>'
        for k in range(n + 1)
    ]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for row, column in np.argwhere(matrix > 0).tolist():
        parts.append(
            _cell(
                (margin + column * cell, margin + row * cell, cell),
                int(matrix[row, column]),
                float(shares[row, column]),
                names[row],
                names[column],
                row == column,
            )
        )
    return (
        f'<svg class="matrix" width="{side}" height="{side}" viewBox="0 0 {side} {side}" '
        'role="img" aria-label="Confusion matrix">' + "".join(parts) + "</svg>"
    )


def _cell(
    place: tuple[int, int, int], count: int, share: float, row: str, column: str, is_right: bool
) -> str:
    x, y, size = place
    opacity = 0.12 + 0.88 * share
    title = f"<title>{escape(row)} → {escape(column)}: {count} ({share:.0%} of the row)</title>"
    text = ""
    if size >= 24:
        style = ' class="strong"' if opacity > 0.6 else ""
        text = (
            f'<text{style} x="{x + size / 2}" y="{y + size / 2 + 4}" text-anchor="middle">'
            f"{_compact(count)}</text>"
        )
    return (
        f'<g>{title}<rect class="{"right" if is_right else "off"}" fill-opacity="{opacity:.2f}" '
        f'x="{x + 0.5}" y="{y + 0.5}" width="{size - 1}" height="{size - 1}"/>{text}</g>'
    )


def _compact(count: int) -> str:
    """Write a count in at most four characters, as far as it is below ten million."""
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.1f}M"


def _short(name: str, length: int = 20) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _x(recall: float) -> float:
    return _LEFT + _WIDTH * recall


def _y(precision: float) -> float:
    return _TOP + _HEIGHT * (1 - precision)


def _axes() -> str:
    lines = []
    for value in (0.0, 0.5, 1.0):
        lines.append(
            f'<path class="axis" d="M{_LEFT} {_y(value)}h{_WIDTH}M{_x(value)} {_TOP}v{_HEIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{_y(value) + 4}" text-anchor="end">{value:g}</text>'
            f'<text x="{_x(value)}" y="{_TOP + _HEIGHT + 15}" text-anchor="middle">{value:g}</text>'
        )
    middle_x, middle_y = _x(0.5), _y(0.5)
    lines.append(
        f'<text x="{middle_x}" y="{_TOP + _HEIGHT + 29}" text-anchor="middle">recall</text>'
        f'<text transform="translate(16 {middle_y}) rotate(-90)" text-anchor="middle">precision'
        "</text>"
    )
    return "".join(lines)
