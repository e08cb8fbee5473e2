"""`chat2api/storage/shared.py`."""

import pytest

from chat2api.storage.shared import MemoryShared
from tests.clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shared(clock: FakeClock) -> MemoryShared:
    return MemoryShared(clock, max_keys=3)


async def test_a_lock_is_held_by_one_until_it_is_released(shared: MemoryShared) -> None:
    lock = await shared.take_lock("a", 10)
    assert lock is not None
    assert await shared.take_lock("a", 10) is None
    assert await shared.take_lock("b", 10) is not None

    assert await shared.release_lock(lock)

    assert await shared.take_lock("a", 10) is not None
    assert not await shared.release_lock(lock)


async def test_R27_a_lock_that_ran_out_goes_to_the_next_with_a_higher_generation(
    shared: MemoryShared, clock: FakeClock
) -> None:
    old = await shared.take_lock("a", 10)
    assert old is not None
    clock.advance(10)
    new = await shared.take_lock("a", 10)

    assert new is not None and new.generation > old.generation
    assert await shared.extend_lock(old, 10) is None
    assert not await shared.release_lock(old)
    assert await shared.take_lock("a", 10) is None


async def test_an_extended_lock_lasts_from_now(shared: MemoryShared, clock: FakeClock) -> None:
    lock = await shared.take_lock("a", 10)
    assert lock is not None
    clock.advance(9)
    longer = await shared.extend_lock(lock, 10)
    assert longer is not None
    clock.advance(9)

    assert await shared.take_lock("a", 1) is None
    assert await shared.release_lock(lock)


async def test_a_window_lets_exactly_its_limit_through(shared: MemoryShared, clock: FakeClock) -> None:
    verdicts = [await shared.hit("key", 100, 60) for _ in range(200)]

    assert sum(verdict.allowed for verdict in verdicts) == 100
    assert [verdict.remaining for verdict in verdicts[:3]] == [99, 98, 97]
    assert verdicts[-1].reset == 60

    clock.advance(59)
    assert (await shared.hit("key", 100, 60)).reset == pytest.approx(1)
    clock.advance(1)
    assert (await shared.hit("key", 100, 60)).allowed


async def test_a_window_slides(shared: MemoryShared, clock: FakeClock) -> None:
    for _ in range(2):
        assert (await shared.hit("key", 2, 60)).allowed
        clock.advance(40)

    verdict = await shared.hit("key", 2, 60)

    assert (verdict.allowed, verdict.remaining) == (True, 0)
    assert verdict.reset == pytest.approx(20)


async def test_a_lowered_limit_says_when_there_is_room(shared: MemoryShared, clock: FakeClock) -> None:
    for _ in range(4):
        await shared.hit("key", 4, 60)
        clock.advance(1)

    verdict = await shared.hit("key", 1, 60)
    nothing = await shared.hit("key", 0, 60)

    assert not verdict.allowed
    assert verdict.reset == pytest.approx(59)
    clock.advance(verdict.reset)
    assert (await shared.hit("key", 1, 60)).allowed
    assert (nothing.allowed, nothing.reset) == (False, 60)


async def test_windows_are_kept_for_a_bounded_number_of_keys(shared: MemoryShared) -> None:
    for key in ("a", "b", "c", "a", "d"):
        await shared.hit(key, 1, 60)

    assert not (await shared.hit("a", 1, 60)).allowed
    assert (await shared.hit("b", 1, 60)).allowed
