"""The exits (proxies, or the direct way) and which of them is fit to be used for which host.

An account keeps its exit: an account that appears at a new address with every call looks stolen. It is only moved
while its exit cannot be used.
"""

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass

from chat2api.accounts.health import (
    DISTRUST_SECONDS,
    EXIT_SECONDS,
    Breaker,
    BreakerState,
    ExitFault,
    clamp_stated,
)
from chat2api.clock import Clock
from chat2api.errors import AllAccountsCoolingError

Exit = str | None
"""The URL of a proxy, or None for the direct way."""


@dataclass(frozen=True, slots=True)
class ExitState:
    """How an exit is for one host. `name` is its place in PROXY_URL, from 1, or `direct`: a proxy's address may hold a
    password. `seconds` is for how long it may not be used."""

    name: str
    host: str
    state: BreakerState
    seconds: float


MAX_FAILING = 1000
"""Callers whose own failures are remembered; of more, those whose last failure is the oldest are forgotten."""


class Exits:
    """All exits with a breaker each for every host. Everything is synchronous and cheap.

    Callers who are told apart (`who`) have breakers of their own besides, while they fail: whose requests fail whatever
    serves them has to wait alone. Callers without keys of their own are a crowd, named in front of a NUL: each waits alone,
    and together they count as one.
    """

    def __init__(self, exits: Sequence[Exit], clock: Clock) -> None:
        """Use these exits; none given means the direct way."""
        self._exits: tuple[Exit, ...] = tuple(dict.fromkeys(exits)) or (None,)
        self._clock = clock
        self._breakers: dict[tuple[Exit, str], Breaker] = {}
        self._failing: dict[tuple[Exit, str, str], Breaker] = {}

    @property
    def all(self) -> tuple[Exit, ...]:
        """All exits, in the order of the setting."""
        return self._exits

    def choose(self, key: str, host: str, *, avoid: Set[Exit] = frozenset(), who: str = "") -> Exit:
        """Give the exit for an account (`key`) and tell its breaker that a call of that caller goes out.

        `avoid` names exits that failed this request; they are taken again only when there is no other. Raises
        AllAccountsCoolingError, with the soonest time, when no exit may be used.
        """
        now = self._clock.monotonic()
        ranked: Sequence[Exit] = self._exits
        if len(ranked) > 1:
            ranked = sorted(ranked, key=lambda one: (one in avoid, _rank(key, one)))
        soonest = float("inf")
        for candidate in ranked:
            breakers = self._breakers_for(candidate, host, who)
            blocked = max(breaker.blocked_for(now) for breaker in breakers)
            if blocked <= 0:
                for breaker in breakers:
                    breaker.start(now)
                return candidate
            soonest = min(soonest, blocked)
        raise AllAccountsCoolingError(
            "The way to the backend is blocked for the moment: every exit failed or is distrusted. Try again later.",
            retry_after=soonest,
        )

    def report(
        self, used: Exit, host: str, fault: ExitFault | None, *, seconds: float | None = None, who: str = ""
    ) -> None:
        """Tell how a caller's call through this exit went: None for well, else what the exit did (`Verdict.exit_fault`).

        `seconds` is the rest that the backend stated (`Verdict.exit_seconds`).
        """
        breaker, now, crowd = self._breaker(used, host), self._clock.monotonic(), who.partition("\0")[0]
        match fault:
            case None:
                breaker.succeed(now, who=crowd)
                self._failing.pop((used, host, who), None)
            case "unreachable" if len(self._exits) > 1:
                breaker.open(now, EXIT_SECONDS)
            case "unreachable":
                # The only exit is not closed for one lost connection: there is no other to go to.
                breaker.fail(now, by_share=self._share_may_open(host, now))
            case "failing":
                breaker.fail(now, by_share=self._share_may_open(host, now), who=crowd)
                if who:
                    self._note_failing(used, host, who, now)
            case "distrusted":
                breaker.open(now, DISTRUST_SECONDS, seconds=clamp_stated(seconds))

    def abandon(self, used: Exit, host: str, *, who: str = "") -> None:
        """Tell that a call through this exit ended without an outcome, for instance because the caller left."""
        for breaker in self._breakers_for(used, host, who):
            breaker.abandon()

    def blocked_for(self, used: Exit, host: str) -> float:
        """Give for how many seconds an exit may not be used for a host; 0 when it may."""
        return self._breaker(used, host).blocked_for(self._clock.monotonic())

    def states(self) -> list[ExitState]:
        """Give how each exit is for each host that it was used for."""
        now = self._clock.monotonic()
        names = {one: "direct" if one is None else str(place) for place, one in enumerate(self._exits, 1)}
        return [
            ExitState(names[used], host, breaker.state(now), breaker.blocked_for(now))
            for (used, host), breaker in self._breakers.items()
        ]

    def _share_may_open(self, host: str, now: float) -> bool:
        """Whether statistics may close one more exit: never more than half, or a bad hour would close them all."""
        closed = sum(self._breaker(one, host).blocked_for(now) > 0 for one in self._exits)
        return (closed + 1) * 2 <= len(self._exits)

    def _note_failing(self, used: Exit, host: str, who: str, now: float) -> None:
        """Count a failure for its caller alone."""
        breaker = self._failing.pop((used, host, who), None) or Breaker()
        breaker.fail(now, by_share=False)
        self._failing[used, host, who] = breaker
        if len(self._failing) > MAX_FAILING:
            del self._failing[next(iter(self._failing))]

    def _breakers_for(self, used: Exit, host: str, who: str) -> list[Breaker]:
        own = self._failing.get((used, host, who))
        return [self._breaker(used, host), *([own] if own is not None else [])]

    def _breaker(self, used: Exit, host: str) -> Breaker:
        return self._breakers.setdefault((used, host), Breaker())


def _rank(key: str, candidate: Exit) -> bytes:
    """Give the same order for the same account always, and little change when an exit is added or removed."""
    return hashlib.blake2b(f"{key}\0{candidate or ''}".encode(), digest_size=8).digest()
