"""Memory shared with workers: arrays lie in it, and keep it for as long as anybody sees them."""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from data_generator.batch_memory import NO_SLOT, SharedSlots, SlotWriter, aligned, unnamed_files

SIZE = 8192
posix = pytest.mark.skipif(os.name != "posix", reason="files cannot be handed on")
linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")


def make_slots(number: int = 1, size: int = SIZE) -> SharedSlots:
    with unnamed_files(number, size) as files:
        return SharedSlots(files, size)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def page_aligned_memory() -> np.ndarray:
    return np.frombuffer(mmap.mmap(-1, SIZE), np.uint8)


# ------------------------------------------------------------------ in a worker


@pytest.mark.parametrize(("n_bytes", "expected"), [(0, 0), (1, 64), (64, 64), (65, 128)])
def test_arrays_begin_at_multiples_of_64(n_bytes, expected):
    assert aligned(n_bytes) == expected


def test_arrays_are_made_in_the_slot_one_after_another():
    memory = page_aligned_memory()
    writer = SlotWriter(memory)
    arrays = [writer.empty((3, 5), np.uint8), writer.empty((2, 3), np.float32), writer.empty(7)]
    assert [address(array) - address(memory) for array in arrays] == [0, 64, 128]
    assert [array.dtype for array in arrays] == [np.uint8, np.float32, np.float64]
    assert [array.shape for array in arrays] == [(3, 5), (2, 3), (7,)]
    for i, array in enumerate(arrays):
        array[:] = i + 1
    assert [array.min() for array in arrays] == [array.max() for array in arrays] == [1, 2, 3]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((SIZE,), np.uint8), ((SIZE // 4,), np.float32), ((2,), object)],
    ids=["too large by 64 bytes", "too large", "pointers"],
)
def test_arrays_that_cannot_be_in_the_slot_are_made_elsewhere(shape, dtype):
    memory = page_aligned_memory()
    writer = SlotWriter(memory)
    writer.empty((1,), np.uint8)
    array = writer.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert not np.shares_memory(memory, array)
    assert np.shares_memory(memory, writer.empty((SIZE - 64,), np.uint8))  # what is left is free


def test_bytes_are_copied_to_the_slot_unless_they_are_there():
    memory = page_aligned_memory()
    writer = SlotWriter(memory)
    inside, outside = writer.empty((100,), np.uint8), np.arange(50, dtype=np.uint8)
    inside[:] = 7
    assert writer.place(outside) == (128, 178)
    assert writer.place(inside) == (0, 100)
    assert writer.place(inside[20:30]) == (20, 30)
    np.testing.assert_array_equal(memory[128:178], outside)
    assert (memory[:100] == 7).all()
    assert writer.place(np.zeros(SIZE - 192 + 1, np.uint8)) is None
    assert writer.place(np.ones(SIZE - 192, np.uint8)) == (192, SIZE)


def test_without_a_slot_there_is_no_room():
    writer = SlotWriter(NO_SLOT)
    assert writer.empty((3,), np.uint8).shape == (3,)
    assert writer.place(np.zeros(3, np.uint8)) is None


# ------------------------------------------------------------------ in the training process


@posix
def test_slots_are_taken_and_given_back():
    slots = make_slots(3)
    taken = [slots.take() for _ in range(4)]
    assert taken[3] is None
    assert sorted(taken[:3]) == [0, 1, 2]
    slots.give_back(1)
    assert slots.n_free == 1
    assert slots.take() == 1


@posix
def test_the_slot_that_was_in_use_last_is_taken_first():
    slots = make_slots(3)
    first, second = slots.take(), slots.take()
    slots.give_back(first)
    slots.give_back(second)
    assert slots.take() == second


@posix
def test_slots_do_not_overlap():
    slots = make_slots(3)
    for slot in range(3):
        slots.look(slot)[:] = slot + 1
    assert [slots.look(slot).min() for slot in range(3)] == [1, 2, 3]
    assert [slots.look(slot).max() for slot in range(3)] == [1, 2, 3]


VIEWS = {
    "itself": lambda array: array,
    "a part": lambda array: array[3:9],
    "a view of views": lambda array: array[1:].reshape(-1, 1).T[0][::2].view(np.int32),
    "one more dimension": lambda array: np.atleast_3d(array)[np.newaxis],
    "an iterator": lambda array: array.flat,
    "a memoryview": lambda array: memoryview(array)[2:4],
    "a structured view": lambda array: array[:8].view([("a", "f4"), ("b", "f4")])["b"],
    "strides": lambda array: np.lib.stride_tricks.sliding_window_view(array, 3),
    "broadcast": lambda array: np.broadcast_to(array, (2, *array.shape)),
    "a subclass": lambda array: array.view(np.recarray),
    "another buffer": lambda array: np.frombuffer(array, np.uint8)[5:],
    "dlpack": lambda array: np.from_dlpack(array),
    "a masked array": lambda array: np.ma.array(array, mask=False),
    "a list of rows": lambda array: list(array.reshape(2, -1)),
}


@posix
@pytest.mark.parametrize("make_view", VIEWS.values(), ids=VIEWS)
def test_a_view_of_whatever_kind_keeps_the_slot(make_view):
    slots = make_slots()
    slot = slots.take()
    array = slots.lend(slot)[64:576].view(np.float32)
    assert array.flags.writeable
    assert array.flags.aligned
    view = make_view(array)
    del array
    gc.collect()
    assert slots.take() is None
    del view
    gc.collect()
    assert slots.take() == slot


@posix
def test_copies_do_not_keep_the_slot():
    slots = make_slots()
    array = slots.lend(slots.take())
    array[:] = 3
    copies = [array.copy(), array + 0, pickle.loads(pickle.dumps(array[5:])), bytes(array)]
    del array
    slots.look(slots.take())[:] = 4
    for values in copies:
        assert set(np.frombuffer(values, np.uint8)) == {3}


@posix
def test_a_slot_is_given_back_from_any_thread():
    slots = make_slots()
    held = [slots.lend(slots.take())]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert slots.take() is not None


@posix
def test_arrays_outlive_the_slots_and_the_files():
    slots = make_slots(2)
    array = slots.lend(slots.take())[10:20]
    array[:] = 9
    del slots
    gc.collect()
    array += 1
    assert array.tolist() == [10] * 10


@linux
def test_memory_is_freed_slot_by_slot():
    def n_files() -> int:
        names = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.exists()]
        return sum("memfd:batch" in name for name in names)

    before = n_files()
    slots = make_slots(5)
    assert n_files() == before + 5
    kept = [slots.lend(slots.take()) for _ in range(2)]
    del slots
    gc.collect()
    assert n_files() == before + 2
    del kept
    gc.collect()
    assert n_files() == before


def test_where_processes_cannot_share_files_there_are_no_slots(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    with unnamed_files(3, SIZE) as files:
        assert files == []
        assert SharedSlots(files, SIZE).take() is None


@posix
def test_files_where_the_system_has_none_in_memory(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    slots = make_slots()
    assert list(tmp_path.iterdir()) == []
    array = slots.lend(slots.take())
    array[:] = 5
    assert array.sum() == 5 * SIZE
