"""The measurements themselves: each takes a lab and yields figures.

Every comparison lays the same load on both servers in turn, several rounds each, because the same configuration moves
by up to 1.7 times between runs on a shared machine. Both get the same simulator with the same settings.

The goals for rates are about answers for each second of CPU time, which is what one core can serve. Answers a second by
the clock on the wall stand beside it without a goal: simulator and load generator run on the same machine, and behind a
fast server they are what is measured.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import limits, proof_of_work
from benchmarks.forwarding import measure_forwarding
from benchmarks.lab import PRODUCTS, Backend, Lab, Product, Round, Sum
from benchmarks.load import LoadResult
from benchmarks.processes import ALL_CORES, BenchmarkError, Cores, Running, loading
from benchmarks.report import Figure, Goal, at_most, ratio_at_least, ratio_at_most
from chat2api.protocol.chatgpt.proof_of_work import variants

Scenario = Callable[[Lab], Iterator[Figure]]

HARD_DIFFICULTY = "00003a"
PATIENCE = 120.0
"""How long a caller waits for an answer behind a hard challenge, in seconds."""

_PROOF_GOALS = {"avx512": 7.0, "avx2": 4.0}
_MB = 1e6
_SETTLE_LIMIT = 30.0
_SETTLE_LOOKS, _SETTLE_PAUSE = 6, 0.5


def _compare(
    lab: Lab,
    backend: Backend,
    *,
    rounds: int,
    warm_up: dict[str, Any],
    cores: Cores | None = None,
    **fields: Any,
) -> dict[Product, Sum]:
    """Lay one load, given as fields of Plan, on both servers in turn; `warm_up` says what differs the first time.

    `cores` None gives each server the measured server's own. Raises BenchmarkError when an answer is missing or wrong.
    """
    gathered: dict[Product, list[Round]] = {product: [] for product in PRODUCTS}
    with lab.server("chat2api", backend, cores) as ours, lab.server("plain", backend, cores) as plain:
        servers: dict[Product, Running] = {"chat2api": ours, "plain": plain}
        for product, server in servers.items():
            _must_be_whole(product, lab.load(lab.plan(server, **{**fields, **warm_up}), server))
        for _ in range(rounds):
            for product, server in servers.items():
                done = lab.load(lab.plan(server, **fields), server)
                _must_be_whole(product, done)
                gathered[product].append(done)
    return {product: Sum(tuple(parts)) for product, parts in gathered.items()}


def _must_be_whole(product: Product, done: Round) -> None:
    if done.result.failed:
        raise BenchmarkError(f"{product}: answers failed, so the rest says nothing: {done.result.failed}")


def measure_proof(lab: Lab) -> Iterator[Figure]:
    """The proof of work: nonces a second on one core, hard challenges left unsolved, and the loop's lag meanwhile."""
    figures = {**proof_of_work.measure_rates(), **asyncio.run(proof_of_work.measure_lag())}
    variant = variants()[0]
    name = f"thousand nonces a second on one core, {variant}"
    ours, plain = float(figures[f"sha3_{variant}_khz"]), float(figures["plain_python_khz"])
    yield Figure("proof", name, "kH/s", ours, plain, ratio_at_least(_PROOF_GOALS.get(variant, 1.0)))
    yield Figure(
        "proof", "loop lag while solving, max", "ms", float(figures["lag_solving_max_ms"]), goal=at_most(15, "ms")
    )
    if lab.quick:
        return
    yield Figure("proof", "two threads against one", "x", float(proof_of_work.measure_threads()["two_threads_ratio"]))
    figures = asyncio.run(proof_of_work.measure_solving())
    name = f"unsolved of {figures['hard_seeds']} challenges of {HARD_DIFFICULTY}"
    yield Figure("proof", name, "", float(figures["hard_unsolved"]), goal=at_most(0, ""))
    yield Figure("proof", f"mean time to solve {HARD_DIFFICULTY}", "ms", float(figures["hard_mean_ms"]))


def measure_burst(lab: Lab) -> Iterator[Figure]:
    """100 events an answer as fast as the backend gives them, 64 at once: CPU for each event, and answers a second."""
    yield from _burst(lab, tls=False)
    if not lab.quick:
        yield from _burst(lab, tls=True)


def _burst(lab: Lab, *, tls: bool) -> Iterator[Figure]:
    words, at_once = 100, 64
    with lab.backend(tls=tls, events=words) as backend:
        both = _compare(
            lab,
            backend,
            rounds=1 if lab.quick else 2,
            warm_up={"answers": at_once},
            words=words,
            at_once=at_once,
            answers=256 if lab.quick else 320,
        )
    label = f"{'TLS, h2' if tls else 'HTTP/1.1'}, 64 at once, 100 events"
    yield _cpu_figure("burst", label, both, ratio_at_most(1 / 3))
    yield from _rate_figures("burst", label, both, ratio_at_least(3.0))


