"""Learning rates that depend on the number of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="ssd_keras")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, with small steps at the beginning.

    Fresh predictors make huge gradients, which wreck the pretrained layers below them. So the rate
    rises linearly over the first steps:

        rate = schedule(step) * (start + (1 - start) * step / steps)     for step < steps

    The schedule counts its steps from the beginning, too: its boundaries stay where they are.

        schedule = Warmup(PiecewiseConstantDecay([80_000], [1e-3, 1e-4]), steps=500)
    """

    def __init__(self, schedule: Any, steps: int, start: float = 0.001):
        """Wrap a schedule.

        Arguments:
            schedule: A schedule of Keras, or a number: a rate that does not change.
            steps: The number of steps that are smaller.
            start: The share of the rate that the first step has.

        Raises:
            ValueError: if `steps` is negative or `start` is not in [0, 1].
        """
        super().__init__()
        if steps < 0:
            raise ValueError(f"`steps` must not be negative; got {steps}.")
        if not 0 <= start <= 1:
            raise ValueError(f"`start` must be in [0, 1]; got {start}.")
        self.schedule = schedule
        self.steps = steps
        self.start = start

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        progress = ops.minimum(ops.cast(step, "float32") / max(1, self.steps), 1.0)
        share = self.start + (1.0 - self.start) * progress if self.steps else 1.0
        return rate * share

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "steps": self.steps,
            "start": self.start,
        }

    @classmethod
    def from_config(cls, config: dict) -> Warmup:
        """Make the schedule from what `get_config` returned."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(**{**config, "schedule": schedule})


def caffe_multistep(
    learning_rate: float, boundaries: Sequence[int], factor: float = 0.1
) -> keras.optimizers.schedules.PiecewiseConstantDecay:
    """Lower a learning rate at given steps, as Caffe's policy "multistep" does.

    Arguments:
        learning_rate: The rate until the first boundary.
        boundaries: Numbers of steps taken at which the rate is multiplied by `factor`, ascending.
        factor: What Caffe calls gamma.

    Returns:
        A schedule.

    Raises:
        ValueError: if the boundaries are not ascending, or not positive.
    """
    boundaries = [int(boundary) for boundary in boundaries]
    if any(a >= b for a, b in zip([0, *boundaries], boundaries, strict=False)):
        raise ValueError(f"`boundaries` must be positive and ascend; got {boundaries}.")
    # Keras' boundary is the last step of the old rate, Caffe's the first of the new one.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [boundary - 1 for boundary in boundaries],
        [learning_rate * factor**n for n in range(len(boundaries) + 1)],
    )
