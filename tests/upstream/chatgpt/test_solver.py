"""Solving beside the event loop: tokens, order, time, cancelling, and the two kinds of workers."""

import asyncio
import base64
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from chat2api.errors import DrainingError, ProofTooHardError
from chat2api.protocol.chatgpt.proof_of_work import PYTHON, Algorithm, Challenge, Template, variants
from chat2api.upstream.chatgpt.solver import ProofSolver

NATIVE = next((variant for variant in variants() if variant != PYTHON), None)
needs_native = pytest.mark.skipif(NATIVE is None, reason="no native search here")
needs_thread_clock = pytest.mark.skipif(
    not hasattr(time, "pthread_getcpuclockid"), reason="no clock of a single thread here"
)
HOPELESS = Challenge(Algorithm.SHA3_512, "0.5", "0" * 12)
MEDIUM = "000fff"  # 4,096 tries: too many for the loop, few for a worker


def configs(algorithm: Algorithm = Algorithm.SHA3_512) -> Callable[[], Template]:
    """Make arrays of 18 items whose item 14 counts up."""
    numbers = count()

    def fresh() -> Template:
        number = next(numbers)
        items = (3000, "now", 4294705152, 0, "agent", None, "build", "en", "en", 0, *"abc", 1.5, number, "", 8, 9)
        return Template.of(items, algorithm)

    return fresh


def challenge(seed: str, difficulty: str = MEDIUM) -> Challenge:
    return Challenge(Algorithm.SHA3_512, seed, difficulty)


def items(token: str) -> list[object]:
    found = json.loads(base64.b64decode(token.removeprefix("gAAAAAB").partition("~")[0]))
    assert isinstance(found, list)
    return found


def answers(asked: Challenge, token: str) -> bool:
    return asked.accepts(token.removeprefix("gAAAAAB").partition("~")[0].encode())


@asynccontextmanager
async def solver(
    variant: str | None = None, workers: int | None = None, search_limit: float | None = None, miss_limit: int = 500_000
) -> AsyncIterator[ProofSolver]:
    made = ProofSolver(variant=variant, workers=workers, search_limit=search_limit, miss_limit=miss_limit)
    try:
        yield made
    finally:
        await made.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds; 10 s at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a thread and sets no event
            await asyncio.sleep(0.002)


def solver_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("proof-of-work")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert solver_threads() == []


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("difficulty", ["0fffff", "000fff"])
async def test_a_solved_challenge_gives_its_token(algorithm: Algorithm, difficulty: str) -> None:
    asked = Challenge(algorithm, "0.8216273", difficulty)
    async with solver() as made:
        token = await made.solve(asked, configs(algorithm))

    assert answers(asked, token)
    assert token.endswith("~S") == (algorithm is Algorithm.FNV1A_32)
    assert made.stats().solved == 1


async def test_a_small_challenge_is_solved_without_a_thread() -> None:
    async with solver() as made:
        for number in range(20):
            asked = challenge(f"0.{number}", "0fffff")
            assert answers(asked, await made.solve(asked, configs()))
            assert solver_threads() == []


async def test_many_challenges_at_once_are_all_solved() -> None:
    asked = [challenge(f"0.{number}") for number in range(40)]
    async with solver(workers=2) as made:
        tokens = await asyncio.gather(*(made.solve(each, configs()) for each in asked))
        stats = made.stats()

    assert all(answers(each, token) for each, token in zip(asked, tokens, strict=True))
    assert stats.solved == 40
    assert stats.waiting == 0
    assert stats.searched_seconds > 0


