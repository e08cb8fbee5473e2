"""S16: the data key is replaced under kill -9 at any row, and fast enough to be done while people wait."""

import asyncio
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from chat2api.storage.sql_records import SqlRecords
from tests.storage.accounts import NOW, new_account, rotating

SECRETS = 40

_ROTATE = """
import asyncio, sys
from pathlib import Path
from chat2api.storage.sql_records import SqlRecords

async def main():
    records = await SqlRecords.open(Path(sys.argv[1]))
    print(0, flush=True)
    await records.rotate_keys(batch=1, pause=0, on_progress=lambda done: print(done, flush=True))
    print("done", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def rotate_and_kill(folder: Path, row: int) -> bool:
    """Replace the key in a process that is killed once so many rows are done; tell whether it was done before."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ROTATE, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    told = b""
    try:
        async with asyncio.timeout(60):
            while told != b"done" and (not told.isdigit() or int(told) < row):
                told = (await program.stdout.readline()).strip()
                assert told, "it ended by itself"
    finally:
        program.send_signal(signal.SIGKILL)
        await program.wait()
    return told == b"done"


async def secrets_of(folder: Path) -> set[str]:
    """Open the store as a server does, and all its secrets."""
    records = await SqlRecords.open(folder)
    found = set()
    for account in (await records.changes()).accounts:
        view = await records.refresh_view(account.id)
        assert view is not None and view.secrets.renewable is not None
        found.add(view.secrets.renewable)
    await records.aclose()
    return found


async def kill_often(folder: Path, times: int, seed: int) -> None:
    records = await SqlRecords.open(folder)
    await records.add_accounts([new_account(number) for number in range(SECRETS)], NOW)
    await records.aclose()
    expected = {rotating(number) for number in range(SECRETS)}
    rng, finished = random.Random(seed), 0
    for _ in range(times):
        finished += await rotate_and_kill(folder, rng.randrange(SECRETS + 1))
        assert await secrets_of(folder) == expected
    records = await SqlRecords.open(folder)
    await records.rotate_keys()
    assert await records.rotate_keys() == SECRETS, "and it can be replaced as ever"
    await records.aclose()
    assert await secrets_of(folder) == expected


async def test_S16_a_replacement_survives_five_kills(tmp_path: Path) -> None:
    await kill_often(tmp_path / "data", 5, seed=16)


@pytest.mark.nightly
async def test_S16_a_replacement_survives_fifty_kills(tmp_path: Path) -> None:
    await kill_often(tmp_path / "data", 50, seed=1616)


async def test_S16_two_replacements_at_once_lose_nothing(tmp_path: Path) -> None:
    first = await SqlRecords.open(tmp_path / "data")
    await first.add_accounts([new_account(number) for number in range(SECRETS)], NOW)
    second = await SqlRecords.open(tmp_path / "data")
    server = await SqlRecords.open(tmp_path / "data")

    async def serve() -> None:
        for number in range(SECRETS, 2 * SECRETS):
            await server.add_accounts([new_account(number)], NOW)

    await asyncio.gather(first.rotate_keys(batch=3, pause=0.01), second.rotate_keys(batch=2, pause=0.01), serve())

    for records in (first, second, server):
        await records.aclose()
    assert await secrets_of(tmp_path / "data") == {rotating(number) for number in range(2 * SECRETS)}


@pytest.mark.nightly
async def test_S16_ten_thousand_secrets_take_less_than_a_minute_and_nobody_waits(tmp_path: Path) -> None:
    records = await SqlRecords.open(tmp_path / "data")
    await records.add_accounts([new_account(number) for number in range(10_000)], NOW)
    server = await SqlRecords.open(tmp_path / "data")
    waits: list[float] = []
    done = asyncio.Event()

    async def serve() -> None:
        number = 20_000
        while not done.is_set():
            started = time.perf_counter()
            await server.add_accounts([new_account(number)], NOW)
            waits.append(time.perf_counter() - started)
            number += 1
            await asyncio.sleep(0.05)

    async def rotate() -> float:
        started = time.perf_counter()
        assert await records.rotate_keys() >= 10_000
        done.set()
        return time.perf_counter() - started

    took, _ = await asyncio.gather(rotate(), serve())

    assert (took < 60, max(waits) < 3) == (True, True), f"{took:.1f} s; the longest write beside it {max(waits):.2f} s"
    await records.aclose()
    await server.aclose()
