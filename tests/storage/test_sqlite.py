"""`chat2api/storage/sqlite.py`."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from chat2api.errors import StorageError
from chat2api.storage.sql_records import DATABASE_NAME, SqlRecords
from chat2api.storage.sqlite import APPLICATION_ID, CHECKPOINT_WRITES, Database, refuse_network_file_system
from tests.storage.accounts import add, new_account


def copy_store(store: Path, folder: Path) -> Path:
    """Copy closed records into a folder and give the database's path."""
    shutil.copytree(store, folder, dirs_exist_ok=True)
    return folder / DATABASE_NAME


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def test_R16_the_connections_are_set_for_durability(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "x.db")

    def settings(connection: sa.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout", "application_id")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    expected = ["wal", 2, 1, 1, 5000, APPLICATION_ID]
    assert await database.read(settings) == expected
    assert await database.write(settings) == expected
    await database.aclose()


async def test_R16_a_copy_that_lost_its_journal_mode_gets_it_back(tmp_path: Path, small_store: Path) -> None:
    with closing(sqlite3.connect(copy_store(small_store, tmp_path / "whole"))) as whole:
        (tmp_path / "copied").mkdir()
        whole.execute("VACUUM INTO ?", [str(tmp_path / "copied" / DATABASE_NAME)])
    shutil.copy(tmp_path / "whole" / "records.key", tmp_path / "copied")

    records = await SqlRecords.open(tmp_path / "copied")
    await add(records, new_account(7))
    await records.aclose()

    with closing(sqlite3.connect(tmp_path / "copied" / DATABASE_NAME)) as after:
        assert after.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_R9_no_work_is_done_on_the_event_loops_thread(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "x.db")

    names = {await database.read(lambda _: threading.current_thread().name) for _ in range(3)}
    names |= {await database.write(lambda _: threading.current_thread().name) for _ in range(3)}

    assert names == {"records-read_0", "records-write_0"}
    await database.aclose()


async def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "x.db")
    entered, leave = threading.Event(), threading.Event()

    def hold(_: sa.Connection) -> None:
        entered.set()
        leave.wait(10)

    writing = asyncio.get_running_loop().create_task(database.write(hold))
    await asyncio.get_running_loop().run_in_executor(None, entered.wait, 10)
    try:
        assert await asyncio.wait_for(database.read(lambda db: db.exec_driver_sql("SELECT 1").scalar()), 5) == 1
    finally:
        leave.set()
        await writing
        await database.aclose()


