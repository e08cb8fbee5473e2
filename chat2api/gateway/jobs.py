"""Long work that an operator started: how far it is, what came of each part, and how it ended.

Jobs live in this process and are told to whoever asks with the job's id; the newest ones are kept after their end.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from chat2api.clock import Clock
from chat2api.errors import Chat2APIError, NotFoundError, RateLimitedError
from chat2api.sentences import Phrases, words_of_error

log = logging.getLogger(__name__)

MAX_RUNNING = 8
"""Jobs at once."""

MAX_KEPT = 50
"""Ended jobs that can still be asked for."""

SAY = Phrases(
    "job_error",
    {"stopped": "The server was stopped.", "failed_inside": "It failed inside the server; the log has the reason."},
)
"""Why a job ended early."""

JobState = Literal["running", "done", "failed", "cancelled"]


class Spawn(Protocol):
    """Starts background work that is kept until it ends."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Start it."""
        ...


@dataclass(frozen=True, slots=True)
class JobItem:
    """What came of one part: its name, whether it went well, and a sentence."""

    name: str
    ok: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A picture of a job. `total` counts its parts; `error` is the sentence of a job that failed as a whole."""

    id: str
    kind: str
    state: JobState
    total: int
    done: int
    failed: int
    started_at: float
    ended_at: float | None
    error: str | None


class Job:
    """One job, as its work and its followers see it."""

    def __init__(self, kind: str, total: int, clock: Clock) -> None:
        """Made by Jobs.start."""
        self.id = f"job_{secrets.token_hex(8)}"
        self.kind = kind
        self.items: list[JobItem] = []
        self._total = total
        self._done = 0
        self._clock = clock
        self._state: JobState = "running"
        self._started_at = clock.now()
        self._ended_at: float | None = None
        self._error: str | None = None
        self._changed = asyncio.Event()

    @property
    def status(self) -> JobStatus:
        """The job as it is now."""
        failed = sum(not item.ok for item in self.items)
        return JobStatus(
            self.id,
            self.kind,
            self._state,
            self._total,
            self._done,
            failed,
            self._started_at,
            self._ended_at,
            self._error,
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing more will change."""
        return self._state != "running"

    def progress(self, done: int, total: int) -> None:
        """Take note of how many parts are done, for work that tells no single ones."""
        self._done, self._total = done, total
        self._tell()

    def add(self, item: JobItem) -> None:
        """Take note of one part that is done."""
        self.items.append(item)
        self._done += 1
        self._tell()

    def end(self, state: JobState, error: str | None = None) -> None:
        """Take note of the end."""
        self._state, self._error, self._ended_at = state, error, self._clock.now()
        self._tell()

    async def follow(self, every: float | None = None) -> AsyncGenerator[tuple[JobStatus, list[JobItem]]]:
        """Yield the status now and after changes, with the items that are new since the last time, until the end.

        A slow reader gets several changes in one. After `every` seconds without a change the status comes again.
        """
        told = 0
        while True:
            changed = self._changed
            news = self.items[told:]
            told += len(news)
            over = self.is_over
            yield self.status, news
            if over:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Jobs:
    """All jobs of this process."""

    def __init__(self, clock: Clock, spawn: Spawn) -> None:
        """Run jobs by `spawn`, which may cancel them when the server stops."""
        self._clock = clock
        self._spawn = spawn
        self._jobs: dict[str, Job] = {}

    def start(self, kind: str, total: int, work: Callable[[Job], Awaitable[None]]) -> Job:
        """Begin a job of so many parts. Raises RateLimitedError while too many run."""
        if sum(not job.is_over for job in self._jobs.values()) >= MAX_RUNNING:
            raise RateLimitedError(
                f"{MAX_RUNNING} jobs are running. Begin another one when they have ended.", code="too_many_jobs"
            )
        job = Job(kind, total, self._clock)
        self._jobs[job.id] = job
        ended = [one for one in self._jobs.values() if one.is_over]
        for old in ended[: max(0, len(ended) - MAX_KEPT)]:
            del self._jobs[old.id]
        task = self._spawn(self._run(job, work), name=f"job {kind}")
        # A task may be cancelled before it has taken its first step.
        task.add_done_callback(lambda _: None if job.is_over else job.end("cancelled", SAY("stopped")))
        return job

    def get(self, job_id: str) -> Job:
        """Give a job. Raises NotFoundError for one that never was or was long ago."""
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFoundError("There is no such job (any more).", param="id", code="job_not_found")
        return job

    async def _run(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        try:
            await work(job)
        except Chat2APIError as error:
            log.warning("the job %s failed: %s", job.kind, error)
            job.end("failed", words_of_error(error.message, error.code))
        except Exception:
            # A job's outermost loop: whoever follows must hear of the end.
            log.exception("the job %s failed", job.kind)
            job.end("failed", SAY("failed_inside"))
        else:
            job.end("done")
