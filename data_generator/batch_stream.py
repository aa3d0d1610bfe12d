"""Batches one after another, epoch after epoch, prepared ahead by workers."""

from __future__ import annotations

import math

import numpy as np

from data_generator.batch_memory import aligned
from data_generator.epoch_batches import EpochBatches
from data_generator.worker_pool import (
    REQUESTS_PER_WORKER,
    ProcessPool,
    ThreadPool,
    pickle_for_workers,
)


class BatchStream:
    """An endless stream of batches in order: those of one epoch, then those of the next.

    Workers start when the first batch is asked for, and prepare batches beyond the one asked for,
    across the end of an epoch, too. They end with `close`, when the stream is garbage, when Python
    ends, and after any exception; the next batch asked for starts new ones.

    A batch belongs to whoever took it: it can be kept, and written to, for as long as one likes.
    Those of worker processes are the memory that the process wrote to, which is used again when
    nobody holds an array of the batch, or a view of one, any more; who keeps many gets copies.

    Arguments:
        batches: What makes the batches. Each must begin with an array `(batch, ...)`.
        workers: The number of workers; with 0, batches are made when they are asked for.
        use_processes: Whether workers are processes, else threads.
        epoch: The number of the first epoch.

    Attributes:
        batches: As given.
        epoch: The epoch of the next batch.
        number: The number of the next batch in its epoch.

    Raises:
        ValueError: `workers` is negative, or what makes the batches cannot be sent to processes.
    """

    def __init__(
        self,
        batches: EpochBatches,
        workers: int = 0,
        use_processes: bool = True,
        epoch: int = 0,
    ):
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, got {workers}")
        if workers and use_processes:  # better said now than in the first epoch
            pickle_for_workers((batches.maker.steps, batches.maker.label_encoder))
        self.batches = batches
        self.epoch = epoch
        self.number = 0
        self._workers = workers
        self._use_processes = use_processes
        self._pool: ProcessPool | ThreadPool | None = None
        self._n_ordered = 0  # batches ordered from the workers and not received

    def take(self) -> tuple:
        """Return the next batch.

        Raises:
            WorkerError: A worker process was killed.
            Exception: Whatever `BatchMaker.batch` raises, from workers too.
        """
        try:
            if self._pool is None:
                # Made here, while there are no workers yet: its size says how much memory to share.
                batch = self.batches.batch(self.epoch, self.number)
                self._pool = self._start_workers(batch)
            else:
                batch = self._pool.receive()
                self._n_ordered -= 1
            self.epoch, self.number = self._position_after(1)
            self._order_ahead()
        except BaseException:  # KeyboardInterrupt, too: a reply may be left half read
            self.close()
            raise
        return batch

    def _start_workers(self, batch: tuple) -> ProcessPool | ThreadPool | None:
        if self._workers == 0:
            return None
        if not self._use_processes:
            return ThreadPool(self.batches, self._workers)
        arrays = [part for part in batch if isinstance(part, np.ndarray)]
        # The batch may not be full; the next ones may.
        n_full, n_images = self.batches.batch_size, len(batch[0])
        n_bytes = [math.ceil(array.nbytes / n_images) * n_full for array in arrays]
        return ProcessPool(self.batches, self._workers, sum(map(aligned, n_bytes)))

    def _order_ahead(self) -> None:
        """Keep all workers busy. Orders are for the next batch and those that follow it."""
        while self._pool is not None and self._n_ordered < self._workers * REQUESTS_PER_WORKER:
            self._pool.request(*self._position_after(self._n_ordered))
            self._n_ordered += 1

    def _position_after(self, n_batches: int) -> tuple[int, int]:
        """Return the epoch and the number of the batch that stands so many after the next one."""
        epochs, number = divmod(self.number + n_batches, len(self.batches))
        return self.epoch + epochs, number

    def rewind(self) -> None:
        """Go back to the first batch of the current epoch."""
        if self.number != 0:
            self.close()  # what the workers have prepared is not what comes next
            self.number = 0

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None
        self._n_ordered = 0
