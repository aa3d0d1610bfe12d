"""Measure the memory of a training step of SSD300, and what the network itself accounts for.

    python -m benchmarks.memory [--batch 8]

Two processes take the same steps (float32, SGD with momentum) and report the most memory they had
in use (resident set), less what they had once the framework was loaded:

- the SSD300 of this library, with anchors, softmax, prediction tensor and `SSDLoss`;
- the same convolutions without any of that: the mean square of the predictors' outputs is the loss.

The difference is what this library adds to a network. Beside it stands a sum made on paper: what
all layers output, once (backpropagation needs it), and weights, gradients and momentum. Any real
process needs more than that: the gradients of the feature maps, and the convolutions' workspace.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import ops

from keras_loss_function.keras_ssd_loss import SSDLoss
from models.keras_ssd300 import SCALES_VOC, ssd_300
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder

SIZE, N_CLASSES, STEPS = (300, 300, 3), 20, 3
MIB = 2**20


def peak() -> float:
    """Return the most memory this process ever had in use, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def whole(model: keras.Model, batch: int) -> Callable[[np.ndarray], object]:
    """Return a training step of the model as it is."""
    labels = [np.array([[1, 20, 20, 90, 90], [2, 100, 30, 160, 200]])] * batch
    targets = SSDInputEncoder.from_model(model)(labels)
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), SSDLoss())
    return lambda images: model.train_on_batch(images, targets)


def bare(model: keras.Model, batch: int) -> Callable[[np.ndarray], object]:
    """Return a training step of the model's convolutions only."""
    heads = [
        layer.output for layer in model.layers if layer.name.endswith(("mbox_conf", "mbox_loc"))
    ]
    heads = [x for x in heads if len(x.shape) == 4]  # not the concatenations of the same name
    model = keras.Model(model.inputs, heads)
    model.compile(
        keras.optimizers.SGD(1e-6, momentum=0.9),
        [lambda y_true, y_pred: ops.mean(ops.square(y_pred), axis=(1, 2, 3))] * len(heads),
    )
    nothing = [np.zeros((batch, 1, 1, 1), np.float32)] * len(heads)
    return lambda images: model.train_on_batch(images, nothing)


VARIANTS = {"whole": whole, "bare": bare}


def measure(variant: str, batch: int) -> None:
    """Print the memory of some training steps in MiB."""
    ops.convert_to_numpy(ops.matmul(np.ones((8, 8)), np.ones((8, 8))))  # the framework is up
    before = peak()
    model = ssd_300(SIZE, N_CLASSES, scales=SCALES_VOC)
    step = VARIANTS[variant](model, batch)
    images = np.random.default_rng(0).integers(0, 256, (batch, *SIZE)).astype(np.float32)
    for _ in range(STEPS):
        step(images)
    print(peak() - before)


def on_paper(batch: int) -> tuple[float, float]:
    """Return the MiB of (all feature maps of the network, weights + gradients + momentum)."""
    model = ssd_300(SIZE, N_CLASSES, scales=SCALES_VOC)
    kinds = (keras.layers.Conv2D, keras.layers.MaxPooling2D, keras.layers.ZeroPadding2D)
    outputs = sum(
        math.prod(layer.output.shape[1:]) for layer in model.layers if isinstance(layer, kinds)
    )
    return 4 * batch * outputs / MIB, 3 * 4 * model.count_params() / MIB


def main() -> None:
    """Print the peaks of both variants and the sum on paper."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        measure(arguments.variant, arguments.batch)
        return
    print(f"SSD300 training step, batch of {arguments.batch}, {keras.backend.backend()}, MiB")
    outputs, weights = on_paper(arguments.batch)
    print(f"on paper: outputs {outputs:.0f} + weights, gradients, momentum {weights:.0f}")
    peaks = {}
    for variant in VARIANTS:
        command = [sys.executable, "-m", "benchmarks.memory", "--variant", variant]
        command += ["--batch", str(arguments.batch)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[variant] = float(result.stdout.splitlines()[-1])
        print(f"{variant:6} {peaks[variant]:6.0f}")
    extra = peaks["whole"] - peaks["bare"]
    print(f"anchors, softmax, prediction tensor and loss: {extra:.0f}")


if __name__ == "__main__":
    main()
