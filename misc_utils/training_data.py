"""Data sets in the form that `fit` takes: a `keras.utils.PyDataset`, or a `tf.data.Dataset`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import keras
import numpy as np

from data_generator.batch_stream import BatchStream

if TYPE_CHECKING:
    import tensorflow as tf

# Before the first epoch, Keras may look at a batch or two to learn their shapes.
_BATCHES_LOOKED_AT = 2


class BatchDataset(keras.utils.PyDataset):
    """Batches `(images, targets)` for `fit`, `evaluate` and `predict` on every backend.

    `DataGenerator.to_pydataset` makes it. Within an epoch of `fit`, batches come in the order of
    the stream, which its workers prepare ahead. `fit` asks for them by number, and shuffles these
    numbers unless told otherwise, but what it asks for is left out of account: the images of all
    batches are shuffled already. At any other time, `dataset[i]` is batch i of the current epoch.

    A loop `for images, targets in dataset` goes through one epoch, with the workers' help.
    """

    def __init__(self, stream: BatchStream):
        """Wrap a stream.

        Arguments:
            stream: Gives the batches, and has the workers: those of Keras stay unused. (Keras
                would load itself and the backend in each of them, and hands batches that were
                prepared for one epoch out in the next.)
        """
        super().__init__(workers=1, use_multiprocessing=False)
        self._stream = stream
        self._lock = threading.Lock()  # TensorFlow asks for batches from a thread of its own
        self._in_epoch = False
        self._has_begun = False

    @property
    def skipped_images(self) -> dict[str, str]:
        """{file: reason} of the images that could not be read so far."""
        return self._stream.batches.maker.dataset.skipped_images

    @property
    def stream(self) -> BatchStream:
        """What gives the batches; each one taken from it is the next."""
        return self._stream

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next batch belongs to."""
        return self._stream.epoch

    def __len__(self) -> int:
        return len(self._stream.batches)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if self._in_epoch:
                return self._stream.take()
            return self._stream.batches.batch(self._stream.epoch, index)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.on_epoch_begin()
        try:
            for index in range(len(self)):
                yield self[index]
        finally:
            self.on_epoch_end()

    def on_epoch_begin(self) -> None:
        """Take batches from the stream from now on."""
        with self._lock:
            self._in_epoch = True

    def on_epoch_end(self) -> None:
        """Be ready for the next epoch, which takes the images in a new order.

        An epoch of `fit` may be shorter than the data set (`steps_per_epoch`): the next one then
        goes on where it ended. Without shuffling, every epoch begins with the first image.
        """
        with self._lock:
            if not self._in_epoch:  # Keras resets a data set before it begins
                return
            self._in_epoch = False
            was_a_look = not self._has_begun and self._stream.number <= _BATCHES_LOOKED_AT
            self._has_begun = True
            if was_a_look or not self._stream.batches.shuffle:
                self._stream.rewind()

    def close(self) -> None:
        """End the workers; asking for a batch starts new ones."""
        with self._lock:
            self._stream.close()


def tf_dataset(stream: BatchStream, prefetch: int = 2) -> tf.data.Dataset:
    """Make a `tf.data.Dataset` of a stream.

    Arguments:
        stream: Gives batches `(images, targets)`.
        prefetch: The number of batches that TensorFlow holds ready as tensors.

    Returns:
        A data set of one epoch; every time it is gone through, it is the next one. Shapes and
        dtypes are those of the stream's first batch, the batch size being None if batches differ
        in size. Go through it once at a time.

    Raises:
        ImportError: TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "to_tf_dataset needs TensorFlow, which is not installed: pip install tensorflow, or "
            "use to_pydataset, which works on every backend"
        ) from error

    batches, lock = stream.batches, threading.Lock()
    signature = tuple(
        tf.TensorSpec(
            (batches.batch_size if batches.full_batches else None, *part.shape[1:]), part.dtype
        )
        for part in batches.batch(stream.epoch, 0)
    )

    def one_epoch() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        stream.rewind()  # if the epoch before was broken off
        for _ in range(len(batches)):
            with lock:
                batch = stream.take()
            yield batch

    dataset = tf.data.Dataset.from_generator(one_epoch, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))
    options = tf.data.Options()
    # Where several machines train, each takes its part of every batch: there are no files to share.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(prefetch)
