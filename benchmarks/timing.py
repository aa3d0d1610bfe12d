"""How all benchmarks time a function."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repetitions: int) -> list[float]:
    """Return the time of each of several calls, after one call for warming up."""
    work()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times
