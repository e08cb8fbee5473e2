"""Solves proofs of work beside the event loop: worker threads for native code, worker processes for Python.

Theory of operation
-------------------
All decisions are made in the event loop, so there is no lock: a worker is a thread that takes one `_Slice` (a range of
nonces, some 50 ms of work) from its queue, searches it, and posts the outcome back to the loop. Between slices the
loop decides what each worker does next: the oldest challenge among those with the fewest workers. So every
challenge gets a worker before any gets two, in the order in which they came, and while fewer challenges wait than
there are workers, the free ones help and halve the time.

A worker thread calls the native search, which releases the interpreter's lock, or, where that is not built, hands the
slice to a child process of its own, because Python code in a thread would hold up the loop. Both look at a
flag every few microseconds or milliseconds; setting it is how a search is stopped from the loop.

Time is counted as processor time of the workers, whoever of them spends it: a busy machine makes a search late but not
a failure, and waiting for a worker costs nothing.
"""

import asyncio
import ctypes
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Protocol

from chat2api.errors import DrainingError, ProofTooHardError
from chat2api.protocol.chatgpt.proof_of_work import (
    MISS_LIMIT,
    PYTHON,
    Algorithm,
    CancelFlag,
    Challenge,
    Template,
    proof_token,
    search,
    variants,
)

log = logging.getLogger(__name__)

NATIVE_LIMIT = 5.0
"""Seconds of searching for one challenge in native code (promise R1)."""

PYTHON_LIMIT = 30.0
"""The same for the search in Python."""

# Nonces per second of one core, roughly; only to cut slices and to know what is small enough for the loop.
_RATES = {
    Algorithm.SHA3_512: {PYTHON: 200_000, "scalar": 300_000},
    Algorithm.FNV1A_32: {PYTHON: 20_000, "scalar": 4_000_000},
}
_VECTOR_RATES = {Algorithm.SHA3_512: 1_000_000, Algorithm.FNV1A_32: 20_000_000}
_SLICE_SECONDS = 0.05
_LOOP_SECONDS = 0.002  # the longest that a search in the loop may take …
_LOOP_EXPECTED_SECONDS = 0.0008  # … and how short it must be on average to be begun there
_NICE = 10
_CHILD_END_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class SolverStats:
    """What a solver has done so far: challenges solved and given up, and seconds of processor time searched."""

    solved: int
    given_up: int
    searched_seconds: float
    waiting: int
    """Challenges that no worker is on at the moment."""


@dataclass(slots=True, eq=False)
class _Job:
    """One config array to search through. It is over when `done` is: then its workers are stopping."""

    order: int
    challenge: Challenge
    template: Template
    cursor: int
    stop: int
    seconds_left: float
    done: asyncio.Future[int | None]
    workers: list["_Worker"] = field(default_factory=list)
    searched: float = 0.0


@dataclass(frozen=True, slots=True)
class _Slice:
    """What a worker is given to do."""

    job: _Job
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a worker gives back: the nonce or None, the processor time, and the error that ended the search."""

    nonce: int | None
    seconds: float
    error: Exception | None = None


class _Engine(Protocol):
    """The way in which one worker thread searches. `flag[0] = 1` stops it from any thread."""

    flag: CancelFlag

    def search(self, work: _Slice) -> tuple[int | None, float]:
        """Give the nonce or None, and the seconds of processor time."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; called by its worker when it ends."""
        ...


class _NativeEngine:
    """Searches in the worker's own thread, in code that releases the interpreter's lock."""

    def __init__(self, variant: str) -> None:
        self.flag: CancelFlag = bytearray(1)
        self._variant = variant

    def search(self, work: _Slice) -> tuple[int | None, float]:
        begin = time.thread_time()
        nonce = search(
            work.job.challenge,
            work.job.template,
            start=work.start,
            stop=work.stop,
            cancel=self.flag,
            variant=self._variant,
        )
        return nonce, time.thread_time() - begin

    def close(self) -> None:
        pass