async def test_S19_files_and_folder_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    records = await SqlRecords.open(folder)
    await add(records, new_account(1))

    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}

    assert set(modes) >= {"records.db", "records.db-wal", "records.db-shm", "records.key", "records.db.mark"}
    assert set(modes.values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    await records.aclose()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "text": lambda data: b"[]\n" * 100,
    "short": lambda data: data[:50],
    "header only": lambda data: data[:100],
    "half": lambda data: data[: len(data) // 2],
    "one page": lambda data: data[:4096],
    "wrong magic": lambda data: b"x" + data[1:],
    "zeros": lambda data: bytes(len(data)),
    "zeros after the header": lambda data: data[:100] + bytes(len(data) - 100),
    "noise in the first page": lambda data: data[:110] + b"\xff" * 500 + data[610:],
    "noise in the middle": lambda data: data[:8192] + b"\xa5" * 8192 + data[16384:],
    "noise in every page": lambda data: b"".join(
        data[start : start + 4096] if start == 0 else b"\x5a" * 64 + data[start + 64 : start + 4096]
        for start in range(0, len(data), 4096)
    ),
    "pages swapped": lambda data: data[:4096] + data[8192:12288] + data[4096:8192] + data[12288:],
    "page size": lambda data: data[:16] + b"\x00\x01" + data[18:],
    "json": lambda data: b'{"rt_x": {"token": "eyJ"}}',
    "another program's": lambda data: data[:68] + b"\0\0\0\0" + data[72:],
    "doubled magic": lambda data: data[:16] * 7,
    "page count": lambda data: data[:28] + b"\x00\xff\xff\xff" + data[32:40] + data[40:],
    "newlines converted": lambda data: data.replace(b"\n", b"\r\n"),
    "high bit lost": lambda data: bytes(byte & 0x7F for byte in data),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_R17_a_damaged_store_is_refused_and_left_as_it_is(tmp_path: Path, small_store: Path, damage: str) -> None:
    path = copy_store(small_store, tmp_path)
    broken = DAMAGES[damage](path.read_bytes())
    path.write_bytes(broken)

    try:
        records = await SqlRecords.open(tmp_path)
    except StorageError as error:
        assert str(tmp_path) in error.message or "records" in error.message
    else:
        # What SQLite can mend by itself (a wrong page count) must not have lost the account.
        assert len((await records.changes()).accounts) == 1
        await records.aclose()
        assert damage == "page count"

    assert path.exists() and len(path.read_bytes()) == len(broken)


async def test_R17_a_missing_database_beside_its_mark_is_not_replaced(tmp_path: Path, small_store: Path) -> None:
    path = copy_store(small_store, tmp_path)
    path.rename(tmp_path / "away.db")

    with pytest.raises(StorageError, match="missing"):
        await SqlRecords.open(tmp_path)

    assert not path.exists()


async def test_T8_a_newer_schema_is_refused_and_left(tmp_path: Path, small_store: Path) -> None:
    path = copy_store(small_store, tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StorageError, match="newer release"):
        await SqlRecords.open(tmp_path)

    assert path.read_bytes() == before


async def test_T8_a_failed_migration_leaves_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic.operations import Operations

    real = Operations.create_table
    made: list[str] = []

    def fail_late(self: Operations, name: str, *columns: object) -> object:
        made.append(name)
        if len(made) == 5:
            self.execute(sa.text("SELECT * FROM no_such_table"))
        return real(self, name, *columns)  # type: ignore[arg-type]  # passed on unchanged

    monkeypatch.setattr(Operations, "create_table", fail_late)
    with pytest.raises(StorageError, match="Nothing was changed"):
        await Database.open(tmp_path / "x.db")
    monkeypatch.undo()

    with sqlite3.connect(tmp_path / "x.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    await (await Database.open(tmp_path / "x.db")).aclose()


def test_R16_network_file_systems_are_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    folder = tmp_path / "with space"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    root = "21 1 8:1 / / rw - ext4 /dev/root rw\n"

    mounts.write_text(f"{root}malformed\n30 21 0:50 / {escaped} rw shared:1 - nfs4 server:/x rw\n")
    with pytest.raises(StorageError, match="nfs4"):
        refuse_network_file_system(folder, mounts)
    refuse_network_file_system(tmp_path, mounts)

    mounts.write_text(
        f"{root}30 21 0:50 / {tmp_path} rw - cifs //server/x rw\n31 30 8:2 / {escaped} rw - xfs /dev/x rw\n"
    )
    refuse_network_file_system(folder, mounts)
    with pytest.raises(StorageError, match="cifs"):
        refuse_network_file_system(tmp_path, mounts)

    refuse_network_file_system(folder, tmp_path / "no such table")


async def test_R18_a_full_disk_refuses_a_write_and_heals(tmp_path: Path) -> None:
    records = await SqlRecords.open(tmp_path, max_bytes=300_000)
    known = await add(records, new_account(0))

    with pytest.raises(StorageError, match="full"):
        await records.add_accounts([new_account(number) for number in range(1, 1000)], 0.0)
    accounts = (await records.changes()).accounts
    assert accounts[0] == known and len(accounts) % 100 == 1, "whole batches or nothing"
    for account in accounts:
        view = await records.refresh_view(account.id)
        assert view is not None and view.secrets.renewable is not None

    await records.delete_accounts(None, 0.0)
    await records.sweep(1e12)
    assert (await records.changes()).accounts == ()
    await records.aclose()


async def test_two_processes_may_make_the_database_at_once(tmp_path: Path) -> None:
    opened = await asyncio.gather(*(Database.open(tmp_path / "x.db") for _ in range(4)))

    for database in opened:
        await database.aclose()
    assert names(tmp_path) == ["x.db"]


async def test_R28_the_log_is_folded_back_between_commits(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "data" / "records.db")
    log = tmp_path / "data" / "records.db-wal"

    async def write(count: int) -> None:
        for number in range(count):
            await database.write(
                lambda db, number=number: db.exec_driver_sql(  # type: ignore[misc]  # a default binds the loop's value
                    "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", ("canary", str(number) * 2000)
                )
            )

    await write(CHECKPOINT_WRITES)
    size = log.stat().st_size
    await write(3 * CHECKPOINT_WRITES)
    assert log.stat().st_size < 2 * size, "what was folded back is written over"
    await database.aclose()
