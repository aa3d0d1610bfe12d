"""Batches for a training that can be interrupted anywhere: the batch of each step is fixed.

Batch number s of a training is batch `s % n` of epoch `s // n` of the data set, whatever came
before. A training that goes on at step s asks for that one next.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import keras
import numpy as np

from data_generator.batch_generation import BatchMaker
from data_generator.batch_stream import BatchStream
from data_generator.epoch_batches import EpochBatches
from data_generator.object_detection_2d_data_generator import DataGenerator

_NAMES_KEPT = 64
_BATCHES_LOOKED_AT = 2


class TrainingStream(keras.utils.PyDataset):
    """Batches `(images, targets)` without end, from a given step on, for `fit` on every backend.

        batches = TrainingStream(train, 32, [chain], encoder, seed=0, first_step=5000, workers=4)
        model.fit(batches, steps_per_epoch=1000, initial_epoch=5, epochs=120)

    `fit` may look at the first batches before it trains; it gets the same ones again then. All
    batches are full, since compiled training steps want one shape.

    Attributes:
        failure: What kept a batch from being made, such as an image that cannot be read; else None.
            TensorFlow raises an error of its own instead, behind the traces of its threads.
    """

    def __init__(
        self,
        dataset: DataGenerator,
        batch_size: int,
        transformations: Sequence[Callable],
        label_encoder: Callable,
        seed: int,
        first_step: int = 0,
        workers: int = 0,
        keep_images_without_gt: bool = True,
    ):
        """Set the stream up; nothing is read yet.

        Arguments:
            dataset: The training data, with labels.
            batch_size: The number of images to a batch.
            transformations: As for `DataGenerator.generate`; the images must all get one size.
            label_encoder: As for `DataGenerator.generate`.
            seed: Of the order of the images and of the transformations.
            first_step: The number of steps that were trained before.
            workers: The number of worker processes; batches do not depend on it.
            keep_images_without_gt: As for `DataGenerator.generate`.

        Raises:
            DatasetError: No data set is loaded, or its lists differ in length.
            ValueError: An argument is wrong.
        """
        super().__init__(workers=1, use_multiprocessing=False)  # those of the stream do the work
        maker = BatchMaker(
            dataset,
            transformations,
            label_encoder,
            returns={"processed_images", "encoded_labels", "filenames"},
            keep_images_without_gt=keep_images_without_gt,
            seed=seed,
        )
        self._batches = EpochBatches(maker, batch_size, shuffle=True, full_batches=True)
        self._workers = workers
        self._first_step = first_step
        self._stream: BatchStream | None = None
        self._next = 0
        self._looked_at: dict[int, tuple] = {}
        self._names: OrderedDict[int, list[str]] = OrderedDict()
        self.failure: Exception | None = None
        self._lock = threading.Lock()  # TensorFlow asks for batches from a thread of its own

    @property
    def num_batches(self) -> None:
        """There is no end."""
        return

    @property
    def batches_per_epoch(self) -> int:
        """The number of steps in which every image is seen once."""
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if index >= _BATCHES_LOOKED_AT:
                self._looked_at.clear()
            batch = self._looked_at.get(index) or self._take(index)
            if index < _BATCHES_LOOKED_AT:
                self._looked_at[index] = batch
            images, targets, names = batch
            self._names[index] = names
            if len(self._names) > _NAMES_KEPT:
                self._names.popitem(last=False)
            return images, targets

    def _take(self, index: int) -> tuple:
        if self._stream is None or index != self._next:
            self._close()
            self._stream = BatchStream(self._batches, self._workers)
            position = divmod(self._first_step + index, len(self._batches))
            self._stream.epoch, self._stream.number = position
        self._next = index + 1
        try:
            return self._stream.take()
        except Exception as error:
            self.failure = error
            raise

    def names(self, number: int) -> list[str]:
        """Return the files of a batch, counted from 0 at the first step; [] if it is long ago."""
        return self._names.get(number, [])

    def close(self) -> None:
        """End the workers; asking for a batch starts new ones."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
