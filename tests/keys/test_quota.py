"""`chat2api/keys/quota.py`: what a refused caller is told, and the headers."""

import pytest

from chat2api.errors import Chat2APIError, QuotaExceededError, RateLimitedError
from chat2api.keys.quota import Quotas, limits_tokens, rate_headers, spell_duration
from chat2api.protocol.openai.errors import error_object
from chat2api.storage.keys import IssuedKey, KeyLimits, KeyScope
from chat2api.storage.quotas import MemoryQuotas
from tests.clocks import FakeClock


def key(**limits: int | None) -> IssuedKey:
    none: dict[str, int | None] = {"requests_per_minute": None, "requests_at_once": None}
    made = KeyLimits(**(none | limits))
    return IssuedKey("key_1", "n", "", "s", "d", None, None, 0, None, None, None, KeyScope(), made, 1)


@pytest.fixture
def quotas(clock: FakeClock) -> Quotas:
    return Quotas(MemoryQuotas(clock))


@pytest.mark.parametrize(
    ("limits", "tokens", "error", "told"),
    [
        ({"requests_per_minute": 1}, 0, RateLimitedError, ("requests", "rate_limit_exceeded", "60", None)),
        ({"tokens_per_minute": 9}, 9, RateLimitedError, ("requests", "rate_limit_exceeded", "60", None)),
        ({"requests_at_once": 1}, 0, RateLimitedError, ("requests", "rate_limit_exceeded", "1", None)),
        ({"requests_total": 1}, 0, QuotaExceededError, ("insufficient_quota", "insufficient_quota", None, "false")),
        ({"tokens_total": 9}, 9, QuotaExceededError, ("insufficient_quota", "insufficient_quota", None, "false")),
        ({"requests_per_day": 1}, 0, QuotaExceededError, ("insufficient_quota", "insufficient_quota", "day", "false")),
        ({"tokens_per_day": 9}, 9, QuotaExceededError, ("insufficient_quota", "insufficient_quota", "day", "false")),
    ],
)
async def test_T1_a_reached_limit_is_told_by_its_kind(
    quotas: Quotas,
    clock: FakeClock,
    limits: dict[str, int],
    tokens: int,
    error: type[Chat2APIError],
    told: tuple[str, str, str | None, str | None],
) -> None:
    await quotas.reserve(key(**limits), tokens)

    with pytest.raises(error) as caught:
        await quotas.reserve(key(**limits), tokens)

    status, body, headers = error_object(caught.value)
    kind, code, wait, retry = told
    if wait == "day":
        wait = str(int(86400 - clock.now() % 86400))
    assert (status, body["error"]["type"], body["error"]["code"]) == (429, kind, code)
    assert (headers.get("retry-after"), headers.get("x-should-retry")) == (wait, retry)
    assert str(next(iter(limits.values()))) in body["error"]["message"]


async def test_a_request_that_never_fits_is_final_and_says_what_to_do(quotas: Quotas) -> None:
    with pytest.raises(QuotaExceededError, match="max_tokens") as caught:
        await quotas.reserve(key(tokens_per_minute=100), 5000)
    assert caught.value.final and caught.value.retry_after is None


async def test_headers_tell_of_the_shortest_limit(quotas: Quotas) -> None:
    limited = key(requests_per_minute=60, requests_per_day=1000, tokens_total=5000)
    await quotas.reserve(limited, 100)
    assert rate_headers(await quotas.rooms(limited)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "4900",
    }
    assert rate_headers(await quotas.rooms(key())) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (60, "1m0s"), (360, "6m0s"), (3723, "1h2m3s"), (-1, "0s")],
)
def test_durations_are_spelled_as_openai_does(seconds: float, text: str) -> None:
    assert spell_duration(seconds) == text


def test_tokens_must_be_known_before_only_where_they_are_limited() -> None:
    assert not limits_tokens(key(requests_per_minute=1, requests_total=5))
    for name in ("tokens_per_minute", "tokens_per_day", "tokens_total"):
        assert limits_tokens(key(**{name: 1}))
