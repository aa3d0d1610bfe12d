"""Execute notebooks in place, and note which sources their outputs belong to.

    python notebooks/execute.py                           # all of them
    python notebooks/execute.py understanding_ssd.ipynb   # some

Needs the extra `notebooks`. With SSD_KERAS_QUICK=1 in the environment the notebooks train for a
moment only: good for a test, not for outputs that anybody should read. A notebook is written only
if all its cells ran.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from misc_utils.files import write_text

FOLDER = Path(__file__).resolve().parent
KERNEL = "python3"
MAX_SECONDS_A_CELL = 1800
# What TensorFlow's C++ code writes when it starts: the same few lines on every machine, or worse,
# lines that are about this machine only.
TENSORFLOW_LINE = re.compile(
    r"WARNING: All log messages before absl|[IWE]\d{4} [\d:.]+ |\d{4}-\d\d"
)


def sources_hash(notebook: nbformat.NotebookNode) -> str:
    """Return a digest of all code cells, by which stale outputs are found out.

    Arguments:
        notebook: A notebook of format 4.

    Returns:
        64 hexadecimal digits.
    """
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def execute(path: Path, folder: Path | None = None) -> nbformat.NotebookNode:
    """Run a notebook from top to bottom in a fresh kernel.

    Arguments:
        path: The notebook.
        folder: The working directory of the kernel; None for the folder of the notebook.

    Returns:
        The notebook with its outputs, and with `sources_hash` in its metadata.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails; the text says which and how.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=MAX_SECONDS_A_CELL,
        kernel_name=KERNEL,
        resources={"metadata": {"path": os.fspath(folder or path.parent)}},
    )
    client.execute()
    clean(notebook)
    notebook.metadata["ssd_keras"] = {"sources": sources_hash(notebook)}
    if os.environ.get("SSD_KERAS_QUICK") == "1":
        notebook.metadata["ssd_keras"]["quick"] = True  # such outputs are not to be committed
    nbformat.validate(notebook)
    return notebook


def clean(notebook: nbformat.NotebookNode) -> None:
    """Remove what is different in every run without telling a reader anything, in place."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in map(_clean_output, _merged(cell.outputs)) if output
            ]


def _merged(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join what a cell wrote bit by bit to the same stream."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == "stream" and output.name == last.get("name"):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _clean_output(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    if output.output_type == "stream":
        lines = output.text.splitlines(keepends=True)
        if output.name == "stderr":
            lines = [line for line in lines if not TENSORFLOW_LINE.match(line)]
        # A progress bar goes back to the start of its line; what stays is what was written last.
        output.text = "".join(line.rsplit("\r", 1)[-1] for line in lines)
        return output if output.text.strip() else None
    return output


def main(names: list[str]) -> None:
    """Execute the named notebooks of this folder, or all of them."""
    for path in [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb")):
        start = time.perf_counter()
        notebook = execute(path)
        write_text(path, nbformat.writes(notebook) + "\n")
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
