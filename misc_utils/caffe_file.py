"""Reading `.caffemodel` files: the arrays of all layers and the settings of the default boxes.

Neither Caffe nor its compiled schema is needed (see `misc_utils.caffe_schema`), and nothing in a
file is executed. No array is made before its numbers are known to be in the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from misc_utils.caffe_schema import (
    BlobProto,
    BlobShape,
    LayerParameter,
    NetParameter,
    PriorBoxParameter,
    V1LayerParameter,
)
from misc_utils.default_boxes import DefaultBoxes
from misc_utils.weights_file import WeightsFileError

# Protobuf's own limit for a message.
_MAX_BYTES = 2**31 - 1
# Far more than any network has.
_MAX_LAYERS = 20_000
_MAX_BLOBS = 16
_MAX_DIMENSIONS = 8
_MAX_BOXES = 100
_LEGACY_DIMENSIONS = ("num", "channels", "height", "width")


@dataclass(frozen=True)
class CaffeFile:
    """What a `.caffemodel` holds.

    Attributes:
        path: The file.
        blobs: {layer name: its arrays in Caffe's order and layout}, for layers with weights.
        priors: {name of a PriorBox layer: its default boxes}; empty in files of networks without.
    """

    path: Path
    blobs: dict[str, list[np.ndarray]]
    priors: dict[str, DefaultBoxes]


def read_caffe_file(path: str | os.PathLike) -> CaffeFile:
    """Read a `.caffemodel`, with the layer messages of today or those of 2014 (V1).

    Arguments:
        path: The file.

    Returns:
        A `CaffeFile`; arrays are float32, or float64 where the file has doubles.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsFileError: if it holds no weights, is damaged or unreasonable.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no Caffe model '{path}'.")
    if path.stat().st_size > _MAX_BYTES:
        raise WeightsFileError(f"'{path}' is larger than 2 GB, which no .caffemodel can be.")
    blobs: dict[str, list[np.ndarray]] = {}
    priors: dict[str, DefaultBoxes] = {}
    try:
        network = NetParameter.FromString(path.read_bytes())
        _check_count(len(network.layer) + len(network.layers), _MAX_LAYERS, "layers")
        messages = [(LayerParameter, content) for content in network.layer]
        messages += [(V1LayerParameter, content) for content in network.layers]
        for kind, content in messages:
            layer = kind.FromString(content)
            name = layer.name.decode("utf-8")
            _check_count(len(layer.blobs), _MAX_BLOBS, f"arrays in layer '{name}'")
            if layer.blobs:
                if name in blobs:
                    raise WeightsFileError(f"it has weights for two layers named '{name}'")
                blobs[name] = [
                    _array(blob, f"array {number} of layer '{name}'")
                    for number, blob in enumerate(layer.blobs)
                ]
            if kind is LayerParameter and layer.type == b"PriorBox":
                priors[name] = _priors(PriorBoxParameter.FromString(layer.prior_box_param), name)
    except (DecodeError, UnicodeDecodeError, WeightsFileError) as error:
        raise WeightsFileError(
            f"'{path}' cannot be read as a Caffe model: {error}. If it begins with text, it is a "
            ".prototxt or a download page; otherwise it is damaged, perhaps cut off: fetch it "
            "again."
        ) from error
    if not blobs:
        raise WeightsFileError(
            f"'{path}' holds no layer with weights. Expected a .caffemodel; a .solverstate or a "
            "file of 2013 is none."
        )
    return CaffeFile(path, blobs, priors)


def _check_count(n: int, limit: int, what: str) -> None:
    if n > limit:
        raise WeightsFileError(f"it has {n} {what}, more than any network")


def _array(content: bytes, where: str) -> np.ndarray:
    """Read a blob, after checking that its shape and its numbers belong together."""
    blob = BlobProto.FromString(content)
    if blob.HasField("shape"):
        dimensions = BlobShape.FromString(blob.shape).dim
        _check_count(len(dimensions), _MAX_DIMENSIONS, f"dimensions in {where}")
        shape = tuple(dimensions)
    elif any(blob.HasField(name) for name in _LEGACY_DIMENSIONS):
        shape = tuple(getattr(blob, name) for name in _LEGACY_DIMENSIONS)
    else:
        shape = None
    chunks, dtype = (blob.double_data, "<f8") if blob.double_data else (blob.data, "<f4")
    # A writer may cut a packed list into several pieces, each of whole numbers.
    numbers = b"".join(chunks)
    if len(numbers) % np.dtype(dtype).itemsize:
        raise WeightsFileError(f"{where} ends within a number")
    values = np.frombuffer(numbers, dtype)
    if shape is None:
        shape = values.shape
    if min(shape, default=1) < 1:
        raise WeightsFileError(f"{where} has the shape {shape}")
    if math.prod(shape) != values.size:
        raise WeightsFileError(
            f"{where} declares the shape {shape}, {math.prod(shape)} numbers, but has {values.size}"
        )
    return values.reshape(shape).copy()  # the bytes are read-only


def _priors(settings: Any, name: str) -> DefaultBoxes:
    for numbers in (settings.min_size, settings.max_size, settings.aspect_ratio, settings.variance):
        _check_count(len(numbers), _MAX_BOXES, f"settings of one kind in layer '{name}'")
    ratios = _with_flipped(settings.aspect_ratio, settings.flip or not settings.HasField("flip"))
    max_sizes = settings.max_size or [None] * len(settings.min_size)
    if len(max_sizes) != len(settings.min_size):
        raise WeightsFileError(
            f"layer '{name}' has {len(settings.min_size)} smallest and {len(max_sizes)} largest "
            "sizes of boxes"
        )
    if len(settings.variance) not in (0, 1, 4):
        raise WeightsFileError(f"layer '{name}' has {len(settings.variance)} variances, not 1 or 4")
    shapes: list[tuple[float, float]] = []
    for smallest, largest in zip(settings.min_size, max_sizes, strict=True):
        if not smallest > 0 or (largest is not None and not largest > 0):
            raise WeightsFileError(f"layer '{name}' has boxes of size {smallest}, {largest}")
        shapes.append((smallest, smallest))
        if largest is not None:
            shapes.append((math.sqrt(smallest * largest),) * 2)
        shapes += [(smallest * math.sqrt(r), smallest / math.sqrt(r)) for r in ratios]
    return DefaultBoxes(
        shapes=tuple(shapes),
        step=settings.step or None,
        offset=settings.offset if settings.HasField("offset") else 0.5,
        clip=settings.clip,
        variances=tuple(settings.variance),
    )


def _with_flipped(ratios: Sequence[float], flip: bool) -> list[float]:
    """Put 1 / r after each ratio r; ratio 1 is always there, and nothing is there twice."""
    result: list[float] = []
    for ratio in ratios:
        if not ratio > 0:
            raise WeightsFileError(f"there is a default box of aspect ratio {ratio}")
        known = [1.0, *result]
        if not any(math.isclose(ratio, other, abs_tol=1e-6) for other in known):
            result += [ratio, 1 / ratio] if flip else [ratio]
    return result
