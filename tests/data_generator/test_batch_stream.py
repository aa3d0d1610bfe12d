"""Batches from workers: the same as without, and no trouble when something goes wrong."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from data_generator.batch_generation import RETURNS, BatchMaker
from data_generator.batch_stream import BatchStream
from data_generator.batch_worker import Request, make_reply, unpack
from data_generator.data_augmentation_chain_constant_input_size import (
    DataAugmentationConstantInputSize,
)
from data_generator.epoch_batches import EpochBatches
from data_generator.object_detection_2d_data_generator import DataGenerator
from data_generator.worker_pool import LENT_BATCHES, ProcessPool, WorkerError
from ssd_encoder_decoder.ssd_input_encoder import SSDInputEncoder
from tests.data_generator import feed_parts
from tests.data_generator.feed_parts import Encoder, Noise, write_images

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = pytest.mark.parametrize(
    ("workers", "use_processes"),
    [(1, True), (2, True), (3, False)],
    ids=["one process", "two processes", "three threads"],
)


@pytest.fixture
def dataset(tmp_path) -> DataGenerator:
    return write_images(tmp_path)


def make_batches(dataset, transformations=(), shuffle=True, **options) -> EpochBatches:
    maker = BatchMaker(dataset, transformations, Encoder(), **{"seed": 5, **options})
    return EpochBatches(maker, 4, shuffle)


@contextlib.contextmanager
def stream_of(dataset, transformations=(), workers=2, use_processes=True, **options):
    stream = BatchStream(make_batches(dataset, transformations, **options), workers, use_processes)
    try:
        yield stream
    finally:
        stream.close()


def assert_same(batch, expected):
    for part, wanted in zip(batch, expected, strict=True):
        np.testing.assert_array_equal(part, wanted)
        assert part.dtype == wanted.dtype


def is_running(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_until_gone(pids, seconds=10.0) -> bool:
    end = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(is_running(pid) for pid in pids)


def children() -> set[int]:
    """Return the processes that this one has started and that are still running."""
    folder = Path(f"/proc/{os.getpid()}/task")
    found = " ".join((task / "children").read_text() for task in folder.iterdir())
    return {int(pid) for pid in found.split() if is_running(int(pid))}


posix = pytest.mark.skipif(os.name != "posix", reason="processes cannot share memory")
linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")

# ------------------------------------------------------------------ the batches


@KINDS
@pytest.mark.parametrize("shuffle", [True, False])
def test_workers_change_nothing(dataset, workers, use_processes, shuffle):
    expected = make_batches(dataset, [Noise()], shuffle)
    with stream_of(dataset, [Noise()], workers, use_processes, shuffle=shuffle) as stream:
        for epoch in range(3):
            for number in range(3):
                assert (stream.epoch, stream.number) == (epoch, number)
                assert_same(stream.take(), expected.batch(epoch, number))


def test_workers_change_nothing_in_a_real_chain(real_data):
    folder = real_data / "road_signs"
    dataset = DataGenerator()
    dataset.parse_xml(
        [folder / "JPEGImages"],
        [folder / "ImageSets/Main/val.txt"],
        [folder / "Annotations"],
        classes=["background", *(folder / "classes.txt").read_text().split()],
        verbose=False,
    )
    dataset = dataset.subset([i for i in range(40) if dataset.get_image(i).shape[:2] == (400, 300)])
    chain = [DataAugmentationConstantInputSize()]
    expected = make_batches(dataset, chain)
    with stream_of(dataset, chain) as stream:
        for number in range(3):
            assert_same(stream.take(), expected.batch(0, number))


def test_a_stream_can_begin_with_any_epoch_and_go_back_to_its_beginning(dataset):
    stream = BatchStream(make_batches(dataset, [Noise()]), workers=1, epoch=7)
    expected = make_batches(dataset, [Noise()])
    assert_same(stream.take(), expected.batch(7, 0))
    assert_same(stream.take(), expected.batch(7, 1))
    stream.rewind()
    assert_same(stream.take(), expected.batch(7, 0))
    assert_same(stream.take(), expected.batch(7, 1))
    stream.close()
    assert_same(stream.take(), expected.batch(7, 2))  # workers start again
    stream.close()


@pytest.mark.parametrize(
    ("workers", "use_processes", "n_kept"),
    [(1, True, 40), (2, True, 1), (2, True, 4), (3, False, 4)],  # 40: more than there are slots
)
def test_batches_belong_to_the_caller(dataset, workers, use_processes, n_kept):
    expected = make_batches(dataset, [Noise()])
    with stream_of(dataset, [Noise()], workers, use_processes) as stream:
        kept = deque()
        for i in range(45):
            kept.append(stream.take())
            for part in kept[-1]:
                part += 1  # not read-only
            if len(kept) == n_kept:
                first = kept.popleft()
                for part in first:
                    part -= 1
                assert_same(first, expected.batch(*divmod(i + 1 - n_kept, 3)))


def test_batches_are_still_there_when_the_workers_are_not(dataset):
    expected = make_batches(dataset, [Noise()])
    stream = BatchStream(make_batches(dataset, [Noise()]), workers=1)
    kept = [stream.take() for _ in range(4)]
    stream.close()
    del stream
    gc.collect()
    for i, batch in enumerate(kept):
        assert_same(batch, expected.batch(*divmod(i, 3)))


@posix
def test_what_is_handed_out_is_the_memory_that_the_worker_wrote_to(dataset):
    pool = ProcessPool(make_batches(dataset, [Noise()]), 1, batch_bytes=10_000)
    slots = pool._slots
    for number in range(3):
        pool.request(0, number)
    numbers = [request.slot for request in pool._requests]
    for number in numbers:
        images, targets = pool.receive()
        assert np.shares_memory(images, slots.look(number))
        assert np.shares_memory(targets, slots.look(number))
    pool.close()


@posix
def test_a_request_always_finds_a_slot(dataset):
    pool = ProcessPool(make_batches(dataset), 1, batch_bytes=10_000)
    kept, n_lent = [], 0
    for i in range(LENT_BATCHES + 5):
        pool.request(0, i % 3)
        pool.request(0, i % 3)
        slots = [request.slot for request in pool._requests]
        assert None not in slots
        for slot in slots:
            kept.append(pool.receive())
            n_lent += np.shares_memory(kept[-1][0], pool._slots.look(slot))
    assert n_lent == LENT_BATCHES
    kept.clear()  # then lending begins again
    for number in range(2):
        pool.request(0, number)
        slot = pool._requests[0].slot
        assert np.shares_memory(pool.receive()[0], pool._slots.look(slot))
    pool.close()


@posix
def test_batches_larger_than_expected_come_too(dataset):
    batches = make_batches(dataset, [Noise()])
    for batch_bytes in (10, 3840):  # no room at all; room for the images only
        pool = ProcessPool(batches, 1, batch_bytes)
        pool.request(0, 1)
        assert_same(pool.receive(), make_batches(dataset, [Noise()]).batch(0, 1))
        pool.close()


def test_without_shared_memory_batches_come_through_the_pipe(dataset, monkeypatch):
    monkeypatch.setattr("data_generator.worker_pool.unnamed_files", no_files)
    expected = make_batches(dataset, [Noise()])
    with stream_of(dataset, [Noise()]) as stream:
        for i in range(6):
            batch = stream.take()
            assert_same(batch, expected.batch(*divmod(i, 3)))
            for part in batch:
                part += 1


@contextlib.contextmanager
def no_files(number, size):
    yield []


@pytest.mark.parametrize(
    ("size", "in_slot"), [(0, [False] * 2), (80, [False, True]), (3840, [True, False])]
)
@pytest.mark.parametrize("copy", [True, False])
def test_packing_and_unpacking(dataset, size, in_slot, copy):
    batches = make_batches(dataset)
    slot = np.zeros(size, np.uint8)
    reply = make_reply(batches, Request(1, 0, 0), slot)
    assert [isinstance(place, tuple) for place in reply.arrays] == in_slot
    batch = unpack(reply, slot, copy)
    assert_same(batch, batches.batch(1, 0))
    shared = [np.shares_memory(part, slot) for part in batch]
    assert shared == ([False] * 2 if copy else in_slot)


def test_all_that_a_batch_can_be_made_of_is_packed(dataset):
    dataset.labels[1] = []  # an array without a byte
    encoder = SSDInputEncoder(16, 20, 2, predictor_sizes=[(2, 2)])
    maker = BatchMaker(dataset, [], encoder, RETURNS, keep_images_without_gt=True, seed=5)
    batches = EpochBatches(maker, 4, shuffle=False)
    for size in (0, 100, 100_000):
        slot = np.zeros(size, np.uint8)
        found = unpack(make_reply(batches, Request(0, 0, 0), slot), slot, copy=False)
        np.testing.assert_equal(found, batches.batch(0, 0))


def test_the_encoder_makes_its_targets_in_the_slot(dataset):
    encoder = SSDInputEncoder(16, 20, 2, predictor_sizes=[(2, 2)])
    maker = BatchMaker(dataset, [], encoder, seed=5)
    batches = EpochBatches(maker, 4)
    made = []

    def empty(shape, dtype):
        made.append(np.empty(shape, dtype))
        return made[-1]

    images, targets = batches.batch(0, 0, empty)
    assert {id(array) for array in made} == {id(images), id(targets)}
    assert_same((images, targets), batches.batch(0, 0))


def test_hdf5_files_are_opened_in_every_worker(dataset, tmp_path):
    plain = make_batches(dataset, [Noise()])
    expected = [plain.batch(0, number) for number in range(3)]
    dataset.create_hdf5_dataset(tmp_path / "cache.h5", verbose=False)
    cached = DataGenerator(hdf5_dataset_path=tmp_path / "cache.h5", verbose=False)
    for source in (dataset, cached):
        with stream_of(source, [Noise()]) as stream:
            for batch in expected:
                assert_same(stream.take(), batch)


# ------------------------------------------------------------------ what workers have to tell


def test_workers_load_no_framework(dataset):
    with stream_of(dataset, [feed_parts.TellModules()]) as stream:
        for _ in range(5):
            stream.take()


@KINDS
def test_skipped_images_are_known_here(dataset, workers, use_processes):
    for i in (3, 6):
        Path(dataset.filenames[i]).write_bytes(b"no image")
    with stream_of(
        dataset, [], workers, use_processes, shuffle=False, on_image_error="skip"
    ) as stream:
        sizes = [len(stream.take()[0]) for _ in range(3)]
    assert sizes == [3, 3, 2]
    assert set(dataset.skipped_images) == {dataset.filenames[i] for i in (3, 6)}
    assert "not an image" in dataset.skipped_images[dataset.filenames[6]]


def test_warnings_are_given_here(dataset):
    with stream_of(dataset, [feed_parts.Warn(number=5)], workers=1, shuffle=False) as stream:
        stream.take()
        with pytest.warns(UserWarning, match="look at this"):
            stream.take()


def test_printing_does_no_harm(dataset, capfd):
    with stream_of(dataset, [feed_parts.Print()], workers=1) as stream:
        for _ in range(3):
            stream.take()
    assert "chatter" in capfd.readouterr().err


# ------------------------------------------------------------------ when something goes wrong


def test_exceptions_come_with_file_and_traceback(dataset):
    with stream_of(dataset, [feed_parts.Fail(number=5)], shuffle=False) as stream:
        stream.take()
        with pytest.raises(ZeroDivisionError, match="no such luck") as caught:
            stream.take()
        text = "\n".join(caught.value.__notes__)
        assert "in act" in text  # the line in the worker
        assert f"While transforming {dataset.filenames[5]}" in text
        assert (stream.epoch, stream.number) == (0, 1)
        assert len(stream.take()[0]) == 4  # asked for again, it is made here


def test_exceptions_that_cannot_be_sent(dataset):
    with stream_of(dataset, [feed_parts.FailUnpicklably()], workers=1) as stream:
        stream.take()
        with pytest.raises(RuntimeError, match=r"UnpicklableError: this and that"):
            stream.take()


@pytest.mark.parametrize(
    ("transformation", "how"),
    [(feed_parts.Die, "was killed by signal 9"), (feed_parts.Exit, "ended with exit code 7")],
)
def test_a_worker_that_dies_is_no_reason_to_wait(dataset, transformation, how):
    with stream_of(dataset, [transformation(number=9)], shuffle=False) as stream:
        stream.take()
        stream.take()
        with pytest.raises(WorkerError, match=rf"{how} while it was to make batch 2 of epoch 0"):
            stream.take()
        assert len(stream.take()[0]) == 2  # made here, before new workers start


def test_a_worker_that_dies_between_batches(dataset):
    with stream_of(dataset, workers=1) as stream:
        before = children()
        stream.take()
        stream.take()
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="was killed by signal 9"):
            list(iter(stream.take, None))


@pytest.mark.parametrize(
    ("transformation", "message"),
    [
        (lambda image, labels: (image, labels), "cannot be sent to worker processes: .*lambda"),
        (
            type("Script", (), {"__module__": "__main__", "__call__": Noise.__call__})(),
            "Script is defined in the script or notebook itself",
        ),
    ],
    ids=["lambda", "from the script"],
)
def test_what_cannot_be_sent_is_refused_at_once(dataset, transformation, message):
    with pytest.raises(ValueError, match=message) as caught:
        BatchStream(make_batches(dataset, [transformation]), workers=1)
    assert "use_multiprocessing=False" in str(caught.value)
    BatchStream(make_batches(dataset, [transformation]), workers=1, use_processes=False)


def test_number_of_workers(dataset):
    with pytest.raises(ValueError, match="workers must be 0 or more, got -1"):
        BatchStream(make_batches(dataset), workers=-1)


# ------------------------------------------------------------------ nobody is left behind


@linux
@pytest.mark.parametrize("way", ["close", "garbage", "exception"])
def test_processes_end(dataset, way):
    before = children()
    stream = BatchStream(make_batches(dataset, [feed_parts.Fail(number=9)], False), workers=2)
    stream.take()
    stream.take()
    started = children() - before
    assert len(started) == 2
    if way == "close":
        stream.close()
    elif way == "garbage":
        del stream
        gc.collect()
    else:
        with pytest.raises(ZeroDivisionError):
            stream.take()
    assert wait_until_gone(started, seconds=1)


# No `if __name__ == "__main__"`: workers do not run the script.
SCRIPT = """
import signal, sys
from pathlib import Path
from tests.data_generator.feed_parts import Encoder, write_images
from tests.data_generator.test_batch_stream import BatchStream, children, make_batches
# As in a terminal: where the tests run in the background of a shell, SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("run", flush=True)
stream = BatchStream(make_batches(write_images(Path(sys.argv[1]))), workers=2)
for _ in range(3):
    stream.take()
