"""Memory that a worker process writes a batch to and the training process reads it from.

It is cut into slots, one for each batch. A worker makes the arrays of a batch in a slot
(`SlotWriter`), the training process hands the very same memory out as the arrays of the batch
(`SharedSlots`): a batch of SSD300 has 46 MB, and every copy of it takes time from the other
processes, too, which share the way to memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

# Bytes. TensorFlow, JAX and PyTorch use the memory of an array as it is only if it begins at a
# multiple of this, or of less.
_ALIGNMENT = 64
# The slot of a batch that all goes through the pipe, where processes cannot share memory.
NO_SLOT = np.empty(0, np.uint8)


def aligned(n_bytes: int) -> int:
    """Round a number of bytes up to what an array takes up in a slot."""
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


class SlotWriter:
    """A slot in the hands of a worker, which fills it from the front.

    Arguments:
        memory: The slot, a uint8 array.
    """

    def __init__(self, memory: np.ndarray):
        self._memory = memory
        self._address = _address_of(memory)
        self._end = 0  # of what is taken

    def empty(self, shape: int | Sequence[int], dtype: np.typing.DTypeLike = float) -> np.ndarray:
        """Make an array as `np.empty` does: in the slot, or elsewhere if there is no room."""
        dtype = np.dtype(dtype)
        if dtype.hasobject:  # pointers mean nothing to another process
            return np.empty(shape, dtype)
        part = self._reserve(int(np.prod(shape)) * dtype.itemsize)
        return np.empty(shape, dtype) if part is None else part.view(dtype).reshape(shape)

    def place(self, content: np.ndarray) -> tuple[int, int] | None:
        """Say where in the slot the bytes of an array are; copy them there if they are elsewhere.

        Arguments:
            content: The bytes of the array, a uint8 array.

        Returns:
            (begin, end), or None if there is no room for them.
        """
        begin = _address_of(content) - self._address
        if not 0 <= begin < len(self._memory):
            part = self._reserve(len(content))
            if part is None:
                return None
            part[:] = content
            begin = _address_of(part) - self._address
        return begin, begin + len(content)

    def _reserve(self, n_bytes: int) -> np.ndarray | None:
        begin = self._end
        if begin + n_bytes > len(self._memory):
            return None
        self._end = begin + aligned(n_bytes)
        return self._memory[begin : begin + n_bytes]


def _address_of(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


class SharedSlots:
    """The slots in the training process, and which of them are free.

    A slot that was lent is free again as soon as the last array that uses its memory is garbage,
    in whichever thread that happens.

    Arguments:
        files: Descriptors of files, one for each slot, which may be closed afterwards. That each
            slot has its own lets the system take back the memory of those that nobody uses when
            the workers have ended, while others are still lent.
        size: Bytes of a slot.
    """

    def __init__(self, files: Sequence[int], size: int):
        self._memories = [mmap.mmap(file, size) for file in files]
        # A stack: a slot that was in use a moment ago comes first, and slots that are never needed
        # never take up memory. Only `take` removes from it, so no lock is needed.
        self._free = list(range(len(files)))

    @property
    def n_free(self) -> int:
        """The number of slots that can be taken."""
        return len(self._free)

    def take(self) -> int | None:
        """Return the number of a slot that is free no more; None if there is none."""
        return self._free.pop() if self._free else None

    def give_back(self, slot: int) -> None:
        """Make a slot free that was taken."""
        self._free.append(slot)

    def look(self, slot: int) -> np.ndarray:
        """Return the memory of a slot, a uint8 array to copy from before it is given back."""
        return np.frombuffer(self._memories[slot], np.uint8)

    def lend(self, slot: int) -> np.ndarray:
        """Return the memory of a slot that was taken; it is given back by itself.

        Returns:
            A uint8 array. All arrays made of it, and all made of those, keep the slot.
        """
        # NumPy has views refer to the array that owns the memory, and forgets the views in
        # between; so the end of an array says nothing. But all of them refer to what the memory
        # comes from, if that is no array.
        memory = self._memories[slot]
        loan = (ctypes.c_ubyte * len(memory)).from_buffer(memory)
        weakref.finalize(loan, self._free.append, slot).atexit = False
        return np.frombuffer(loan, np.uint8)


@contextmanager
def unnamed_files(number: int, size: int) -> Iterator[list[int]]:
    """Make files to share memory by, for as long as the block takes.

    They have no name, so that nothing can be left behind, and lie in memory where the system can do
    that. They are not made in /dev/shm, which is tiny in many containers.

    Arguments:
        number: How many.
        size: Bytes of each.

    Yields:
        Their descriptors; none where other processes cannot be given any (Windows).
    """
    files: list[int] = []
    try:
        for _ in range(number if os.name == "posix" else 0):
            files.append(_unnamed_file())
            os.ftruncate(files[-1], size)
        yield files
    finally:
        for file in files:
            os.close(file)


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batch")
    handle, path = tempfile.mkstemp()
    os.unlink(path)
    return handle
