"""What keys have used and reserved, behind one door, so that replicas can share it.

A request is admitted by one atomic step that looks at all of a key's limits and takes from all or from none; two steps
would let two requests pass where there is room for one. It takes what the request may cost; `settle` puts what it did
cost in that place. `MemoryQuotas` is for a single process: nothing in it ever suspends, so no two steps interleave.

The last minute is remembered in pieces of a tenth of a second, each counted until its youngest part is a minute old:
never too much passes, at most a tenth too late, and memory stays bounded however much passes.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from chat2api.clock import Clock
from chat2api.storage.keys import DAY_SECONDS, KeyLimits
from chat2api.storage.usage import KeyTotals, day_of

LimitName = Literal[
    "requests_total",
    "tokens_total",
    "requests_per_day",
    "tokens_per_day",
    "requests_per_minute",
    "tokens_per_minute",
    "requests_at_once",
]

CLOCK_ERROR = 2 * DAY_SECONDS
"""A day that lies further ahead than this was begun by a wrong clock."""

MINUTE = 60.0
_PIECE = 0.1
_LOOKED_AT = 1000
"""Keys that are looked at, at most, each time that some may be forgotten; half a millisecond's work."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a limit is used, reservations included. `reset` is in seconds until all is free again; None: never."""

    name: LimitName
    limit: int
    used: int
    reset: float | None

    @property
    def remaining(self) -> int:
        """What is left."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The limit that keeps a request out, what it asked for, and the seconds until there may be room; None: never."""

    name: LimitName
    limit: int
    used: int
    asked: int
    wait: float | None


@dataclass(slots=True)
class Piece:
    """What was taken from a window within a tenth of a second; `gone` once it has left the window."""

    began: float
    ended: float
    amount: int
    gone: bool = False


@dataclass(slots=True)
class Reservation:
    """What one request holds until it is settled. `day` is the one that it counts for."""

    key: str
    tokens: int
    day: str
    request_piece: Piece | None
    token_piece: Piece | None
    settled: bool = False


class QuotaState(Protocol):
    """Counters of all keys. Raises StorageError when they are out of reach."""

    async def reserve(self, key: str, limits: KeyLimits, tokens: int) -> Reservation | NoRoom:
        """Take one request and that many tokens from all limits of a key, or nothing and say which has no room."""
        ...

    async def settle(self, reservation: Reservation, *, tokens: int, charged: bool, keep_rate: bool = False) -> None:
        """End a request with what it really cost; later calls change nothing.

        Not `charged` gives everything back, but with `keep_rate` the request stays in the rate of the last minute.
        """
        ...

    async def rooms(self, key: str, limits: KeyLimits) -> tuple[Room, ...]:
        """Give the state of each limit that the key has."""
        ...


class _Window:
    """What was taken in the last minute."""

    __slots__ = ("_pieces", "total")

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.total = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def expire(self, now: float) -> None:
        while self._pieces and self._pieces[0].ended <= now - MINUTE:
            piece = self._pieces.popleft()
            piece.gone = True
            self.total -= piece.amount

    def add(self, now: float, amount: int) -> Piece:
        if self._pieces and now - self._pieces[-1].began < _PIECE:
            piece = self._pieces[-1]
            piece.ended = now
            piece.amount += amount
        else:
            piece = Piece(now, now, amount)
            self._pieces.append(piece)
        self.total += amount
        return piece

    def change(self, piece: Piece, by: int) -> None:
        if not piece.gone:
            piece.amount += by
            self.total += by

    def wait_for(self, now: float, excess: int) -> float:
        """Give the seconds until that much has left the window."""
        for piece in self._pieces:
            excess -= piece.amount
            if excess <= 0:
                return piece.ended + MINUTE - now
        return MINUTE

    def reset(self, now: float) -> float:
        return self._pieces[-1].ended + MINUTE - now if self._pieces else 0.0


@dataclass(slots=True)
class _Counters:
    day: str
    day_requests: int = 0
    day_tokens: int = 0
    requests: int = 0
    tokens: int = 0
    running: int = 0
    by_day: bool = False
    recent_requests: _Window = field(default_factory=_Window)
    recent_tokens: _Window = field(default_factory=_Window)


