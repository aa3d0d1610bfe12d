"""Reading pickled lists without running what a pickle can carry.

A pickle is a program: loading a stranger's with `pickle.load` can do anything. The lists of a
data set need none of that, so here only plain values come out, and whatever else a pickle asks for
is refused before it is looked up. Arrays are built here, not by the functions that NumPy's pickles
name: those trust the pickle, and a damaged one crashes the interpreter.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from data_generator.errors import AnnotationError

_PLAIN_DTYPE = re.compile(r"[<>=|]?[biufcSUO]\d*")


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
            return _finished(_PlainUnpickler(file).load())
    except OSError as error:
        raise AnnotationError(f"{path}: cannot read the pickle ({error.strerror})") from error
    except _RefusedError as error:
        raise AnnotationError(
            f"{path}: the pickle asks for {error}, and was not loaded: only lists, strings, "
            "numbers and NumPy arrays are read, because anything else could run code. Write the "
            "list with save_dataset, or turn its entries into plain values first"
        ) from None
    except Exception as error:  # bytes that are no pickle can make the unpickler raise anything
        raise AnnotationError(
            f"{path}: not a pickle, or a damaged one ({type(error).__name__}: {error})"
        ) from error


class _RefusedError(Exception):
    """A pickle asks for something beyond plain values; the message is its name."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Maker:
        # Python 2 and NumPy 1 call the same things by other names.
        module = module.replace("__builtin__", "builtins").replace("numpy.core", "numpy._core")
        try:
            return _MAKERS[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


class _Maker:
    """A function that a pickle may call, but not change."""

    __slots__ = ("function",)

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError(f"a change of {self.function.__name__}")


class _DType:
    """The type of an array: its name, then, by way of the pickle's state, its byte order."""

    def __init__(self, name: str, *_: Any):
        if not isinstance(name, str) or not _PLAIN_DTYPE.fullmatch(name):
            raise _RefusedError(f"an array of the type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array whose content follows as the pickle's state."""

    def __init__(self, *_: Any):
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        self.array = _array(content, dtype, shape, "F" if is_fortran else "C")


def _array(content: Any, dtype: _DType, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Make an array of bytes, or of a list for the type 'object'; NumPy checks the sizes."""
    if dtype.dtype.hasobject:
        flat = np.empty(len(content), object)
        flat[:] = [_finished(item) for item in content]
    else:
        # An empty buffer is the one kind that NumPy does not take.
        flat = np.frombuffer(content, dtype.dtype) if len(content) else np.zeros(0, dtype.dtype)
    return flat.reshape(shape, order=order).copy(order="K")


def _scalar(dtype: _DType, content: bytes) -> np.generic:
    return _array(content, dtype, (1,), "C")[0]


def _finished(value: Any) -> Any:
    """Return the value with arrays in the place of what stood for them while they were loaded."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, list):
        value[:] = [_finished(item) for item in value]
    elif isinstance(value, tuple):
        return tuple(_finished(item) for item in value)
    elif isinstance(value, dict):
        value.update({key: _finished(item) for key, item in value.items()})
    elif isinstance(value, (_DType, _Maker)):
        raise _RefusedError("a type or a function as an entry")
    return value


def _text_to_bytes(text: str, encoding: str) -> bytes:
    """Take the place of `codecs.encode`, by which protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise _RefusedError(f"_codecs.encode with the encoding {encoding!r}")
    return text.encode("latin1")


def _join_path(*parts: str) -> str:
    return os.path.join("", *parts)


_MAKERS = {
    ("numpy", "ndarray"): _Maker(_Array),
    ("numpy", "dtype"): _Maker(_DType),
    ("numpy._core.multiarray", "_reconstruct"): _Maker(_Array),
    ("numpy._core.multiarray", "scalar"): _Maker(_scalar),
    ("numpy._core.numeric", "_frombuffer"): _Maker(_array),
    ("_codecs", "encode"): _Maker(_text_to_bytes),
}
_MAKERS |= {
    ("builtins", kind.__name__): _Maker(kind)
    for kind in (set, frozenset, bytes, bytearray, complex)
}
_MAKERS |= {
    (module, name): _Maker(_join_path)
    for module in ("pathlib", "pathlib._local")  # where Python 3.13 says that they live
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
}