def measure_paced(lab: Lab) -> Iterator[Figure]:
    """Events that come one by one, as tokens do, on 64 streams and more: CPU for each event.

    At 5 ms several deltas of a stream come within a beat and leave together. At 20 ms each comes alone and costs a read
    and a write of its own, as it does in the plain server; there the goal is to be no worse.
    """
    together, alone = ratio_at_most(0.6), ratio_at_most(1.0)
    quick = ((64, 0.005, 200, together),)
    whole = (*quick, (128, 0.005, 200, together), (64, 0.02, 100, alone), (256, 0.02, 100, alone))
    for at_once, delay, words, goal in quick if lab.quick else whole:
        with lab.backend(events=words, delay=delay) as backend:
            both = _compare(
                lab,
                backend,
                rounds=1 if lab.quick else 2,
                warm_up={"answers": 32, "at_once": 32},
                words=words,
                at_once=at_once,
                answers=at_once,
            )
        label = f"{at_once} streams, an event every {delay * 1000:g} ms"
        yield _cpu_figure("paced", label, both, goal)


def measure_short(lab: Lab) -> Iterator[Figure]:
    """Answers of 5 events, 32 at once: answers a second, where what a request costs by itself decides."""
    for tls in (False,) if lab.quick else (False, True):
        with lab.backend(tls=tls, events=5) as backend:
            both = _compare(
                lab,
                backend,
                rounds=1 if lab.quick else 2,
                warm_up={"answers": 64},
                words=5,
                at_once=32,
                answers=480,
            )
        label = f"{'TLS, h2' if tls else 'HTTP/1.1'}, 32 at once, 5 events"
        yield from _rate_figures("short", label, both, ratio_at_least(2.5))


def measure_first_byte(lab: Lab) -> Iterator[Figure]:
    """How much later the first content comes than from the simulator alone, one request at a time.

    The simulator alone means both calls that every client has to make, the requirements and the conversation, with an
    easy proof between them, made by the load generator one after the other on one connection.
    """
    answers, words = 50 if lab.quick else 100, 5
    with lab.backend(events=words) as backend:
        before = lab.load_directly(backend, words=words, answers=answers).first_content.p50
        both = _compare(
            lab,
            backend,
            rounds=2,
            warm_up={},
            words=words,
            at_once=1,
            answers=answers,
            cores=ALL_CORES,
        )
        after = lab.load_directly(backend, words=words, answers=answers).first_content.p50
    alone = (before + after) / 2
    yield Figure(
        "first-byte",
        f"added, median; the simulator alone takes {alone * 1000:.1f} ms",
        "ms",
        (both["chat2api"].first_content - alone) * 1000,
        (both["plain"].first_content - alone) * 1000,
        at_most(3.0, "ms"),
    )


def measure_streams(lab: Lab) -> Iterator[Figure]:
    """Thousands of streams open at the same moment, an event each 2 s: whether all are right, and the memory they take."""
    wanted: dict[Product, int] = {"chat2api": 500 if lab.quick else 4000, "plain": 500}
    taken: dict[Product, float] = {}
    held: dict[Product, int] = {}
    with lab.backend(accounts=8) as backend:
        for product in PRODUCTS[:1] if lab.quick else PRODUCTS:
            with lab.server(product, backend, ALL_CORES) as server:
                before = _warm_memory(lab, product, backend, server)
                backend.choose(events=280, delay=2.0)
                at_once = wanted[product]
                plan = lab.plan(
                    server, words=280, at_once=at_once, answers=at_once, starting=256, hold=True, limit=180.0
                )
                with loading(plan, ALL_CORES) as load:
                    opened = load.wait_open()
                    taken[product] = (server.resident_bytes() - before) / _MB / max(1, opened) * 1000
                    load.release()
                    held[product] = load.result().held
    missing = wanted["chat2api"] - held["chat2api"]
    yield Figure("streams", f"failed of {wanted['chat2api']:,} open at once", "", missing, goal=at_most(0, ""))
    yield Figure(
        "streams", "memory of 1,000 open streams", "MB", taken["chat2api"], taken.get("plain"), at_most(250, "MB")
    )


def _warm_memory(lab: Lab, product: Product, backend: Backend, server: Running) -> int:
    """Answer some short questions, so that what is made once is there, and give the memory then."""
    backend.choose(events=5, delay=0.0)
    _must_be_whole(product, lab.load(lab.plan(server, words=5, at_once=32, answers=64), server))
    return server.resident_bytes()


