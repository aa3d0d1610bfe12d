"""Runs `train_ssd.py` until a given moment, at which the process kills itself as `kill -9` does.

python killed_training.py step=5 ...       in the middle of the fifth step's callbacks
python killed_training.py checkpoint=2 ... when half of the second checkpoint is written
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import keras

from examples import train_ssd


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_step(number):
    steps = 0
    original = train_ssd.StopAtStep.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        nonlocal steps
        steps += 1
        if steps == number:
            kill()
        original(self, batch, logs)

    train_ssd.StopAtStep.on_train_batch_end = on_train_batch_end


def kill_at_checkpoint(number):
    saved = 0
    original = keras.Model.save

    def save(self, path, *arguments, **options):
        nonlocal saved
        original(self, path, *arguments, **options)
        saved += 1
        if saved == number:
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])
            kill()

    keras.Model.save = save


if __name__ == "__main__":
    moment, _, count = sys.argv[1].partition("=")
    {"step": kill_at_step, "checkpoint": kill_at_checkpoint}[moment](int(count))
    train_ssd.main(sys.argv[2:])
    sys.exit("the training ended before it could be killed")
