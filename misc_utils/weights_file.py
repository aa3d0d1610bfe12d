"""Reading weights out of files of all ages, without running anything that is in them.

Three kinds of files hold the weights of a Keras model:

    weights.h5         Keras 1 and 2: HDF5 with the attribute `layer_names`, one group a layer, and
                       names for the weights; in a full model's file all that under /model_weights
    x.weights.h5       Keras 3: HDF5 with the group `layers`; weights have numbers, not names
    x.keras            Keras 3: a zip archive with a `.weights.h5` file in it

A downloaded file is input from a stranger. Everything is read as numbers and nothing else, links to
other files are refused, and the size of an array is checked before memory is taken for it. What
Python cannot prevent: the HDF5 library itself, which is written in C, may crash on a forged file.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np

# What a file may claim to hold, in relation to what it is: weights hardly compress, so a file that
# declares far more numbers than it has bytes was made to exhaust the memory.
_MAX_EXPANSION = 20
_ALWAYS_FINE = 2**26
_ARCHIVED_WEIGHTS = "model.weights.h5"
_ARCHIVED_CONFIG = "config.json"


# What h5py and zipfile raise for damaged files.
_SIGNS_OF_DAMAGE = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


class WeightsFileError(ValueError):
    """A file holds no weights, is damaged, or is unreasonable."""


@dataclass(frozen=True)
class StoredWeight:
    """A weight that is in an open file, described but not read yet.

    Attributes:
        name: Its name within the layer, such as 'kernel'; in Keras 3's files, which hold no names,
            its number in the order of `layer.weights`.
        dataset: The HDF5 data set.
        path: The file.
    """

    name: str
    dataset: h5py.Dataset
    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the file declares."""
        return tuple(self.dataset.shape)

    def read(self) -> np.ndarray:
        """Read the numbers; a `WeightsFileError` tells that they cannot be read."""
        with _damage_explained(self.path):
            values = np.asarray(self.dataset)
        # HDF5 has no such type: Keras writes raw bytes, and an attribute that says what they are.
        if self.dataset.attrs.get("dtype") == "bfloat16":
            values = values.view(ml_dtypes.bfloat16).astype(np.float32)
        return values


@dataclass(frozen=True)
class WeightsFile:
    """An open file of weights.

    Attributes:
        path: Where it lies.
        layers: {layer name: its weights in the order of `layer.weights`}, in the file's order;
            layers without weights are there, too.
        model_config: The JSON text that describes the model in a full model's file of Keras 1 or 2,
            else None.
        backend: The backend that an old file names, else None.
    """

    path: Path
    layers: dict[str, list[StoredWeight]]
    model_config: str | None = None
    backend: str | None = None

    def shapes(self) -> dict[str, list[tuple[int, ...]]]:
        """Return the shapes of the weights of all layers that have any."""
        return {
            name: [weight.shape for weight in weights]
            for name, weights in self.layers.items()
            if weights
        }


def read_weights_file(path: str | os.PathLike) -> dict[str, dict[str, np.ndarray]]:
    """Read all weights of a file: Keras 1 and 2 `.h5`, Keras 3 `.weights.h5` and `.keras`.

    Nothing in the file is executed, and no model is built.

    Arguments:
        path: The file; its kind is told by its content, not by its name.

    Returns:
        {layer name: {weight name: array}}, in the file's order, for layers with weights. Weight
        names are the file's own without the layer's, such as ``'kernel'`` and ``'bias'``. Keras 3
        writes no names: weights are ``'0'``, ``'1'``, ... in the order of `layer.weights`.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsFileError: if it holds no weights, is damaged or unreasonable.
    """
    with open_weights_file(path) as file:
        return {
            name: {weight.name: weight.read() for weight in weights}
            for name, weights in file.layers.items()
            if weights
        }


def read_saved_class_names(path: str | os.PathLike) -> list[str] | None:
    """Read the class names that a saved model carries, without building the model.

    Arguments:
        path: Any file.

    Returns:
        Names by class id, 'background' first; None if there are none in the file, as in files that
        hold weights only.

    Raises:
        WeightsFileError: if the file is a damaged `.keras` archive.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        return None
    with _damage_explained(path), zipfile.ZipFile(path) as archive:
        if _ARCHIVED_CONFIG not in archive.namelist():
            return None
        _check_declared_bytes(archive.getinfo(_ARCHIVED_CONFIG).file_size, path)
        model = dict(json.loads(archive.read(_ARCHIVED_CONFIG))["config"])
        for layer in model.get("layers", ()):
            if layer["class_name"] == "Predictions" and layer["config"]["class_names"] is not None:
                return [str(name) for name in layer["config"]["class_names"]]
    return None


@contextmanager
def open_weights_file(path: str | os.PathLike) -> Iterator[WeightsFile]:
    """Open a file of weights of any kind to look at it before reading the numbers.

    Arguments:
        path: The file; its kind is told by its content, not by its name.

    Yields:
        A `WeightsFile`, valid within the block.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsFileError: if it holds no weights, is damaged or unreasonable.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights '{path}'.")
    with ExitStack() as stack:
        with _damage_explained(path):
            root = stack.enter_context(_open_hdf5(path))
            file = _described(root, path)
            _check_size(file)
        yield file


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file leads to into one error that says so."""
    try:
        yield
    except WeightsFileError:
        raise
    except _SIGNS_OF_DAMAGE as error:
        raise WeightsFileError(
            f"'{path}' is damaged, perhaps cut off while it was copied or downloaded: {error}. "
            "Fetch it again."
        ) from error


@contextmanager
def _open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file, or the one inside of a `.keras` archive."""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as root:
            yield root
        return
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            start = stream.read(24)
        raise WeightsFileError(
            f"'{path}' is neither an HDF5 file (.h5) nor a .keras archive: it begins with {start}. "
            "If that is text, a download page or a pointer was saved instead of the file; if it "
            "is a .keras archive, it was cut off."
        )
    with zipfile.ZipFile(path) as archive:
        if _ARCHIVED_WEIGHTS not in archive.namelist():
            raise WeightsFileError(
                f"The archive '{path}' has no '{_ARCHIVED_WEIGHTS}' in it, so it is no .keras file "
                f"with weights; it has {archive.namelist()[:5]}."
            )
        _check_declared_bytes(archive.getinfo(_ARCHIVED_WEIGHTS).file_size, path)
        content = io.BytesIO(archive.read(_ARCHIVED_WEIGHTS))
    with h5py.File(content, "r") as root:
        yield root