@needs_native
@needs_thread_clock
async def test_free_workers_help_with_a_lone_challenge() -> None:
    async with solver(workers=3) as made:
        task = asyncio.ensure_future(made.solve(HOPELESS, configs()))
        await until(lambda: made.stats().searched_seconds > 0)
        busy = [time.pthread_getcpuclockid(thread.ident or 0) for thread in solver_threads()]
        before = [time.clock_gettime(clock) for clock in busy]
        await until(lambda: all(time.clock_gettime(c) > b for c, b in zip(busy, before, strict=True)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@needs_native
async def test_challenges_get_their_first_worker_in_the_order_of_arrival() -> None:
    order: list[int] = []
    async with solver(workers=1, search_limit=60) as made:
        first = asyncio.ensure_future(made.solve(HOPELESS, configs()))
        await until(lambda: made.stats().searched_seconds > 0)

        async def solve(number: int) -> None:
            await made.solve(challenge(f"0.{number}"), configs())
            order.append(number)

        rest = []
        for number in range(6):
            rest.append(asyncio.ensure_future(solve(number)))
            await asyncio.sleep(0)
        assert made.stats().waiting == 6
        first.cancel()
        await asyncio.gather(first, *rest, return_exceptions=True)

    assert order == list(range(6))


async def test_a_miss_goes_on_with_a_fresh_config() -> None:
    asked = challenge("0.77", "0007ff")  # 8,192 tries on average, 500 in a pass
    async with solver(miss_limit=500) as made:
        token = await made.solve(asked, configs())

    found = items(token)
    assert answers(asked, token)
    assert isinstance(found[3], int)
    assert found[3] < 500
    assert isinstance(found[14], int)
    assert found[14] > 0  # not the first array


@pytest.mark.parametrize("variant", variants())
async def test_R1_searching_ends_at_its_limit_and_says_so(variant: str) -> None:
    async with solver(variant, workers=1, search_limit=0.1) as made:
        with pytest.raises(ProofTooHardError, match=r"0\.1 s") as caught:
            await made.solve(HOPELESS, configs())
        stats = made.stats()

    assert caught.value.final
    assert stats.given_up == 1
    assert 0.1 <= stats.searched_seconds < 1.0


@needs_native
async def test_R1_waiting_for_a_worker_does_not_count_as_searching() -> None:
    async with solver(workers=1, search_limit=0.3) as made:
        hopeless = [asyncio.ensure_future(made.solve(HOPELESS, configs())) for _ in range(3)]
        last = asyncio.ensure_future(made.solve(challenge("0.3"), configs()))
        results = await asyncio.gather(*hopeless, return_exceptions=True)

        assert all(isinstance(result, ProofTooHardError) for result in results)
        assert answers(challenge("0.3"), await last)  # it waited three times its limit
        assert made.stats().searched_seconds >= 0.9


@pytest.mark.parametrize("variant", variants())
async def test_R10_cancelling_frees_the_worker_for_the_next(variant: str) -> None:
    async with solver(variant, workers=1, search_limit=60) as made:
        task = asyncio.ensure_future(made.solve(HOPELESS, configs()))
        await until(lambda: made.stats().searched_seconds > 0)
        searched = made.stats().searched_seconds
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asked = challenge("0.1", "00ffff")
        assert answers(asked, await made.solve(asked, configs()))
        assert made.stats().solved == 1
        # one slice of 50 ms in hand at most, and the next challenge's 256 tries: the rest was given up
        assert made.stats().searched_seconds - searched < 0.5


@needs_native
@needs_thread_clock
async def test_R10_a_cancelled_search_stops_within_10_ms_of_work() -> None:
    async with solver(workers=1, search_limit=60) as made:
        task = asyncio.ensure_future(made.solve(HOPELESS, configs()))
        await until(lambda: made.stats().searched_seconds > 0)
        clock = time.pthread_getcpuclockid(solver_threads()[0].ident or 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        at_cancel = time.clock_gettime(clock)
        seen = [at_cancel - 1.0]

        def stands_still() -> bool:
            seen.append(time.clock_gettime(clock))
            return seen[-1] == seen[-2]

        await until(stands_still)
        assert seen[-1] - at_cancel < 0.010


@needs_native
async def test_R10_a_waiting_challenge_can_be_cancelled() -> None:
    async with solver(workers=1, search_limit=60) as made:
        first = asyncio.ensure_future(made.solve(HOPELESS, configs()))
        await until(lambda: made.stats().searched_seconds > 0)
        second = asyncio.ensure_future(made.solve(HOPELESS, configs()))
        await until(lambda: made.stats().waiting == 1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert made.stats().waiting == 0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@pytest.mark.alone
@needs_native
async def test_F9_R9_the_loop_goes_on_while_all_workers_search() -> None:
    async with solver(search_limit=60) as made:
        tasks = [asyncio.ensure_future(made.solve(HOPELESS, configs())) for _ in range(8)]
        await until(lambda: made.stats().searched_seconds > 0)
        lags = []
        for _ in range(100):
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - due)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert sorted(lags)[50] < 0.020  # a search in the loop would take seconds; the median forgives a busy machine


@needs_native
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads have priorities of their own on Linux only")
async def test_workers_yield_to_the_loop() -> None:
    async with solver(workers=2) as made:
        await made.solve(challenge("0.4"), configs())
        nices = [os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in solver_threads()]

    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert nices == [max(10, own)] * 2


async def test_closing_ends_what_runs_and_refuses_what_comes() -> None:
    async with solver(workers=1, search_limit=60) as made:
        tasks = [asyncio.ensure_future(made.solve(HOPELESS, configs())) for _ in range(3)]
        await until(lambda: made.stats().waiting == 2)
        await made.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(DrainingError):
            await made.solve(challenge("0.1"), configs())

    assert [type(result) for result in results] == [DrainingError] * 3


async def test_an_unknown_variant_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="abacus"):
        ProofSolver(variant="abacus")


async def test_an_error_in_a_worker_reaches_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr("chat2api.upstream.chatgpt.solver.search", broken)
    async with solver(NATIVE, workers=1) as made:
        with pytest.raises(MemoryError):
            await made.solve(challenge("0.1"), configs())


async def test_the_python_search_runs_in_processes_that_end_with_the_solver() -> None:
    asked = [challenge(f"0.{number}", "00ffff") for number in range(3)]
    async with solver(PYTHON, workers=1) as made:
        tokens = await asyncio.gather(*(made.solve(each, configs()) for each in asked))
        children = child_pids()

    assert all(answers(each, token) for each, token in zip(asked, tokens, strict=True))
    assert len(children) == 1
    assert child_pids() == []


async def test_a_killed_process_is_replaced_and_its_slice_searched_again() -> None:
    async with solver(PYTHON, workers=1, search_limit=60) as made:
        task = asyncio.ensure_future(made.solve(HOPELESS, configs()))
        await until(lambda: made.stats().searched_seconds > 0)
        (first,) = child_pids()
        os.kill(first, signal.SIGKILL)
        searched = made.stats().searched_seconds
        await until(lambda: made.stats().searched_seconds > searched + 0.06)  # more than the slice in hand
        (second,) = child_pids()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert first != second


def child_pids() -> list[int]:
    """Give the ids of the solvers' child processes that still run."""

    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]
