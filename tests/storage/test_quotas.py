"""`chat2api/storage/quotas.py`: all limits in one step, exact, and given back."""

import asyncio
import random

import pytest

from chat2api.storage.keys import DAY_SECONDS, KeyLimits
from chat2api.storage.quotas import MINUTE, MemoryQuotas, NoRoom, Reservation
from chat2api.storage.usage import KeyTotals
from tests.clocks import FakeClock

NONE = KeyLimits(requests_per_minute=None, requests_at_once=None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_790_035_200.0 + 1000)


@pytest.fixture
def quotas(clock: FakeClock) -> MemoryQuotas:
    return MemoryQuotas(clock)


async def taken(quotas: MemoryQuotas, limits: KeyLimits, tokens: int = 0) -> Reservation:
    answer = await quotas.reserve("k", limits, tokens)
    assert isinstance(answer, Reservation), answer
    return answer


async def refused(quotas: MemoryQuotas, limits: KeyLimits, tokens: int = 0) -> NoRoom:
    answer = await quotas.reserve("k", limits, tokens)
    assert isinstance(answer, NoRoom), answer
    return answer


@pytest.mark.parametrize("name", ["requests_per_minute", "requests_per_day", "requests_total", "requests_at_once"])
async def test_R8_of_200_parallel_requests_on_a_quota_of_100_exactly_100_pass(quotas: MemoryQuotas, name: str) -> None:
    limits = KeyLimits(**({"requests_per_minute": None, "requests_at_once": None} | {name: 100}))

    answers = await asyncio.gather(*(quotas.reserve("k", limits, 5) for _ in range(200)))

    assert sum(isinstance(answer, Reservation) for answer in answers) == 100
    assert {answer.name for answer in answers if isinstance(answer, NoRoom)} == {name}


async def test_R8_of_200_parallel_requests_tokens_pass_to_the_last_one(quotas: MemoryQuotas) -> None:
    limits = KeyLimits(requests_per_minute=None, requests_at_once=None, tokens_total=1000)
    answers = await asyncio.gather(*(quotas.reserve("k", limits, 10) for _ in range(200)))
    assert sum(isinstance(answer, Reservation) for answer in answers) == 100


async def test_a_refused_request_takes_nothing(quotas: MemoryQuotas) -> None:
    limits = KeyLimits(requests_per_minute=10, requests_at_once=1, requests_total=10)
    await taken(quotas, limits)
    for _ in range(50):
        assert (await refused(quotas, limits)).name == "requests_at_once"
    assert {room.name: room.used for room in await quotas.rooms("k", limits)} == {
        "requests_total": 1,
        "requests_per_minute": 1,
        "requests_at_once": 1,
    }


async def test_the_minute_slides(quotas: MemoryQuotas, clock: FakeClock) -> None:
    limits = KeyLimits(requests_per_minute=2, requests_at_once=None)
    await taken(quotas, limits)
    clock.advance(20)
    await taken(quotas, limits)
    assert (await refused(quotas, limits)).wait == pytest.approx(40)
    clock.advance(39.9)
    assert (await refused(quotas, limits)).wait == pytest.approx(0.1)
    clock.advance(0.2)
    await taken(quotas, limits)
    assert (await refused(quotas, limits)).wait == pytest.approx(19.9)


async def test_no_minute_ever_holds_more_than_its_limit(quotas: MemoryQuotas, clock: FakeClock) -> None:
    rng = random.Random(5)
    limits = KeyLimits(requests_per_minute=20, tokens_per_minute=500, requests_at_once=None)
    passed: list[tuple[float, int]] = []
    for _ in range(5000):
        clock.advance(rng.choice([0.0, 0.01, 0.05, 0.3, 2.0]))
        tokens = rng.randint(1, 60)
        answer = await quotas.reserve("k", limits, tokens)
        if isinstance(answer, Reservation):
            passed.append((clock.monotonic(), tokens))
        recent = [amount for at, amount in passed if at > clock.monotonic() - MINUTE]
        assert len(recent) <= 20 and sum(recent) <= 500
    assert len(passed) > 400, "and nearly all of it is used"


