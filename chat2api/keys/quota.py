"""Limits of issued keys: admit a request or say why not, and tell clients how much is left.

A request reserves before it reaches an account and settles when it is over: `QuotaState` does the counting, here are the
words. Requests are counted exactly. Tokens are reserved by what the caller may get (prompt and max_tokens) and settled by
what they got, so a request without max_tokens may overshoot a token limit by its own answer; the next one is refused.
"""

from collections.abc import Iterable

from chat2api.errors import Chat2APIError, QuotaExceededError, RateLimitedError
from chat2api.storage.keys import IssuedKey
from chat2api.storage.quotas import LimitName, NoRoom, QuotaState, Reservation, Room

EXPECTED_COMPLETION = 256
"""Tokens reserved for an answer whose length the caller does not limit."""

_WORDS: dict[LimitName, str] = {
    "requests_total": "requests in all",
    "tokens_total": "tokens in all",
    "requests_per_day": "requests a day",
    "tokens_per_day": "tokens a day",
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "requests_at_once": "requests at once",
}
_RATES = {"requests_per_minute", "tokens_per_minute", "requests_at_once"}
_TOLD: tuple[tuple[str, tuple[LimitName, ...]], ...] = (
    ("requests", ("requests_per_minute", "requests_per_day", "requests_total")),
    ("tokens", ("tokens_per_minute", "tokens_per_day", "tokens_total")),
)


class Quotas:
    """Holds issued keys to their limits."""

    def __init__(self, state: QuotaState) -> None:
        """Count there."""
        self._state = state

    async def reserve(self, key: IssuedKey, tokens: int) -> Reservation:
        """Admit one request that may cost that many tokens.

        Raises RateLimitedError while the last minute or the requests on their way leave no room, QuotaExceededError when
        the day or the whole of the key is used up. Always `settle` what this gives.
        """
        answer = await self._state.reserve(key.id, key.limits, tokens)
        if isinstance(answer, NoRoom):
            raise refusal(answer)
        return answer

    async def settle(self, reservation: Reservation, *, tokens: int, charged: bool, keep_rate: bool = False) -> None:
        """End a request; see QuotaState."""
        await self._state.settle(reservation, tokens=tokens, charged=charged, keep_rate=keep_rate)

    async def rooms(self, key: IssuedKey) -> tuple[Room, ...]:
        """Give the state of each limit that the key has."""
        return await self._state.rooms(key.id, key.limits)


def limits_tokens(key: IssuedKey) -> bool:
    """Whether a request's tokens must be known before it is admitted."""
    limits = key.limits
    return not (limits.tokens_per_minute is limits.tokens_per_day is limits.tokens_total is None)


def refusal(full: NoRoom, whose: str = "this key") -> Chat2APIError:
    """Give the error for a limit without room, and whose limit it is."""
    limit = f"Limit: {full.limit} {_WORDS[full.name]}."
    if full.asked > full.limit:
        return QuotaExceededError(
            f"This request alone asks for up to {full.asked} tokens, too many for {whose}. {limit} "
            "Send a shorter prompt or a smaller max_tokens."
        )
    if full.name in _RATES:
        return RateLimitedError(
            f"Rate limit reached for {whose}. {limit} Used: {full.used}, requested: {full.asked}.",
            retry_after=full.wait,
        )
    again = (
        "It is full again at midnight UTC." if full.wait is not None else "Ask the operator of this server for more."
    )
    return QuotaExceededError(f"The quota of {whose} is used up. {limit} {again}", retry_after=full.wait)


def tightest(rooms: Iterable[Room]) -> tuple[Room, ...]:
    """Give one state for each kind of limit: of several, the one with the least left."""
    found: dict[str, Room] = {}
    for room in rooms:
        if room.name not in found or room.remaining < found[room.name].remaining:
            found[room.name] = room
    return tuple(found.values())


def rate_headers(rooms: Iterable[Room]) -> dict[str, str]:
    """Give the `x-ratelimit-*` headers: of the shortest limit that the key has, for requests and for tokens."""
    by_name = {room.name: room for room in rooms}
    headers = {}
    for what, names in _TOLD:
        room = next((by_name[name] for name in names if name in by_name), None)
        if room is not None:
            headers[f"x-ratelimit-limit-{what}"] = str(room.limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(room.remaining)
            if room.reset is not None:
                headers[f"x-ratelimit-reset-{what}"] = spell_duration(room.reset)
    return headers


def spell_duration(seconds: float) -> str:
    """Give a duration as OpenAI's headers spell it: `0s`, `120ms`, `8.64s`, `6m0s`, `1h2m3s`."""
    milliseconds = max(0, round(seconds * 1000))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return text + f"{rest / 1000:g}s"