def _described(root: h5py.File, path: Path) -> WeightsFile:
    """Recognise the kind of an HDF5 file and list its weights."""
    model_config = None
    group = root
    if "layer_names" not in root.attrs and "model_weights" in root:
        group = _member(root, "model_weights", path)
        model_config = root.attrs.get("model_config")
    names = _names(group, "layer_names")
    if names:
        backend = group.attrs.get("backend")
        layers = {name: _keras2_weights(group, name, path) for name in names}
        return WeightsFile(
            path,
            layers,
            model_config=None if model_config is None else _text(model_config),
            backend=None if backend is None else _text(backend),
        )
    if "layers" in root:
        layers: dict[str, list[StoredWeight]] = {}
        _collect_keras3_weights(_member(root, "layers", path), layers, path)
        return WeightsFile(path, layers)
    raise WeightsFileError(
        f"The HDF5 file '{path}' holds no Keras weights: expected the attribute 'layer_names' "
        f"(Keras 1 and 2) or the group 'layers' (Keras 3); it has {list(root)[:5]}."
    )


def _keras2_weights(group: h5py.Group, layer: str, path: Path) -> list[StoredWeight]:
    """List a layer's weights: data sets named `<layer>/<weight>:0` in the layer's group."""
    layer_group = _member(group, layer, path)
    return [
        StoredWeight(
            name.removeprefix(f"{layer}/").removesuffix(":0"),
            _dataset(layer_group, name, path),
            path,
        )
        for name in _names(layer_group, "weight_names")
    ]


def _collect_keras3_weights(
    group: h5py.Group, layers: dict[str, list[StoredWeight]], path: Path
) -> None:
    """List the weights of all groups `vars`, which say in an attribute what layer they belong to.

    The groups around them are named by class and number (`conv2d_3`).
    """
    for key in group:
        member = _member(group, key, path)
        if not isinstance(member, h5py.Group):
            continue
        if key != "vars":
            _collect_keras3_weights(member, layers, path)
            continue
        name = _text(member.attrs.get("name", group.name.rpartition("/")[2]))
        numbers = sorted((number for number in member if number.isdecimal()), key=int)
        weights = [StoredWeight(number, _dataset(member, number, path), path) for number in numbers]
        if layers.get(name) and weights:
            raise WeightsFileError(
                f"'{path}' has two layers named '{name}', so their weights cannot be told apart by "
                "name. Load the file with Keras itself."
            )
        layers[name] = layers.get(name) or weights


def _dataset(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """Return a data set of numbers that lies in this very file."""
    dataset = _member(group, name, path)
    where = f"Weight '{name}' in group '{group.name}' of '{path}'"
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise WeightsFileError(f"{where} is no array. The file is damaged.")
    if dataset.is_virtual or dataset.external:
        raise WeightsFileError(f"{where} refers to another file, which no weights file does.")
    is_bfloat16 = dataset.attrs.get("dtype") == "bfloat16" and dataset.dtype.itemsize == 2
    if dataset.dtype.kind not in "fiub" and not is_bfloat16:
        raise WeightsFileError(f"{where} must hold numbers; it has the type {dataset.dtype}.")
    return dataset


def _member(group: h5py.Group, name: str, path: Path) -> h5py.Group | h5py.Dataset:
    """Follow a path of group members, but no link that leaves the file or points elsewhere in it.

    A link into another file would let a downloaded file read any HDF5 file of the reader's.
    """
    member = group
    for part in name.split("/"):
        link = member.get(part, getlink=True) if isinstance(member, h5py.Group) else None
        if link is None:
            raise WeightsFileError(
                f"'{path}' lists '{name}' in group '{group.name}' but does not have it. The file "
                "is damaged."
            )
        if not isinstance(link, h5py.HardLink):
            raise WeightsFileError(
                f"'{path}' has a link in place of '{name}' in group '{group.name}', which no "
                "weights file does."
            )
        member = member[part]
    return member


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Read a list of names; Keras cuts long ones into `<attribute>0`, `<attribute>1`, ..."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    names, number = [], 0
    while f"{attribute}{number}" in group.attrs:
        names += [_text(name) for name in group.attrs[f"{attribute}{number}"]]
        number += 1
    return names


def _text(value: bytes | str) -> str:
    """Turn what h5py gives for a string, bytes in files of 2018, into a string."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _check_size(file: WeightsFile) -> None:
    weights = [weight for layer in file.layers.values() for weight in layer]
    _check_declared_bytes(sum(weight.dataset.nbytes for weight in weights), file.path)


def _check_declared_bytes(n_bytes: int, path: Path) -> None:
    size = path.stat().st_size
    if n_bytes > _ALWAYS_FINE + _MAX_EXPANSION * size:
        raise WeightsFileError(
            f"'{path}' declares {n_bytes / 1e6:.0f} MB of weights but is only {size / 1e6:.3f} MB "
            "large. It is damaged, or made to exhaust the memory."
        )
