"""`chat2api/keys/ledger.py`: batches that lose nothing and count nothing twice."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from chat2api.errors import StorageError
from chat2api.keys.ledger import FLUSH_SECONDS, Ledger, first_day_kept
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.usage import UsageRow, day_of
from tests.clocks import FakeClock

ROW = UsageRow("2026-11-21", "key_1", "acc", "gpt-5", 1, 10, 20, 0, 0.5, 0)


class Tasks:
    def __init__(self) -> None:
        self.all: list[asyncio.Task[None]] = []

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self.all.append(asyncio.create_task(work, name=name))
        return self.all[-1]


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await asyncio.gather(*made.all, return_exceptions=True)


@pytest.fixture
def ledger(store: SqlRecords, clock: FakeClock, tasks: Tasks) -> Ledger:
    return Ledger(store.usage, clock, tasks)


async def test_requests_of_one_place_become_one_row(ledger: Ledger, store: SqlRecords) -> None:
    for _ in range(1000):
        ledger.book(ROW)
    ledger.book(replace(ROW, key="operator", errors=1))
    assert await store.usage.rows() == ()

    await ledger.flush()
    await ledger.flush()

    assert await store.usage.rows() == (
        UsageRow("2026-11-21", "key_1", "acc", "gpt-5", 1000, 10_000, 20_000, 0, 500.0, 0),
        replace(ROW, key="operator", errors=1),
    )


async def test_what_cannot_be_written_is_kept_and_added_up(ledger: Ledger, store: SqlRecords) -> None:
    real = store.usage.add

    async def full(rows: object, uses: object = None) -> None:
        ledger.book(ROW)  # what comes meanwhile
        raise StorageError("The disk is full.")

    store.usage.add = full  # type: ignore[method-assign]  # a disk that is full
    ledger.book(ROW)
    with pytest.raises(StorageError):
        await ledger.flush()
    store.usage.add = real  # type: ignore[method-assign]  # and has space again
    await ledger.flush()
    assert [row.requests for row in await store.usage.rows()] == [2]
    assert (await store.usage.totals(ROW.day))["key_1"].last_at is not None


async def test_a_keys_last_use_is_kept_to_the_minute(ledger: Ledger, store: SqlRecords, clock: FakeClock) -> None:
    used_at = clock.now()
    ledger.book(ROW)
    await ledger.flush()
    last_at = (await store.usage.totals(ROW.day))["key_1"].last_at
    assert last_at is not None
    assert last_at % 60 == 0
    assert 0 <= used_at - last_at < 60


async def test_a_flush_that_is_cancelled_writes_all_the_same_and_only_once(
    ledger: Ledger, store: SqlRecords, tasks: Tasks
) -> None:
    ledger.book(ROW)
    flushing = asyncio.create_task(ledger.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    assert flushing.cancelled()
    await asyncio.gather(*tasks.all)
    await ledger.flush()
    assert [row.requests for row in await store.usage.rows()] == [1]


async def test_it_writes_at_most_every_half_second_and_folds_once_a_day(
    ledger: Ledger, store: SqlRecords, clock: FakeClock
) -> None:
    old = replace(ROW, day="2020-01-15")
    ledger.book(old)
    today = day_of(clock.now())
    ledger.book(replace(ROW, day=today))
    running = asyncio.create_task(ledger.run())
    for _ in range(2000):
        await asyncio.sleep(0.001)
        if (await store.usage.rows(until="2020-12-31")) == (replace(old, day="2020-01"),):
            break
    else:
        raise AssertionError("nothing was folded")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert set(clock.slept) == {FLUSH_SECONDS} and FLUSH_SECONDS <= 1
    assert [row.day for row in await store.usage.rows()] == ["2020-01", today]


async def test_a_model_of_any_length_can_be_booked(ledger: Ledger, store: SqlRecords) -> None:
    ledger.book(replace(ROW, model="m" * 5000))
    await ledger.flush()
    assert [len(row.model) for row in await store.usage.rows()] == [200]


@pytest.mark.parametrize(
    ("today", "first"),
    [
        ("2026-11-21", "2026-10-01"),
        ("2026-10-31", "2026-10-01"),
        ("2026-12-31", "2026-12-01"),
        ("2026-12-30", "2026-11-01"),
        ("2026-03-01", "2026-01-01"),
        ("2024-03-31", "2024-03-01"),
    ],
)
def test_only_whole_months_are_folded_once_their_days_are_old(today: str, first: str) -> None:
    assert first_day_kept(today) == first
