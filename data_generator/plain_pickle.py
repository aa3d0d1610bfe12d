"""Reading pickled lists without running what a pickle can carry.

A pickle is a program: loading a stranger's with `pickle.load` can do anything. The lists of a
data set need none of that, so here only plain values come out, and whatever else a pickle asks for
is refused before it is looked up.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from data_generator.errors import AnnotationError


def load_plain_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle of lists, tuples, dicts, sets, strings, numbers and NumPy arrays.

    Pickles of NumPy 1 and 2 can be read alike. `pathlib` paths come back as strings.

    Arguments:
        path: The file.

    Returns:
        What it holds.

    Raises:
        AnnotationError: The file is missing or damaged, or it holds something else, such as an
            object of a class of its own or a call of a function; nothing of that is run.
    """
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file).load()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot read the pickle ({error.strerror})") from error
    except _Refused as error:
        raise AnnotationError(
            f"{path}: the pickle asks for {error}, and was not loaded: only lists, strings, "
            "numbers and NumPy arrays are read, because anything else could run code. Write the "
            "list with save_dataset, or turn its entries into plain values first"
        ) from None
    except Exception as error:  # bytes that are no pickle can make the unpickler raise anything
        raise AnnotationError(
            f"{path}: not a pickle, or a damaged one ({type(error).__name__}: {error})"
        ) from error


class _Refused(Exception):
    """A pickle asks for something beyond plain values; the message is its name."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable:
        # Python 2 and NumPy 1 call the same things by other names.
        module = module.replace("__builtin__", "builtins").replace("numpy.core", "numpy._core")
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def _text_to_bytes(text: str, encoding: str) -> bytes:
    """Take the place of `codecs.encode`, by which protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode with the encoding {encoding!r}")
    return text.encode("latin1")


def _join_path(*parts: str) -> str:
    return os.path.join("", *parts)


_MULTIARRAY = "numpy._core.multiarray"
_ALLOWED: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # The functions that rebuild arrays and scalars have private names; NumPy tells which they are.
    (_MULTIARRAY, "_reconstruct"): np.zeros(1).__reduce__()[0],
    (_MULTIARRAY, "scalar"): np.float64(0).__reduce__()[0],
    ("numpy._core.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
    ("_codecs", "encode"): _text_to_bytes,
}
_ALLOWED |= {("builtins", t.__name__): t for t in (set, frozenset, bytes, bytearray, complex)}
_ALLOWED |= {
    (module, name): _join_path
    for module in ("pathlib", "pathlib._local")  # where Python 3.13 says that they live
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
}
