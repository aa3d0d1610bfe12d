"""Boxes read in the wrong order, or in the wrong unit, give themselves away."""

from __future__ import annotations

import numpy as np
import pytest

from misc_utils.coordinate_check import suspect_coordinates

N, HEIGHT, WIDTH = 300, 240, 640
SIZES = np.tile((HEIGHT, WIDTH), (N, 1))


def good_boxes() -> np.ndarray:
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.05, 0.4, (N, 2)) * (WIDTH, HEIGHT)
    corners = rng.random((N, 2)) * ((WIDTH, HEIGHT) - sides)
    return np.hstack([corners, corners + sides])


XMIN, YMIN, XMAX, YMAX = good_boxes().T
WRONG = {
    "(xmin, xmax, ymin, ymax)": (XMIN, XMAX, YMIN, YMAX),
    "(ymin, xmin, ymax, xmax)": (YMIN, XMIN, YMAX, XMAX),
    "(xmin, ymin, width, height)": (XMIN, YMIN, XMAX - XMIN, YMAX - YMIN),
    "(cx, cy, width, height)": ((XMIN + XMAX) / 2, (YMIN + YMAX) / 2, XMAX - XMIN, YMAX - YMIN),
    "(xmax, ymax, xmin, ymin)": (XMAX, YMAX, XMIN, YMIN),
}


def test_good_boxes_raise_no_suspicion():
    assert suspect_coordinates(good_boxes(), SIZES) == []
    assert suspect_coordinates(good_boxes() + 1, SIZES) == []  # counted from 1, as in VOC
    assert suspect_coordinates(np.zeros((0, 4)), np.zeros((0, 2))) == []


@pytest.mark.parametrize("order", WRONG)
def test_wrong_orders_are_recognised(order):
    (sentence,) = suspect_coordinates(np.column_stack(WRONG[order]), SIZES)
    assert f"as {order}: check the order" in sentence
    assert "boxes are impossible as (xmin, ymin, xmax, ymax)" in sentence


def test_fractions_are_recognised():
    boxes = good_boxes() / ([WIDTH, HEIGHT] * 2)
    (sentence,) = suspect_coordinates(boxes, SIZES)
    assert "look like fractions of the image" in sentence
    assert suspect_coordinates([[0, 0, 2, 2]], [[8, 8]]) == []  # a tiny image has tiny boxes


def test_a_few_slips_are_no_order():
    boxes = good_boxes()
    boxes[:3] = boxes[:3, [2, 3, 0, 1]]
    assert suspect_coordinates(boxes, SIZES) == []


def test_some_swapped_corners():
    boxes = good_boxes()
    boxes[:60] = boxes[:60, [2, 1, 0, 3]]
    (sentence,) = suspect_coordinates(boxes, SIZES)
    assert "20% of the boxes are impossible" in sentence
    assert "20% have xmax < xmin or ymax < ymin: these may be swapped" in sentence


def test_boxes_of_larger_images():
    (sentence,) = suspect_coordinates(good_boxes() * 3, SIZES)
    assert "reach out of their image: was it resized after" in sentence


def test_numbers_that_are_none():
    boxes = good_boxes()
    boxes[:30, 2] = np.nan
    boxes[30:60, 2] = np.inf
    (sentence,) = suspect_coordinates(boxes, SIZES)
    assert sentence.startswith("20% of the boxes are impossible")
