"""The proof of work: native against plain Python, two threads against one, solve times, and the loop's lag meanwhile.

Figures of one run are compared with each other only: each round measures all contenders in turn, by the processor time
of their own thread, and the median round counts. Start it by `python -m benchmarks.proof_of_work`.
"""

import asyncio
import base64
import hashlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

from chat2api.protocol.chatgpt.proof_of_work import PYTHON, Algorithm, Challenge, JSONScalar, Template, search, variants
from chat2api.upstream.chatgpt.solver import ProofSolver

ROUNDS = 5
ROUND_SECONDS = 0.2
FIRST_NONCE = 100_000  # six digits, as most nonces of a hard challenge have
HARD = "00003a"
SEEDS = 60
LAG_SECONDS = 2.0

HOPELESS = {
    Algorithm.SHA3_512: Challenge(Algorithm.SHA3_512, "0.48219374651028", "0" * 12),
    Algorithm.FNV1A_32: Challenge(Algorithm.FNV1A_32, "0.48219374651028", "0" * 8),
}


def config(number: int) -> tuple[JSONScalar, ...]:
    """Give a config array of usual length, 15 items; `number` makes it differ from others."""
    return (
        3000,
        "Tue Oct 01 2024 07:00:00 GMT-0500 (Eastern Standard Time)",
        4294705152,
        0,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/136.0.0.0 Safari/537.36",
        "https://cdn.example.test/assets/chunks/9598-0150caea9526d55d-with-a-long-name.js",
        "prod-0123456789abcdef0123456789abcdef01234567",
        "en-US",
        "en-US,es-US,en,es",
        0,
        "hardwareConcurrency−16",
        "location",
        "innerWidth",
        1234.5,
        f"00000000-0000-4000-8000-{number:012}",
    )


def run() -> dict[str, float | int | str]:
    """Measure everything, in about 30 s; names say the units, `_ratio` stands for times as fast."""
    figures: dict[str, float | int | str] = {"variant": variants()[0]}
    figures.update(measure_rates())
    figures.update(measure_threads())
    figures.update(asyncio.run(measure_solving()))
    figures.update(asyncio.run(measure_lag()))
    return figures


def measure_rates() -> dict[str, float | int | str]:
    """Compare every variant on one core with the plain Python loop, which serialises nothing but splices and hashes."""
    template = Template.of(config(0), Algorithm.SHA3_512)
    contenders: dict[str, Callable[[int], None]] = {"plain": lambda nonces: _plain_loop(template, nonces)}
    for variant in variants():
        contenders[variant] = _searching(template, HOPELESS[Algorithm.SHA3_512], variant)
    rates = _rates(contenders)
    figures: dict[str, float | int | str] = {"plain_python_khz": rates["plain"] / 1000}
    for variant in variants():
        figures[f"sha3_{variant}_khz"] = rates[variant] / 1000
        figures[f"sha3_{variant}_ratio"] = rates[variant] / rates["plain"]
    template = Template.of((*config(0), "", 16, 1727784000000, *[0] * 7), Algorithm.FNV1A_32)
    rates = _rates({variant: _searching(template, HOPELESS[Algorithm.FNV1A_32], variant) for variant in variants()})
    for variant in variants():
        figures[f"fnv_{variant}_khz"] = rates[variant] / 1000
    return figures


def measure_threads() -> dict[str, float | int | str]:
    """Compare two threads that search at once with one, by the clock on the wall."""
    template = Template.of(config(0), Algorithm.SHA3_512)
    variant = variants()[0]
    nonces = 300_000 if variant != PYTHON else 60_000

    def take(threads: int) -> float:
        work = [
            threading.Thread(target=_searching(template, HOPELESS[Algorithm.SHA3_512], variant), args=(nonces,))
            for _ in range(threads)
        ]
        begin = time.perf_counter()
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        return threads * nonces / (time.perf_counter() - begin)

    pairs = [(take(1), take(2)) for _ in range(ROUNDS)]
    return {"two_threads_ratio": statistics.median(two / one for one, two in pairs)}


