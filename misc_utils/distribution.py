"""Training on several devices, by the engines that TensorFlow and JAX have for it.

    with distribution("mirrored") as devices:
        with devices.scope():
            model = ssd_300(...)
            model.compile(optimizer, SSDLoss())
        model.fit(devices.batches(train), steps_per_epoch=len(train), epochs=120)

Build or load, and compile, in the inner block; fit and whatever else behind it, in the outer one.
The kinds are

    'none'           one device, on every backend: the blocks change nothing
    'mirrored'       TensorFlow: all GPUs of one machine (`tf.distribute.MirroredStrategy`)
    'multi_worker'   TensorFlow: several machines or processes, each with its GPUs
                     (`tf.distribute.MultiWorkerMirroredStrategy`)
    'data_parallel'  JAX: all devices of one machine (`keras.distribution.DataParallel`)

What is divided, and what is not. `batch_size` is that of the *whole* batch, which the devices share
out: 32 images on four devices are eight on each. The loss is that of the whole batch, too: divided
by the number of positives on all devices, with hard negatives that are the hardest of all. So the
same batches give the same losses, the same metrics and the same steps on one, two or four devices,
up to rounding; learning rates need no change. Only the numbers shown *during* an epoch may differ a
little, where the last batch is shared out unevenly. One thing in a network is not divided so:
batch normalisation takes the mean and the variance of the images on its own device, unless the
layer was made with `synchronized=True`.

How batches are shared out. 'mirrored' and 'multi_worker' take batches of any size, also a smaller
last one, but in training no device may be left without an image: TensorFlow has no gradient for
that, and batch normalisation makes NaN of it. TensorFlow gives every device the same number,
rounded up: of six images, four devices get 2, 2, 2 and 0. 'data_parallel' takes only batches that
can be shared out evenly. `devices.batches` says so where a batch does not fit, and sees to it that
no batch gets lost. Use it for the batches of `to_pydataset`, one call for each call of `fit`, which
needs `steps_per_epoch` and, for data of other makers, `shuffle=False`; and with `training=False`
for validation data. (A data set of `to_tf_dataset` works, too, but there TensorFlow's fetching
ahead may skip batches between epochs.) While they shuffle, or with `full_batches=True`, all batches
have one size.

Half precision works as on one device. `jit_compile=True` does not with TensorFlow, whose compiler
cannot handle variables on several devices, nor does `steps_per_execution` above 1.

Several machines. Every process runs the same script with its own number, and all call `fit` with
the same arguments:

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:12345", "10.0.0.2:12345"]},
                "task": {"type": "worker", "index": 0}}'  python train.py

The block must be the first thing that uses TensorFlow. Give data sets a `seed`: every process makes
the same batches and trains on its share of them, so each machine needs the CPU cores for whole
batches. Whatever uses the model (`evaluate`, `predict`, a callback that detects) must run in all
processes, since they wait for one another; what writes files, only where `devices.is_chief`, and
not within `devices.scope()`, where all processes must do the same. If one process dies, the others
end with an error: start all again, and let them load the last checkpoint
(`misc_utils.training.Checkpoints`, in a folder that all can read). With the data set's
`start_epoch` and `fit`'s `initial_epoch` set to the checkpoint's epoch, training goes on as if
nothing had happened.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from misc_utils.training_data import BatchDataset

KINDS = ("none", "mirrored", "multi_worker", "data_parallel")
_BACKENDS = {"mirrored": "tensorflow", "multi_worker": "tensorflow", "data_parallel": "jax"}


@dataclass(frozen=True)
class Devices:
    """The devices that a model is trained on.

    Attributes:
        kind: One of `KINDS`.
        n_devices: The number of devices, those of all processes together.
        process: The number of this process, from 0.
        n_processes: The number of processes.
        strategy: TensorFlow's `tf.distribute.Strategy`, or None.
    """

    kind: str = "none"
    n_devices: int = 1
    process: int = 0
    n_processes: int = 1
    strategy: Any = None

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes checkpoints and results."""
        return self.process == 0

    def scope(self) -> AbstractContextManager:
        """Return the context in which models for these devices are built, loaded and compiled."""
        return nullcontext() if self.strategy is None else self.strategy.scope()

    def batches(self, dataset: Any, training: bool = True) -> Any:
        """Prepare a data set for one call of `fit` or `evaluate` on these devices.

        With TensorFlow, Keras looks at batches before it trains, and begins passes that it drops,
        while threads of TensorFlow fetch batches ahead. A data set that gives its next batch
        whenever it is asked, as those of `to_pydataset` do, would lose some. So it gives them by
        number here, and for training without end: `fit` needs `steps_per_epoch`.

        Arguments:
            dataset: What `fit` takes, for example what `DataGenerator.to_pydataset` returns.
            training: False for validation data.

        Returns:
            The data set. A `keras.utils.PyDataset` raises a ValueError at a batch that these
            devices cannot share out; others, and all on a single device, are returned as they are.
        """
        if self.n_devices == 1 or not isinstance(dataset, keras.utils.PyDataset):
            return dataset
        if self.strategy is None:
            return _Checked(dataset, self.check_batch)
        if isinstance(dataset, BatchDataset):
            dataset = _Endless(dataset) if training else _Finite(dataset)
        return _Checked(dataset, self.check_batch) if training else dataset

    def check_batch(self, n_images: int) -> None:
        """Check whether these devices can train on a batch.

        Arguments:
            n_images: The number of images in the batch.

        Raises:
            ValueError: if they cannot.
        """
        share = math.ceil(n_images / self.n_devices)
        if self.kind == "data_parallel":
            wanted, is_right = "a multiple of that", share * self.n_devices == n_images
        else:  # TensorFlow fills one device after the other
            wanted = "enough that none of them gets nothing: best a multiple of that"
            is_right = share * (self.n_devices - 1) < n_images
        if not is_right:
            raise ValueError(
                f"A batch has {n_images} images, but with '{self.kind}' {self.n_devices} devices "
                f"share it, which takes {wanted}. Choose another batch_size; if this was the last "
                "batch of an epoch, make the data set with full_batches=True."
            )


