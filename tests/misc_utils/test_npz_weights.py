"""NumPy's archives of weights: read, and refused if they are damaged or hostile."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from misc_utils.npz_weights import read_npz_weights
from misc_utils.weights_file import WeightsFileError

KERNEL = np.arange(6, dtype=np.float16).reshape(2, 3)


def write_archive(path: Path, members: dict[str, bytes], compression: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def test_arrays_are_grouped_by_layer(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **{"a/kernel": KERNEL, "a/bias": KERNEL[0], "b/c/kernel": KERNEL})
    layers = read_npz_weights(path)
    assert {layer: list(arrays) for layer, arrays in layers.items()} == {
        "a": ["kernel", "bias"],
        "b/c": ["kernel"],
    }
    np.testing.assert_array_equal(layers["a"]["kernel"], KERNEL)
    assert layers["a"]["kernel"].dtype == np.float16


@pytest.mark.parametrize(
    ("members", "compression", "message"),
    [
        ({"a/kernel.npy": npy(KERNEL)[:-4]}, 0, "declares"),
        ({"a/kernel.npy": npy(KERNEL).replace(b"(2, 3)", b"(9**9)")}, 0, "cannot be read"),
        ({"a/kernel.npy": npy(KERNEL).replace(b"(2, 3), }  ", b"(2, 9999)} ")}, 0, "declares"),
        ({"a/kernel.npy": b"no array"}, 0, "cannot be read"),
        ({"a/kernel.npy": b""}, 0, "cannot be read"),
        ({"a/kernel.npy": npy(np.array([{}], dtype=object), True)}, 0, "floating point"),
        ({"a/kernel.npy": npy(np.array(["text"]))}, 0, "floating point"),
        ({"a/kernel.npy": npy(np.arange(3))}, 0, "floating point"),
        ({"kernel.npy": npy(KERNEL)}, 0, "<layer>/<weight>"),
        ({"a/kernel.npy": npy(np.zeros(2**26, dtype=np.float16))}, 8, "exhaust the memory"),
    ],
)
def test_a_hostile_archive_is_one_clear_error(tmp_path, members, compression, message):
    path = write_archive(tmp_path / "x.npz", members, compression)
    with pytest.raises(WeightsFileError, match=message):
        read_npz_weights(path)


def test_no_archive_and_no_file_are_clear_errors(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"<html>")
    with pytest.raises(WeightsFileError, match="cannot be read"):
        read_npz_weights(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_npz_weights(tmp_path / "nowhere.npz")


@given(data=st.data())
def test_damage_never_leads_to_any_other_error(tmp_path_factory, data):
    stream = io.BytesIO()
    np.savez_compressed(stream, **{"a/kernel": KERNEL, "a/bias": KERNEL[0]})
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.npz"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    with contextlib.suppress(WeightsFileError):
        read_npz_weights(path)
