"""Limits of tiers: exact when many come at once, all or nothing, and forgotten when they count for nothing."""

import asyncio
from dataclasses import replace

import pytest

from chat2api.errors import Chat2APIError, QuotaExceededError, RateLimitedError
from chat2api.keys.tier_quota import TierQuotas, counts_tokens
from chat2api.keys.tiers import Tier, TierModel
from chat2api.protocol.openai.rules import Rules
from chat2api.storage.keys import DAY_SECONDS, KeyLimits
from tests.clocks import FakeClock

FREE = KeyLimits(requests_per_minute=None, requests_at_once=None)


def limits(**given: int) -> KeyLimits:
    return replace(FREE, **given)


def tier(person: KeyLimits = FREE, *models: KeyLimits, name: str = "t") -> Tier:
    made = tuple(TierModel(f"m{number}", one) for number, one in enumerate(models or (FREE,)))
    return Tier(name=name, bases=("/t",), models=made, per_person=person, rules=Rules())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(20_000 * DAY_SECONDS + 1000)


@pytest.fixture
def quotas(clock: FakeClock) -> TierQuotas:
    return TierQuotas(clock)


async def used(quotas: TierQuotas, one: Tier, person: str = "address:a", model: int = 0) -> dict[str, int]:
    return {room.name: room.used for room in await quotas.rooms(one, person, one.models[model])}


@pytest.mark.parametrize(
    ("one", "error"),
    [
        (tier(limits(requests_per_minute=100)), RateLimitedError),
        (tier(limits(requests_at_once=100)), RateLimitedError),
        (tier(limits(requests_per_day=100)), QuotaExceededError),
        (tier(limits(tokens_per_minute=1000)), RateLimitedError),
        (tier(FREE, limits(requests_per_minute=100)), RateLimitedError),
        (tier(FREE, limits(tokens_per_minute=1000)), RateLimitedError),
        (tier(limits(requests_per_minute=100), limits(requests_per_minute=100)), RateLimitedError),
    ],
)
async def test_R8_of_200_calls_at_once_exactly_100_pass(
    quotas: TierQuotas, one: Tier, error: type[Chat2APIError]
) -> None:
    asked = [quotas.reserve(one, "address:a", one.models[0], 10) for _ in range(200)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(refused) == 100
    assert {type(answer) for answer in refused} == {error}


async def test_R8_of_200_people_at_once_exactly_100_get_the_model(quotas: TierQuotas) -> None:
    one = tier(limits(requests_per_minute=1), limits(requests_per_minute=100))
    asked = [quotas.reserve(one, f"address:{number}", one.models[0], 0) for number in range(200)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, RateLimitedError) for answer in answers) == 100


async def test_who_is_refused_by_the_model_has_used_nothing_of_their_own(quotas: TierQuotas) -> None:
    one = tier(limits(requests_per_minute=5, tokens_per_minute=100), limits(requests_per_minute=1))
    await quotas.reserve(one, "address:a", one.models[0], 10)
    for _ in range(20):
        with pytest.raises(RateLimitedError, match="`m0`, which all callers of the tier share"):
            await quotas.reserve(one, "address:b", one.models[0], 10)
    assert await used(quotas, one, "address:b") == {"requests_per_minute": 1, "tokens_per_minute": 0}
    rooms = await quotas.rooms(one, "address:b", None)
    assert [(room.name, room.used) for room in rooms] == [("requests_per_minute", 0), ("tokens_per_minute", 0)]


async def test_people_models_and_tiers_count_by_themselves(quotas: TierQuotas) -> None:
    one = tier(limits(requests_per_minute=1), limits(requests_per_minute=2), limits(requests_per_minute=2))
    other = replace(one, name="other")
    for asked, person, model in (
        (one, "address:a", 0),
        (one, "address:b", 0),
        (one, "key:a", 1),
        (other, "address:a", 0),
    ):
        await quotas.reserve(asked, person, asked.models[model], 0)
    with pytest.raises(RateLimitedError, match="your address"):
        await quotas.reserve(one, "address:a", one.models[1], 0)
    with pytest.raises(RateLimitedError, match="your key"):
        await quotas.reserve(one, "key:a", one.models[1], 0)
    with pytest.raises(RateLimitedError, match="`m0`"):
        await quotas.reserve(one, "address:c", one.models[0], 0)


