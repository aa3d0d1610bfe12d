"""The report: complete, harmless, self-contained, and there in every sad case."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data_generator.object_detection_2d_data_generator import DataGenerator
from eval_utils.detection_scorer import DetectionScorer
from eval_utils.prediction_results import collect_predictions
from eval_utils.scoring import score_detections

HOSTILE = "<script>alert('x')</script>\"&"
NAMES = ["background", "cat", HOSTILE]
VOID = {"meta", "br"}
SECTIONS = ["classes", "curves", "sizes", "mistakes", "confusion"]
GALLERIES = ["pictures-mistakes", "pictures-missed"]


class Page(HTMLParser):
    """Checks that tags are balanced; collects elements, text and section names."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def image_data(tmp_path, n_images=4, size=(120, 160)) -> DataGenerator:
    """Make a data set of images in files, with two objects of different classes each."""
    data = DataGenerator(verbose=False)
    rng = np.random.default_rng(0)
    data.filenames, data.labels, data.image_ids = [], [], []
    for k in range(n_images):
        path = tmp_path / f"image {k}.png"
        cv2.imwrite(str(path), rng.integers(0, 255, (*size, 3)).astype(np.uint8))
        data.filenames.append(str(path))
        data.labels.append(np.array([[1, 10, 10, 50, 50], [2, 90, 40, 140, 110]]))
        data.image_ids.append(f"{HOSTILE} {k}")
    data.dataset_size, data.dataset_indices = n_images, np.arange(n_images)
    data.class_names = NAMES
    return data


# Right, wrong class, somewhere; the cat of the others is missed.
DETECTIONS = np.array(
    [
        [1, 0.9, 12, 10, 52, 50],
        [1, 0.8, 90, 42, 140, 112],
        [2, 0.7, 60, 60, 80, 80],
    ]
)


def scored(data, detections, n_classes=2, names=NAMES) -> DetectionScorer:
    scorer = DetectionScorer(n_classes, data, class_names=names)
    scorer.prediction_results = collect_predictions(detections, n_classes)
    scorer.score(verbose=False)
    return scorer


def written(scorer, tmp_path, **arguments) -> Page:
    scorer.report(tmp_path / "report.html", **arguments)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_nothing_is_loaded(text)
    return Page(text)


def check_nothing_is_loaded(text: str) -> None:
    page = Page(text)
    policies = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0]["content"].startswith("default-src 'none'")
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in (attributes.get("style") or "")
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/jpeg;base64,"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


@pytest.fixture
def example(tmp_path):
    data = image_data(tmp_path)
    detections = [(data.image_ids[0], DETECTIONS), (data.image_ids[1], DETECTIONS[:1])]
    return scored(data, detections)


def test_everything_is_there(example, tmp_path):
    page = written(example, tmp_path, confidence_thresh=0.5, title="Cats & dogs")
    assert [s["id"] for s in page.all("section")] == SECTIONS + GALLERIES
    assert set(SECTIONS + GALLERIES[:1]) == {a["href"][1:] for a in page.all("a")}
    pictures = [picture["href"].partition(",")[2] for picture in page.all("image")]
    assert len(pictures) == 2 + 6  # wrong detections and missed objects
    for content in pictures:
        data = np.frombuffer(base64.b64decode(content), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_UNCHANGED).ndim == 3
    words = page.words
    for expected in (
        "Cats & dogs",
        "4 images, 8 objects, 2 classes",
        "IoU of 0.5 or more (matching rule of Pascal VOC)",
        "mean precision at 11 recall levels",
        f"cat 0.80 wrong class: ground truth: {HOSTILE}",
        f"{HOSTILE} 0.70 background",
        f"image {HOSTILE} 0",
        "6 of 8; 1 of them taken for another class",
    ):
        assert expected in words, expected


def test_the_numbers_are_those_of_the_scorer(example, tmp_path):
    words = written(example, tmp_path, confidence_thresh=0.5).words
    assert f"mean average precision {example.mean_average_precision:.3f}" in words
    # 2 of 4 detections are right, and 2 of 8 objects are found.
    assert "precision 0.500 recall 0.250 F1 0.333 confidence threshold 0.500" in words
    ap = example.average_precisions[1]
    assert f"cat {ap:.3f} 4 2 1 0.667 0.500 0.571 0.667 0.900" in words


def test_without_a_threshold_it_is_that_of_the_best_f1(example, tmp_path):
    assert "confidence threshold 0.900" in written(example, tmp_path).words


def test_galleries_are_limited_and_may_be_left_out(example, tmp_path):
    arguments = {"confidence_thresh": 0.5}
    assert len(written(example, tmp_path, n_pictures=1, **arguments).all("image")) == 2
    assert written(example, tmp_path, n_pictures=0, **arguments).all("image") == []


def test_the_worst_come_first(example, tmp_path):
    words = written(example, tmp_path, confidence_thresh=0.5, n_pictures=1).words
    assert "cat 0.80 wrong class" in words  # more confident than 0.7
    assert f"{HOSTILE} taken for cat" in words  # the larger of the two classes


def test_some_images_cannot_be_read(example, tmp_path):
    os.remove(example.data_generator.filenames[1])
    page = written(example, tmp_path, confidence_thresh=0.5)
    assert "1 more could not be read" in page.words
    assert len(page.all("image")) == 2 + 5


