"""`chat2api/storage/whole_files.py`."""

import errno
import os
from pathlib import Path

import pytest

from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.whole_files import name_new, remove_leftovers, temporary_name, write_private
from tests.storage.accounts import DAY, NOW


def test_a_private_file_is_replaced_as_a_whole_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    write_private(path, b"one")
    write_private(path, b"two")

    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_a_finished_file_gets_its_name_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Memory cards and some shared folders know no hard links."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "backup"
    for content in ("first", "second"):
        temporary = temporary_name(path)
        temporary.write_text(content)
        if content == "first":
            name_new(temporary, path)
        else:
            with pytest.raises(FileExistsError):
                name_new(temporary, path)
            assert temporary.read_text() == "second"
            temporary.unlink()

    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"backup": "first"}


def test_what_killed_writers_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old = {name: temporary_name(tmp_path / name) for name in ("backup", "restore", "records.db.mark", "records.key")}
    others = [tmp_path / name for name in ("records.db", "records.db-wal", ".env", "operator.key", ".mine.20260101")]
    for path in (*old.values(), old["restore"].with_name(old["restore"].name + "-wal"), *others):
        path.touch()
        os.utime(path, (NOW - DAY, NOW - DAY))
    young = temporary_name(tmp_path / "backup")
    young.touch()
    os.utime(young, (NOW - DAY + 1, NOW - DAY + 1))

    remove_leftovers(tmp_path, NOW - DAY)

    assert set(tmp_path.iterdir()) == {young, *others}


def test_a_temporary_file_that_goes_while_it_is_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, left = temporary_name(tmp_path / "records.db.mark"), temporary_name(tmp_path / "backup")
    left.touch()
    os.utime(left, (NOW - DAY, NOW - DAY))
    monkeypatch.setattr(os, "listdir", lambda folder: [gone.name, left.name])

    remove_leftovers(tmp_path, NOW - DAY)

    assert not left.exists()


async def test_the_records_remove_them_when_they_are_swept(tmp_path: Path, file_records: SqlRecords) -> None:
    left = temporary_name(tmp_path / "data" / "backup")
    left.touch()
    os.utime(left, (NOW - DAY, NOW - DAY))

    await file_records.sweep(NOW)

    assert not left.exists()
