"""`chat2api/accounts/timetable.py`."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from chat2api.accounts.timetable import LOCK_SECONDS, Timetable
from chat2api.clock import SystemClock
from chat2api.errors import StorageError
from chat2api.storage.shared import MemoryShared


class SlowClock(SystemClock):
    """The real clock, whose sleepers wake when the test says so and whose wall time can be set."""

    def __init__(self) -> None:
        self.jumped = 0.0
        self.passed = 0.0
        self.asked: list[float] = []
        self.awake = asyncio.Event()

    def now(self) -> float:
        return super().now() + self.jumped

    def monotonic(self) -> float:
        return super().monotonic() + self.passed

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.awake.wait()
        self.awake.clear()


class Office:
    """A replica with a timetable."""

    def __init__(self, shared: MemoryShared, clock: SlowClock) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.timetable = Timetable(shared, clock, self.spawn, instant=lambda: datetime.fromtimestamp(clock.now(), UTC))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        return task


@pytest.fixture
async def clock() -> SlowClock:
    """A clock of this test's loop."""
    return SlowClock()


@pytest.fixture
def shared(clock: SlowClock) -> MemoryShared:
    """State that replicas share."""
    return MemoryShared(clock)


@pytest.fixture
async def office(shared: MemoryShared, clock: SlowClock) -> AsyncIterator[Office]:
    """One replica."""
    office = Office(shared, clock)
    yield office
    await office.timetable.aclose()
    for task in office.tasks:
        task.cancel()
    await asyncio.gather(*office.tasks, return_exceptions=True)


async def test_work_comes_round_again_until_it_is_closed(office: Office) -> None:
    done, times = asyncio.Event(), 0

    async def work() -> None:
        nonlocal times
        times += 1
        if times == 3:
            done.set()

    office.timetable.add("work", work, every=0.02, soon=True)
    office.timetable.start()
    async with asyncio.timeout(10):
        await done.wait()

    await office.timetable.aclose()
    await office.timetable.aclose()
    assert times == 3 and office.timetable.next_runs().keys() <= {"work"}


async def test_R22_one_replica_does_the_work(office: Office, shared: MemoryShared, clock: SlowClock) -> None:
    second, going, may_end, times = Office(shared, clock), asyncio.Event(), asyncio.Event(), 0

    async def work() -> None:
        nonlocal times
        times += 1
        going.set()
        await may_end.wait()

    for one in (office, second):
        one.timetable.add("work", work, every=60)
    first = asyncio.get_running_loop().create_task(office.timetable.run("work"))
    await going.wait()

    assert not await second.timetable.run("work")
    may_end.set()
    assert await first
    assert await second.timetable.run("work")
    assert times == 2


async def test_R22_long_work_keeps_its_lock_and_gives_it_back(
    office: Office, shared: MemoryShared, clock: SlowClock
) -> None:
    going, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        going.set()
        await may_end.wait()

    office.timetable.add("work", work, every=60)
    running = asyncio.get_running_loop().create_task(office.timetable.run("work"))
    await going.wait()
    await asyncio.sleep(0)
    for _ in range(3):
        clock.passed += LOCK_SECONDS / 2
        clock.awake.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await shared.take_lock("job:work", 1) is None

    assert max(clock.asked) < LOCK_SECONDS / 2
    may_end.set()
    assert await running
    assert await shared.take_lock("job:work", 1) is not None


@pytest.mark.parametrize("error", [StorageError("the disk is full"), ValueError("a slip")])
async def test_work_that_fails_is_told_of_and_done_again(
    office: Office, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    errors = [error]

    async def work() -> None:
        if errors:
            raise errors.pop()

    office.timetable.add("work", work, every=60)
    with caplog.at_level(logging.WARNING):
        assert not await office.timetable.run("work")

    assert "work" in caplog.text
    assert await office.timetable.run("work")


async def test_R21_a_clock_that_was_set_back_does_not_stop_the_work_for_so_long(
    office: Office, clock: SlowClock
) -> None:
    async def work() -> None:
        pass

    office.timetable.add("work", work, every=60)
    office.timetable.start()
    watching = office.spawn(office.timetable.watch(), "watch")
    await asyncio.sleep(0)
    before = office.timetable.next_runs()["work"]
    assert 50 < before - datetime.now(UTC).timestamp() <= 61

    for jump in (24 * 3600.0, 0.0):
        clock.jumped = jump
        clock.awake.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert 50 < office.timetable.next_runs()["work"] - clock.now() <= 61

    assert not watching.done()
