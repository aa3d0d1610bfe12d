"""Data sets, transformations and an encoder that worker processes can import."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import cv2
import numpy as np

from data_generator.object_detection_2d_data_generator import DataGenerator

N_IMAGES = 10


def write_images(folder: Path, n_images: int = N_IMAGES) -> DataGenerator:
    """Write images, number i filled with i and with a box of class 1; return the data set."""
    names = [str(folder / f"{i}.png") for i in range(n_images)]
    for i, name in enumerate(names):
        cv2.imwrite(name, np.full((16, 20, 3), i, np.uint8))
    labels = [[[1, i, 2, i + 5, 8]] for i in range(n_images)]
    return DataGenerator(filenames=names, labels=labels, verbose=False)


class Encoder:
    """Stands for SSDInputEncoder: the targets are the first box of every image."""

    def __call__(self, labels, diagnostics=False):
        return np.array([[*boxes[:1], [0] * 5][0] for boxes in labels], np.float32)


class Noise:
    """Adds random numbers to the pixels above the first row, which says which image it is."""

    def __call__(self, image, labels, rng=None):
        noisy = image.copy()
        noisy[1:] = rng.integers(0, 256, noisy[1:].shape)
        return noisy, labels


class InWorkers:
    """Does something in worker processes only, to the image of a given number or to all."""

    def __init__(self, number: int | None = None):
        self.parent = os.getpid()
        self.number = number

    def __call__(self, image, labels):
        if os.getpid() != self.parent and self.number in (None, image[0, 0, 0]):
            self.act()
        return image, labels

    def act(self) -> None:
        raise NotImplementedError


class Fail(InWorkers):
    def act(self):
        raise ZeroDivisionError("no such luck")


class UnpicklableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class FailUnpicklably(InWorkers):
    def act(self):
        raise UnpicklableError("this", "that")


class Die(InWorkers):
    def act(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Exit(InWorkers):
    def act(self):
        os._exit(7)


class Warn(InWorkers):
    def act(self):
        warnings.warn("look at this", UserWarning, stacklevel=1)


class Print(InWorkers):
    def act(self):
        print("chatter " * 20, flush=True)


class TellModules(InWorkers):
    """Fails with the names of the frameworks that the process has loaded, if there are any."""

    def act(self):
        import sys

        loaded = {"keras", "tensorflow", "jax", "torch"} & set(sys.modules)
        if loaded:
            raise RuntimeError(f"loaded: {sorted(loaded)}")


class DropOdd:
    """Drops every image of an odd number."""

    def __call__(self, image, labels):
        return (None, None) if image[0, 0, 0] % 2 else (image, labels)
