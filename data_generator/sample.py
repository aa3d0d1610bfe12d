"""One image on its way into a batch, and the array that the images of a batch become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_generator.errors import ImageSizeError


@dataclass
class Sample:
    """One image on its way into a batch, with all that belongs to it."""

    index: int
    image: np.ndarray | None = None
    labels: np.ndarray | None = None
    eval_neutral: np.ndarray | None = None
    inverters: list[Callable] = field(default_factory=list)
    original_image: np.ndarray | None = None
    original_labels: np.ndarray | None = None


def stack_images(
    samples: Sequence[Sample],
    entry_name: Callable[[int], str],
    empty: Callable[..., np.ndarray] = np.empty,
) -> np.ndarray:
    """Stack the images of a batch.

    Arguments:
        samples: The images, in order.
        entry_name: Names an entry of the data set, for messages.
        empty: As for `BatchMaker.batch`.

    Returns:
        An array `(batch, height, width, channels)` of the images' dtype.

    Raises:
        ImageSizeError: They differ in size or channels; two that differ are named.
    """
    shape = np.shape(samples[0].image)
    for sample in samples:
        if np.shape(sample.image) != shape:
            raise ImageSizeError(
                "The images of a batch must have one size and number of channels, but "
                f"{entry_name(samples[0].index)} is {shape} and {entry_name(sample.index)} is "
                f"{np.shape(sample.image)} after the transformations. Add "
                "Resize(height, width) as the last transformation (and ConvertTo3Channels() "
                "where channels differ)"
            )
    images = [np.asarray(sample.image) for sample in samples]
    dtype = np.result_type(*{image.dtype for image in images})
    return np.stack(images, out=empty((len(images), *shape), dtype))


def check_image_size(images: np.ndarray, label_encoder: Callable | None) -> None:
    """Refuse images of a size that the targets are not for: what a model says of it is less clear.

    Arguments:
        images: `(batch, height, width, channels)`.
        label_encoder: What makes the targets; only one with `img_height` and `img_width`, such as
            an `SSDInputEncoder`, says which images they are for.

    Raises:
        ImageSizeError: The images are of another size.
    """
    sizes = [getattr(label_encoder, name, None) for name in ("img_height", "img_width")]
    if None in sizes or list(images.shape[1:3]) == sizes:
        return
    (height, width), (given_height, given_width) = sizes, images.shape[1:3]
    raise ImageSizeError(
        f"The images are {given_height} x {given_width} pixels (height x width) after the "
        f"transformations, but label_encoder makes targets for {height} x {width}. Let the last "
        f"transformation be Resize({height}, {width}), or make the encoder for the other size"
    )
