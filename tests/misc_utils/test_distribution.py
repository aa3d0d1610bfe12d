"""Several devices: the same loss, metrics and steps as on one; errors; processes that die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from misc_utils.detection import detect
from misc_utils.distribution import KINDS, Devices, distribution
from models.keras_ssd7 import build_model
from tests.data_generator.feed_parts import Encoder, Noise, write_images

REPOSITORY = Path(__file__).resolve().parents[2]
BACKEND = keras.backend.backend()
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")
ENGINES = {"tensorflow": "mirrored", "jax": "data_parallel"}


# --- the same loss and the same steps -----------------------------------------------------------


def train_on(n_devices: int, folder: Path) -> dict[str, np.ndarray]:
    """Train in a process that has so many devices; return {case/number of devices/name: values}."""
    if BACKEND not in ENGINES:
        pytest.skip(f"one device only on {BACKEND}")
    module = "tests.misc_utils.distributed_steps"
    flags = f"--xla_force_host_platform_device_count={n_devices}" if BACKEND == "jax" else ""
    result = subprocess.run(
        [sys.executable, "-m", module, ENGINES[BACKEND], folder / "results.npz", str(n_devices)],
        env={**os.environ, "XLA_FLAGS": flags},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    with np.load(folder / "results.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("n_devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_devices_do_what_one_does(n_devices, tmp_path):
    # The first half of the images of a batch, and with it the first device, has no positives.
    results = train_on(n_devices, tmp_path)
    names = [name for name in results if "/1/" in name]
    expected = {"loss", "val_loss", "n_positive", "weight 0", "moving_mean", "moving_variance"}
    assert expected <= {name.split("/")[-1] for name in names}
    for name in names:
        several = results[name.replace("/1/", f"/{n_devices}/")]
        np.testing.assert_allclose(several, results[name], rtol=1e-5, atol=1e-6, err_msg=name)


# --- what cannot be, and why --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "n_devices", "fits", "does_not"),
    [
        ("none", 1, [1, 7], []),
        ("mirrored", 2, [2, 3, 8], [0, 1]),
        ("mirrored", 4, [4, 7, 8, 10], [3, 5, 6, 9]),  # 6: 2, 2, 2, 0; 9: 3, 3, 3, 0
        ("multi_worker", 3, [3, 5, 6, 7], [2, 4]),
        ("data_parallel", 4, [4, 8], [2, 6, 7]),
    ],
)
def test_batches_that_devices_can_share(kind, n_devices, fits, does_not):
    devices = Devices(kind, n_devices)
    for n_images in fits:
        devices.check_batch(n_images)
    for n_images in does_not:
        with pytest.raises(ValueError, match=f"{n_images} images.*{kind}.*full_batches"):
            devices.check_batch(n_images)


class TwoBatches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.zeros((4 - index, 5)), np.zeros(4 - index)

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


def test_data_sets_are_checked_batch_by_batch():
    data = TwoBatches()
    batches = Devices("data_parallel", 2).batches(data)
    assert batches.num_batches == 2
    assert len(batches[0][0]) == 4
    with pytest.raises(ValueError, match="3 images"):
        batches[1]
    batches.on_epoch_begin()
    batches.on_epoch_end()
    assert data.calls == ["begin", "end"]
    assert Devices("data_parallel", 1).batches(data) is data


def test_without_distribution_nothing_changes():
    data = TwoBatches()
    with distribution() as devices, devices.scope():
        assert devices == Devices("none", 1, 0, 1)
        assert devices.is_chief
        assert devices.batches(data) is data
        assert devices.batches(data, training=False) is data


@pytest.mark.parametrize("kind", KINDS[1:])
def test_engines_of_another_backend(kind):
    backend = "jax" if kind == "data_parallel" else "tensorflow"
    if backend == BACKEND:
        pytest.skip("this is the backend")
    cures = {"tensorflow": "use 'mirrored' or 'multi_worker'", "jax": "use 'data_parallel'"}
    with (
        pytest.raises(ValueError, match=cures.get(BACKEND, "trains on one device")) as error,
        distribution(kind),
    ):
        pass
    assert f"KERAS_BACKEND={backend}" in str(error.value)


def test_kinds_that_do_not_exist():
    with pytest.raises(ValueError, match="`kind` must be one of none, mirrored"), distribution("x"):
        pass


@ON_TENSORFLOW
def test_several_processes_must_be_named(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="TF_CONFIG"), distribution("multi_worker"):
        pass
    with pytest.raises(ValueError, match="all devices"), distribution("multi_worker", ["GPU:0"]):
        pass


# --- batches by number --------------------------------------------------------------------------


def test_no_batch_gets_lost(tmp_path):
    generator = write_images(tmp_path)
    options = {"transformations": [Noise()], "label_encoder": Encoder(), "seed": 5}
    devices = Devices("mirrored", 2, strategy="stands for one")
    given = devices.batches(generator.to_pydataset(4, **options, start_epoch=1))
    assert given.num_batches is None
    # Looks at the first ones, before and after training has begun.
    order = [0, 1, 0, 1, 2, 0, 1, 2, 3, 4, 2, 5, 6]
    got = [given[index] for index in order]

    expected = {}
    for epoch in (1, 2, 3):
        data = generator.to_pydataset(4, **options, start_epoch=epoch)
        expected |= {len(expected) + i: batch for i, batch in enumerate(data)}
    for index, batch in zip(order, got, strict=True):
        for part, wanted in zip(batch, expected[index], strict=True):
            np.testing.assert_array_equal(part, wanted, err_msg=str(index))


def test_validation_data_have_an_end(tmp_path):
    generator = write_images(tmp_path)
    options = {"transformations": [Noise()], "label_encoder": Encoder(), "seed": 5}
    data = generator.to_pydataset(9, **options, shuffle=False)
    given = Devices("mirrored", 2, strategy="stands for one").batches(data, training=False)
    assert given.num_batches == 2
    expected = list(data)
    for index in (0, 0, 1, 0, 1):
        np.testing.assert_array_equal(given[index][0], expected[index][0])
    assert len(given[1][0]) == 1  # TensorFlow evaluates with a device that has no image


@ON_TENSORFLOW
def test_detecting_with_a_model_on_several_devices(monkeypatch):
    model, _ = build_model((64, 64, 3), n_classes=2, return_predictor_sizes=True)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    expected = detect(model, images, confidence_thresh=0.3)
    predict = model.predict_on_batch

    def predict_on_each_of_two_devices(batch):
        return np.concatenate([predict(batch), predict(batch)])  # what Keras does

    monkeypatch.setattr(model, "predict_on_batch", predict_on_each_of_two_devices)
    for rows, wanted in zip(detect(model, images, confidence_thresh=0.3), expected, strict=True):
        np.testing.assert_array_equal(rows, wanted)


# --- several processes --------------------------------------------------------------------------


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def train_in_two_processes(folder: Path, dies_in: int = -1) -> list[tuple[int, str]]:
    """Return exit status and errors of both processes; all are gone then."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    command = [sys.executable, "-m", "tests.misc_utils.distributed_workers", "multi_worker"]
    processes = []
    try:
        for index in range(2):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": workers}, "task": task})
            processes.append(
                subprocess.Popen(
                    [*command, folder, str(dies_in)],
                    env={**os.environ, "TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"},
                    cwd=REPOSITORY,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    statuses = [process.returncode for process in processes]
    return [(status, error[-3000:]) for status, error in zip(statuses, errors, strict=True)]


def results_in(folder: Path, first_epoch: int = 0) -> dict[str, np.ndarray]:
    with np.load(folder / f"from {first_epoch}.npz") as file:
        return {name: file[name] for name in file.files}


@ON_TENSORFLOW
@pytest.mark.slow
def test_two_processes_do_what_one_does_and_go_on_after_one_died(tmp_path):
    one, two, died = (tmp_path / name for name in ("one", "two", "died"))
    command = [sys.executable, "-m", "tests.misc_utils.distributed_workers", "none", one, "-1"]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    for status, error in train_in_two_processes(two):
        assert status == 0, error
    alone, together = results_in(one), results_in(two)
    assert alone.keys() == together.keys()
    for name, values in alone.items():
        np.testing.assert_allclose(together[name], values, rtol=1e-4, atol=1e-5, err_msg=name)

    (chief, error), (killed, _) = train_in_two_processes(died, dies_in=1)
    assert killed == -signal.SIGKILL
    assert chief not in (0, None), "the chief went on without the other"
    assert [path.name for path in (died / "checkpoints").iterdir()] == ["checkpoint-000001"]
    for status, error in train_in_two_processes(died):
        assert status == 0, error
    for name, values in results_in(died, first_epoch=1).items():
        wanted = together[name] if name.isdigit() else together[name][1:]  # weights; epochs
        np.testing.assert_array_equal(values, wanted, err_msg=name)
