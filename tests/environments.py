"""Other virtual environments beside `.venv`, for tests that compare with others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def python_of(environment: str) -> Path:
    """Return the Python of `.venv-<environment>`, or skip the test with a word."""
    folder = REPOSITORY / f".venv-{environment}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        pytest.skip(f"there is no {folder.name}: see tests/README.md")
    return python


def run_in(environment: str, script: str, *arguments: object) -> None:
    """Run a script of this folder with the Python of another environment."""
    command = [python_of(environment), REPOSITORY / "tests" / script, *arguments]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def site_packages(environment: str) -> Path:
    """Return the folder where the environment has its packages."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    command = [str(python_of(environment)), "-c", code]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
