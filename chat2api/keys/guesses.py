"""Guesses at keys and passwords: who made too many must wait, and nobody else for him (S14).

Ten different wrong secrets of one address in a minute, and for a minute nothing from there is compared at all; each
further time the wait doubles, up to a quarter of an hour. The same wrong secret sent again is no new guess: a program
with a mistyped key does not lock its owner out. A secret that was right from an address before is let through to be
compared even while that address waits, so that one person's mistakes do not stop another's work behind the same router.

Everything is in memory and for this process alone; addresses are neither kept for longer nor logged.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from chat2api.clock import Clock
from chat2api.errors import RateLimitedError

log = logging.getLogger(__name__)

WINDOW = 60.0
"""In which guesses are counted, in seconds."""
GUESSES = 10
"""Different wrong secrets that one address has in a window."""
FIRST_WAIT = 60.0
LONGEST_WAIT = 15 * 60.0
ALARM_GUESSES = 100
"""Wrong secrets of all addresses together in a window that raise the alarm."""
ALARM_SECONDS = 3600.0
"""How long the alarm is shown after the last such window."""

_MAX_ADDRESSES = 10_000
_MAX_KNOWN = 4096


@dataclass(slots=True)
class _Address:
    """What one address did: when it guessed, which digests, until when it waits and how long that is."""

    guesses: dict[bytes, float] = field(default_factory=dict)
    waits_until: float = 0.0
    wait: float = 0.0


class Guesses:
    """Counts wrong secrets by address. All methods are O(1) and never suspend."""

    def __init__(self, clock: Clock) -> None:
        """Start with no guesses."""
        self._clock = clock
        self._addresses: dict[str, _Address] = {}
        self._known: dict[tuple[str, bytes], None] = {}
        self._recent: deque[float] = deque(maxlen=ALARM_GUESSES)
        self._alarm_until = 0.0
        self.refused = 0
        """Secrets so far that were not compared, since their address had to wait."""

    @property
    def alarm(self) -> bool:
        """Whether somebody seems to be trying keys by the hundred, now or within the last hour."""
        return self._clock.monotonic() < self._alarm_until

    @property
    def quiet(self) -> bool:
        """Whether there was no wrong secret lately; then nothing has to be asked before comparing."""
        return not self._addresses

    def check(self, address: str, digest: bytes) -> None:
        """Raise RateLimitedError while this secret may not be compared for a caller from there."""
        entry = self._addresses.get(address)
        if entry is None or (address, digest) in self._known:
            return
        left = entry.waits_until - self._clock.monotonic()
        if left > 0:
            self.refused += 1
            raise RateLimitedError(
                "Too many wrong keys or passwords came from your address. Wait, then try again.", retry_after=left
            )

    def failed(self, address: str, digest: bytes) -> Callable[[], None]:
        """Count a wrong secret, or one that may turn out wrong; calling what this gives takes it back."""
        now = self._clock.monotonic()
        entry = self._addresses.pop(address, None) or _Address()
        self._addresses[address] = entry  # taken out and put back: the order is that of use
        self._forget(now)
        waited = entry.waits_until - entry.wait  # what led to the last wait is paid for
        for old in [known for known, at in entry.guesses.items() if at <= max(waited, now - WINDOW)]:
            del entry.guesses[old]
        if digest in entry.guesses:
            return lambda: None
        before = (entry.waits_until, entry.wait)
        entry.guesses[digest] = now
        if len(entry.guesses) >= GUESSES:
            again = now < entry.waits_until + LONGEST_WAIT
            entry.wait = min(LONGEST_WAIT, entry.wait * 2) if entry.wait and again else FIRST_WAIT
            entry.waits_until = now + entry.wait
        waits_until = entry.waits_until
        self._count(now)

        def take_back() -> None:
            entry.guesses.pop(digest, None)
            if entry.waits_until == waits_until:
                entry.waits_until, entry.wait = before

        return take_back

    def succeeded(self, address: str, digest: bytes) -> None:
        """Remember that this secret is right for a caller from there."""
        pair = (address, digest)
        if pair not in self._known:
            if len(self._known) >= _MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[pair] = None

    def _count(self, now: float) -> None:
        self._recent.append(now)
        if len(self._recent) == ALARM_GUESSES and self._recent[0] > now - WINDOW:
            if not self.alarm:
                log.warning("%d wrong keys or passwords within a minute: somebody may be guessing", ALARM_GUESSES)
            self._alarm_until = now + ALARM_SECONDS

    def _forget(self, now: float) -> None:
        """Drop the addresses longest unused: those that are quiet by now, and any beyond the bound."""
        while True:
            oldest = next(iter(self._addresses))
            entry = self._addresses[oldest]
            last = max(entry.guesses.values(), default=entry.waits_until + LONGEST_WAIT)
            stale = last + WINDOW < now and entry.waits_until + LONGEST_WAIT < now
            if len(self._addresses) == 1 or not (stale or len(self._addresses) > _MAX_ADDRESSES):
                return
            del self._addresses[oldest]