@contextmanager
def distribution(kind: str = "none", devices: Sequence[str] | None = None) -> Iterator[Devices]:
    """Train models on several devices: see the text of this module.

    Arguments:
        kind: One of `KINDS`.
        devices: The names of the devices, such as ``["GPU:0", "GPU:1"]`` with TensorFlow or
            ``["gpu:0", "gpu:1"]`` with JAX; None: all that there are. Not for ``'multi_worker'``,
            whose processes use what they see.

    Yields:
        The `Devices`.

    Raises:
        ValueError: the kind does not exist, needs another backend, or finds no other processes.
    """
    _check(kind, devices)
    if kind == "none":
        yield Devices()
    elif kind == "data_parallel":
        engine = keras.distribution.DataParallel(devices=list(devices) if devices else None)
        with engine.scope():
            yield Devices(kind, engine.num_model_replicas)
    else:
        strategy = _strategy(kind, None if devices is None else tuple(devices))
        process, n_processes = 0, 1
        if (resolver := strategy.cluster_resolver) is not None:
            process, n_processes = resolver.task_id, resolver.cluster_spec().num_tasks("worker")
        yield Devices(kind, strategy.num_replicas_in_sync, process, n_processes, strategy)


def _check(kind: str, devices: Sequence[str] | None) -> None:
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}; got {kind!r}.")
    backend, needed = keras.backend.backend(), _BACKENDS.get(kind)
    if needed not in (None, backend):
        others = [name for name in KINDS if _BACKENDS.get(name) == backend]
        cure = (
            f"use {' or '.join(map(repr, others))}"
            if others
            else "this library trains on one device with it (torch's DistributedDataParallel is "
            "not used)"
        )
        raise ValueError(
            f"'{kind}' needs the backend {needed}, but Keras runs on {backend}: {cure}, or set the "
            f"environment variable KERAS_BACKEND={needed}."
        )
    if kind == "multi_worker":
        if devices is not None:
            raise ValueError(f"'{kind}' uses all devices it sees; got devices={list(devices)}.")
        if not os.environ.get("TF_CONFIG"):
            raise ValueError(
                "'multi_worker' finds the other processes in the environment variable TF_CONFIG, "
                "which is not set. It looks like this: "
                '{"cluster": {"worker": ["10.0.0.1:12345", "10.0.0.2:12345"]}, '
                '"task": {"type": "worker", "index": 0}}'
            )


# One for each process: what devices exchange has numbers, which a second strategy would use again.
@functools.cache
def _strategy(kind: str, devices: tuple[str, ...] | None) -> Any:
    import tensorflow as tf

    base = {
        "mirrored": tf.distribute.MirroredStrategy,
        "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
    }[kind]

    class Strategy(base):
        """The strategy, with a `reduce` that takes all that Keras 3.15 hands to it.

        Before the first step, Keras reduces a first batch, a pair of arrays, to one device's share,
        of which it needs the shapes only. Several workers cannot reduce a pair at all, and no
        strategy can add up shares of different sizes. After each step, Keras reduces losses along
        axis 0, which scalars do not have.
        """

        def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
            if isinstance(value, tuple | list | dict):
                return keras.tree.map_structure(
                    lambda part: self.experimental_local_results(part)[0], value
                )
            if len(self.experimental_local_results(value)[0].shape) == 0:
                axis = None
            return super().reduce(reduce_op, value, axis=axis)

    return Strategy() if devices is None else Strategy(list(devices))


class _Checked(keras.utils.PyDataset):
    """A data set that looks at the size of its batches."""

    def __init__(self, dataset: keras.utils.PyDataset, check: Callable[[int], None]):
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._dataset = dataset
        self._check = check

    @property
    def num_batches(self) -> int | None:
        """As of the data set."""
        return self._dataset.num_batches

    def __getitem__(self, index: int) -> Any:
        batch = self._dataset[index]
        first = batch[0] if isinstance(batch, tuple | list) else batch
        self._check(len(keras.tree.flatten(first)[0]))
        return batch

    def on_epoch_begin(self) -> None:
        """Tell the data set."""
        self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the data set."""
        self._dataset.on_epoch_end()


class _Endless(keras.utils.PyDataset):
    """The batches of one epoch after the other, each the same whenever it is asked for."""

    def __init__(self, dataset: BatchDataset):
        super().__init__(workers=1, use_multiprocessing=False)  # those of the stream do the work
        self._stream = dataset.stream
        self._first = self._stream.epoch * len(dataset) + self._stream.number
        self._next = 0
        self._lock = threading.Lock()  # TensorFlow asks for batches from threads of its own

    @property
    def num_batches(self) -> None:
        """There is no end."""
        return

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if index == self._next:
                self._next += 1
                return self._stream.take()
        batches = self._stream.batches
        return batches.batch(*divmod(self._first + index, len(batches)))


class _Finite(keras.utils.PyDataset):
    """The batches of the current epoch by their numbers, made when they are asked for."""

    def __init__(self, dataset: BatchDataset):
        super().__init__(workers=1, use_multiprocessing=False)
        self._batches, self._epoch = dataset.stream.batches, dataset.epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._batches.batch(self._epoch, index)
