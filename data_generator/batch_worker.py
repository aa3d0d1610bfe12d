"""A worker process: makes batches on request, and knows no deep learning framework.

`worker_pool.ProcessPool` starts it as a new Python interpreter that imports this module and what
the batches need. It is no fork of the training process, whose threads and locks (those of
TensorFlow or JAX) a fork would inherit in whatever state they are; and it does not run the
training script a second time, as the start methods of `multiprocessing` would.

Requests come through the standard input, replies leave through the standard output; both are
pickles, one after another. The process ends when the standard input does, so it does not outlive
the training process, whatever becomes of that one. Arrays do not go through the pipe, which would
copy them several times: they are made in a slot of memory that both processes see (`batch_memory`).
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import IO, NamedTuple

import cv2
import numpy as np

from data_generator.batch_memory import NO_SLOT, SlotWriter
from data_generator.epoch_batches import EpochBatches


class Start(NamedTuple):
    """The first message to a worker.

    Attributes:
        batches: The pickled `EpochBatches`; a pickle in a pickle, so that a failure to load it
            can be reported.
        slot_size: Bytes of each slot of the memory shared with the training process.
    """

    batches: bytes
    slot_size: int


class Request(NamedTuple):
    """The wish for a batch, and the number of the slot for its arrays, or None."""

    epoch: int
    number: int
    slot: int | None


class Batch(NamedTuple):
    """A reply: a batch.

    Attributes:
        content: The batch, pickled without the bytes of its arrays.
        arrays: For each array, (begin, end) of its bytes in the slot, or the bytes themselves if
            there was no room for them.
        warnings: (message, category, file name, line) of the warnings given.
        skipped_images: {file: reason} of the images that could not be read.
    """

    content: bytes
    arrays: list[tuple[int, int] | bytes]
    warnings: list[tuple[str, type[Warning], str, int]]
    skipped_images: dict[str, str]


class Failure(NamedTuple):
    """A reply: an exception, pickled if it can be pickled, and its traceback as text."""

    exception: bytes | None
    traceback: str


def main(slot_files: Sequence[int]) -> None:
    """Serve the process at the other end of the standard streams until it goes away.

    Arguments:
        slot_files: The file descriptors of the slots of shared memory; may be empty.
    """
    # What a transformation prints must not get between the replies: it goes to the error stream.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    cv2.setNumThreads(1)  # the other cores belong to the other workers
    try:
        _serve(sys.stdin.buffer, replies, slot_files)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nobody is there any more, not even to flush to


def _serve(requests: IO[bytes], replies: IO[bytes], slot_files: Sequence[int]) -> None:
    start: Start = pickle.load(requests)
    slots = []
    for file in slot_files:
        slots.append(np.frombuffer(mmap.mmap(file, start.slot_size), np.uint8))
        os.close(file)
    batches = None
    while True:
        request: Request = pickle.load(requests)
        try:
            if batches is None:
                batches = pickle.loads(start.batches)
            slot = NO_SLOT if request.slot is None else slots[request.slot]
            reply = make_reply(batches, request, slot)
        except Exception as error:
            reply = Failure(_pickled(error), traceback.format_exc())
        pickle.dump(reply, replies, protocol=5)
        replies.flush()


def make_reply(batches: EpochBatches, request: Request, slot: np.ndarray) -> Batch:
    """Make a batch and pack it up.

    Arguments:
        batches: What to make it with.
        request: The batch wanted.
        slot: uint8 array, the memory for the arrays as far as they fit.

    Returns:
        The batch, to be opened with `unpack`.
    """
    writer = SlotWriter(slot)
    skipped_images = batches.maker.dataset.skipped_images
    skipped_images.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # the training process decides what becomes of them
        batch = batches.batch(request.epoch, request.number, writer.empty)
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    # Those that the batch maker made lie in the slot already; those of others are copied to it.
    arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
    return Batch(
        content,
        [writer.place(array) or array.tobytes() for array in arrays],
        [(str(w.message), w.category, w.filename, w.lineno) for w in caught],
        dict(skipped_images),
    )


def unpack(batch: Batch, slot: np.ndarray, copy: bool) -> tuple:
    """Open a batch.

    Arguments:
        batch: The reply of a worker.
        slot: uint8 array, the memory that the worker wrote to.
        copy: Whether the arrays are to be copies, else they lie in the slot.

    Returns:
        The batch that the worker made; its arrays can be written to.
    """
    buffers: list[np.ndarray | bytearray] = []
    for place in batch.arrays:
        if isinstance(place, bytes):
            buffers.append(bytearray(place))  # bytes would be read-only
        else:
            part = slot[slice(*place)]
            buffers.append(part.copy() if copy else part)
    return pickle.loads(batch.content, buffers=buffers)


def _pickled(error: Exception) -> bytes | None:
    """Return the exception as a pickle, or None if it would not survive that."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # whatever the constructor of somebody's exception raises
        return None
    return content
