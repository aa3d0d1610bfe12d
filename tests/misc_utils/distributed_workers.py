"""Trains a small SSD on images, one process of several; goes on with a checkpoint if there is one.

    python -m tests.misc_utils.distributed_workers KIND FOLDER N_DIES_IN_EPOCH

KIND is that of the devices, FOLDER holds the images, the checkpoints and, in the end, the history
and the weights. The process that is not the chief kills itself in the given epoch; -1: in none.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from keras_loss_function.keras_ssd_loss import SSDLoss
from keras_loss_function.metrics import loss_metrics
from misc_utils.distribution import Devices, distribution
from misc_utils.training import Checkpoints, EpochEnd
from models.backbone_ssd import ssd_from_backbone
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
from tests.data_generator.feed_parts import Noise, write_images

EPOCHS, BATCH_SIZE = 3, 4


class Die(keras.callbacks.Callback):
    """Kills the process, as a machine that loses power does, before the second step of an epoch."""

    def __init__(self, epoch: int):
        super().__init__()
        self.dies_in = epoch
        self.epoch = -1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if self.epoch == self.dies_in and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def new_model() -> keras.Model:
    """Make and compile a small SSD without batch normalisation."""
    keras.utils.set_random_seed(1)
    image = keras.Input((16, 20, 3))
    coarse = keras.layers.Conv2D(4, 3, strides=4, padding="same", activation="relu")(image)
    network = keras.Model(image, coarse)
    model = ssd_from_backbone(
        network,
        [network.layers[-1].name],
        (16, 20, 3),
        n_classes=1,
        scales=[0.3, 0.5],
        extra_filters=[],
        divide_by_stddev=127.5,
        subtract_mean=127.5,
        l2_regularization=1e-3,
    )
    loss = SSDLoss()
    model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=loss_metrics(loss))
    return model


def train(devices: Devices, folder: Path, dies_in: int) -> None:
    """Train to the end."""
    checkpoints = Checkpoints(folder / "checkpoints")
    with devices.scope():
        found = checkpoints.load()
        model, done = (found[0], found[1]["epoch"]) if found else (new_model(), 0)
    generator = write_images(folder / f"images {devices.process}")
    data = generator.to_pydataset(
        BATCH_SIZE,
        [Noise()],
        SSDInputEncoder.from_model(model, pos_iou_threshold=0.3, neg_iou_limit=0.3),
        seed=0,
        start_epoch=done,
        full_batches=False,
    )
    callbacks = [Die(dies_in if not devices.is_chief else -1)]
    if devices.is_chief:
        callbacks.append(EpochEnd(lambda epoch, logs: checkpoints.save(epoch + 1, model, {})))
    history = model.fit(
        devices.batches(data),
        steps_per_epoch=len(data),
        epochs=EPOCHS,
        initial_epoch=done,
        callbacks=callbacks,
        verbose=0,
    ).history
    if devices.is_chief:
        weights = {str(index): weight for index, weight in enumerate(model.get_weights())}
        np.savez(folder / f"from {done}.npz", **history, **weights)


def main() -> None:
    """Read the command line."""
    kind, folder, dies_in = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with distribution(kind) as devices:
        (folder / f"images {devices.process}").mkdir(parents=True, exist_ok=True)
        train(devices, folder, dies_in)


if __name__ == "__main__":
    main()
