"""What was asked and answered in each of the last 24 hours, counted in memory: for the overview, since the start alone.

Waits are gathered in steps that grow by a tenth, so that a day costs some kilobytes however much is asked, and a quantile
is at most a tenth too high. Pure but for the clock that is passed in.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chat2api.clock import Clock

HOURS = 24
"""Hours that are told apart; what is older is forgotten."""

_HOUR_SECONDS = 3600
_LEAST = 0.001
_GROWTH = 1.1
_STEPS = 144
"""Steps of waits: the last one holds all from about a quarter of an hour."""


@dataclass(slots=True)
class Hour:
    """One hour of the clock, by its number since 1970.

    As in the ledger an answer that was cut counts both as answered and as failed. `waits` has how many answers began
    within each step.
    """

    number: int
    answered: int = 0
    failed: int = 0
    tokens: int = 0
    waits: list[int] = field(default_factory=lambda: [0] * _STEPS)

    @property
    def begins_at(self) -> float:
        """When the hour begins, in Unix seconds."""
        return float(self.number * _HOUR_SECONDS)


class HourlyCounts:
    """The last 24 hours of one server."""

    def __init__(self, clock: Clock) -> None:
        """Begin to count now."""
        self._clock = clock
        self.since_at = clock.now()
        """When counting began, in Unix seconds."""
        self._began = clock.monotonic()
        self._hours: dict[int, Hour] = {}

    @property
    def uptime(self) -> float:
        """Seconds since counting began, whatever was done to the machine's clock meanwhile."""
        return self._clock.monotonic() - self._began

    def add(self, *, failed: bool, tokens: int, first: float | None) -> None:
        """Count a request that is over; `first` is how many seconds its answer took to begin, None if none began."""
        number = int(self._clock.now() // _HOUR_SECONDS)
        hour = self._hours.get(number)
        if hour is None:
            hour = self._hours[number] = Hour(number)
            while len(self._hours) > HOURS:  # the oldest, also where the clock was set back
                del self._hours[min(self._hours)]
        hour.answered += first is not None
        hour.failed += failed
        hour.tokens += tokens
        if first is not None:
            hour.waits[_step(first)] += 1

    def hours(self) -> list[Hour]:
        """Give the last 24 hours, the current one last; those in which nothing was asked are empty."""
        now = int(self._clock.now() // _HOUR_SECONDS)
        return [self._hours.get(number) or Hour(number) for number in range(now - HOURS + 1, now + 1)]


def quantile(hours: Iterable[Hour], share: float) -> float | None:
    """Give the seconds within which that share of the answers began, at most a tenth too high; None without any."""
    waits: Sequence[int] = [sum(counts) for counts in zip(*(hour.waits for hour in hours), strict=True)]
    wanted = share * sum(waits)
    if not wanted:
        return None
    reached = 0
    for step, count in enumerate(waits):
        reached += count
        if reached >= wanted:
            return _end(step)
    return _end(_STEPS - 1)


def _step(seconds: float) -> int:
    if seconds <= _LEAST:
        return 0
    return min(_STEPS - 1, math.ceil(math.log(seconds / _LEAST, _GROWTH)))


def _end(step: int) -> float:
    return float(_LEAST * _GROWTH**step)