def measure_stalled(lab: Lab) -> Iterator[Figure]:
    """Callers who stop reading while the backend has 20 MB more for each: what one of them costs in memory."""
    callers = 8 if lab.quick else 16
    text = ("x" * 999 + " ") * 20_000
    taken: dict[Product, float] = {}
    with lab.backend() as backend:
        for product in PRODUCTS[:1] if lab.quick else PRODUCTS:
            with lab.server(product, backend) as server:
                before = _warm_memory(lab, product, backend, server)
                backend.choose(events=None, text=text)
                written = backend.bytes_written()
                plan = lab.plan(server, words=1, at_once=callers, answers=callers, hold=True, reads=False)
                with loading(plan, lab.other_core) as load:
                    if (opened := load.wait_open()) != callers:
                        raise BenchmarkError(f"{product}: only {opened} of {callers} callers got an answer")
                    _wait_until_still(backend, written)
                    taken[product] = (server.resident_bytes() - before) / 1024 / callers
    yield Figure(
        "stalled",
        "memory of a caller who stops reading",
        "KiB",
        taken["chat2api"],
        taken.get("plain"),
        at_most(512, "KiB"),
    )


def _wait_until_still(backend: Backend, written: int) -> None:
    """Wait until the simulator, having begun to write more than this, has written nothing for 3 s.

    Raises BenchmarkError after 30 s.
    """
    deadline = time.monotonic() + _SETTLE_LIMIT
    before, still = written, 0
    while still < _SETTLE_LOOKS:
        if time.monotonic() > deadline:
            raise BenchmarkError("the answers never came to a standstill")
        time.sleep(_SETTLE_PAUSE)
        now = backend.bytes_written()
        still = still + 1 if now == before and now > written + _MB else 0
        before = now


def measure_hard(lab: Lab) -> Iterator[Figure]:
    """64 callers (quick: 24) at once behind hard challenges: who waits longer than two minutes, and how fast they are served."""
    at_once, words = 24 if lab.quick else 64, 100
    limits: dict[Product, float] = {"chat2api": PATIENCE, "plain": 45.0}
    results: dict[Product, LoadResult] = {}
    with lab.backend(events=words, difficulty=HARD_DIFFICULTY) as backend:
        for product in PRODUCTS[:1] if lab.quick else PRODUCTS:
            with lab.server(product, backend, ALL_CORES) as server:
                plan = lab.plan(server, words=words, at_once=at_once, answers=at_once, limit=limits[product])
                results[product] = lab.load(plan, server, ALL_CORES).result
    ours, plain = results["chat2api"], results.get("plain")
    scene = f"{at_once} at once, difficulty {HARD_DIFFICULTY}"
    yield Figure("hard", f"later than two minutes, or failed; {scene}", "", at_once - ours.good, goal=at_most(0, ""))
    yield Figure("hard", f"the slowest answer; {scene}", "s", ours.whole.max)
    yield Figure(
        "hard",
        f"answers a second; {scene}",
        "/s",
        ours.good / ours.seconds,
        None if plain is None else plain.good / plain.seconds,
        None if plain is None else ratio_at_least(3.0),
    )


def _cpu_figure(benchmark: str, label: str, both: dict[Product, Sum], goal: Goal) -> Figure:
    ours, plain = (both[product].cpu_per_event * 1e6 for product in PRODUCTS)
    return Figure(benchmark, f"CPU for 1,000 events; {label}", "ms", ours, plain, goal)


def _rate_figures(benchmark: str, label: str, both: dict[Product, Sum], goal: Goal) -> Iterator[Figure]:
    ours, plain = both["chat2api"], both["plain"]
    capacity = (1 / ours.cpu_per_answer, 1 / plain.cpu_per_answer)
    yield Figure(benchmark, f"answers for a second of CPU; {label}", "/s", *capacity, goal)
    yield Figure(benchmark, f"answers a second; {label}", "/s", ours.rate, plain.rate)


def measure_limits(lab: Lab) -> Iterator[Figure]:
    """Issued keys: CPU of a request for 100 keys' look-up, limits, counts and ledger, with the pick of 1,000 accounts."""
    told = limits.run(rounds=3 if lab.quick else limits.ROUNDS)
    yield Figure("limits", "CPU a request, keys and pick together", "ms", told["with_keys"], goal=at_most(0.3, "ms"))
    yield Figure("limits", "CPU a request, pick alone", "ms", told["pick"])


SCENARIOS: dict[str, Scenario] = {
    "proof": measure_proof,
    "limits": measure_limits,
    "burst": measure_burst,
    "paced": measure_paced,
    "short": measure_short,
    "first-byte": measure_first_byte,
    "streams": measure_streams,
    "stalled": measure_stalled,
    "hard": measure_hard,
    "forwarding": measure_forwarding,
}
"""The benchmarks by name, in the order in which they run."""
