"""A worker process: makes batches on request, and knows no deep learning framework.

`worker_pool.ProcessPool` starts it as a new Python interpreter that imports this module and what
the batches need. It is no fork of the training process, whose threads and locks (those of
TensorFlow or JAX) a fork would inherit in whatever state they are; and it does not run the
training script a second time, as the start methods of `multiprocessing` would.

Requests come through the standard input, replies leave through the standard output; both are
pickles, one after another. The process ends when the standard input does, so it does not outlive
the training process, whatever becomes of that one. Arrays do not go through the pipe, which would
copy them several times: they are written into a slot of memory that both processes see.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import traceback
import warnings
from typing import IO, NamedTuple

import cv2
import numpy as np

from data_generator.epoch_batches import EpochBatches


class Start(NamedTuple):
    """The first message to a worker.

    Attributes:
        batches: The pickled `EpochBatches`; a pickle in a pickle, so that a failure to load it
            can be reported.
        memory_size: Bytes of the memory shared with the training process, 0 if there is none.
        slot_size: Bytes of one slot in it.
    """

    batches: bytes
    memory_size: int
    slot_size: int


class Request(NamedTuple):
    """The wish for a batch, and the number of the slot for its arrays."""

    epoch: int
    number: int
    slot: int


class Batch(NamedTuple):
    """A reply: a batch.

    Attributes:
        content: The batch, pickled without the bytes of its arrays.
        sizes: The number of bytes of each array, which follow one another in the slot.
        arrays: The bytes of the arrays if they do not fit into the slot, else None.
        warnings: (message, category, file name, line) of the warnings given.
        skipped_images: {file: reason} of the images that could not be read.
    """

    content: bytes
    sizes: list[int]
    arrays: list[bytes] | None
    warnings: list[tuple[str, type[Warning], str, int]]
    skipped_images: dict[str, str]


class Failure(NamedTuple):
    """A reply: an exception, pickled if it can be pickled, and its traceback as text."""

    exception: bytes | None
    traceback: str


def main(memory_handle: int | None) -> None:
    """Serve the process at the other end of the standard streams until it goes away.

    Arguments:
        memory_handle: The file descriptor of the shared memory, or None.
    """
    # What a transformation prints must not get between the replies: it goes to the error stream.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    cv2.setNumThreads(1)  # the other cores belong to the other workers
    try:
        _serve(sys.stdin.buffer, replies, memory_handle)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nobody is there any more, not even to flush to


def _serve(requests: IO[bytes], replies: IO[bytes], memory_handle: int | None) -> None:
    start: Start = pickle.load(requests)
    memory = None
    if memory_handle is not None and start.memory_size:
        memory = np.frombuffer(mmap.mmap(memory_handle, start.memory_size), np.uint8)
    batches = None
    while True:
        request: Request = pickle.load(requests)
        try:
            if batches is None:
                batches = pickle.loads(start.batches)
            slot = None
            if memory is not None:
                slot = memory[request.slot * start.slot_size :][: start.slot_size]
            reply = make_reply(batches, request, slot)
        except Exception as error:
            reply = Failure(_pickled(error), traceback.format_exc())
        pickle.dump(reply, replies, protocol=5)
        replies.flush()


def make_reply(batches: EpochBatches, request: Request, slot: np.ndarray | None) -> Batch:
    """Make a batch and pack it up.

    Arguments:
        batches: What to make it with.
        request: The batch wanted.
        slot: uint8 array that the bytes of the arrays are written to if they fit; or None.

    Returns:
        The batch, to be opened with `unpack`.
    """
    skipped_images = batches.maker.dataset.skipped_images
    skipped_images.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # the training process decides what becomes of them
        batch = batches.batch(request.epoch, request.number)
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
    sizes = [len(array) for array in arrays]
    fits = slot is not None and sum(sizes) <= len(slot)
    if fits:
        for array, part in zip(arrays, split(slot, sizes), strict=True):
            part[:] = array
    return Batch(
        content,
        sizes,
        None if fits else [array.tobytes() for array in arrays],
        [(str(w.message), w.category, w.filename, w.lineno) for w in caught],
        dict(skipped_images),
    )


def unpack(batch: Batch, slot: np.ndarray | None) -> tuple:
    """Open a batch; its arrays are copies, so the slot can be used again."""
    if batch.arrays is None:
        buffers = [part.copy() for part in split(slot, batch.sizes)]
    else:
        buffers = [bytearray(array) for array in batch.arrays]  # bytes would be read-only
    return pickle.loads(batch.content, buffers=buffers)


def split(slot: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Cut parts of the given sizes off the front of a slot."""
    ends = np.cumsum(sizes).tolist()
    return [slot[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _pickled(error: Exception) -> bytes | None:
    """Return the exception as a pickle, or None if it would not survive that."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # whatever the constructor of somebody's exception raises
        return None
    return content
