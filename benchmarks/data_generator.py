"""Time the whole way from JPEG files to batches for training, with and without worker processes.

    python -m benchmarks.data_generator

Images of 500 x 375 pixels with about 2.5 objects, as on Pascal VOC; the augmentation of the SSD
paper; batches of 32, encoded for the 8,732 anchors of SSD300. Decoding every file and resizing it
once is what no pipeline can do without. Everything runs in turns in one go, one thread to a
process, and the median of the rounds is printed. How far workers help depends on idle cores; the
last column does not: it is the processor time that it takes the training process. The row of
torchvision is the recipe of its own SSD300, without matching anchors, if it is installed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import cv2
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.augmentation import SIDE, random_dataset
from benchmarks.encoding import ssd300_encoder
from data_generator.batch_source import BatchSource
from data_generator.data_augmentation_chain_original_ssd import SSDDataAugmentation
from data_generator.worker_pool import REQUESTS_PER_WORKER

BATCH, N_BATCHES, N_ROUNDS, SEED = 32, 20, 7, 1


class Pipeline:
    """Something to time: images come out of it batch by batch."""

    def __init__(self, name: str, batches: Iterator, ahead: int = 0):
        self.name = name
        self.seconds: list[float] = []  # a batch
        self.processor_seconds: list[float] = []  # a batch, in this process only
        self._batches = batches
        self._ahead = ahead  # batches that may have been prepared while others were timed

    def time(self) -> None:
        """Time a round."""
        for _ in range(1 + self._ahead):
            next(self._batches)
        start, processor_start = time.perf_counter(), time.process_time()
        for _ in range(N_BATCHES):
            next(self._batches)
        self.seconds.append((time.perf_counter() - start) / N_BATCHES)
        self.processor_seconds.append((time.process_time() - processor_start) / N_BATCHES)

    @property
    def images_per_second(self) -> float:
        return BATCH / median(self.seconds)


def repeat(make: Callable[[int], object]) -> Iterator:
    number = 0
    while True:
        yield make(number)
        number += 1


def write_dataset(folder: Path) -> BatchSource:
    """Write the images as JPEG files."""
    names, labels = [], []
    for i, (image, boxes) in enumerate(random_dataset(np.random.default_rng(SEED))):
        names.append(str(folder / f"{i}.jpg"))
        labels.append(boxes)
        cv2.imwrite(names[-1], image)
    return BatchSource(filenames=names, labels=labels, verbose=False)


def decode_and_resize(dataset: BatchSource) -> Iterator:
    """Make batches of nothing but resized images."""

    def make(number: int) -> np.ndarray:
        images = []
        for i in range(number * BATCH, (number + 1) * BATCH):
            data = Path(dataset.filenames[i % dataset.dataset_size]).read_bytes()
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            images.append(cv2.resize(image, (SIDE, SIDE)))
        return np.stack(images)

    return repeat(make)


def ours(dataset: BatchSource, workers: int) -> Iterator:
    """Make batches as `fit` gets them."""
    batches = dataset.to_pydataset(
        BATCH, [SSDDataAugmentation(SIDE, SIDE)], ssd300_encoder(), seed=SEED, workers=workers
    )
    while True:
        yield from batches


def torchvision_loader(dataset: BatchSource, workers: int) -> Iterator:
    """Make batches as the reference training script of torchvision's SSD300 does."""
    import torch
    import torchvision
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    recipe = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill={tv_tensors.Image: (123, 117, 104), "others": 0}),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.Resize((SIDE, SIDE)),
            v2.SanitizeBoundingBoxes(),
        ]
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return dataset.dataset_size

        def __getitem__(self, i: int) -> tuple:
            labels = torch.as_tensor(dataset.labels[i])
            data = torchvision.io.read_file(dataset.filenames[i])
            image = tv_tensors.Image(torchvision.io.decode_image(data))
            size = tuple(image.shape[-2:])
            boxes = tv_tensors.BoundingBoxes(labels[:, 1:], format="XYXY", canvas_size=size)
            return recipe(image, {"boxes": boxes, "labels": labels[:, 0].long()})

    def collate(samples: list[tuple]) -> tuple:
        return torch.stack([image for image, _ in samples]), [target for _, target in samples]

    loader = torch.utils.data.DataLoader(
        Images(),
        BATCH,
        sampler=torch.utils.data.RandomSampler(Images(), replacement=True, num_samples=10**9),
        num_workers=workers,
        collate_fn=collate,
    )
    return iter(loader)


def pipelines(folder: Path) -> Iterator[Pipeline]:
    """Make all pipelines, the lower bound first."""
    dataset = write_dataset(folder)
    cached = dataset.subset(range(dataset.dataset_size))
    cached.create_hdf5_dataset(folder / "cache.h5", verbose=False)
    yield Pipeline("decode and resize only", decode_and_resize(dataset))
    for workers in (0, 1, 2):
        ahead = workers * REQUESTS_PER_WORKER
        yield Pipeline(f"JPEG files, {workers} workers", ours(dataset, workers), ahead)
    yield Pipeline("HDF5 cache, 0 workers", ours(cached, 0))
    try:
        for workers in (0, 2):
            loader = torchvision_loader(dataset, workers)
            yield Pipeline(f"torchvision, {workers} workers", loader, 2 * workers)
    except ImportError as error:
        print(f"torchvision is left out: {error}")


def main() -> None:
    """Time all pipelines in turns."""
    cv2.setNumThreads(1)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as folder:
        found = list(pipelines(Path(folder)))
        for _ in range(N_ROUNDS):
            for pipeline in found:
                pipeline.time()
    one_process = found[1].images_per_second
    print(f"{'':26s}{'images/s':>10s}{'to one process':>16s}{'ms/image here':>15s}")
    for pipeline in found:
        rate = pipeline.images_per_second
        here = 1000 * median(pipeline.processor_seconds) / BATCH
        print(f"{pipeline.name:26s}{rate:10.0f}{rate / one_process:15.2f}x{here:15.3f}")
    # Round by round, because what else the machine does differs less within a round.
    gains = [one / two for one, two in zip(found[2].seconds, found[3].seconds, strict=True)]
    spread = f"{min(gains):.2f} to {max(gains):.2f}"
    print(f"two workers to one: {median(gains):.2f}x, in the rounds {spread}")


if __name__ == "__main__":
    main()
