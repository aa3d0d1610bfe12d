"""Training helpers: a budget, learning rates, a watch for NaN, checkpoints, a history file."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras

from misc_utils.files import write_text
from misc_utils.random_states import random_states, restore_random_states


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


class Budget(keras.callbacks.Callback):
    """How long to train: a number of epochs or of minutes, interruptions not counted.

    Attributes:
        fraction: The share of the budget that is used up, in [0, 1].
    """

    def __init__(
        self,
        steps_per_epoch: int,
        epochs: int | None = None,
        minutes: float | None = None,
        seconds_before: float = 0.0,
    ):
        """Set the budget.

        Arguments:
            steps_per_epoch: Batches an epoch.
            epochs: Number of epochs.
            minutes: Minutes of wall time; training stops at the end of the step in which they are
                over.
            seconds_before: Seconds that an interrupted run has used already.

        Raises:
            ValueError: unless exactly one of `epochs` and `minutes` is given.
        """
        super().__init__()
        if (epochs is None) == (minutes is None):
            raise ValueError(
                f"Give either `epochs` or `minutes`; got epochs={epochs}, minutes={minutes}."
            )
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs
        self.minutes = minutes
        self.fraction = 0.0
        self._seconds_before = seconds_before
        self._start = time.monotonic()
        self._epoch = 0

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self._seconds_before + time.monotonic() - self._start

    def is_used_up(self, epochs_before: int) -> bool:
        """Say whether a run that was interrupted after so many epochs had finished already."""
        if self.minutes is None:
            return epochs_before >= self.epochs
        return self._seconds_before >= 60 * self.minutes

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note where training is."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Update `fraction`."""
        if self.minutes is None:
            self.fraction = (self._epoch + batch / self.steps_per_epoch) / self.epochs
        else:
            self.fraction = min(1.0, self.seconds / (60 * self.minutes))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop when the time is over."""
        if self.minutes is not None and self.seconds >= 60 * self.minutes:
            self.fraction = 1.0
            self.model.stop_training = True


class WarmupCosine(keras.callbacks.Callback):
    """A learning rate that rises linearly at first and falls along a cosine to the end of a budget.

    The warm-up keeps the first steps, with their huge gradients, from wrecking a fresh network; the
    slow end lets the weights settle.
    """

    def __init__(self, budget: Budget, peak: float, warmup: float = 0.03, final: float = 0.01):
        """Set the shape.

        Arguments:
            budget: Tells how far training is; must come before this callback in the list.
            peak: The highest learning rate.
            warmup: The share of the budget in which the rate rises.
            final: The last learning rate as a share of the peak.
        """
        super().__init__()
        self.budget = budget
        self.peak = peak
        self.warmup = warmup
        self.final = final

    def rate(self, fraction: float) -> float:
        """Return the learning rate at a fraction of the budget in [0, 1]."""
        if fraction < self.warmup:
            return self.peak * max(0.01, fraction / self.warmup)
        progress = (fraction - self.warmup) / (1 - self.warmup)
        falling = 0.5 * (1 + math.cos(math.pi * progress))
        return self.peak * (self.final + (1 - self.final) * falling)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Set the rate of the step that begins."""
        self.model.optimizer.learning_rate = self.rate(self.budget.fraction)


