"""Reading weights from NumPy's `.npz` archives, checked before memory is taken for them."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from misc_utils.weights_file import WeightsFileError

# Weights hardly compress: half precision with zeros in the lower half may halve, no more.
_MAX_EXPANSION = 20
_ALWAYS_FINE = 2**26
_HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def read_npz_weights(path: str | os.PathLike) -> dict[str, dict[str, np.ndarray]]:
    """Read an archive whose arrays are named `<layer>/<weight>`, such as 'conv1_1/kernel'.

    Nothing in the file is executed: pickled objects are refused.

    Arguments:
        path: A file that `numpy.savez` or `numpy.savez_compressed` wrote.

    Returns:
        {layer name: {weight name: array}}, arrays in the file's precision.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsFileError: if it is no such archive, is damaged or unreasonable.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights '{path}'.")
    try:
        _check(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except WeightsFileError:
        raise
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise WeightsFileError(
            f"'{path}' cannot be read as an .npz archive of arrays: {error}. If it is one, it is "
            "damaged: fetch it again."
        ) from error
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, slash, weight = name.rpartition("/")
        if not slash:
            raise WeightsFileError(
                f"'{path}' has an array named '{name}'; expected '<layer>/<weight>' such as "
                "'conv1_1/kernel'."
            )
        layers.setdefault(layer, {})[weight] = array
    return layers


def _check(path: Path) -> None:
    """Look at every member's header: what it declares has to be there, and to be numbers."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        n_bytes = sum(member.file_size for member in members)
        if n_bytes > _ALWAYS_FINE + _MAX_EXPANSION * path.stat().st_size:
            raise WeightsFileError(
                f"'{path}' unpacks to {n_bytes / 1e6:.0f} MB but is only "
                f"{path.stat().st_size / 1e6:.3f} MB large: it was made to exhaust the memory."
            )
        for member in members:
            with archive.open(member) as stream:
                version = npy_format.read_magic(stream)
                if version not in _HEADERS:
                    raise WeightsFileError(f"'{path}': '{member.filename}' is no plain array.")
                shape, _, dtype = _HEADERS[version](stream)
                n_bytes = member.file_size - stream.tell()
            if dtype.kind != "f" or math.prod(shape) * dtype.itemsize != n_bytes:
                raise WeightsFileError(
                    f"'{path}': '{member.filename}' declares {shape} numbers of type {dtype}, in "
                    f"{n_bytes} bytes. Expected floating point numbers that are all there."
                )
