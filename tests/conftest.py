"""Fixtures and paths that the whole test suite shares."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"

# Keep TensorFlow's start-up chatter out of the test report; set before anything imports it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# How long an example takes says more about what else the machine is doing than about the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def golden():
    """Return a loader: `golden("ssd_loss")` has `.info` (JSON) and `.arrays` (name -> array)."""
    cache = {}

    def load(topic: str) -> SimpleNamespace:
        if topic not in cache:
            info = json.loads((GOLDEN / f"{topic}.json").read_text(encoding="utf-8"))
            arrays = {}
            if (GOLDEN / f"{topic}.npz").exists():
                with np.load(GOLDEN / f"{topic}.npz", allow_pickle=False) as file:
                    arrays = {name: file[name] for name in file.files}
            cache[topic] = SimpleNamespace(info=info, arrays=arrays)
        return cache[topic]

    return load


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of recorded inputs and outputs (see its README)."""
    return GOLDEN


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images with real boxes (see tests/README.md), or a skip that says why."""
    named = os.environ.get("SSD_KERAS_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SSD_KERAS_DATA (see tests/README.md)")
    return folder
