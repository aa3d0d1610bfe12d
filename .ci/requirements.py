"""Print what the installed ssd-keras requires of a backend other than TensorFlow, one a line.

    python .ci/requirements.py jax test > requirements.txt  # after pip install --no-deps .

setup.py stays the one place that lists requirements; pip alone would install TensorFlow, too.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires


def requirements(extras: list[str]) -> list[str]:
    """Return the project's requirements and those of some extras, all but TensorFlow."""
    selected = []
    for line in requires("ssd-keras"):
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
        if requirement.startswith("tensorflow") or (extra and extra[1] not in extras):
            continue
        selected.append(requirement.strip())
    return selected


if __name__ == "__main__":
    print(*requirements(sys.argv[1:]), sep="\n")