class NamedBatches:
    """Passes `(x, y)` of a batch generator on and remembers the file names that came with them.

    Hand `iter(named_batches)`, a Python generator, to `model.fit`. The given generator must yield
    `(x, y, file names)`. The consumer may run ahead of the training step (prefetching), so names
    are kept by batch number for a while.
    """

    def __init__(self, batches: Iterator[tuple], keep: int = 256):
        self._batches = batches
        self._keep = keep
        self._names: OrderedDict[int, list[str]] = OrderedDict()

    def __iter__(self) -> Iterator[tuple]:
        for number, (x, y, names) in enumerate(self._batches):
            self._names[number] = names
            if len(self._names) > self._keep:
                self._names.popitem(last=False)
            yield x, y

    def names(self, number: int) -> list[str]:
        """Return the file names of the batch with this number, counted from 0."""
        return self._names.get(number, [])


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends training with an error that names the batch at the first loss that is not finite."""

    def __init__(self, batches: NamedBatches):
        super().__init__()
        self._batches = batches
        self._number = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Look at the loss (the mean of the epoch so far, which stays NaN once it is)."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            names = "\n  ".join(map(str, self._batches.names(self._number)))
            raise NonFiniteLossError(
                f"The loss became {loss} at batch {batch} of this epoch (the {self._number + 1}th "
                f"since the start of the program), made of\n  {names}\n"
                "Check the boxes of these images. If they are fine, use a smaller learning rate. "
                "The best weights so far are kept."
            )
        self._number += 1


class Checkpoints:
    """Saves and finds everything that is needed to go on with an interrupted training.

    A checkpoint is a folder `checkpoint-<number>` with the compiled model (weights and optimizer
    state) and a small JSON file, which also holds the states of the model's random generators
    (those of its dropout layers, for example), as Keras does not save them. It gets its name only
    when it is complete, and only then the one before it is deleted: a process can be killed at any
    moment.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)

    def save(self, epoch: int, model: keras.Model, state: dict) -> None:
        """Write the checkpoint of a completed epoch and delete older ones.

        Arguments:
            epoch: Number of completed epochs, or of steps if that is how the caller counts.
            model: The compiled model.
            state: Anything that JSON can hold.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"checkpoint-{epoch:06d}"
        unfinished = self.folder / f"unfinished-{epoch:06d}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        model.save(unfinished / "model.keras")
        content = {**state, "epoch": epoch, "random_states": random_states(model)}
        write_text(unfinished / "state.json", json.dumps(content))
        if final.exists():
            # A folder cannot be replaced in one step; until the new one is there, this one counts.
            final.rename(self.folder / f"replaced-{epoch:06d}")
        unfinished.rename(final)
        for path in self.folder.glob("*-[0-9]*"):
            if path != final and path.is_dir():
                shutil.rmtree(path)

    def load(self) -> tuple[keras.Model, dict] | None:
        """Load the last complete checkpoint.

        Returns:
            (compiled model, state with the key ``'epoch'``), or None if there is no checkpoint.
        """
        found = [*self.folder.glob("checkpoint-*"), *self.folder.glob("replaced-*")]
        if not found:
            return None
        last = max(found, key=lambda path: int(path.name.split("-")[1]))  # the first of two
        state = json.loads((last / "state.json").read_text(encoding="utf-8"))
        model = keras.saving.load_model(last / "model.keras")
        # Checkpoints of earlier versions of this library have no random states.
        restore_random_states(model, state.pop("random_states", {}))
        return model, state


class EpochEnd(keras.callbacks.Callback):
    """Calls a function at the end of every epoch: `function(epoch, logs)`."""

    def __init__(self, function: Callable[[int, dict], None]):
        super().__init__()
        self._function = function

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Call the function."""
        self._function(epoch, logs or {})


def write_history(
    path: str | os.PathLike, history: Sequence[Mapping[str, float]], columns: Sequence[str]
) -> None:
    """Write what was measured during training as CSV, in one step.

    Arguments:
        path: The file to make or to replace.
        history: One {column: value} a row; cells of columns that a row lacks stay empty.
        columns: The columns in their order.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[keras.Model]:
    """Put the optimizer's moving average of the weights into a model for a while.

    The average over the last steps (`use_ema=True` in every Keras optimizer) is nearly always a
    better detector than the weights of any single step. Without an average nothing changes.

        with averaged_weights(model):
            model.evaluate(...)

    Arguments:
        model: A compiled model.

    Yields:
        The same model; its own weights return at the end.
    """
    optimizer = model.optimizer
    if not optimizer.use_ema or int(keras.ops.convert_to_numpy(optimizer.iterations)) == 0:
        yield model
        return
    variables = model.trainable_variables
    own = [keras.ops.convert_to_numpy(variable) for variable in variables]
    optimizer.finalize_variable_values(variables)
    for variable in variables:
        # Not the optimizer's own array: on JAX, predicting gives the arrays of a model away.
        variable.assign(keras.ops.convert_to_numpy(variable))
    try:
        yield model
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
