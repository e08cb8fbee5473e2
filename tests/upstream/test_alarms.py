import asyncio

import pytest

from chat2api.upstream.alarms import Alarms


class Sleeper:
    """Notes when it was called, and sets what comes next."""

    def __init__(self, alarms: Alarms, *again: float) -> None:
        self.rang = asyncio.Event()
        self.rang_at: list[float] = []
        self._alarms = alarms
        self._again = list(again)

    def ring(self) -> None:
        now = asyncio.get_running_loop().time()
        self.rang_at.append(now)
        if self._again:
            self._alarms.set(self, now + self._again.pop(0))
        else:
            self.rang.set()


@pytest.fixture
async def alarms() -> Alarms:
    return Alarms(asyncio.get_running_loop())


async def test_each_is_called_once_and_not_before_its_instant(alarms: Alarms) -> None:
    now = asyncio.get_running_loop().time()
    instants = [now + 0.03, now + 0.01, now + 0.02, now - 1]
    sleepers = [Sleeper(alarms) for _ in instants]
    for sleeper, at in zip(sleepers, instants, strict=True):
        alarms.set(sleeper, at)
    async with asyncio.timeout(5):
        for sleeper in sleepers:
            await sleeper.rang.wait()
    assert [len(sleeper.rang_at) for sleeper in sleepers] == [1, 1, 1, 1]
    assert all(sleeper.rang_at[0] >= at for sleeper, at in zip(sleepers, instants, strict=True))


async def test_who_was_dropped_or_put_off_is_not_called_at_the_old_instant(alarms: Alarms) -> None:
    loop = asyncio.get_running_loop()
    dropped, put_off, last = Sleeper(alarms), Sleeper(alarms), Sleeper(alarms)
    alarms.set(dropped, loop.time() + 0.01)
    alarms.set(put_off, loop.time() + 0.01)
    alarms.set(last, loop.time() + 0.03)
    alarms.drop(dropped)
    alarms.drop(dropped)
    alarms.set(put_off, loop.time() + 60)
    async with asyncio.timeout(5):
        await last.rang.wait()
    assert (dropped.rang_at, put_off.rang_at) == ([], [])
    alarms.close()


async def test_after_the_end_nobody_is_called_but_whose_instant_is_set_anew(alarms: Alarms) -> None:
    loop = asyncio.get_running_loop()
    forgotten, later = Sleeper(alarms), Sleeper(alarms)
    alarms.set(forgotten, loop.time() + 0.01)
    alarms.close()
    alarms.set(later, loop.time() + 0.03)
    async with asyncio.timeout(5):
        await later.rang.wait()
    assert forgotten.rang_at == []


async def test_a_call_may_set_the_next_one_and_drop_another(alarms: Alarms) -> None:
    class Dropping(Sleeper):
        def ring(self) -> None:
            super().ring()
            alarms.drop(victim)

    loop = asyncio.get_running_loop()
    first, victim = Dropping(alarms, 0.005, 0.005), Sleeper(alarms)
    alarms.set(first, loop.time())
    alarms.set(victim, loop.time())
    async with asyncio.timeout(5):
        await first.rang.wait()
    assert (len(first.rang_at), victim.rang_at) == (3, [])


async def test_after_the_close_nobody_is_called(alarms: Alarms) -> None:
    sleeper = Sleeper(alarms)
    alarms.set(sleeper, asyncio.get_running_loop().time() + 0.005)
    alarms.close()
    await asyncio.sleep(0.02)
    assert sleeper.rang_at == []