async def measure_solving() -> dict[str, float | int | str]:
    """Solve the usual hard challenge for many seeds, one after the other; none may stay unsolved."""
    solver = ProofSolver()
    numbers = count()
    seconds: list[float] = []
    try:
        for seed in range(SEEDS):
            challenge = Challenge(Algorithm.SHA3_512, f"0.{seed:06}", HARD)
            begin = time.perf_counter()
            token = await solver.solve(challenge, lambda: Template.of(config(next(numbers)), Algorithm.SHA3_512))
            seconds.append(time.perf_counter() - begin)
            if not challenge.accepts(token.removeprefix("gAAAAAB").encode()):
                raise AssertionError(f"the token for seed {challenge.seed} does not answer its challenge")
        stats = solver.stats()
    finally:
        await solver.aclose()
    ordered = sorted(seconds)
    return {
        "hard_seeds": SEEDS,
        "hard_unsolved": SEEDS - stats.solved,
        "hard_fresh_arrays": next(numbers) - SEEDS,
        "hard_mean_ms": 1000 * statistics.mean(seconds),
        "hard_p50_ms": 1000 * ordered[SEEDS // 2],
        "hard_p95_ms": 1000 * ordered[SEEDS * 95 // 100],
        "hard_max_ms": 1000 * ordered[-1],
    }


async def measure_lag() -> dict[str, float | int | str]:
    """Watch how late the loop wakes from sleeps of 1 ms, idle and with eight searches that never end."""
    idle = await _lags()
    solver = ProofSolver(search_limit=3600)
    numbers = count()
    try:
        async with asyncio.TaskGroup() as group:
            hopeless = HOPELESS[Algorithm.SHA3_512]
            tasks = [
                group.create_task(
                    solver.solve(hopeless, lambda: Template.of(config(next(numbers)), Algorithm.SHA3_512))
                )
                for _ in range(8)
            ]
            busy = await _lags()
            for task in tasks:
                task.cancel()
    finally:
        await solver.aclose()
    figures: dict[str, float | int | str] = {}
    for name, lags in (("idle", idle), ("solving", busy)):
        figures[f"lag_{name}_p50_ms"] = 1000 * lags[len(lags) // 2]
        figures[f"lag_{name}_p99_ms"] = 1000 * lags[len(lags) * 99 // 100]
        figures[f"lag_{name}_max_ms"] = 1000 * lags[-1]
    return figures


async def _lags() -> list[float]:
    lags = []
    end = time.perf_counter() + LAG_SECONDS
    while (now := time.perf_counter()) < end:
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - now - 0.001)
    return sorted(lags)


def _plain_loop(template: Template, nonces: int) -> None:
    """Do what a public client's loop does: splice, encode with base64, hash the whole message, compare."""
    seed, target = HOPELESS[Algorithm.SHA3_512].seed.encode(), bytes(6)
    head, middle, tail = template.head, template.middle or b"", template.tail
    for nonce in range(FIRST_NONCE, FIRST_NONCE + nonces):
        text = base64.b64encode(head + str(nonce).encode() + middle + str(nonce >> 1).encode() + tail)
        if hashlib.sha3_512(seed + text).digest()[:6] <= target:
            return


def _searching(template: Template, challenge: Challenge, variant: str) -> Callable[[int], None]:
    def run_search(nonces: int) -> None:
        search(challenge, template, start=FIRST_NONCE, stop=FIRST_NONCE + nonces, variant=variant)

    return run_search


def _rates(contenders: dict[str, Callable[[int], None]]) -> dict[str, float]:
    """Give each contender's nonces per second of processor time, the median of rounds in which all take turns."""
    sizes = {name: _size(contender) for name, contender in contenders.items()}
    rounds = [
        {name: sizes[name] / _seconds(contender, sizes[name]) for name, contender in contenders.items()}
        for _ in range(ROUNDS)
    ]
    return {name: statistics.median(each[name] for each in rounds) for name in contenders}


def _size(contender: Callable[[int], None]) -> int:
    """Find a count of nonces that takes about ROUND_SECONDS."""
    for nonces in _powers_of_four():
        seconds = _seconds(contender, nonces)
        if seconds > ROUND_SECONDS / 8:
            return int(nonces * ROUND_SECONDS / seconds)
    raise AssertionError("unreachable: the powers go on")


def _powers_of_four() -> Iterator[int]:
    return (256 * 4**exponent for exponent in count())


def _seconds(contender: Callable[[int], None], nonces: int) -> float:
    begin = time.thread_time()
    contender(nonces)
    return time.thread_time() - begin


if __name__ == "__main__":
    for figure, value in run().items():
        print(f"{figure:24} {value:>12,.2f}" if isinstance(value, float) else f"{figure:24} {value:>12}")