async def test_what_was_reserved_is_settled_by_what_it_cost(quotas: TierQuotas) -> None:
    one = tier(limits(tokens_per_minute=100, requests_per_day=9), limits(tokens_per_minute=100))
    hold = await quotas.reserve(one, "address:a", one.models[0], 80)
    await quotas.settle(hold, tokens=30, charged=True)
    assert await used(quotas, one) == {"requests_per_day": 1, "tokens_per_minute": 30}
    free = await quotas.reserve(one, "address:a", one.models[0], 70)
    await quotas.settle(free, tokens=70, charged=False)
    assert await used(quotas, one) == {"requests_per_day": 1, "tokens_per_minute": 30}


async def test_tiers_that_are_read_anew_go_on_where_they_were(quotas: TierQuotas) -> None:
    before = tier(limits(requests_per_minute=2), limits(requests_per_minute=2))
    hold = await quotas.reserve(before, "address:a", before.models[0], 0)
    after = tier(limits(requests_per_minute=1), limits(requests_per_minute=2))
    with pytest.raises(RateLimitedError):
        await quotas.reserve(after, "address:a", after.models[0], 0)
    await quotas.settle(hold, tokens=0, charged=True)
    wider = tier(limits(requests_per_minute=3), limits(requests_per_minute=2))
    await quotas.reserve(wider, "address:a", wider.models[0], 0)
    with pytest.raises(RateLimitedError, match="`m0`"):
        await quotas.reserve(wider, "address:a", wider.models[0], 0)


async def test_G6_an_address_is_forgotten_with_its_window(quotas: TierQuotas, clock: FakeClock) -> None:
    one = tier(limits(requests_per_minute=5))
    for number in range(50):
        hold = await quotas.reserve(one, f"address:{number}", one.models[0], 0)
        await quotas.settle(hold, tokens=0, charged=True)
    await quotas.forget()
    assert quotas.remembered == 50
    clock.advance(61)
    await quotas.forget()
    assert quotas.remembered == 0


async def test_G6_an_address_with_a_daily_limit_is_forgotten_with_the_day(quotas: TierQuotas, clock: FakeClock) -> None:
    one = tier(limits(requests_per_day=5))
    hold = await quotas.reserve(one, "address:a", one.models[0], 0)
    await quotas.settle(hold, tokens=0, charged=True)
    clock.advance(3600)
    await quotas.forget()
    assert quotas.remembered == 1
    clock.advance(DAY_SECONDS)
    await quotas.forget()
    assert quotas.remembered == 0


async def test_who_is_still_being_answered_is_not_forgotten(quotas: TierQuotas, clock: FakeClock) -> None:
    one = tier(limits(requests_at_once=1))
    hold = await quotas.reserve(one, "address:a", one.models[0], 0)
    clock.advance(3600)
    await quotas.reserve(one, "address:b", one.models[0], 0)
    await quotas.forget()
    with pytest.raises(RateLimitedError):
        await quotas.reserve(one, "address:a", one.models[0], 0)
    await quotas.settle(hold, tokens=0, charged=True)
    await quotas.reserve(one, "address:a", one.models[0], 0)


@pytest.mark.parametrize(
    ("one", "counted"),
    [
        (tier(limits(requests_per_minute=1), limits(requests_per_minute=1)), False),
        (tier(limits(tokens_per_minute=1)), True),
        (tier(limits(tokens_per_day=1)), True),
        (tier(FREE, limits(tokens_per_minute=1)), True),
    ],
)
async def test_tokens_are_counted_where_a_limit_asks_for_them(one: Tier, counted: bool) -> None:
    assert counts_tokens(one, one.models[0]) is counted
