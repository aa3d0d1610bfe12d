"""The README: its Python code runs, its commands, links, names and pictures exist.

The rules for those who write it stand in its last section. All Python blocks run in one namespace
from top to bottom, as for a reader who copies them, in a folder that holds what a reader would
have: the digit scenes of the quick start (fewer of them), the sample files that the README shows,
and in the place of a download a file of the same name and format with random weights. Nothing is
replaced by a mock; trainings are short because there are few images.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import keras
import numpy as np
import pytest

from examples.digit_scenes import make_digit_scenes
from models.keras_ssd300 import SCALES_VOC, ssd_300
from tests.legacy_files import keras2_weights, write_keras2_weights

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
TEXT = README.read_text(encoding="utf-8")
PUBLISHED_WEIGHTS = "VGG_VOC0712_SSD_300x300_iter_120000.h5"
MAX_PICTURE_BYTES = 300_000

SAMPLE_LANGUAGES = ("xml", "json", "csv", "")
CODE_FOLDERS = ("examples", "models", "tests", "notebooks", "benchmarks", "misc_utils")
PACKAGES = (
    "bounding_box_utils",
    "data_generator",
    "eval_utils",
    "keras_layers",
    "keras_loss_function",
    "misc_utils",
    "models",
    "ssd_encoder_decoder",
)


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str
    line: int  # of its first line of text, from 1
    section: str  # the heading above it
    lead: str  # the line of text above it


def fenced_blocks() -> list[Block]:
    """Return all fenced blocks in order."""
    blocks, section, lead, opened = [], "", "", None
    for number, line in enumerate(TEXT.splitlines(), start=1):
        if line.startswith("```"):
            if opened is None:
                opened = (line[3:], number + 1, [])
            else:
                language, first, lines = opened
                blocks.append(Block(language, "\n".join(lines) + "\n", first, section, lead))
                opened, lead = None, ""
        elif opened is not None:
            opened[2].append(line)
        elif line.startswith("#"):
            section = line.lstrip("# ")
        elif line.strip():
            lead = line
    assert opened is None, "a fence is not closed"
    return blocks


BLOCKS = fenced_blocks()
PYTHON = [block for block in BLOCKS if block.language == "python"]
# Text outside of fences: code there is not prose.
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
INLINE_CODE = re.findall(r"`([^`\n]+)`", PROSE)


def expected_output(block: Block) -> str | None:
    """Return the text block that follows a Python block at once, which is what it prints."""
    following = BLOCKS[BLOCKS.index(block) + 1 :][:1]
    is_output = following and following[0].language == "text" and not following[0].lead
    return following[0].text if is_output else None


class Session:
    """The namespace that the blocks share, and how far it has come."""

    def __init__(self):
        self.namespace = {"__name__": "__main__"}
        self.printed: list[str] = []
        self.broken: Block | None = None

    def run_until(self, index: int) -> str:
        """Run all blocks up to one that have not run yet; return what that one printed."""
        for block in PYTHON[len(self.printed) : index + 1]:
            if self.broken:
                pytest.skip(f"the block in line {self.broken.line} failed")
            self.broken = block  # until it has run
            # Empty lines in front: a traceback names the line of the README.
            code = compile("\n" * (block.line - 1) + block.text, str(README), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, self.namespace)
            self.printed.append(printed.getvalue())
            self.broken = None
        return self.printed[index]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A fresh session in a folder with the data that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    make_digit_scenes(folder / "digits", n_train=16, n_val=6, n_test=6)
    write_animals(folder / "animals")
    write_video(folder / "street.avi")
    write_published_weights(folder / PUBLISHED_WEIGHTS)
    keras.utils.set_random_seed(0)
    with contextlib.chdir(folder):
        yield Session()


def write_animals(folder: Path) -> None:
    """Write two pictures, the samples that the README shows, and what goes without saying."""
    for block in BLOCKS:
        if block.language in SAMPLE_LANGUAGES:
            (path,) = re.findall(r"`(animals/[\w/.]+)`", block.lead)
            file = folder.parent / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    for name, value in (("park", 90), ("sky", 200)):
        (folder / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), np.full((400, 500, 3), value, np.uint8))
    (folder / "Annotations" / "sky.xml").write_text("<annotation></annotation>", encoding="utf-8")
    (folder / "sets").mkdir()
    (folder / "sets" / "all.txt").write_text("park\nsky\n", encoding="utf-8")


def write_video(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (160, 120))
    for value in (50, 100, 150):
        writer.write(np.full((120, 160, 3), value, np.uint8))
    writer.release()
    assert path.stat().st_size > 0


def write_published_weights(path: Path) -> None:
    """Write weights of SSD300 as Keras 2 did: random ones, because a test downloads nothing."""
    model = ssd_300((300, 300, 3), n_classes=20, scales=SCALES_VOC)
    with h5py.File(path, "w") as file:
        write_keras2_weights(file, keras2_weights(model))


def test_there_are_blocks_of_all_kinds():
    assert len(PYTHON) > 15
    assert {block.language for block in BLOCKS} >= {"python", "text", "sh", "xml", "json", "csv"}


@pytest.mark.parametrize(
    "index", range(len(PYTHON)), ids=[f"line {block.line}: {block.section}" for block in PYTHON]
)
def test_python_runs_and_prints_what_it_says(session, index):
    printed = session.run_until(index)
    expected = expected_output(PYTHON[index])
    if expected is not None:
        assert printed == expected


def test_every_text_block_is_an_output():
    outputs = [expected_output(block) for block in PYTHON]
    for block in BLOCKS:
        if block.language == "text":
            assert block.text in outputs, f"line {block.line} follows no Python code"


def test_python_is_formatted_as_a_person_would():
    for block in PYTHON:
        for number, line in enumerate(block.text.splitlines(), start=block.line):
            assert len(line) <= 100, f"line {number} of the README"
            assert line == line.rstrip(), f"line {number} of the README"


def shell_commands() -> list[list[str]]:
    """Return the words of all commands: of shell blocks, and of code within sentences."""
    # The first two commands of the README stand in an indented block.
    texts = [block.text for block in BLOCKS if block.language == "sh"]
    texts += [line for line in PROSE.splitlines() if re.match(r" {4}(make|python|pip) ", line)]
    texts += [code for code in INLINE_CODE if re.match(r"(make|python|pip) ", code)]
    lines = "\n".join(texts).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


COMMANDS = shell_commands()


def test_there_are_commands_of_all_kinds():
    assert {words[0] for words in COMMANDS} == {"make", "python", "pip"}


def test_make_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    for words in COMMANDS:
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), words


def test_extras_exist():
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    asked = re.findall(r'"\.\[(\w+)\]"', TEXT)
    assert asked
    for extra in asked:
        assert re.search(rf'^    "{extra}": \[|^EXTRAS\["{extra}"\]', setup, re.MULTILINE), extra


@pytest.mark.parametrize(
    "words",
    [words for words in COMMANDS if words[0] == "python"],
    ids=lambda words: " ".join(words)[:60],
)
def test_scripts_and_their_options_exist(words, monkeypatch, capsys):
    if words[1] == "-m":
        module, options = importlib.import_module(words[2]), words[3:]
    else:
        module, options = module_of(REPOSITORY / words[1]), words[2:]
    names = [word for word in options if word.startswith("--")]
    if not names:
        return
    monkeypatch.setattr(sys, "argv", [words[1], "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 0
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert set(names) <= known
    if hasattr(module, "parse_arguments"):  # values, too
        module.parse_arguments(options)


def module_of(path: Path):
    """Import a script by its path."""
    return importlib.import_module(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))


@pytest.mark.parametrize(
    "name",
    sorted({code for code in INLINE_CODE if re.match(rf"({'|'.join(PACKAGES)})\.\w", code)}),
)
def test_names_with_their_modules_exist(name):
    dotted = re.match(r"[\w.]+", name)[0].split(".")
    depth = len(dotted)
    while depth > 1 and not is_module(".".join(dotted[:depth])):
        depth -= 1
    found = importlib.import_module(".".join(dotted[:depth]))
    for attribute in dotted[depth:]:
        found = getattr(found, attribute)


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings_of(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", text, re.MULTILINE)


HEADINGS = headings_of(PROSE)
LINKS = re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", PROSE)


@pytest.mark.parametrize("target", sorted(set(LINKS)))
def test_links_lead_somewhere(target):
    path, _, anchor = target.partition("#")
    if path.startswith("https://"):
        return
    headings = HEADINGS
    if path:
        assert (REPOSITORY / path).exists()
        if anchor:
            headings = headings_of((REPOSITORY / path).read_text(encoding="utf-8"))
    assert not anchor or anchor in map(slug, headings)


def test_no_two_headings_have_the_same_anchor():
    assert len(set(map(slug, HEADINGS))) == len(HEADINGS)


def test_files_named_in_sentences_exist():
    named = [code for code in INLINE_CODE if re.fullmatch(r"\w+/[\w/]+\.\w+", code)]
    named = [path for path in named if path.split("/")[0] in CODE_FOLDERS]
    assert named
    for path in named:
        assert (REPOSITORY / path).is_file(), path


def test_contents_list_every_section():
    listed = re.search(r"\*\*Contents:\*\*(.*?)\n\n", TEXT, re.DOTALL)[1]
    sections = re.findall(r"^## (.*)$", PROSE, re.MULTILINE)
    assert re.findall(r"\[([^\]]+)\]", listed.replace("\n", " ")) == sections


def test_pictures_are_shown_and_small():
    shown = {REPOSITORY / link for link in LINKS if link.endswith(".png")}
    assert shown == set((REPOSITORY / "docs" / "images").glob("*.png"))
    for path in shown:
        assert path.stat().st_size < MAX_PICTURE_BYTES, path.name


def test_measured_results_are_those_of_the_record():
    record = (REPOSITORY / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    table = re.search(r"^### Measured here\n(.*?)^###", TEXT, re.DOTALL | re.MULTILINE)[1]
    numbers = re.findall(r"\*\*([\d.]+)\*\*", table)
    assert len(numbers) >= 3
    for number in numbers:
        assert f"**{number}**" in record, number


def test_every_module_of_the_table_exists():
    table = re.search(r"^## What is here\n(.*?)^## ", TEXT, re.DOTALL | re.MULTILINE)[1]
    for folder in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE):
        assert (REPOSITORY / folder).is_dir(), folder
