"""Charts of a report: the corners of a curve, the cells of a matrix."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from eval_utils.average_precision import area_average_precision
from eval_utils.operating_point import OperatingPoint
from eval_utils.report_charts import confusion_chart, curve_steps, precision_recall_chart

NOTHING = OperatingPoint(0.5, 0, 0, 4)


def svg(text: str) -> ET.Element:
    return ET.fromstring(text)


def test_a_curve_by_hand():
    # Right, wrong, right, of four objects: precision 1 up to recall 1/4, then 2/3 up to 1/2.
    steps = curve_steps(np.array([1, 1 / 2, 2 / 3]), np.array([0.25, 0.25, 0.5]))
    assert steps == [(0, 1), (0.25, 1), (0.25, 0.665), (0.5, 0.665)]


def test_the_first_detection_is_wrong():
    steps = curve_steps(np.array([0.0, 0.5]), np.array([0.0, 0.5]))
    assert steps == [(0, 0.5), (0.5, 0.5)]


def test_no_detections_no_curve():
    assert curve_steps(np.array([]), np.array([])) == []
    assert "polyline" not in precision_recall_chart(np.array([]), np.array([]), NOTHING, "cat")


def test_the_area_under_the_steps_is_the_average_precision():
    rng = np.random.default_rng(0)
    right = rng.random(5000) < np.linspace(1, 0.1, 5000)
    hits = np.cumsum(right)
    precisions, recalls = hits / np.arange(1, 5001), hits / (hits[-1] + 300)
    steps = curve_steps(precisions, recalls)
    area = sum((b[0] - a[0]) * b[1] for a, b in zip(steps, steps[1:], strict=False))
    assert area == pytest.approx(area_average_precision(precisions, recalls), abs=0.01)
    assert len(steps) <= 402


def test_a_chart_marks_its_point():
    point = OperatingPoint(0.4, 1, 1, 2)
    chart = svg(precision_recall_chart(np.array([1, 0.5]), np.array([0.5, 0.5]), point, "<cat>"))
    (circle,) = chart.iter("circle")
    assert circle.find("title").text == "confidence 0.400: precision 0.500, recall 0.500"
    _, _, width, height = map(float, chart.get("viewBox").split())
    assert 0 < float(circle.get("cx")) < width
    assert 0 < float(circle.get("cy")) < height
    assert chart.get("aria-label") == "Precision over recall of <cat>"


def test_a_matrix_shows_what_is_not_zero():
    matrix = np.array([[0, 1, 0], [2, 6, 0], [0, 0, 12_345]])
    chart = svg(confusion_chart(matrix, ["background", "cat", "<dog>"]))
    assert [cell.find("title").text for cell in chart.iter("g")] == [
        "background → cat: 1 (100% of the row)",
        "cat → background: 2 (25% of the row)",
        "cat → cat: 6 (75% of the row)",
        "<dog> → <dog>: 12345 (100% of the row)",
    ]
    assert [cell.find("text").text for cell in chart.iter("g")] == ["1", "2", "6", "12k"]
    assert [cell.find("rect").get("class") for cell in chart.iter("g")] == [
        "off",
        "off",
        "right",
        "right",
    ]


def test_many_classes_have_small_cells_without_numbers():
    names = ["background", *(f"a class of some long name {k}" for k in range(80))]
    chart = svg(confusion_chart(np.eye(81, dtype=int), names))
    assert all(cell.find("text") is None for cell in chart.iter("g"))
    labels = [text.text for text in chart.findall("text")]
    assert max(map(len, labels)) <= 20
    assert float(chart.get("width")) < 1500
