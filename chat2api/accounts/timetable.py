"""`Timetable`: work that comes round again, done by one replica at a time.

APScheduler says when; a lock in the shared state says who; runs that were missed, since the machine slept or the work
took long, collapse into one. Work that has a time of its own (every fourth day at 15:00) decides by what is stored
whether it is due, so that restarts, month ends and clock changes cannot shift it: the timetable only asks it often.

APScheduler goes by the wall clock: set back by a day, it would wait a day. `watch` notices that and begins anew.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from chat2api.clock import Clock
from chat2api.errors import Chat2APIError
from chat2api.storage.shared import Lock, SharedState

log = logging.getLogger(__name__)

LOCK_SECONDS = 60.0
"""How long a replica that died keeps others from the work."""

WATCH_SECONDS = 30.0
CLOCK_STEP = 5.0
"""How far the wall clock may stray between two looks before that counts as a jump."""


class SpawnTask(Protocol):
    """Starts background work that is kept until it ends; Runtime.spawn is one."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Start it."""
        ...


class Timetable:
    """The recurring work of one server. Add all of it, `start`, keep `watch` running, and close it at the end."""

    def __init__(
        self, shared: SharedState, clock: Clock, spawn: SpawnTask, *, instant: Callable[[], datetime] | None = None
    ) -> None:
        """Make an empty timetable. `instant` stands in for APScheduler's own clock, which cannot be replaced."""
        self._now = instant or (lambda: datetime.now(UTC))
        self._shared = shared
        self._clock = clock
        self._spawn = spawn
        self._work: dict[str, Callable[[], Awaitable[object]]] = {}
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        logging.getLogger("apscheduler").setLevel(logging.WARNING)  # it tells of each run otherwise

    def add(self, name: str, work: Callable[[], Awaitable[object]], *, every: float, soon: bool = False) -> None:
        """Do the work every so many seconds; `soon` begins right after the start, else after the first interval."""
        self._work[name] = work
        self._scheduler.add_job(
            self.run,
            IntervalTrigger(seconds=every, timezone=UTC),
            args=[name],
            id=name,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
            **({"next_run_time": self._now()} if soon else {}),
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    async def aclose(self) -> None:
        """Stop, cancelling what is being done; idempotent."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
            await asyncio.sleep(0)  # it stops in the loop's next round

    async def run(self, name: str) -> bool:
        """Do the work of that name now, unless a replica is doing it; tell whether it was done. Never raises."""
        try:
            lock = await self._shared.take_lock(f"job:{name}", LOCK_SECONDS)
            if lock is None:
                return False
            beat = self._spawn(self._hold(lock), name=f"lock of {name}")
            try:
                await self._work[name]()
            finally:
                beat.cancel()
                await self._shared.release_lock(lock)
        except Chat2APIError as error:
            log.warning("%s could not be done and is tried again later: %s", name, error)
            return False
        except Exception:
            # A job's outermost loop: a mistake in one run must not end the work for good.
            log.exception("%s failed", name)
            return False
        return True

    async def watch(self) -> None:
        """Ask all work again when the wall clock was set, for ever."""
        offset = self._clock.now() - self._clock.monotonic()
        while True:
            await self._clock.sleep(WATCH_SECONDS)
            before, offset = offset, self._clock.now() - self._clock.monotonic()
            if abs(offset - before) > CLOCK_STEP:
                self.realign()

    def realign(self) -> None:
        """Let every interval begin anew by the clock as it is now."""
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=self._now() + timedelta(seconds=job.trigger.interval.total_seconds()))

    def next_runs(self) -> dict[str, float]:
        """Give when each work is asked next, as instants; for pages and tests."""
        return {job.id: job.next_run_time.timestamp() for job in self._scheduler.get_jobs()}

    async def _hold(self, lock: Lock) -> None:
        while True:
            await self._clock.sleep(LOCK_SECONDS / 3)
            if await self._shared.extend_lock(lock, LOCK_SECONDS) is None:
                return
