"""How the suite is run: the same cases each time, and as many processes as there are cores for them."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

MOST_WORKERS = 4
"""More processes than this gain little: the longest file decides."""

# What a run of the suite finds depends on the code and on nothing else. `make nightly` tries new cases each time.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("new", database=None, deadline=None, max_examples=500, print_blob=True)
settings.load_profile("same")


@pytest.hookimpl(optionalhook=True)  # plain pytest does without that plugin
def pytest_xdist_auto_num_workers() -> int:
    """Give the number of processes for `-n auto`: one for each core that we may use; 0, which is none, on one core."""
    ours = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    cores = min(ours, allowed_cores(Path("/sys/fs/cgroup/cpu.max")), MOST_WORKERS)
    return cores if cores > 1 else 0


def allowed_cores(limit: Path) -> int:
    """Give how many whole cores a container may use, by the kernel's file; MOST_WORKERS where it states no limit."""
    try:
        quota, period = limit.read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError):  # no such file on other systems; "max" for no limit
        return MOST_WORKERS


@pytest.fixture(scope="session", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Look for what was never closed while there still is a test that can fail for it.

    pytest looks once more after the last test, but what it finds in another process then is told to nobody.
    """
    yield
    for _ in range(5):  # what is freed may free more
        gc.collect()
