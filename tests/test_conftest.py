"""How the suite is run: as many processes as cores, and nothing that is left open goes unnoticed in any of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest
from tests.conftest import MOST_WORKERS, allowed_cores, pytest_xdist_auto_num_workers

ROOT = Path(__file__).parent.parent

LEAK = """
import socket

class Holder:
    pass

def test_a_socket_is_left_in_a_circle():
    holder = Holder()
    holder.itself, holder.socket = holder, socket.socket()
"""


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", MOST_WORKERS), ("200000 100000\n", 2), ("150000 100000\n", 1), ("50000 100000\n", 0),
     ("", MOST_WORKERS), (None, MOST_WORKERS)],
)  # fmt: skip
def test_a_containers_limit_is_read_in_whole_cores(tmp_path: Path, text: str | None, cores: int) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert allowed_cores(tmp_path / "cpu.max") == cores


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot be held to some cores")
@pytest.mark.parametrize(
    ("ours", "allowed", "workers"), [(1, 4, 0), (2, 4, 2), (64, 4, MOST_WORKERS), (8, 1, 0), (8, 0, 0), (2, 3, 2)]
)
def test_there_is_a_process_for_each_core_and_none_beside_the_only_one(
    monkeypatch: pytest.MonkeyPatch, ours: int, allowed: int, workers: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(ours)))
    monkeypatch.setattr(conftest, "allowed_cores", lambda limit: allowed)
    assert pytest_xdist_auto_num_workers() == workers


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_a_test_leaves_open_fails_the_run_in_any_process(tmp_path: Path, workers: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "tests" / "test_leak.py").write_text(LEAK)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", workers, "-p", "no:cacheprovider"],
        cwd=tmp_path, stdout=subprocess.PIPE, timeout=100,
    )  # fmt: skip
    assert ended.returncode == 1
    assert b"1 passed, 1 error" in ended.stdout
    assert b"ResourceWarning" in ended.stdout
