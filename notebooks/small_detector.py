"""Data and a trained detector for notebooks that were given none, made once and then kept.

The data are digit scenes, the detector is an SSD7 that `examples/train_ssd7.py` trains on them in a
few minutes. The notebook `ssd7_training.ipynb` explains how such a training works.
"""

from __future__ import annotations

import os
from pathlib import Path

from examples.digit_scenes import make_digit_scenes
from examples.train_ssd7 import main as train_ssd7

# (train, val, test), the numbers of images, and epochs.
_FULL = (1000, 100, 200), 10
_QUICK = (48, 8, 51), 2


def make_data(work_folder: str | os.PathLike, quick: bool = False) -> Path:
    """Make the digit scenes, unless they are there.

    Arguments:
        work_folder: Where notebooks keep what they make.
        quick: Whether to make a few images only, for tests.

    Returns:
        A folder in Pascal VOC format.
    """
    n_images, _ = _QUICK if quick else _FULL
    return make_digit_scenes(Path(work_folder) / "digit_scenes", *n_images)


def train_once(
    voc_folder: str | os.PathLike, output: str | os.PathLike, quick: bool = False
) -> Path:
    """Train an SSD7 for images of 144 x 192 pixels, unless that was done before.

    Arguments:
        voc_folder: A folder in Pascal VOC format with the image sets train, val and test.
        output: The folder for the results. A training that was interrupted goes on there.
        quick: Whether to train for a moment only, for tests.

    Returns:
        The file of the model, whose mode is ``'training'``.
    """
    model_file = Path(output) / "model.keras"
    if not model_file.exists():
        _, epochs = _QUICK if quick else _FULL
        options = """--image-size 144x192 --scales 0.15,0.3,0.45,0.6,0.75 --aspect-ratios 0.5,1,2
            --flip none --augmentation photometric --batch-size 16 --learning-rate 0.003
            --pictures 0 --resume"""
        paths = ["--data", os.fspath(voc_folder), "--output", os.fspath(output)]
        train_ssd7([*paths, *options.split(), "--epochs", str(epochs)])
    return model_file
