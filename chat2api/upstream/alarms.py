"""Instants at which many things want to be called, with one timer for all of them.

A timer for each would be made, kept in the loop's heap and thrown away for every request; hardly any ever rings. Here it is
an entry in a dictionary. When the timer rings all entries are looked at, at most once in PAUSE seconds.
"""

import asyncio
from math import inf
from typing import Protocol

PAUSE = 0.002
"""Seconds between two looks at the entries, and so the most that a call comes late where many come close together."""


class Sleeper(Protocol):
    """What wants to be called."""

    def ring(self) -> None:
        """Called at the instant that was set, or a little later; it may set the next one."""
        ...


class Alarms:
    """Calls each sleeper once at its instant. All instants are the loop's clock's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have no sleepers yet."""
        self._loop = loop
        self._instants: dict[Sleeper, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf

    def set(self, sleeper: Sleeper, at: float) -> None:
        """Call that one at that instant, and not at the one that was set for it before."""
        self._instants[sleeper] = at
        if at < self._rings_at:
            self._set_timer(at)

    def drop(self, sleeper: Sleeper) -> None:
        """Do not call that one any more; one that is not to be called is no error."""
        self._instants.pop(sleeper, None)

    def close(self) -> None:
        """Call nobody whose instant was set before."""
        self._instants.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rings_at = inf

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        self._timer = None
        self._rings_at = -inf  # whoever sets another instant now need not see to the timer
        for sleeper in [sleeper for sleeper, at in self._instants.items() if at <= now]:
            if self._instants.get(sleeper, inf) <= now:  # else another one's call has changed it
                del self._instants[sleeper]
                sleeper.ring()
        self._rings_at = inf
        if self._instants:
            self._set_timer(max(min(self._instants.values()), now + PAUSE))
