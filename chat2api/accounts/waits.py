"""The waits of all accounts: when each begins, ends, and reaches the disk.

A wait is measured on the monotonic clock; in the records it is an instant. One that the backend stated is kept whatever
else is learnt; one that we guessed may end early, and then it ends in the records too.
"""

import heapq
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from chat2api.accounts.entries import Entry, Wait
from chat2api.accounts.health import DISTRUST_SECONDS, STATED_SECONDS
from chat2api.clock import Clock
from chat2api.errors import StorageError
from chat2api.storage.records import PoolRecords
from chat2api.storage.values import ANY_MODEL, Cooldown

log = logging.getLogger(__name__)


class Waits:
    """The waits of a pool's entries. Nothing here suspends but `keep` and `flush`."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        records: PoolRecords,
        clock: Clock,
        *,
        changed: Callable[[Entry], None],
        unwatched: Callable[[str], None],
    ) -> None:
        """Look after these entries.

        `changed` is told every entry whose waits began or ended; `unwatched` every model that nobody waits with now.
        """
        self._entries = entries
        self._records = records
        self._clock = clock
        self._changed = changed
        self._unwatched = unwatched
        self._waiting: dict[str, set[str]] = {}
        self._wakes: list[tuple[float, int, str, str]] = []
        self._numbers = itertools.count()
        self._dirty: dict[tuple[str, str], Cooldown] = {}

    def watched(self, model: str) -> str | None:
        """Give the model if somebody waits with it, else None."""
        return model if model in self._waiting else None

    def begin(self, cooldown: Cooldown) -> bool:
        """Begin a wait, unless one is running that counts for more; tell whether it began.

        What was stated counts for more than a guess, and of two of a kind the longer one.
        """
        entry = self._entries.get(cooldown.account_id)
        # A clock that was set back since the wait was noted must not prolong it beyond what waits last.
        longest = STATED_SECONDS[1] if cooldown.stated else DISTRUST_SECONDS[1]
        seconds = min(cooldown.until_at - self._clock.now(), longest)
        if entry is None or seconds <= 0:
            return False
        now = self._clock.monotonic()
        ends = now + seconds
        running = entry.waits.get(cooldown.model)
        if running is not None and running.ends > now:
            known, told = (running.cooldown.stated, running.ends), (cooldown.stated, ends)
            if known >= told:
                return False
        if cooldown.model != ANY_MODEL:
            self._waiting.setdefault(cooldown.model, set()).add(cooldown.account_id)
        entry.waits[cooldown.model] = Wait(ends, cooldown)
        heapq.heappush(self._wakes, (ends, next(self._numbers), cooldown.account_id, cooldown.model))
        self._changed(entry)
        return True

    def take_over(self, cooldown: Cooldown) -> None:
        """Take over a wait from the records, or the early end of a guessed one that another process saw.

        A guess that is older than our own news, which are not on disk yet, is left: it may be one that we just ended.
        """
        if not cooldown.stated and (cooldown.account_id, cooldown.model) in self._dirty:
            return
        if self.begin(cooldown) or cooldown.stated or cooldown.until_at > self._clock.now():
            return
        entry = self._entries.get(cooldown.account_id)
        wait = entry.waits.get(cooldown.model) if entry is not None else None
        if entry is None or wait is None or wait.cooldown.stated:
            return
        if wait.ends > self._clock.monotonic():  # one that has ended by itself is kept for its strikes
            self._end(entry, cooldown.model)
            self._changed(entry)

    def wake_due(self) -> None:
        """Bring back the accounts whose waits have ended; a guessed wait is remembered for its strikes."""
        if not self._wakes:
            return
        now = self._clock.monotonic()
        while self._wakes and self._wakes[0][0] <= now:
            ends, _, account_id, model = heapq.heappop(self._wakes)
            entry = self._entries.get(account_id)
            wait = entry.waits.get(model) if entry is not None else None
            if entry is None or wait is None or wait.ends != ends:
                continue
            self._end(entry, model)
            if not wait.cooldown.stated:
                entry.waits[model] = wait
            self._changed(entry)

    def end_guessed(self, entry: Entry, model: str, *, running: bool, reason: str | None = None) -> None:
        """End the count of strikes of a guessed wait, and with `running` the wait itself if it still lasts.

        `reason` restricts it to waits of that reason. An early end is on disk with the next `flush`.
        """
        wait = entry.waits.get(model)
        if wait is None or wait.cooldown.stated or (reason is not None and wait.cooldown.reason != reason):
            return
        lasts = wait.ends > self._clock.monotonic()
        if lasts and not running:
            return
        self._end(entry, model)
        if lasts:
            self._dirty[entry.account.id, model] = replace(wait.cooldown, until_at=self._clock.now(), strikes=0)
            self._changed(entry)

    def forget(self, entry: Entry) -> None:
        """Drop all waits of an entry that leaves the pool."""
        for model in list(entry.waits):
            self._end(entry, model)

    async def keep(self, cooldown: Cooldown) -> None:
        """Write a wait that has begun: at once if it was stated, else with the next `flush`; trouble is logged."""
        self._dirty[cooldown.account_id, cooldown.model] = cooldown
        if cooldown.stated:
            try:
                await self.flush()
            except StorageError as error:
                log.warning("cannot store a wait yet: %s", error)

    async def flush(self) -> None:
        """Write what is not on disk yet. Raises StorageError, and then keeps it for the next time."""
        if not self._dirty:
            return
        written = dict(self._dirty)
        await self._records.put_cooldowns(list(written.values()))
        for key, cooldown in written.items():
            if self._dirty.get(key) is cooldown:
                del self._dirty[key]

    def _end(self, entry: Entry, model: str) -> None:
        del entry.waits[model]
        waiting = self._waiting.get(model)
        if waiting is None:
            return
        waiting.discard(entry.account.id)
        if not waiting:
            del self._waiting[model]
            self._unwatched(model)
