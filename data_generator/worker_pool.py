"""Processes or threads that make batches ahead of the training step, in order.

Both pools work alike: `request` orders a batch, `receive` returns the batches in the order in
which they were requested. Requests go to the workers in turn, so which worker makes a batch, and
how many there are, changes nothing but the speed.
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import types
import warnings
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from data_generator.batch_memory import NO_SLOT, SharedSlots, unnamed_files
from data_generator.batch_worker import Batch, Failure, Request, Start, unpack
from data_generator.epoch_batches import EpochBatches

# Batches ahead for each worker: one in the making, one finished or waiting.
REQUESTS_PER_WORKER = 2
# Batches that may be held without their being copied. `fit` holds up to three with TensorFlow and
# PyTorch; with JAX on a CPU it can be dozens, because training steps that wait to be computed hold
# theirs, and then copies are no worse. What is never lent takes up no memory.
LENT_BATCHES = 6


class WorkerError(RuntimeError):
    """A worker process that ended before it was told to."""


class ThreadPool:
    """Threads of this process: for what cannot be sent to other processes.

    Decoding and resizing images runs in parallel, plain Python code does not. Transformations and
    encoder are shared by all threads; those of this library are made for that.
    """

    def __init__(self, batches: EpochBatches, n_workers: int):
        """Start the threads.

        Arguments:
            batches: What makes the batches.
            n_workers: The number of threads.
        """
        self._batches = batches
        self._executor = ThreadPoolExecutor(n_workers, thread_name_prefix="batches")
        self._futures: deque[Future] = deque()

    def request(self, epoch: int, number: int) -> None:
        """Order a batch."""
        self._futures.append(self._executor.submit(self._batches.batch, epoch, number))

    def receive(self) -> tuple:
        """Return the batch that was ordered first of those not received yet."""
        return self._futures.popleft().result()

    def close(self) -> None:
        """Stop after the batches that are in the making."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class ProcessPool:
    """Processes of their own, without any deep learning framework (see `batch_worker`).

    A batch is handed out without a copy, as the memory that its worker wrote to, as long as there
    is other memory for the requests to come.
    """

    def __init__(self, batches: EpochBatches, n_workers: int, batch_bytes: int):
        """Start the processes.

        Arguments:
            batches: What makes the batches; it is sent to every process.
            n_workers: The number of processes.
            batch_bytes: The expected size of a batch in memory (`batch_memory.aligned`); larger
                ones take longer to come.

        Raises:
            ValueError: The transformations or the label encoder cannot be sent.
        """
        start = Start(pickle_for_workers(batches), batch_bytes)
        self._skipped_images = batches.maker.dataset.skipped_images
        self._warned: dict = {}  # which warnings the user has seen; `warnings` keeps it
        self._n_requested = self._n_received = 0
        self._requests: deque[Request] = deque()
        self._max_requests = n_workers * REQUESTS_PER_WORKER
        with unnamed_files(self._max_requests + LENT_BATCHES, batch_bytes) as files:
            self._slots = SharedSlots(files, batch_bytes)
            self._processes = [_start_process(files) for _ in range(n_workers)]
        # Also called when this object is garbage, and when Python ends.
        self.close = weakref.finalize(self, _stop, self._processes, os.getpid())
        for worker in range(n_workers):
            self._send(worker, start)

    def request(self, epoch: int, number: int) -> None:
        """Order a batch; at most `REQUESTS_PER_WORKER` times the workers may be outstanding."""
        request = Request(epoch, number, self._slots.take())
        self._send(self._n_requested % len(self._processes), request)
        self._n_requested += 1
        self._requests.append(request)

    def receive(self) -> tuple:
        """Return the batch that was ordered first of those not received yet.

        Raises:
            WorkerError: The worker has ended, or was killed.
            Exception: What the worker raised, with its traceback as a note.
        """
        request = self._requests.popleft()
        reply = self._read(self._n_received % len(self._processes), request)
        self._n_received += 1
        if isinstance(reply, Failure):
            raise _exception(reply)
        self._skipped_images.update(reply.skipped_images)
        for message, category, filename, line in reply.warnings:
            warnings.warn_explicit(message, category, filename, line, registry=self._warned)
        return self._open(reply, request.slot)

    def _open(self, batch: Batch, slot: int | None) -> tuple:
        """Hand out the memory of the slot itself, unless the next requests would find none."""
        if slot is None:
            return unpack(batch, NO_SLOT, copy=True)
        if self._slots.n_free >= self._max_requests - len(self._requests):
            return unpack(batch, self._slots.lend(slot), copy=False)
        copies = unpack(batch, self._slots.look(slot), copy=True)
        self._slots.give_back(slot)
        return copies

    def _send(self, worker: int, message: Start | Request) -> None:
        process = self._processes[worker]
        try:
            pickle.dump(message, process.stdin, protocol=5)
            process.stdin.flush()
        except BrokenPipeError:
            raise self._death(worker) from None

    def _read(self, worker: int, request: Request) -> Batch | Failure:
        try:
            return pickle.load(self._processes[worker].stdout)
        except (EOFError, pickle.UnpicklingError):  # the end of the stream, before or in a reply
            raise self._death(worker, request) from None

    def _death(self, worker: int, request: Request | None = None) -> WorkerError:
        """Describe the end of a worker, and end the others."""
        process = self._processes[worker]
        code = process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        what = ""
        if request is not None:
            what = f" while it was to make batch {request.number} of epoch {request.epoch}"
        self.close()
        return WorkerError(
            f"Worker process {process.pid} {how}{what}. If nobody stopped it, see what it wrote to "
            "the error stream; signal 9 usually means that the memory was used up: use fewer "
            "workers, smaller batches, or load_images_into_memory=False"
        )