class _ProcessEngine:
    """Searches in a child process, which is started for the first slice and again if it has died."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self.flag: CancelFlag = self._context.RawArray(ctypes.c_ubyte, 1)
        self._child: BaseProcess | None = None
        self._pipe: Connection | None = None

    def search(self, work: _Slice) -> tuple[int | None, float]:
        try:
            return self._ask(work)
        except (OSError, EOFError):
            log.warning("the process that searches proofs of work has died; starting another")
            self.close()
            return self._ask(work)

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()  # the child reads the end and leaves
            self._pipe = None
        if self._child is not None:
            self._child.join(_CHILD_END_SECONDS)
            if self._child.is_alive():
                self._child.kill()
                self._child.join()
            self._child.close()
            self._child = None

    def _ask(self, work: _Slice) -> tuple[int | None, float]:
        pipe = self._pipe or self._start()
        pipe.send((work.job.challenge, work.job.template, work.start, work.stop))
        outcome: tuple[int | None, float] = pipe.recv()
        return outcome

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        child = self._context.Process(target=_serve_child, args=(theirs, self.flag), name="proof-of-work", daemon=True)
        child.start()
        theirs.close()
        self._child, self._pipe = child, ours
        return ours


def _serve_child(pipe: Connection, flag: CancelFlag) -> None:
    """Search what comes through the pipe until it is closed: the whole life of a child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us in its own time
    _be_nice(os.getpid())
    while True:
        try:
            challenge, template, start, stop = pipe.recv()
        except EOFError:
            return
        begin = time.process_time()
        nonce = search(challenge, template, start=start, stop=stop, cancel=flag, variant=PYTHON)
        try:
            pipe.send((nonce, time.process_time() - begin))
        except OSError:
            return  # the parent is gone


