"""The machine's clock."""

import asyncio
import time

from chat2api.clock import Clock, SystemClock
from tests.clocks import FakeClock
from tests.e2e.harness import HouseClock


def test_now_is_unix_time_and_monotonic_never_goes_back() -> None:
    clock = SystemClock()
    before = time.time()
    assert before <= clock.now() <= time.time()
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


async def test_sleep_takes_its_time_and_lets_others_run() -> None:
    clock = SystemClock()
    ran = asyncio.Event()
    asyncio.get_running_loop().call_soon(ran.set)
    begun = clock.monotonic()
    await clock.sleep(0.02)
    assert clock.monotonic() - begun >= 0.02
    assert ran.is_set()


async def test_sleep_can_be_left() -> None:
    sleeping = asyncio.ensure_future(SystemClock().sleep(3600))
    await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    assert sleeping.cancelled()


def test_the_suites_clocks_stand_in_for_it() -> None:
    clocks: list[Clock] = [SystemClock(), FakeClock(), HouseClock(20.0)]
    for clock in clocks[1:]:
        assert isinstance(clock, FakeClock | HouseClock)
        before = (clock.now(), clock.monotonic())
        clock.advance(60)
        assert 60 <= clock.now() - before[0] < 65
        assert 60 <= clock.monotonic() - before[1] < 65
