"""`chat2api/storage/sql_records.py`: what the file and its neighbours promise beyond the contract."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from chat2api.errors import StorageError
from chat2api.storage.sql_records import DATABASE_NAME, KEY_NAME, MARK_NAME, SqlRecords
from chat2api.storage.sql_tokens import TokenTables
from tests.storage.accounts import DAY, NOW, add, fresh, new_account, rotating


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; blocking is all right, since nothing else runs."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def rotate(records: SqlRecords, account_number: int, token: str) -> None:
    """Give an account its next RefreshToken."""
    account = await records.find_by_token(rotating(account_number))
    assert account is not None
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    assert await records.complete_refresh(intent, fresh("a-" + token, token), NOW) is not None


async def test_S15_no_token_is_in_any_file(tmp_path: Path, file_records: SqlRecords) -> None:
    canaries = [f"rt_{'canary':>054}{number:05d}" for number in range(500)]
    news = [new_account(0, renewable=token, access=f"eyJcanary{token}") for token in canaries]
    await file_records.add_accounts(news, NOW)
    account = await file_records.find_by_token(canaries[0])
    assert account is not None
    intent = await file_records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    await file_records.complete_refresh(intent, fresh("eyJcanary-2", "rt_canary-2"), NOW)
    await file_records.backup(tmp_path / "data" / "backup.db")

    living = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    await file_records.aclose()
    closed = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}

    assert len(living["records.db-wal"]) > 100_000
    assert {"records.db", "backup.db"} <= set(closed)
    assert not [name for name, data in [*living.items(), *closed.items()] if b"canary" in data]


async def test_S15_swapped_ciphertexts_are_refused(tmp_path: Path, file_records: SqlRecords) -> None:
    first, second = [await add(file_records, new_account(number)) for number in (1, 2)]
    with sqlite3.connect(tmp_path / "data" / DATABASE_NAME) as connection:
        rows = connection.execute("SELECT account_id, sealed FROM tokens").fetchall()
        for (account_id, _), (_, sealed) in zip(rows, reversed(rows), strict=True):
            connection.execute("UPDATE tokens SET sealed = ? WHERE account_id = ?", (sealed, account_id))
    connection.close()

    for account in (first, second):
        with pytest.raises(StorageError, match="does not belong"):
            await file_records.refresh_view(account.id)


async def test_R6_everything_is_there_after_a_restart(tmp_path: Path, small_store: Path) -> None:
    shutil.copytree(small_store, tmp_path / "data")
    first = await SqlRecords.open(tmp_path / "data")
    before = await first.changes()
    await first.aclose()

    second = await SqlRecords.open(tmp_path / "data")

    assert await second.changes() == before
    assert await second.find_by_token(rotating(1)) == before.accounts[0]
    assert not await second.restored()
    await second.aclose()


async def test_S15_a_secret_key_seals_the_records_and_is_needed_from_then_on(tmp_path: Path, small_store: Path) -> None:
    folder = shutil.copytree(small_store, tmp_path / "data")
    await (await SqlRecords.open_moved(folder, "correct")).aclose()
    (folder / KEY_NAME).unlink()

    with pytest.raises(StorageError, match="SECRET_KEY, which is not set"):
        await SqlRecords.open(folder)
    with pytest.raises(StorageError, match="SECRET_KEY has not the value"):
        await SqlRecords.open(folder, secret_key="wrong")

    records = await SqlRecords.open(folder, secret_key="correct")
    assert await records.find_by_token(rotating(1)) is not None
    await records.aclose()
    await (await SqlRecords.open_moved(folder, "another", former="correct")).aclose()
    await (await SqlRecords.open(folder, secret_key="another")).aclose()


async def test_S15_opening_never_changes_how_the_records_are_sealed(tmp_path: Path, small_store: Path) -> None:
    folder = shutil.copytree(small_store, tmp_path / "data")
    server = await SqlRecords.open(folder)
    with pytest.raises(StorageError, match="reseal --to-secret-key"):
        await SqlRecords.open(folder, secret_key="another")
    await server.rotate_keys()
    await server.aclose()
    reopened = await SqlRecords.open(folder)
    assert await reopened.find_by_token(rotating(1)) is not None
    await reopened.aclose()


async def test_S16_records_that_are_open_do_not_move_and_those_that_move_do_not_open(
    tmp_path: Path, small_store: Path
) -> None:
    folder = shutil.copytree(small_store, tmp_path / "data")
    server = await SqlRecords.open(folder)
    with pytest.raises(StorageError, match="Stop it first"):
        await SqlRecords.open_moved(folder, "new")
    await server.aclose()
    mover = await SqlRecords.open_moved(folder, "new")
    with pytest.raises(StorageError, match="Try again"):
        await SqlRecords.open(folder, secret_key="new")
    await mover.aclose()
    await (await SqlRecords.open(folder, secret_key="new")).aclose()


async def test_a_missing_or_foreign_key_file_is_refused_and_not_replaced(tmp_path: Path, small_store: Path) -> None:
    folder = shutil.copytree(small_store, tmp_path / "data")
    key = (folder / KEY_NAME).read_bytes()
    (folder / KEY_NAME).unlink()
    with pytest.raises(StorageError, match="key file"):
        await SqlRecords.open(folder)
    assert not (folder / KEY_NAME).exists()

    other = b"A" * 43 + b"=\n"
    (folder / KEY_NAME).write_bytes(other)
    with pytest.raises(StorageError, match="cannot be opened"):
        await SqlRecords.open(folder)

    assert (folder / KEY_NAME).read_bytes() == other
    (folder / KEY_NAME).write_bytes(key)
    await (await SqlRecords.open(folder)).aclose()


async def test_S16_an_unknown_key_version_is_refused_and_nothing_is_written(tmp_path: Path, small_store: Path) -> None:
    folder = shutil.copytree(small_store, tmp_path / "data")
    with sqlite3.connect(folder / DATABASE_NAME) as connection:
        connection.execute("UPDATE tokens SET key_version = 7")
    connection.close()
    before = (folder / DATABASE_NAME).read_bytes()

    with pytest.raises(StorageError, match="version 7"):
        await SqlRecords.open(folder)

    assert (folder / DATABASE_NAME).read_bytes() == before


async def test_S16_keys_are_replaced_while_others_go_on(tmp_path: Path, file_records: SqlRecords) -> None:
    await file_records.add_accounts([new_account(number) for number in range(30)], NOW)
    bystander = await SqlRecords.open(tmp_path / "data")

    assert await file_records.rotate_keys(batch=7) == 30

    account = await bystander.find_by_token(rotating(3))
    assert account is not None
    view = await bystander.refresh_view(account.id)
    assert view is not None and view.secrets.renewable == rotating(3)
    await add(bystander, new_account(99))
    await bystander.aclose()
    again = await SqlRecords.open(tmp_path / "data")
    assert await again.rotate_keys() == 31
    await again.aclose()


async def test_S16_a_replacement_that_was_cut_off_goes_on_with_the_same_key(
    tmp_path: Path, file_records: SqlRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    await file_records.add_accounts([new_account(number) for number in range(30)], NOW)
    real, calls = TokenTables.reseal, []

    def cut(self: TokenTables, limit: int) -> int:
        calls.append(limit)
        if len(calls) == 3:
            raise StorageError("cut off")
        return real(self, limit)

    monkeypatch.setattr(TokenTables, "reseal", cut)
    with pytest.raises(StorageError, match="cut off"):
        await file_records.rotate_keys(batch=7)
    monkeypatch.undo()

    again = await SqlRecords.open(tmp_path / "data")
    for number in range(30):
        account = await again.find_by_token(rotating(number))
        assert account is not None and await again.refresh_view(account.id) is not None
    assert await again.rotate_keys() == 16
    await again.aclose()


async def test_records_in_memory_have_no_keys_to_replace() -> None:
    records = await SqlRecords.in_memory()

    with pytest.raises(ValueError, match="in memory"):
        await records.rotate_keys()

    await records.aclose()


async def test_R30_a_backup_that_is_brought_back_says_so_until_confirmed(tmp_path: Path, small_store: Path) -> None:
    folder = shutil.copytree(small_store, tmp_path / "data")
    records = await SqlRecords.open(folder)
    await rotate(records, 1, rotating(2))
    await records.backup(tmp_path / "copy.db")
    generation = (await records.changes()).accounts[0].generation
    await records.aclose()
    (tmp_path / "copy.db").replace(folder / DATABASE_NAME)

    copy = await SqlRecords.open(folder)

    assert await copy.restored()
    assert (await copy.changes()).accounts[0].generation == generation
    await copy.confirm_restored()
    assert not await copy.restored()
    await copy.aclose()
    again = await SqlRecords.open(folder)
    assert not await again.restored()
    await again.aclose()


async def test_R30_an_older_file_in_place_of_the_database_is_noticed(tmp_path: Path, small_store: Path) -> None:
    folder = shutil.copytree(small_store, tmp_path / "data")
    shutil.copy(folder / DATABASE_NAME, tmp_path / "older.db")
    records = await SqlRecords.open(folder)
    await rotate(records, 1, rotating(2))
    await records.aclose()
    (tmp_path / "older.db").replace(folder / DATABASE_NAME)

    for _ in range(2):
        copy = await SqlRecords.open(folder)
        assert await copy.restored()
        await copy.aclose()


async def test_a_damaged_mark_is_no_reason_to_stop(tmp_path: Path, small_store: Path) -> None:
    folder = shutil.copytree(small_store, tmp_path / "data")
    for content in (b"", b"[]", b'{"store": 1}', b"\xff"):
        (folder / MARK_NAME).write_bytes(content)
        records = await SqlRecords.open(folder)
        assert not await records.restored()
        await records.aclose()
    assert b"rotations" in (folder / MARK_NAME).read_bytes()


OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from chat2api.storage.sql_records import SqlRecords
from tests.storage.accounts import NOW, add, new_account

async def main() -> None:
    records = await SqlRecords.open(Path(sys.argv[1]))
    await add(records, new_account(7))
    await records.aclose()

asyncio.run(main())
"""


