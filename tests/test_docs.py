"""The documentation: docstrings become Markdown, names become links, and bad pages are found.

All pages together are built and checked by `make docs`; here, those of one small package are.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from typing import NamedTuple

import pdoc.doc
import pytest

from docs.build import (
    PACKAGES,
    build,
    explain_fields,
    load,
    main,
    resolve_named_tuple,
    translate,
)
from docs.check import problems
from docs.docstrings import to_markdown
from docs.links import NameIndex
from tests import test_structure

REPOSITORY = test_structure.REPOSITORY
SMALL = ("bounding_box_utils",)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of the package that depends on nothing."""
    folder = tmp_path_factory.mktemp("docs") / "html"
    build(folder, SMALL)
    return folder


def markdown(text: str) -> str:
    return to_markdown(textwrap.dedent(text).strip())


CASES = {
    "prose": ("One line.", "One line.\n"),
    "what looks like HTML": ("A tag <b> & 1 > 0.", "A tag &lt;b&gt; &amp; 1 &gt; 0.\n"),
    "code stays as it is": ("``'<a>2<b>'`` or `x`", "`'<a>2<b>'` or `x`\n"),
    "code over two lines": ("`matching_rule='coco',\nborder='half'`", None),
    "a sketch": ("See:\n\n    a --> b\n       c", "See:\n\n```text\na --> b\n   c\n```\n"),
    "code": ("See:\n\n    run(x)", "See:\n\n```python\nrun(x)\n```\n"),
    "code with a gap": ("    a(1)\n\n    b(2)", "```python\na(1)\n\nb(2)\n```\n"),
    "an example": (">>> 1\n1\n\nText.", "```pycon\n>>> 1\n1\n```\n\nText.\n"),
    "a list": ("- one\n  goes on\n- two", "- one\n  goes on\n- two\n"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_text(text, expected):
    if expected is None:
        expected = "`matching_rule='coco', border='half'`\n"
    assert to_markdown(text) == expected


def test_table_drawn_with_equal_signs():
    text = """
        ======  ===============
        rule    what it does
        ======  ===============
        `VOC`   looks, and
                looks again
        a<b     wider than its rule
        ======  ===============
    """
    assert markdown(text).splitlines() == [
        "| rule | what it does |",
        "| --- | --- |",
        "| `VOC` | looks, and looks again |",
        "| a&lt;b | wider than its rule |",
    ]


def test_sections():
    text = """
        Do it.

        Arguments:
            first: What comes
                first: a `number`.
            *rest, **named: The rest.

        Returns:
            Two arrays:

            - one,
            - another.

        Raises:
            ValueError: if it cannot.

        Example:
            So:

            >>> do(1)
            2
    """
    assert markdown(text).splitlines() == [
        "Do it.",
        "",
        '<p class="section">Arguments</p>',
        "",
        "- **`first`**: What comes",
        "  first: a `number`.",
        "- **`*rest`, `**named`**: The rest.",
        "",
        '<p class="section">Returns</p>',
        "",
        "Two arrays:",
        "",
        "- one,",
        "- another.",
        "",
        '<p class="section">Raises</p>',
        "",
        "- **`ValueError`**: if it cannot.",
        "",
        '<p class="section">Example</p>',
        "",
        "So:",
        "",
        "```pycon",
        ">>> do(1)",
        "2",
        "```",
    ]


def test_section_that_begins_beside_its_heading():
    text = "Do.\n\nArguments: those of `iou`.\n\nAfter."
    assert markdown(text).splitlines()[2:] == [
        '<p class="section">Arguments</p>',
        "",
        "- those of `iou`.",
        "",
        "After.",
    ]


def test_pages_of_a_package_are_complete_and_lead_everywhere(pages):
    assert problems(pages, REPOSITORY, SMALL) == [
        # The start page is about all packages, and only one of them is here.
        *(f"index.html: broken link {name}.html" for name in sorted(set(PACKAGES) - set(SMALL)))
    ]
    page = (pages / "bounding_box_utils" / "bounding_box_utils.html").read_text(encoding="utf-8")
    assert "<table>" in page
    assert '<a href="#intersection_area"><code>intersection_area</code></a>' in page
    assert "search" in page


def test_every_package_has_a_room():
    assert set(PACKAGES) == set(test_structure.PACKAGES)
    rooms = {path.stem for path in (REPOSITORY / "docs" / "rooms").glob("*.md")}
    assert rooms == set(PACKAGES)


def test_names_in_what_people_wrote_by_hand_are_names_of_modules():
    texts = [REPOSITORY / "docs" / "start.md", *(REPOSITORY / "docs" / "rooms").glob("*.md")]
    dotted = re.compile(rf"`(({'|'.join(PACKAGES)})\.\w+)`")
    names = {name for path in texts for name, _ in dotted.findall(path.read_text(encoding="utf-8"))}
    assert len(names) > 20
    for name in names:
        assert (REPOSITORY / f"{name.replace('.', '/')}.py").is_file(), name


@pytest.mark.parametrize(
    ("html", "page", "linked"),
    [
        (
            "<code>iou</code>",
            "",
            '<a href="bounding_box_utils/bounding_box_utils.html#iou"><code>iou</code></a>',
        ),
        (
            "<code>bounding_box_utils.bounding_box_utils</code>",
            "bounding_box_utils",
            '<a href="bounding_box_utils/bounding_box_utils.html">'
            "<code>bounding_box_utils.bounding_box_utils</code></a>",
        ),
        (
            "<code>iou()</code>",
            "bounding_box_utils.bounding_box_utils",
            '<a href="#iou"><code>iou()</code></a>',
        ),
        ("iou, <code>nobody</code>", "", "iou, <code>nobody</code>"),
        ('<a href="x"><code>iou</code></a>', "", '<a href="x"><code>iou</code></a>'),
    ],
)
def test_links(html, page, linked):
    assert NameIndex(load(SMALL)).link(html, page) == linked


def test_names_of_arguments_are_no_links():
    html = "<code>iou</code>"
    assert NameIndex(load(SMALL)).link(html, "", other_names=frozenset({"iou"})) == html


@dataclasses.dataclass
class Settings:
    """Settings.

    Attributes:
        size: Explained here.
    """

    size: int = dataclasses.field(default=1)
    rate: float = dataclasses.field(default=0.1, metadata={"help": "How fast, in <m/s>."})


class Place(NamedTuple):
    """A place."""

    x: int


def test_fields_are_explained_once():
    settings = pdoc.doc.Class("m", "Settings", Settings, ("m", "Settings"))
    explain_fields(settings)
    translate(settings)
    assert "size" not in settings.members
    assert settings.members["rate"].docstring == "How fast, in &lt;m/s&gt;.\n"
    place = pdoc.doc.Class("m", "Place", Place, ("m", "Place"))
    resolve_named_tuple(place)
    translate(place)
    assert place.members["x"].docstring == ""
    assert str(place.members["__init__"].signature_without_self) == "(x: int)"


def test_what_is_wrong_with_pages_is_found(tmp_path):
    source = tmp_path / "package"
    source.mkdir()
    (source / "__init__.py").write_text("")
    (source / "good.py").write_text('"""Good."""\ndef f():\n    """Do."""\ndef _g(): pass\n')
    (source / "bad.py").write_text(
        '"""Bad."""\nclass C:\n    """A class."""\n    def m(self): ...\n'
    )
    (source / "lost.py").write_text('"""Lost."""\n')
    pages = tmp_path / "html"
    (pages / "package").mkdir(parents=True)
    (pages / "package.html").write_text('<a href="package/good.html#f">f</a> <a href="#top">x</a>')
    (pages / "package" / "good.html").write_text('<h1 id="f">f</h1><pre>===== <a href="no.html">')
    (pages / "package" / "bad.html").write_text(
        '<p id="C">C</p><p id="C">again</p> ===== <a href="https://arxiv.org/abs/1512.02325">ok</a>'
        '<a href="http://insecure.org">no</a><a href="https:/typo">no</a>\nArguments: left'
    )
    assert problems(pages, tmp_path, ("package",)) == [
        "package/bad.html: anchor #C occurs 2 times",
        "package/bad.html: unreadable layout: =====",
        "package/bad.html: unreadable layout: Arguments:",
        "package/bad.html: broken link http://insecure.org",
        "package/bad.html: broken link https:/typo",
        "package/good.html: broken link no.html",
        "package.html: broken link #top",
        "package/bad: C.m is not on its page",
        "package/bad: C.m has no docstring",
        "package/lost: has no page",
    ]


def test_a_problem_is_an_exit_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("docs.build.build", lambda output: (output / "models").mkdir(parents=True))
    assert main(["--output", str(tmp_path / "html")]) == 1
    assert "models/keras_ssd7: has no page" in capsys.readouterr().err