class MemoryQuotas:
    """`QuotaState` of a single process; the ledger tells it at the start what was used before."""

    def __init__(self, clock: Clock, used: Mapping[str, KeyTotals] | None = None, *, most: int | None = None) -> None:
        """Begin with what each key has used so far, as of today by that clock.

        With `most`, only what still counts is remembered, and of so many keys at most: for keys without a limit in all,
        which come and go. The one longest unused goes first.
        """
        self._clock = clock
        self._most = most
        today = day_of(clock.now())
        self._keys = OrderedDict(
            (key, _Counters(today, totals.requests_today, totals.tokens_today, totals.requests, totals.tokens))
            for key, totals in (used or {}).items()
        )

    async def reserve(self, key: str, limits: KeyLimits, tokens: int) -> Reservation | NoRoom:
        """See QuotaState."""
        now = self._clock.monotonic()
        self.forget()
        counters = self._counters(key, now)
        if self._most is not None:
            self._keys.move_to_end(key)  # the order is that of use
            counters.by_day = limits.requests_per_day is not None or limits.tokens_per_day is not None
        for name, limit, used, asked, wait in self._states(counters, limits, tokens, now):
            if limit is not None and used + asked > limit:
                never = asked > limit
                seconds = None if never else wait(used + asked - limit)
                return NoRoom(name, limit, used, asked, seconds)
        counters.running += 1
        counters.day_requests += 1
        counters.requests += 1
        counters.day_tokens += tokens
        counters.tokens += tokens
        by_minute = limits.requests_per_minute is not None
        return Reservation(
            key,
            tokens,
            counters.day,
            counters.recent_requests.add(now, 1) if by_minute else None,
            counters.recent_tokens.add(now, tokens) if limits.tokens_per_minute is not None else None,
        )

    async def settle(self, reservation: Reservation, *, tokens: int, charged: bool, keep_rate: bool = False) -> None:
        """See QuotaState."""
        if reservation.settled:
            return
        reservation.settled = True
        counters = self._counters(reservation.key, self._clock.monotonic())
        requests_by = 0 if charged else -1
        tokens_by = (tokens if charged else 0) - reservation.tokens
        counters.running -= 1
        counters.requests += requests_by
        counters.tokens += tokens_by
        # A request counts for the day on which it began, in the ledger too.
        if counters.day == reservation.day:
            counters.day_requests += requests_by
            counters.day_tokens += tokens_by
        if reservation.request_piece is not None and not keep_rate:
            counters.recent_requests.change(reservation.request_piece, requests_by)
        if reservation.token_piece is not None:
            counters.recent_tokens.change(reservation.token_piece, tokens_by)

    async def rooms(self, key: str, limits: KeyLimits) -> tuple[Room, ...]:
        """See QuotaState."""
        now = self._clock.monotonic()
        counters = self._counters(key, now)
        resets = {
            "requests_per_day": self._until_tomorrow(),
            "tokens_per_day": self._until_tomorrow(),
            "requests_per_minute": counters.recent_requests.reset(now),
            "tokens_per_minute": counters.recent_tokens.reset(now),
        }
        return tuple(
            Room(name, limit, used, resets.get(name))
            for name, limit, used, _, _ in self._states(counters, limits, 0, now)
            if limit is not None
        )

    @property
    def remembered(self) -> int:
        """Of how many keys something is remembered."""
        return len(self._keys)

    def forget(self) -> None:
        """Drop keys that hold nothing which counts any more, the longest unused first, and those beyond `most`."""
        if self._most is None:
            return
        now, today = self._clock.monotonic(), day_of(self._clock.now())
        for _ in range(min(len(self._keys), _LOOKED_AT)):
            key, counters = next(iter(self._keys.items()))
            if counters.running:  # however long ago that began
                self._keys.move_to_end(key)
                continue
            counters.recent_requests.expire(now)
            counters.recent_tokens.expire(now)
            counts = counters.recent_requests or counters.recent_tokens or (counters.by_day and counters.day >= today)
            if counts and len(self._keys) <= self._most:
                return
            del self._keys[key]

    def _counters(self, key: str, now: float) -> _Counters:
        today = day_of(self._clock.now())
        counters = self._keys.get(key)
        if counters is None:
            counters = self._keys[key] = _Counters(today)
        elif today != counters.day and self._is_new(today, counters.day):
            counters.day, counters.day_requests, counters.day_tokens = today, 0, 0
        counters.recent_requests.expire(now)
        counters.recent_tokens.expire(now)
        return counters

    def _is_new(self, today: str, before: str) -> bool:
        """Whether a day begins: a clock set back by a little begins none, but one that was days ahead was wrong."""
        return today > before or before > day_of(self._clock.now() + CLOCK_ERROR)

    def _states(
        self, counters: _Counters, limits: KeyLimits, tokens: int, now: float
    ) -> tuple[tuple[LimitName, int | None, int, int, Callable[[int], float | None]], ...]:
        """Give name, limit, use, what is asked, and how long to wait for an amount; what waits longest comes first."""
        recent, recent_tokens = counters.recent_requests, counters.recent_tokens
        return (
            ("requests_total", limits.requests_total, counters.requests, 1, _never),
            ("tokens_total", limits.tokens_total, counters.tokens, tokens, _never),
            ("requests_per_day", limits.requests_per_day, counters.day_requests, 1, self._tomorrow),
            ("tokens_per_day", limits.tokens_per_day, counters.day_tokens, tokens, self._tomorrow),
            ("requests_per_minute", limits.requests_per_minute, recent.total, 1, lambda by: recent.wait_for(now, by)),
            (
                "tokens_per_minute",
                limits.tokens_per_minute,
                recent_tokens.total,
                tokens,
                lambda by: recent_tokens.wait_for(now, by),
            ),
            ("requests_at_once", limits.requests_at_once, counters.running, 1, _soon),
        )

    def _tomorrow(self, amount: int) -> float:
        return self._until_tomorrow()

    def _until_tomorrow(self) -> float:
        return DAY_SECONDS - self._clock.now() % DAY_SECONDS


def _never(amount: int) -> None:
    return None


def _soon(amount: int) -> float:
    return 1.0