async def test_another_processs_account_is_seen(tmp_path: Path, file_records: SqlRecords) -> None:
    before = await file_records.revision()
    assert await file_records.revision() == before

    done = run([sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "data")])
    assert done.returncode == 0, done.stderr

    assert await file_records.revision() == before + 1
    assert await file_records.find_by_token(rotating(7)) is not None


async def test_a_write_waits_for_another_processs_write(tmp_path: Path, file_records: SqlRecords) -> None:
    other = sqlite3.connect(tmp_path / "data" / DATABASE_NAME, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    loop = asyncio.get_running_loop()
    loop.call_later(0.2, other.execute, "COMMIT")
    started = loop.time()

    await add(file_records, new_account(1))

    assert loop.time() - started >= 0.2
    other.close()


async def test_R16_R28_a_commit_is_synced_once_before_it_returns(tmp_path: Path, small_store: Path) -> None:
    """By the order of system calls; skipped where tracing is not allowed."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    folder = shutil.copytree(small_store, tmp_path / "data")
    trace = tmp_path / "trace"
    command = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync,write,pwrite64", "-o", str(trace), sys.executable, "-c"]
    done = run([*command, TRACED, str(folder)])
    if done.returncode != 0 and "ptrace" in done.stderr:
        pytest.skip("tracing is not allowed here")

    assert done.returncode == 0, done.stderr
    lines = trace.read_text().splitlines()
    for point in ("intent", "tokens"):
        begin = next(i for i, line in enumerate(lines) if f"BEGIN-{point}" in line)
        end = next(i for i, line in enumerate(lines) if f"END-{point}" in line)
        between = lines[begin:end]
        written = [i for i, line in enumerate(between) if "records.db-wal" in line and "write" in line]
        synced = [i for i, line in enumerate(between) if "records.db-wal" in line and "sync(" in line]
        assert written and synced and synced[-1] > written[-1], between
        if point == "tokens":
            assert len(synced) == 1, "the log is begun, so a renewed token waits for the disk once (R28)"


TRACED = """
import asyncio, os, sys
from pathlib import Path
from chat2api.storage.sql_records import SqlRecords
from tests.storage.accounts import NOW, fresh, rotating

async def main() -> None:
    records = await SqlRecords.open(Path(sys.argv[1]))
    account = await records.find_by_token(rotating(1))
    os.write(1, b"BEGIN-intent")
    intent = await records.begin_refresh(account, "replica", NOW)
    os.write(1, b"END-intent")
    os.write(1, b"BEGIN-tokens")
    await records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW)
    os.write(1, b"END-tokens")
    await records.aclose()

asyncio.run(main())
"""


async def test_a_tombstone_older_than_a_day_is_gone_from_the_file(tmp_path: Path, file_records: SqlRecords) -> None:
    account = await add(file_records, new_account(1, user="canary-user"))
    await file_records.delete_accounts([account.id], NOW)
    await file_records.sweep(NOW + DAY)
    await file_records.aclose()

    assert b"canary-user" not in (tmp_path / "data" / DATABASE_NAME).read_bytes()