def test_no_image_can_be_read(example, tmp_path):
    for path in example.data_generator.filenames:
        os.remove(path)
    page = written(example, tmp_path, confidence_thresh=0.5)
    assert page.words.count("no image could be read") == 2
    assert page.all("image") == []


def test_plain_arrays_have_no_images(tmp_path):
    scores = score_detections([np.array([[1, 0, 0, 9, 9]])], [np.array([[1, 0.5, 50, 50, 60, 60]])])
    page = written(scores, tmp_path, confidence_thresh=0.1)
    assert page.words.count("no image could be read") == 2


@pytest.mark.parametrize("object_sizes", ["coco", "terciles"])
@pytest.mark.parametrize(
    ("labels", "detections"),
    [
        ([[[1, 0, 0, 9, 9]], []], [[], []]),  # no predictions
        ([[], []], [[[1, 0.5, 0, 0, 9, 9]], []]),  # no objects
        ([[], []], [[], []]),  # nothing
        ([[[1, 0, 0, 9, 9]], []], [[[1, 0.5, 0, 0, 9, 9]], []]),  # perfect
    ],
)
def test_sad_and_happy_cases(labels, detections, object_sizes, tmp_path):
    scores = score_detections(
        [np.array(rows).reshape(-1, 5) for rows in labels],
        [np.array(rows).reshape(-1, 6) for rows in detections],
        n_classes=2,
    )
    page = written(scores, tmp_path, object_sizes=object_sizes)
    assert [s["id"] for s in page.all("section")] == SECTIONS + GALLERIES
    assert not re.search(r"\b(nan|inf|None)\b", page.words)


@pytest.mark.parametrize("neutral", [True, False])
def test_neutral_objects(neutral, tmp_path):
    data = SimpleNamespace(
        labels=[np.array([[1, 0, 0, 9, 9]])], image_ids=["a"], eval_neutral=[[neutral]]
    )
    words = written(scored(data, [], 1, None), tmp_path).words
    assert ("1 image, 0 objects" if neutral else "1 image, 1 object,") in words


def test_eighty_classes(tmp_path):
    rng = np.random.default_rng(0)
    labels, detections = {}, {}
    for image in range(60):
        classes = rng.integers(1, 81, 12)
        corners = rng.integers(0, 300, (12, 2))
        labels[image] = np.column_stack([classes, corners, corners + 60])
        found = labels[image].astype(float) + np.array([0, 1, 2, 3, 4])
        found[::4, 0] = rng.integers(1, 81, 3)
        detections[image] = np.insert(found, 1, rng.random(12), axis=1)
    names = ["background", *(f"class number {k} of many, with a long name" for k in range(80))]
    scores = score_detections(labels, detections, class_names=names)
    page = written(scores, tmp_path)
    assert len(page.all("polyline")) > 70
    assert (tmp_path / "report.html").stat().st_size < 500_000


def test_names_that_are_no_utf8(tmp_path):
    data = SimpleNamespace(labels=[[]], image_ids=[os.fsdecode(b"caf\xe9")])
    names = ["background", os.fsdecode(b"caf\xe9\x00\x1b")]
    page = written(
        scored(data, [(data.image_ids[0], [[1, 0.5, 0, 0, 9, 9]])], 1, names),
        tmp_path,
        confidence_thresh=0.2,
    )
    assert "caf?" in page.words


def test_the_same_results_give_the_same_file(example, tmp_path):
    example.report(tmp_path / "a.html")
    example.report(tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_an_old_report_stays_if_a_new_one_fails(example, tmp_path, monkeypatch):
    example.report(tmp_path / "report.html", title="old")
    old = (tmp_path / "report.html").read_bytes()

    def fail(index):
        raise RuntimeError("a defect")

    monkeypatch.setattr(example.data_generator, "get_image", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        example.report(tmp_path / "report.html", confidence_thresh=0.5)
    assert (tmp_path / "report.html").read_bytes() == old


def test_evaluating_first(tmp_path):
    scorer = DetectionScorer(1, SimpleNamespace(labels=[[]]))
    with pytest.raises(ValueError, match="call `compute_mean_average_precision` first"):
        scorer.report(tmp_path / "report.html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_pictures": -1}, "n_pictures.*-1"),
        ({"object_sizes": "big"}, "coco, terciles; got 'big'"),
    ],
)
def test_wrong_arguments(example, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        example.report(tmp_path / "report.html", **arguments)


def test_in_a_browser(example, tmp_path):
    """In a real browser, at the width of a phone, nothing is wider than the window."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("needs a browser: chromium or google-chrome")
    example.report(tmp_path / "report.html", confidence_thresh=0.5)
    # A page around it asks how wide the content is; the report itself may run no script.
    probe = tmp_path / "probe.html"
    probe.write_text(
        '<iframe id="f" src="report.html" style="width:375px;height:600px;border:0"></iframe>'
        "<script>onload = () => { const d = document.getElementById('f').contentDocument;"
        "const e = d.documentElement;"
        "document.title = [e.scrollWidth - e.clientWidth, d.querySelectorAll('section').length,"
        "[...d.querySelectorAll('image')].every(i => i.getBBox().width > 0)].join(' ');"
        "document.body.innerHTML = ''; }</script>"
    )
    result = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "<title>0 7 true</title>" in result.stdout, result.stdout[-500:] + result.stderr[-500:]