class _Worker:
    """A thread with an engine. The loop writes to `inbox`; None ends the thread."""

    def __init__(self, engine: _Engine, report: Callable[["_Worker", _Slice, _Outcome], None], number: int) -> None:
        self.engine = engine
        self.inbox: queue.SimpleQueue[_Slice | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._report = report
        self.thread = threading.Thread(target=self._run, name=f"proof-of-work-{number}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        _be_nice(threading.get_native_id())
        while (work := self.inbox.get()) is not None:
            try:
                outcome = _Outcome(*self.engine.search(work))
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread: the awaiting task gets it
                outcome = _Outcome(None, 0.0, error)
            try:
                self._loop.call_soon_threadsafe(self._report, self, work, outcome)
            except RuntimeError:  # the loop was closed without aclose; nobody waits any more
                break
        self.engine.close()


class ProofSolver:
    """Finds proof tokens, many at a time, without holding up the event loop. It belongs to one event loop."""

    def __init__(
        self,
        *,
        variant: str | None = None,
        workers: int | None = None,
        search_limit: float | None = None,
        miss_limit: int = MISS_LIMIT,
    ) -> None:
        """Make a solver; threads and processes start with the first challenge that needs them.

        `variant` is a name of `proof_of_work.variants()`, None the fastest. `workers` None means one per core for
        native code, and one less, at least one, for Python. `search_limit` is the time for one challenge in seconds of
        processor time, None means NATIVE_LIMIT or PYTHON_LIMIT. After `miss_limit` nonces a fresh config array is used.
        """
        self.variant = variants()[0] if variant is None else variant
        if self.variant not in variants():
            raise ValueError(f"this machine has no variant {self.variant}")
        native = self.variant != PYTHON
        if workers is None:
            workers = _core_count() if native else max(1, _core_count() - 1)
        if search_limit is None:
            search_limit = NATIVE_LIMIT if native else PYTHON_LIMIT
        self._worker_count = workers
        self._search_limit = search_limit
        self._miss_limit = miss_limit
        self._orders = count()
        self._jobs: list[_Job] = []
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._closed = False
        self._solved = 0
        self._given_up = 0
        self._searched = 0.0

    async def solve(self, challenge: Challenge, fresh_template: Callable[[], Template]) -> str:
        """Give the proof token for a challenge.

        `fresh_template` gives a config array, serialised, for one pass over the nonces; it is called in the event loop,
        again after each pass without success, and gives another array each time. Raises ProofTooHardError when the time
        for searching is used up, DrainingError after aclose. Cancelling stops the search within 10 ms of work.
        """
        order = next(self._orders)
        seconds_left = self._search_limit
        while seconds_left > 0:
            if self._closed:
                raise DrainingError("The server is stopping.")
            template = fresh_template()
            nonce, seconds = await self._search(challenge, template, order, seconds_left)
            seconds_left -= seconds
            if nonce is not None:
                self._solved += 1
                return proof_token(challenge, template, nonce)
        self._given_up += 1
        raise ProofTooHardError(
            f"The backend asks for a proof of work of difficulty {challenge.difficulty} "
            f"({challenge.expected_tries:,.0f} tries on average), which was not found in {self._search_limit:g} s. "
            "Another exit address may be asked for less."
        )

    def stats(self) -> SolverStats:
        """Give the counts so far."""
        waiting = sum(1 for job in self._jobs if not job.workers)
        return SolverStats(self._solved, self._given_up, self._searched, waiting)

    async def aclose(self) -> None:
        """Stop all searches, whose tasks get DrainingError, and end all workers; idempotent."""
        self._closed = True
        for job in tuple(self._jobs):
            self._finish(job, error=DrainingError("The server is stopping."))
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.inbox.put(None)
        for worker in workers:
            await asyncio.to_thread(worker.thread.join)

    async def _search(
        self, challenge: Challenge, template: Template, order: int, seconds_left: float
    ) -> tuple[int | None, float]:
        """Search one config array; give the nonce or None, and the seconds searched."""
        start = min(self._nonces_for_loop(challenge), self._miss_limit)
        seconds = 0.0
        if start:
            begin = time.perf_counter()
            nonce = search(challenge, template, stop=start, variant=self.variant)
            seconds = time.perf_counter() - begin
            self._searched += seconds
            if nonce is not None or start == self._miss_limit:
                return nonce, seconds
        done = asyncio.get_running_loop().create_future()
        job = _Job(order, challenge, template, start, self._miss_limit, seconds_left, done)
        self._jobs.append(job)
        try:
            self._dispatch()
            nonce = await done
        finally:
            self._finish(job)
        return nonce, seconds + job.searched

    def _nonces_for_loop(self, challenge: Challenge) -> int:
        """Give how many nonces to try in the loop itself: none unless that is likely to be enough.

        Handing a challenge to a thread costs more than trying some hundred nonces.
        """
        rate = self._rate(challenge)
        return int(rate * _LOOP_SECONDS) if challenge.expected_tries <= rate * _LOOP_EXPECTED_SECONDS else 0

    def _rate(self, challenge: Challenge) -> int:
        algorithm = challenge.algorithm
        return _RATES[algorithm].get(self.variant, _VECTOR_RATES[algorithm])

    def _dispatch(self) -> None:
        """Give every idle worker a slice, as long as there is something left to search."""
        if not self._workers:
            self._start_workers()
        while self._idle:
            open_jobs = [job for job in self._jobs if job.cursor < job.stop]
            if not open_jobs:
                return
            job = min(open_jobs, key=lambda job: (len(job.workers), job.order))
            worker = self._idle.pop()
            start = job.cursor
            job.cursor = min(job.stop, start + int(self._rate(job.challenge) * _SLICE_SECONDS))
            job.workers.append(worker)
            worker.engine.flag[0] = 0
            worker.inbox.put(_Slice(job, start, job.cursor))

    def _start_workers(self) -> None:
        for number in range(self._worker_count):
            engine = _ProcessEngine() if self.variant == PYTHON else _NativeEngine(self.variant)
            self._workers.append(_Worker(engine, self._take_outcome, number))
        self._idle.extend(self._workers)

    def _take_outcome(self, worker: _Worker, work: _Slice, outcome: _Outcome) -> None:
        """Note what a worker brings back and give it the next slice."""
        job = work.job
        job.workers.remove(worker)
        job.searched += outcome.seconds
        self._searched += outcome.seconds
        self._idle.append(worker)
        if outcome.error is not None:
            log.warning("a proof-of-work search failed: %r", outcome.error)
            self._finish(job, error=outcome.error)
        elif outcome.nonce is not None:
            self._finish(job, nonce=outcome.nonce)
        elif job.searched >= job.seconds_left or (job.cursor >= job.stop and not job.workers):
            self._finish(job)
        if not self._closed:
            self._dispatch()

    def _finish(self, job: _Job, *, nonce: int | None = None, error: Exception | None = None) -> None:
        """Take a job off the list, stop the workers that are still on it and wake its task; idempotent."""
        if job in self._jobs:
            self._jobs.remove(job)
            for worker in job.workers:
                worker.engine.flag[0] = 1
        if not job.done.done():
            if error is not None:
                job.done.set_exception(error)
            else:
                job.done.set_result(nonce)


def _be_nice(thread_id: int) -> None:
    """Lower the priority of a thread, where threads have one of their own, so that searching yields to serving."""
    if sys.platform != "linux":
        return
    if os.getpriority(os.PRIO_PROCESS, thread_id) < _NICE:
        os.setpriority(os.PRIO_PROCESS, thread_id, _NICE)


def _core_count() -> int:
    """Give the number of cores that this process may use."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return cores
