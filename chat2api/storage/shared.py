"""The door to what expires: rate windows and locks, shared by replicas where there are several.

`SharedState` is asynchronous, since Redis will stand behind it. Counts on the hot path that must not wait (the pool's
own leases and cooldowns, checked thousands of times a second) are kept by the pool itself and only mirrored here;
`MemoryShared` answers without ever suspending, so for one process the difference costs nothing.
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from chat2api.clock import Clock


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held until it is released or `expires` (monotonic seconds) has passed.

    `generation` grows with every grant of the same name: a holder whose lock ran out is told from the next one.
    """

    name: str
    generation: int
    expires: float


@dataclass(frozen=True, slots=True)
class RateVerdict:
    """The answer of a rate window. `reset` is in seconds from now until one more hit has room (0 when it has)."""

    allowed: bool
    remaining: int
    reset: float


class SharedState(Protocol):
    """Windows and locks. Raises StorageError when the state is out of reach."""

    async def take_lock(self, name: str, seconds: float) -> Lock | None:
        """Take a lock for that long; None while somebody holds it."""
        ...

    async def extend_lock(self, lock: Lock, seconds: float) -> Lock | None:
        """Hold it for that long from now; None when it ran out and somebody else took it meanwhile."""
        ...

    async def release_lock(self, lock: Lock) -> bool:
        """Give a lock back; False when it was no longer ours, which changes nothing."""
        ...

    async def hit(self, key: str, limit: int, window: float) -> RateVerdict:
        """Count one event in a sliding window of that many seconds, if it has room for it.

        A refused event is not counted, so a caller who keeps asking is not locked out for longer.
        """
        ...


class MemoryShared:
    """`SharedState` of a single process. Every method is O(1), amortised, and never suspends.

    Times are monotonic, so a jump of the wall clock neither frees nor prolongs anything.
    """

    def __init__(self, clock: Clock, *, max_keys: int = 100_000) -> None:
        """Make an empty state; rate windows are kept for at most `max_keys` keys, the longest unused go first."""
        self._clock = clock
        self._max_keys = max_keys
        self._locks: dict[str, Lock] = {}
        self._generation = 0
        self._windows: dict[str, deque[float]] = {}

    async def take_lock(self, name: str, seconds: float) -> Lock | None:
        """See SharedState."""
        now = self._clock.monotonic()
        held = self._locks.get(name)
        if held is not None and held.expires > now:
            return None
        self._generation += 1
        self._locks[name] = lock = Lock(name, self._generation, now + seconds)
        return lock

    async def extend_lock(self, lock: Lock, seconds: float) -> Lock | None:
        """See SharedState."""
        held = self._locks.get(lock.name)
        if held is None or held.generation != lock.generation:
            return None
        self._locks[lock.name] = longer = Lock(lock.name, lock.generation, self._clock.monotonic() + seconds)
        return longer

    async def release_lock(self, lock: Lock) -> bool:
        """See SharedState."""
        held = self._locks.get(lock.name)
        if held is None or held.generation != lock.generation:
            return False
        del self._locks[lock.name]
        return True

    async def hit(self, key: str, limit: int, window: float) -> RateVerdict:
        """See SharedState."""
        now = self._clock.monotonic()
        # Taken out and put back, so that the dict's order is the order of use.
        hits = self._windows.pop(key, None)
        if hits is None:
            hits = deque()
        self._windows[key] = hits
        if len(self._windows) > self._max_keys:
            del self._windows[next(iter(self._windows))]
        while hits and hits[0] <= now - window:
            hits.popleft()
        allowed = len(hits) < limit
        if allowed:
            hits.append(now)
        remaining = max(0, limit - len(hits))
        # With a limit that was lowered meanwhile, more than one hit has to leave before there is room.
        reset = 0.0 if remaining else (hits[len(hits) - limit] + window - now if 0 < limit <= len(hits) else window)
        return RateVerdict(allowed, remaining, reset)