async def test_what_was_waited_for_has_come(quotas: MemoryQuotas, clock: FakeClock) -> None:
    limits = KeyLimits(requests_per_minute=None, requests_at_once=None, tokens_per_minute=100)
    for tokens in (30, 30, 40):
        await taken(quotas, limits, tokens)
        clock.advance(10)
    verdict = await refused(quotas, limits, 55)
    assert verdict.wait is not None
    clock.advance(verdict.wait - 0.01)
    await refused(quotas, limits, 55)
    clock.advance(0.02)
    await taken(quotas, limits, 55)


async def test_a_request_larger_than_a_limit_is_never_told_to_wait(quotas: MemoryQuotas) -> None:
    verdict = await refused(quotas, KeyLimits(tokens_per_minute=100), 101)
    assert (verdict.wait, verdict.asked, verdict.limit) == (None, 101, 100)


async def test_settling_puts_the_real_count_in_place_of_the_estimate(quotas: MemoryQuotas) -> None:
    limits = KeyLimits(tokens_per_minute=100, tokens_per_day=200, tokens_total=300)
    reservation = await taken(quotas, limits, 90)

    await quotas.settle(reservation, tokens=40, charged=True)
    await quotas.settle(reservation, tokens=9, charged=False)

    used = {room.name: room.used for room in await quotas.rooms("k", limits)}
    assert (used["tokens_per_minute"], used["tokens_per_day"], used["tokens_total"]) == (40, 40, 40)
    assert (used["requests_per_minute"], used["requests_at_once"]) == (1, 0)


async def test_an_answer_longer_than_its_reservation_is_counted_in_full(quotas: MemoryQuotas) -> None:
    limits = KeyLimits(tokens_total=100)
    await quotas.settle(await taken(quotas, limits, 50), tokens=130, charged=True)
    assert (await refused(quotas, limits, 1)).used == 130
    assert [room.remaining for room in await quotas.rooms("k", limits) if room.name == "tokens_total"] == [0]


async def test_R10_what_is_not_charged_is_given_back(quotas: MemoryQuotas) -> None:
    limits = KeyLimits(tokens_per_minute=100, requests_per_day=1, requests_total=1, tokens_total=100)
    for _ in range(5):
        await quotas.settle(await taken(quotas, limits, 60), tokens=0, charged=False)
    assert {room.used for room in await quotas.rooms("k", limits)} == {0}


async def test_a_request_may_stay_in_the_rate_though_nothing_is_charged(quotas: MemoryQuotas) -> None:
    limits = KeyLimits(requests_per_minute=1, requests_total=5)
    await quotas.settle(await taken(quotas, limits), tokens=0, charged=False, keep_rate=True)
    assert (await refused(quotas, limits)).name == "requests_per_minute"


async def test_what_left_the_window_is_not_settled_in_it(quotas: MemoryQuotas, clock: FakeClock) -> None:
    limits = KeyLimits(tokens_per_minute=100)
    reservation = await taken(quotas, limits, 60)
    clock.advance(MINUTE + 1)
    await quotas.settle(reservation, tokens=90, charged=True)
    used = {room.name: room.used for room in await quotas.rooms("k", limits)}
    assert used["tokens_per_minute"] == 0 and used["requests_per_minute"] == 0


async def test_a_day_is_a_calendar_day_of_utc(quotas: MemoryQuotas, clock: FakeClock) -> None:
    limits = KeyLimits(requests_per_minute=None, requests_per_day=1)
    over_midnight = await taken(quotas, limits)
    assert (await refused(quotas, limits)).wait == DAY_SECONDS - 1000
    clock.advance(DAY_SECONDS - 1000)
    await quotas.settle(over_midnight, tokens=0, charged=False)
    await taken(quotas, limits)
    assert (await refused(quotas, limits)).wait == DAY_SECONDS


