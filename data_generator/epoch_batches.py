"""Which images a batch consists of: an epoch's order, cut into batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from data_generator.batch_generation import BatchMaker


class EpochBatches:
    """The batches of every epoch, each known by its epoch and its number in the epoch.

    A batch is the same whoever asks for it, in whichever process, before or after others, if the
    `BatchMaker` was given a seed.

    Arguments:
        maker: Makes the batches.
        batch_size: The number of images to a batch.
        shuffle: Whether each epoch takes the images in a new order.
        full_batches: Whether the places of dropped images, and those that the last batch of an
            epoch leaves empty, are filled with other images, drawn at random. All batches then
            have one shape, which a compiled training step wants.

    Raises:
        ValueError: `batch_size` is not positive.
    """

    def __init__(
        self,
        maker: BatchMaker,
        batch_size: int,
        shuffle: bool = True,
        full_batches: bool = False,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.maker = maker
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.full_batches = full_batches
        self._last_order: tuple[int, np.ndarray] | None = None  # (epoch, its order)

    def __len__(self) -> int:
        return math.ceil(self.maker.dataset.dataset_size / self.batch_size)

    def batch(self, epoch: int, number: int, empty: Callable[..., np.ndarray] = np.empty) -> tuple:
        """Make one batch; what it consists of, and what it raises, is said in `BatchMaker.batch`.

        Arguments:
            epoch: The number of the epoch, from 0.
            number: The number of the batch in the epoch, from 0.
            empty: As for `BatchMaker.batch`.

        Raises:
            IndexError: An epoch does not have so many batches.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"an epoch has the batches 0 to {len(self) - 1}, got {number}")
        position = number * self.batch_size
        indices = self._order(epoch)[position : position + self.batch_size]
        fill_up_to = self.batch_size if self.full_batches else 0
        return self.maker.batch(indices, epoch, position, fill_up_to, empty)

    def _order(self, epoch: int) -> np.ndarray:
        last = self._last_order  # one look, because threads may share this object
        if last is None or last[0] != epoch:
            last = self._last_order = epoch, self.maker.order(epoch, self.shuffle)
        return last[1]
