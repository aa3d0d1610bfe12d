"""Pickled lists: plain values come back, and a pickle that wants to run code does not get to."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from data_generator.detection_dataset import DetectionDataset
from data_generator.errors import AnnotationError
from data_generator.plain_pickle import load_plain_pickle

ARRAY = np.array([[1, 2, 3, 40, 50], [2, 0, 0, 5, 5]])
PLAIN = [
    ["a.jpg", "ü/猫.png"],
    ("a", 7, 1.5, None, True, b"bytes\xff"),
    [[[1, 2, 3, 4, 5]], []],
    {"a": {1, 2}, "b": frozenset([3])},
    [ARRAY, ARRAY.astype(np.float32), np.zeros((0, 5)), ARRAY.T, np.array(["x"], object)],
    [np.int64(3), np.float32(1.5), np.bool_(True), np.str_("id")],
]


@pytest.fixture
def saved(tmp_path):
    def save(content, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
        data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
        (tmp_path / "list.pkl").write_bytes(data)
        return tmp_path / "list.pkl"

    return save


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_come_back(saved, content, protocol):
    loaded = load_plain_pickle(saved(content, protocol))
    assert type(loaded) is type(content)
    if isinstance(content, dict):
        assert loaded == content
        return
    for found, expected in zip(loaded, content, strict=True):
        assert type(found) is type(expected)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_numpy_1_and_2(saved, protocol):
    """NumPy 1 has its parts in `numpy.core`, NumPy 2 in `numpy._core`."""
    new = pickle.dumps([ARRAY, np.float32(2)], protocol)
    assert b"numpy._core" in new
    # The length of a name stands before it in protocol 4 and later: one byte less.
    old = new
    for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        shorter = name.replace(b"_core", b"core")
        old = old.replace(b"\x8c" + bytes([len(name)]) + name, b"\x8c%c" % len(shorter) + shorter)
        old = old.replace(b"c" + name + b"\n", b"c" + shorter + b"\n")
    if protocol >= 4:  # without frames, whose length would be wrong now
        old = old[:2] + old[11:]
    assert b"numpy._core" not in old
    for data in (new, old):
        loaded = load_plain_pickle(saved(data))
        np.testing.assert_array_equal(loaded[0], ARRAY)
        assert loaded[1] == np.float32(2)


def test_paths_become_strings(saved):
    assert load_plain_pickle(saved([Path("a/b.jpg"), Path("/c.jpg")])) == ["a/b.jpg", "/c.jpg"]


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("made-by-the-pickle",)


class Encodes:
    def __reduce__(self):
        import codecs

        return codecs.encode, (b"text", "zlib_codec")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_not_run(saved, tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    path = saved([RunsCode()], protocol)
    with pytest.raises(AnnotationError, match=r"list.pkl: the pickle asks for posix\.mkdir, and w"):
        load_plain_pickle(path)
    assert not (tmp_path / "made-by-the-pickle").exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cbuiltins\neval\n(S'1+1'\ntR.", "builtins.eval"),
        (b"c__builtin__\ngetattr\n.", "builtins.getattr"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "numpy._core.multiarray.fromfile"),
        ([OrderedDict()], "collections.OrderedDict"),
        ([Encodes()], "_codecs.encode"),
    ],
)
def test_everything_else_is_refused(saved, content, name):
    with pytest.raises(AnnotationError, match=f"asks for {name}.*Write the list with save_dataset"):
        load_plain_pickle(saved(content))


def test_damaged_files(saved, tmp_path):
    data = pickle.dumps(PLAIN[4])
    for content in (b"", b"text", b"\x80\x63", data[:-20], data[:5]):
        with pytest.raises(AnnotationError, match="list.pkl: not a pickle, or a damaged one"):
            load_plain_pickle(saved(content))
    with pytest.raises(AnnotationError, match="none.pkl: cannot read the pickle"):
        load_plain_pickle(tmp_path / "none.pkl")


def test_random_bytes_raise_nothing_else(saved):
    rng = np.random.default_rng(0)
    data = pickle.dumps(PLAIN, 2)
    n_refused = 0
    for _ in range(300):
        broken = bytearray(data)
        for position in rng.integers(len(data), size=3):
            broken[position] = rng.integers(256)
        try:
            load_plain_pickle(saved(bytes(broken)))
        except AnnotationError:
            n_refused += 1
    assert n_refused > 30


@pytest.mark.parametrize("name", ["filenames", "labels", "image_ids", "eval_neutral"])
def test_data_sets_refuse_code_too(saved, name):
    path = str(saved([RunsCode()]))
    with pytest.raises(AnnotationError, match="the pickle asks for"):
        DetectionDataset(**{name: path}, filenames_type="pickle")