def pickle_for_workers(value: Any) -> bytes:
    """Pickle what makes the batches, or say why it cannot be sent to other processes.

    Arguments:
        value: An `EpochBatches`, or parts of one.

    Raises:
        ValueError: A transformation, the encoder or something in them cannot be pickled, or is
            defined in the script, which worker processes do not run.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, protocol=5).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"The transformations, the label encoder or the data set cannot be sent to worker "
            f"processes: {error}. They must consist of functions and classes of modules that can "
            "be imported, not of lambdas or functions within functions. Otherwise use threads "
            "(use_multiprocessing=False), or workers=0"
        ) from error
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """A pickler that finds what pickles well but could not be loaded by a worker."""

    def reducer_override(self, value: Any) -> Any:
        """Let the usual rules decide, except for what the script defines."""
        is_definition = isinstance(value, (type, types.FunctionType))
        if is_definition and value.__module__ == "__main__":
            raise pickle.PicklingError(
                f"{value.__qualname__} is defined in the script or notebook itself, which worker "
                "processes do not run; move it to a module of its own"
            )
        return NotImplemented


def _start_process(slot_files: Sequence[int]) -> subprocess.Popen:
    path = [str(folder) for folder in sys.path]
    code = (
        f"import sys; sys.path[:] = {path!r}; from data_generator.batch_worker import main; "
        f"main({slot_files!r})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=slot_files,
        start_new_session=True,  # Ctrl-C is for the training process, which then ends the workers
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def _stop(processes: list[subprocess.Popen], owner: int) -> None:
    """End the processes at once: they hold nothing that would have to be put in order."""
    if os.getpid() != owner:  # a fork of the training process, which may go on without it
        return
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):  # a request that was never read
            process.stdin.close()


def _exception(failure: Failure) -> Exception:
    """Return what a worker raised, with its traceback as a note."""
    if failure.exception is None:
        error = RuntimeError(f"A worker failed: {failure.traceback.splitlines()[-1]}")
    else:
        error = pickle.loads(failure.exception)
    error.add_note(f"In a worker process:\n{failure.traceback}")
    return error
