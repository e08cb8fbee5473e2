"""The keys of the records and what wraps them: moved to another SECRET_KEY under kill -9 at each step."""

import asyncio
import shutil
import signal
import sys
from pathlib import Path

import pytest

from chat2api.errors import StorageError
from chat2api.storage.sql_records import KEY_NAME, SqlRecords
from tests.storage.accounts import NOW, new_account, rotating

SECRETS = 12

_MOVE = """
import asyncio, os, signal, sys
from pathlib import Path
from chat2api.storage import sql_keyring
from chat2api.storage.sql_records import SqlRecords

folder, former, point = Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3]
write = sql_keyring.write_keyring

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write_and_die(connection, rows):
    write(connection, rows)
    die()

async def main():
    if point in ("unwritten", "uncommitted"):
        sql_keyring.write_keyring = die if point == "unwritten" else write_and_die
    records = await SqlRecords.open_moved(folder, "new", former=former)
    if point == "committed":
        die()
    await records.rotate_keys(batch=1, pause=0, on_progress=lambda done: done == int(point) and die())

asyncio.run(main())
"""

POINTS = ("unwritten", "uncommitted", "committed", "1", "7", "4")
"""What a run after a kill still has to seal: 12, 11, 4; after the last of them the old data key is still there."""


async def secrets_of(folder: Path, secret_key: str | None) -> set[str]:
    records = await SqlRecords.open(folder, secret_key=secret_key)
    found = set()
    for account in (await records.changes()).accounts:
        view = await records.refresh_view(account.id)
        assert view is not None and view.secrets.renewable is not None
        found.add(view.secrets.renewable)
    await records.aclose()
    return found


@pytest.mark.parametrize(("former", "points"), [(None, POINTS), ("old", POINTS[1:3])])
async def test_S16_a_move_survives_a_kill_at_each_step(
    tmp_path: Path, empty_store: Path, former: str | None, points: tuple[str, ...]
) -> None:
    folder = tmp_path / "data"
    if former is None:
        shutil.copytree(empty_store, folder)
    records = await SqlRecords.open(folder, secret_key=former)
    await records.add_accounts([new_account(number) for number in range(SECRETS)], NOW)
    await records.aclose()
    expected = {rotating(number) for number in range(SECRETS)}
    for point in points:
        program = await asyncio.create_subprocess_exec(sys.executable, "-c", _MOVE, str(folder), former or "", point)
        async with asyncio.timeout(60):
            assert await program.wait() == -signal.SIGKILL
        moved = point not in ("unwritten", "uncommitted")
        assert await secrets_of(folder, "new" if moved else former) == expected
        with pytest.raises(StorageError):
            await SqlRecords.open(folder, secret_key=former if moved else "new")
    again = await SqlRecords.open_moved(folder, "new", former=former)
    await again.rotate_keys()
    await again.aclose()
    assert await secrets_of(folder, "new") == expected


async def test_S15_a_new_folder_takes_the_secret_key_that_is_set(tmp_path: Path) -> None:
    await (await SqlRecords.open(tmp_path / "one", secret_key="set")).aclose()
    await (await SqlRecords.open_moved(tmp_path / "two", "set")).aclose()
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert not (folder / KEY_NAME).exists()
        await (await SqlRecords.open(folder, secret_key="set")).aclose()
