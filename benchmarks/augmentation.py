"""Time the augmentation chains beside their parts one by one, and beside torchvision.

    python -m benchmarks.augmentation

Images of 500 x 375 pixels in memory, with about 2.5 objects each as on Pascal VOC, one thread. "One
by one" calls the public operations of a chain one after another, each of which makes all of its
pixels, with the colours in float32; this is how such chains are written without further thought.
torchvision's row is the training recipe of its own SSD300, transforms v2, if it can be imported.
Resizing every image once is what no chain can do without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from data_generator.colour_conversions import ConvertColor, ConvertDataType, ConvertTo3Channels
from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.data_augmentation_chain_original_ssd import SSDDataAugmentation
from data_generator.data_augmentation_chain_satellite import DataAugmentationSatellite
from data_generator.data_augmentation_chain_variable_input_size import (
    DataAugmentationVariableInputSize,
)
from data_generator.photometric_distortion import PhotometricDistortion
from data_generator.random_transformation import RandomChoice
from data_generator.transformation import Transformation, TransformationChain

HEIGHT, WIDTH, SIDE = 375, 500, 300
N_IMAGES, N_ROUNDS, SEED = 60, 5, 1
BACKGROUND = (123, 117, 104)

Augmented = tuple[np.ndarray, np.ndarray]
Dataset = list[Augmented]


def random_dataset(rng: np.random.Generator) -> Dataset:
    """Draw smooth images with the noise of a JPEG file, and labels."""
    dataset = []
    for _ in range(N_IMAGES):
        shades = rng.integers(0, 256, (12, 16, 3), np.uint8)
        image = cv2.resize(shades, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        image = cv2.imdecode(cv2.imencode(".jpg", noisy)[1], cv2.IMREAD_COLOR)
        n = 1 + rng.poisson(1.5)
        size = np.array([WIDTH, HEIGHT]) * rng.uniform(0.1, 0.9, (n, 2))
        corner = rng.uniform(0, 1, (n, 2)) * ([WIDTH, HEIGHT] - size)
        labels = np.concatenate([rng.integers(1, 21, (n, 1)), corner, corner + size], axis=1)
        dataset.append((image, labels.astype(np.float32)))
    return dataset


def colours_one_by_one(distortion: PhotometricDistortion) -> list[Transformation]:
    """Return the operations of a distortion as they are listed in the Caffe implementation."""
    to_float, to_uint8 = ConvertDataType("float32"), ConvertDataType("uint8")
    contrast = [distortion.contrast]
    return [
        ConvertTo3Channels(),
        to_float,
        distortion.brightness,
        *([] if distortion.contrast_last else contrast),
        to_uint8,
        ConvertColor("RGB", "HSV"),
        to_float,
        distortion.saturation,
        distortion.hue,
        to_uint8,
        ConvertColor("HSV", "RGB"),
        *([to_float, *contrast, to_uint8] if distortion.contrast_last else []),
    ]


def one_by_one(
    transformation: Transformation, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> Augmented:
    """Apply a chain operation by operation."""
    if isinstance(transformation, RandomChoice):
        drawn = transformation.sample(*image.shape[:2], labels, rng)
        return (image, labels) if drawn is None else one_by_one(drawn, image, labels, rng)
    if isinstance(transformation, TransformationChain):
        parts = transformation.transformations
    elif isinstance(transformation, PhotometricDistortion):
        parts = colours_one_by_one(transformation)
    else:
        return transformation(image, labels, rng=rng)
    for part in parts:
        image, labels = one_by_one(part, image, labels, rng)
    return image, labels


def torchvision_recipe(dataset: Dataset) -> Callable[[], object]:
    """Return a function that augments all images as torchvision trains its SSD300.

    Raises:
        ImportError: if torch or torchvision is missing.
    """
    import torch
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    recipe = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=list(BACKGROUND)),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.Resize((SIDE, SIDE)),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    samples = [
        {
            "image": tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1).contiguous()),
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(labels[:, 1:]), format="XYXY", canvas_size=(HEIGHT, WIDTH)
            ),
            "labels": torch.from_numpy(labels[:, 0]).long(),
        }
        for image, labels in dataset
    ]

    def recipe_for_all() -> None:
        torch.manual_seed(SEED)
        for sample in samples:
            recipe(sample)

    return recipe_for_all


def augment_all(augment: Callable[..., Augmented], dataset: Dataset) -> None:
    """Call `augment(image, labels, rng=rng)` for every image."""
    rng = np.random.default_rng(SEED)
    for image, labels in dataset:
        augment(image, labels, rng=rng)


def main() -> None:
    """Time everything in turns; the best of several rounds counts.

    Every round draws the same. Processor time is what is counted, so that other programs on the
    machine matter less.
    """
    cv2.setNumThreads(1)
    dataset = random_dataset(np.random.default_rng(SEED))
    chains = {
        "SSDDataAugmentation": SSDDataAugmentation(SIDE, SIDE),
        "the same, variant='caffe'": SSDDataAugmentation(SIDE, SIDE, variant="caffe"),
        "DataAugmentationConstantInputSize": DataAugmentationConstantInputSize(),
        "DataAugmentationVariableInputSize": DataAugmentationVariableInputSize(SIDE, SIDE),
        "DataAugmentationSatellite": DataAugmentationSatellite(SIDE, SIDE),
    }
    size = (SIDE, SIDE)
    work = {"resize": lambda: [cv2.resize(image, size) for image, _ in dataset]}
    for name, chain in chains.items():
        work[name] = partial(augment_all, chain, dataset)
        work[f"{name}, one by one"] = partial(augment_all, partial(one_by_one, chain), dataset)
    try:
        work["torchvision"] = torchvision_recipe(dataset)
    except ImportError as missing:
        print(f"Without torchvision: {missing}.")

    times = {name: [] for name in work}
    for _ in range(N_ROUNDS):
        for name, run in work.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    rates = {name: N_IMAGES / min(values) for name, values in times.items()}

    print(f"{'images/s, one thread':36s}{'chain':>8s}{'one by one':>12s}{'factor':>8s}")
    for name in chains:
        slow = rates[f"{name}, one by one"]
        print(f"{name:36s}{rates[name]:8,.0f}{slow:12,.0f}{rates[name] / slow:8.1f}")
    for name in ("torchvision", "resize"):
        if name in rates:
            print(f"{name:36s}{rates[name]:8,.0f}")


if __name__ == "__main__":
    main()