async def test_R21_a_clock_that_is_set_back_gives_no_day_again(quotas: MemoryQuotas, clock: FakeClock) -> None:
    limits = KeyLimits(requests_per_minute=None, requests_per_day=1)
    await taken(quotas, limits)
    clock.jumped = -DAY_SECONDS
    await refused(quotas, limits)


async def test_R21_a_clock_that_was_days_ahead_does_not_hold_up_the_days_of_now(
    quotas: MemoryQuotas, clock: FakeClock
) -> None:
    limits = KeyLimits(requests_per_minute=None, requests_per_day=1)
    clock.jumped = 30 * DAY_SECONDS
    await taken(quotas, limits)
    clock.jumped = 0
    await taken(quotas, limits)
    await refused(quotas, limits)


async def test_what_was_used_before_the_start_counts(clock: FakeClock) -> None:
    quotas = MemoryQuotas(clock, {"k": KeyTotals(3, 30, 7, 700)})
    limits = KeyLimits(requests_per_day=4, tokens_per_day=100, requests_total=10, tokens_total=1000)
    used = {room.name: room.used for room in await quotas.rooms("k", limits)}
    assert [used[name] for name in ("requests_per_day", "tokens_per_day", "requests_total", "tokens_total")] == [
        3, 30, 7, 700,
    ]  # fmt: skip
    clock.advance(DAY_SECONDS)
    used = {room.name: room.used for room in await quotas.rooms("k", limits)}
    assert (used["requests_per_day"], used["requests_total"]) == (0, 7)


async def test_keys_do_not_share_their_limits(quotas: MemoryQuotas) -> None:
    limits = KeyLimits(requests_total=1)
    for name in ("one", "two", "three"):
        assert isinstance(await quotas.reserve(name, limits, 0), Reservation)


async def test_memory_stays_bounded_however_much_passes(quotas: MemoryQuotas, clock: FakeClock) -> None:
    limits = KeyLimits(requests_per_minute=10**9, requests_at_once=None)
    for _ in range(20_000):
        clock.advance(0.01)
        await quotas.settle(await taken(quotas, limits), tokens=0, charged=True)
    assert len(quotas._keys["k"].recent_requests._pieces) <= MINUTE / 0.1 + 2


# Keys that come and go


async def test_of_keys_that_come_and_go_only_so_many_are_remembered(clock: FakeClock) -> None:
    quotas = MemoryQuotas(clock, most=100)
    limits = KeyLimits(requests_per_minute=5, requests_at_once=None)
    kept = await quotas.reserve("busy", limits, 0)
    for number in range(1000):
        hold = await quotas.reserve(f"k{number}", limits, 0)
        assert isinstance(hold, Reservation)
        await quotas.settle(hold, tokens=0, charged=True)
    assert quotas.remembered <= 101
    assert isinstance(kept, Reservation)
    (room,) = await quotas.rooms("busy", limits)
    assert room.used == 1, "what is running is never forgotten"


async def test_many_answers_that_run_long_do_not_keep_the_others_remembered(clock: FakeClock) -> None:
    quotas = MemoryQuotas(clock, most=10_000)
    limits = KeyLimits(requests_per_minute=5, requests_at_once=None)
    for number in range(100):
        await quotas.reserve(f"long{number}", limits, 0)
    for number in range(500):
        hold = await quotas.reserve(f"k{number}", limits, 0)
        assert isinstance(hold, Reservation)
        await quotas.settle(hold, tokens=0, charged=True)
    clock.advance(MINUTE + 1)
    quotas.forget()
    assert quotas.remembered == 100


async def test_keys_that_stay_are_never_forgotten(quotas: MemoryQuotas, clock: FakeClock) -> None:
    hold = await taken(quotas, KeyLimits())
    await quotas.settle(hold, tokens=0, charged=True)
    clock.advance(10 * DAY_SECONDS)
    quotas.forget()
    assert quotas.remembered == 1
