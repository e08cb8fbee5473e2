"""By which way out an account reaches the backend: one origin and one proxy each, stable, with a rest after failures.

An account keeps its exit, because a sign-in that hops between addresses looks stolen. Only when that exit cools down does
the account take the next one in its own order, and it returns when the first has recovered. The order comes from
rendezvous hashing: adding a proxy moves as few accounts as possible.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from chat2api.clock import Clock
from chat2api.errors import AllAccountsCoolingError, ChallengedError, TransportError


@dataclass(frozen=True, slots=True)
class Exit:
    """One way out: an origin of the backend through a proxy, or directly with None."""

    origin: str
    proxy: str | None


@dataclass(slots=True)
class _Rest:
    until: float
    pause: float
    distrusted: bool


class Exits:
    """All ways out and how they fare. Times are monotonic seconds."""

    CONNECT_PAUSE = (30.0, 300.0)
    """First and longest rest after a failure to connect, in seconds (R3)."""
    DISTRUST_PAUSE = (60.0, 3600.0)
    """The same after the backend distrusted the address."""

    def __init__(self, origins: Sequence[str], proxies: Sequence[str], clock: Clock) -> None:
        """Take the values of CHATGPT_BASE_URL and PROXY_URL; no proxy means direct connections."""
        self._exits = [Exit(origin, proxy) for origin in origins for proxy in proxies or (None,)]
        self._clock = clock
        self._rests: dict[Exit, _Rest] = {}

    def pick(self, account_id: str, avoid: Exit | None = None) -> Exit:
        """Give the account's exit: the first of its own order that is not resting and not the one to avoid.

        When all are resting, the one that rests the shortest among those that merely failed to connect: with nothing
        better at hand, trying beats waiting. Raises AllAccountsCoolingError when the backend distrusts them all.
        """
        order = sorted(self._exits, key=lambda way: _weight(account_id, way))
        now = self._clock.monotonic()
        for way in order:
            if way != avoid and self._resting_until(way) <= now:
                return way
        trusted = [way for way in order if self._resting_until(way) <= now or not self._rests[way].distrusted]
        if not trusted:
            soonest = min(self._resting_until(way) for way in order) - now
            raise AllAccountsCoolingError(
                "The backend distrusts the address that this server calls from, so it is left alone for a while. Another exit "
                "(PROXY_URL) helps at once.",
                retry_after=soonest,
            )
        return min(trusted, key=self._resting_until)

    def report(self, way: Exit, error: Exception | None) -> None:
        """Tell how a call went: a failure of the exit itself makes it rest, a success ends its rests."""
        if error is None:
            self._rests.pop(way, None)
        elif isinstance(error, TransportError) and error.phase in ("resolve", "connect", "tls", "proxy"):
            self._rest(way, *self.CONNECT_PAUSE, distrusted=False)
        elif isinstance(error, ChallengedError) and error.scope in ("exit", "both"):
            self._rest(way, *self.DISTRUST_PAUSE, distrusted=True)

    @property
    def all(self) -> Sequence[Exit]:
        """All exits, for the doctor and the start log."""
        return tuple(self._exits)

    def _rest(self, way: Exit, first: float, longest: float, *, distrusted: bool) -> None:
        known = self._rests.get(way)
        pause = min(longest, known.pause * 2) if known is not None else first
        self._rests[way] = _Rest(self._clock.monotonic() + pause, pause, distrusted)

    def _resting_until(self, way: Exit) -> float:
        rest = self._rests.get(way)
        return rest.until if rest is not None else 0.0


def _weight(account_id: str, way: Exit) -> bytes:
    return hashlib.blake2b(f"{account_id}|{way.origin}|{way.proxy}".encode(), digest_size=8).digest()
