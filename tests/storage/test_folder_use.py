"""Who has a data folder open: many together, or one alone."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chat2api.errors import StorageError
from chat2api.storage.folder_use import LOCK_NAME, FolderUse, ServerPlace

_HOLD = """
import sys
from pathlib import Path
from chat2api.storage.folder_use import FolderUse
use = FolderUse(Path(sys.argv[1]), alone=True)
print("held", flush=True)
sys.stdin.read()
"""


def test_many_use_a_folder_together_or_one_alone(tmp_path: Path) -> None:
    uses = [FolderUse(tmp_path) for _ in range(3)]
    with pytest.raises(StorageError, match="Stop it first"):
        FolderUse(tmp_path, alone=True)
    for use in uses:
        use.end()
        use.end()
    alone = FolderUse(tmp_path, alone=True)
    for other in (False, True):
        with pytest.raises(StorageError):
            FolderUse(tmp_path, alone=other)
    alone.end()
    FolderUse(tmp_path).end()
    assert os.listdir(tmp_path) == []


def test_a_process_that_is_killed_gives_its_folder_back(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="moving to another"):
            FolderUse(tmp_path)
        program.send_signal(signal.SIGKILL)
    FolderUse(tmp_path, alone=True).end()


def test_where_nobody_can_be_sure_to_be_alone_nobody_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    FolderUse(tmp_path).end()
    with pytest.raises(StorageError, match="cannot be told"):
        FolderUse(tmp_path, alone=True)


def test_a_folder_has_one_server_and_any_number_of_commands(tmp_path: Path) -> None:
    place = ServerPlace(tmp_path)
    with pytest.raises(StorageError, match=r"Another server uses .*DATA_DIR"):
        ServerPlace(tmp_path)
    FolderUse(tmp_path).end()
    place.end()
    place.end()
    ServerPlace(tmp_path).end()
    assert [(path.name, path.stat().st_mode & 0o777, path.stat().st_size) for path in tmp_path.iterdir()] == [
        (LOCK_NAME, 0o600, 0)
    ]


def test_a_server_starts_where_nobody_can_be_sure_to_be_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        ServerPlace(tmp_path).end()
    assert "another server" in caplog.text