print(*children(), flush=True)
if sys.argv[2] == "wait":
    while True:
        stream.take()
"""


def start_script(folder: Path, then: str) -> tuple[subprocess.Popen, list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), then],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "run\n"
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    return process, workers


@linux
def test_processes_end_with_the_script(tmp_path):
    process, workers = start_script(tmp_path, "end")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")
    assert wait_until_gone(workers, seconds=1)


@linux
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_a_script_that_is_stopped(tmp_path, how):
    process, workers = start_script(tmp_path, "wait")
    os.killpg(process.pid, how)  # as Ctrl-C does: all processes of the terminal's group
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()  # a test that fails leaves no process behind, either
    assert wait_until_gone(workers)
    # One traceback, of the script; none of the workers.
    assert errors.count("KeyboardInterrupt") == (1 if how == signal.SIGINT else 0), errors


@linux
@pytest.mark.slow
@KINDS
def test_memory_does_not_grow(dataset, workers, use_processes):
    def resident_megabytes() -> float:
        pids = [os.getpid(), *children()]
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    with stream_of(dataset, [Noise()], workers, use_processes) as stream:
        for _ in range(100):
            stream.take()
        before = resident_megabytes()
        for _ in range(2000):
            stream.take()
        assert resident_megabytes() - before < 50
