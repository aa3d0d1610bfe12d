"""Writing files so that a reader finds the whole file or none, also after an interruption."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the place of `path` at the end.

    The temporary file lies in the same folder, because a file cannot be moved to another file
    system in one step, and its name ends like that of `path`, because many writers choose the
    format by the suffix. Missing folders are made. If the block raises, `path` stays as it was.

        with atomic_path("weights/ssd7.weights.h5") as temporary:
            model.save_weights(temporary)

    Arguments:
        path: the file to make or to replace.

    Yields:
        The path of a file that does not exist yet, to be written in the block.

    Raises:
        IsADirectoryError: if `path` is a folder.
        FileNotFoundError: if the block did not write the file.
    """
    path = Path(path)
    if path.is_dir():  # say so before hours of work, not after them
        raise IsADirectoryError(f"Expected the name of a file to write, '{path}' is a folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary folder to fill, which takes the place of the folder `path` at the end.

    It lies beside `path`, for the reason that `atomic_path` gives. If the block raises, `path`
    stays as it was. Two folders cannot change places in one step: if there is an old one, `path` is
    missing for the moment between two renamings, but never half full.

    Arguments:
        path: the folder to make or to replace with all that it contains.

    Yields:
        The path of an empty folder, to be filled in the block.

    Raises:
        NotADirectoryError: if `path` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"Expected the name of a folder to write, '{path}' is a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (path.with_name(f".{uuid.uuid4().hex}.{path.name}") for _ in range(2))
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a binary file in one step: see `atomic_path`.

    Arguments:
        path: the file to make or to replace.
        content: all of its content.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, content: str) -> None:
    """Write a text file in UTF-8 in one step: see `atomic_path`.

    Arguments:
        path: the file to make or to replace.
        content: all of its content; line ends are written as they are.

    Example:
        >>> from pathlib import Path
        >>> from misc_utils.files import write_text
        >>> write_text("results/classes.txt", "background cat dog")  # makes the folder, too
        >>> Path("results/classes.txt").read_text()
        'background cat dog'
    """
    write_bytes(path, content.encode("utf-8"))
