"""Learning rates by the step, as schedules that Keras saves with the optimizer.

The step is the optimizer's own count, which a checkpoint holds: a training that goes on after an
interruption has the rates that it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="ssd_keras")
class SteppedLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises linearly at first, stays, and is multiplied by a factor at some steps.

    Caffe's "multistep", with which SSD was trained: 0.001, a tenth of it after 80,000 steps, and a
    hundredth after 100,000. The original has no warm-up.
    """

    def __init__(
        self,
        peak: float,
        decay_at: Sequence[int] = (),
        decay_factor: float = 0.1,
        warmup_steps: int = 0,
    ):
        """Keep the settings.

        Arguments:
            peak: The highest rate.
            decay_at: Numbers of steps after which the rate is multiplied by the factor.
            decay_factor: The factor.
            warmup_steps: Steps in which the rate rises; the first has 1 / `warmup_steps` of it.
        """
        super().__init__()
        self.peak = peak
        self.decay_at = tuple(decay_at)
        self.decay_factor = decay_factor
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        rate = ops.convert_to_tensor(self.peak, "float32")
        for boundary in self.decay_at:
            rate = ops.where(step >= boundary, rate * self.decay_factor, rate)
        if self.warmup_steps:
            rate = rate * ops.minimum(1.0, (step + 1) / self.warmup_steps)
        return rate

    def get_config(self) -> dict:
        """Return all constructor arguments."""
        return {
            "peak": self.peak,
            "decay_at": list(self.decay_at),
            "decay_factor": self.decay_factor,
            "warmup_steps": self.warmup_steps,
        }
