"""Time what SSD300 does besides convolving: normalisation, softmax, anchors, concatenations.

    python -m benchmarks.overhead [--batch 8]

Three networks with the same convolutions take turns in one process, and the least processor time of
each is compared (of all cores together: other work on the machine disturbs it less than the time on
the clock; it says nothing about a GPU):

- convolutions: VGG-16, extra stages and predictor heads, and nothing else;
- + L2: the same with the L2 normalisation of conv4_3;
- whole: the model as users have it, up to the prediction tensor.
"""

from __future__ import annotations

import argparse
import os
import time
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from models import vgg16_ssd
from models.keras_ssd300 import SCALES_VOC, ssd_300

ROUNDS = 8


def heads_only(model: keras.Model) -> keras.Model:
    """Cut a model off behind the convolutions that predict."""
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    return keras.Model(model.inputs, [x.output for x in convolutions if "_mbox_" in x.name])


def main() -> None:
    """Print milliseconds of processor time a pass and what the parts add."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    whole = ssd_300((300, 300, 3), 20, scales=SCALES_VOC)
    unnormalised = mock.patch.object(
        vgg16_ssd, "L2Normalization", lambda name, **_: keras.layers.Identity(name=name)
    )
    with unnormalised:
        convolutions = heads_only(ssd_300((300, 300, 3), 20, scales=SCALES_VOC))
    models = {"convolutions": convolutions, "+ L2": heads_only(whole), "whole": whole}
    shape = (arguments.batch, 300, 300, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    times = {name: [] for name in models}
    for _ in range(ROUNDS + 1):
        for name, model in models.items():
            start = time.process_time()
            model.predict_on_batch(images)
            times[name].append(time.process_time() - start)
    print(f"SSD300 forward, batch of {arguments.batch}, {keras.backend.backend()}")
    least = {name: 1e3 * min(values[1:]) for name, values in times.items()}
    for name, milliseconds in least.items():
        share = milliseconds / least["convolutions"] - 1
        print(f"{name:13} {milliseconds:8.1f} ms  {share:+.1%}")


if __name__ == "__main__":
    main()
