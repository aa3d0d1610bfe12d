"""Pictures of a report: what part of an image is shown, and where boxes are drawn."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_utils.report_picture import Mark, picture, window_around

SVG = "{http://www.w3.org/2000/svg}"


def parsed(*arguments) -> ET.Element:
    text = picture(*arguments).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ET.fromstring(text)


def shown_image(root: ET.Element) -> np.ndarray:
    content = root.find(f".//{SVG}image").get("href").removeprefix("data:image/jpeg;base64,")
    data = np.frombuffer(base64.b64decode(content), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(
    ("box", "image_size", "window"),
    [
        # A small box in a large image: 45 % of it, with the box in the middle.
        ((490, 365, 510, 385), (750, 1000), (275, 206, 725, 544)),
        # A larger one: two and a half times the box.
        ((300, 300, 600, 400), (750, 1000), (75, 68, 825, 631)),
        # In a corner, the window moves into the image.
        ((0, 0, 20, 20), (750, 1000), (0, 0, 450, 338)),
        ((980, 730, 1000, 750), (750, 1000), (550, 412, 1000, 750)),
        # As large as the image.
        ((0, 0, 1000, 750), (750, 1000), (0, 0, 1000, 750)),
        # A narrow image keeps its whole width.
        ((0, 400, 100, 500), (900, 100), (0, 248, 100, 653)),
    ],
)
def test_windows_by_hand(box, image_size, window):
    assert window_around(box, image_size) == window


@given(
    st.tuples(*[st.floats(-50, 400)] * 2),
    st.tuples(*[st.floats(0, 500)] * 2),
    st.tuples(*[st.integers(1, 300)] * 2),
)
def test_windows_lie_in_the_image(corner, extent, image_size):
    box = (*corner, corner[0] + extent[0], corner[1] + extent[1])
    xmin, ymin, xmax, ymax = window_around(box, image_size)
    assert 0 <= xmin < xmax <= image_size[1]
    assert 0 <= ymin < ymax <= image_size[0]


def test_boxes_lie_where_they_are_in_the_image():
    # 640 x 480 pixels become 320 x 240 units: half the coordinates.
    root = parsed(
        np.zeros((480, 640, 3), np.uint8),
        [Mark((100, 50, 300, 250), "cat", "truth")],
        (0, 0, 640, 480),
        "a cat",
    )
    assert root.get("viewBox") == "0.0 0.0 320 240"
    rect = root.findall(f".//{SVG}rect")[-1]
    values = [float(rect.get(name)) for name in ("x", "y", "width", "height")]
    assert values == [50, 25, 100, 100]


def test_a_window_is_cut_out_and_moves_the_boxes():
    image = np.zeros((200, 200, 3), np.uint8)
    image[100:, 100:] = (200, 30, 30)
    root = parsed(image, [Mark((110, 120, 150, 140), "x", "mistake")], (100, 100, 180, 160), "")
    shown = shown_image(root)
    assert shown.shape == (60, 80, 3)
    assert np.abs(shown.astype(int) - (200, 30, 30)).max() < 10
    rect = root.findall(f".//{SVG}rect")[-1]
    assert [float(rect.get(name)) for name in ("x", "y", "width", "height")] == [40, 80, 160, 80]


def test_a_tall_image_stands_in_the_middle():
    root = parsed(np.zeros((240, 60, 3), np.uint8), [], (0, 0, 60, 240), "")
    assert root.get("viewBox") == "-130.0 0.0 320 240"


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1), (40, 50, 3), (40, 50, 4), (40, 50, 6)])
def test_any_number_of_channels(shape):
    shown = shown_image(parsed(np.full(shape, 90, np.uint8), [], (0, 0, 50, 40), ""))
    assert shown.shape == (40, 50, 3)
    assert np.abs(shown.astype(int) - 90).max() <= 3


def test_large_images_become_small_files():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (1500, 2000, 3)).astype(np.uint8)
    text = picture(image, [], (0, 0, 2000, 1500), "")
    assert shown_image(parsed(image, [], (0, 0, 2000, 1500), "")).shape == (360, 480, 3)
    assert len(text) < 200_000


def test_marks_outside_of_the_window_are_left_out():
    marks = [Mark((0, 0, 10, 10), "out", "truth"), Mark((40, 40, 60, 60), "in", "truth")]
    root = parsed(np.zeros((100, 100, 3), np.uint8), marks, (30, 30, 70, 70), "")
    assert [t.text for t in root.iter(f"{SVG}title")] == ["in"]


def test_of_many_boxes_only_the_one_in_question_is_labelled():
    marks = [Mark((k, k, k + 20, k + 20), f"m{k}", "detection") for k in range(200)]
    marks.append(Mark((50, 50, 80, 80), "the one", "missed"))
    root = parsed(np.zeros((300, 300, 3), np.uint8), marks, (0, 0, 300, 300), "")
    assert [t.text for t in root.iter(f"{SVG}text")] == ["the one"]
    titles = [t.text for t in root.iter(f"{SVG}title")]
    assert titles[-1] == "the one"
    assert len(titles) == 60


@pytest.mark.parametrize("box", [(-1e9, -5, 1e9, 50), (5, 5, 5, 5), (0, 0, 50, 40)])
@pytest.mark.parametrize("kind", ["truth", "detection", "mistake", "missed"])
def test_labels_stay_in_the_picture(box, kind):
    label = "a long name of a class 0.93"
    root = parsed(np.zeros((40, 50, 3), np.uint8), [Mark(box, label, kind)], (0, 0, 50, 40), "")
    text = root.find(f".//{SVG}text")
    assert 0 <= float(text.get("x")) <= 320 - 7 * len(label)
    assert 12 <= float(text.get("y")) <= 240


def test_labels_are_escaped():
    text = picture(
        np.zeros((9, 9, 3), np.uint8), [Mark((1, 1, 5, 5), "<b>&", "truth")], (0, 0, 9, 9), '"<'
    )
    assert "<b>" not in text
    assert re.search(r'aria-label="&quot;&lt;"', text)
