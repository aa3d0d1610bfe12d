"""The notebooks as they are saved, and (slow) whether they still run."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from notebooks.execute import clean, execute, sources_hash

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MAX_BYTES = 3_000_000
ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(home|root|work|tmp|usr|opt|Users|mnt|var)/|[A-Z]:\\\\")
NEUTRAL_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def output_texts(notebook):
    """Yield all text in outputs, that of results and tables included."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield output.get("text", "")
            data = output.get("data", {})
            yield from (data[kind] for kind in data if kind.startswith("text/"))


def test_there_are_notebooks_and_the_readme_lists_them():
    text = (REPOSITORY / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert sorted(set(re.findall(r"\((\w+\.ipynb)\)", text))) == [path.name for path in NOTEBOOKS]


@every_notebook
def test_outputs_belong_to_the_sources(path):
    notebook = read(path)
    assert notebook.metadata["ssd_keras"]["sources"] == sources_hash(notebook), (
        f"{path.name} was changed after it was executed: run `make notebooks`, or "
        f"`python notebooks/execute.py {path.name}`"
    )


@every_notebook
def test_outputs_are_not_those_of_a_quick_run(path):
    assert "quick" not in read(path).metadata["ssd_keras"]


@every_notebook
def test_every_cell_ran_once_and_in_order(path):
    counts = [cell.execution_count for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_nothing_went_wrong(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.text


@every_notebook
def test_outputs_say_nothing_about_the_folders_of_a_machine(path):
    for text in output_texts(read(path)):
        assert not ABSOLUTE_PATH.search(text), text


@every_notebook
def test_notebooks_are_small_and_ask_for_no_special_kernel(path):
    assert path.stat().st_size < MAX_BYTES
    notebook = read(path)
    assert notebook.metadata["kernelspec"] == NEUTRAL_KERNEL
    assert notebook.metadata["language_info"] == {"name": "python"}


@every_notebook
def test_there_are_pictures_and_the_duration(path):
    notebook = read(path)
    kinds = {
        kind
        for cell in code_cells(notebook)
        for output in cell.outputs
        for kind in output.get("data", {})
    }
    assert kinds & {"image/jpeg", "image/png"}
    assert re.search(r"\d+ s on \d+ CPU cores", code_cells(notebook)[-1].outputs[-1].text)


@every_notebook
def test_one_marked_cell_takes_the_paths_of_a_user(path):
    cells = read(path).cells
    marked = [number for number, cell in enumerate(cells) if cell.source.startswith("## ✏️")]
    assert len(marked) == 1
    following = cells[marked[0] + 1]
    assert following.cell_type == "code"
    assert " = None  # " in following.source


def small_notebook():
    """Return a notebook of two cells that has not run."""
    cells = [nbformat.v4.new_code_cell(source) for source in ("print(6 * 7)", "1 + 1")]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Text."), *cells])


def test_the_hash_follows_code_and_nothing_else():
    notebook = small_notebook()
    before = sources_hash(notebook)
    notebook.cells[0].source = "Other text."
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="42")]
    assert sources_hash(notebook) == before
    notebook.cells[1].source += " "
    assert sources_hash(notebook) != before


def test_cleaning_leaves_what_a_reader_wants():
    notebook = small_notebook()
    notebook.metadata["kernelspec"] = {"name": "my_env", "display_name": "mine", "language": "x"}
    streams = [
        ("stdout", "a\r"),
        ("stdout", "b\n"),
        ("stderr", "I0000 00:00:17.5  12 port.cc:1] oneDNN\n"),
        ("stderr", "I0000 00:00:17.5  12 port.cc:1] oneDNN\nreal trouble\n"),
    ]
    notebook.cells[1].outputs = [
        nbformat.v4.new_output("stream", name=name, text=text) for name, text in streams
    ]
    notebook.cells[1].metadata = nbformat.from_dict({"execution": {"started": "now"}})
    clean(notebook)
    assert notebook.metadata["kernelspec"] == NEUTRAL_KERNEL
    assert notebook.cells[1].metadata == {}
    kept = [(output.name, output.text) for output in notebook.cells[1].outputs]
    assert kept == [("stdout", "b\n"), ("stderr", "real trouble\n")]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # other people's: those of Jupyter and its sockets
def test_executing_gives_outputs_and_the_hash(tmp_path):
    nbformat.write(small_notebook(), tmp_path / "small.ipynb")
    notebook = execute(tmp_path / "small.ipynb")
    assert notebook.cells[1].outputs[0].text == "42\n"
    assert notebook.cells[2].outputs[0].data == {"text/plain": "2"}
    assert notebook.metadata["ssd_keras"]["sources"] == sources_hash(notebook)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a copy of the repository's sources, as a fresh clone would have them."""
    folder = tmp_path_factory.mktemp("clone")
    for source in sorted(REPOSITORY.iterdir()):
        if (source / "__init__.py").is_file() or source.name in ("examples", "notebooks"):
            shutil.copytree(
                source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__")
            )
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@every_notebook
def test_notebooks_run_in_a_fresh_clone(path, clone, monkeypatch):
    monkeypatch.setenv("SSD_KERAS_QUICK", "1")
    notebook = execute(clone / "notebooks" / path.name)
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert notebook.metadata["ssd_keras"]["quick"]
    assert sources_hash(notebook) == sources_hash(read(path))
