"""A thousand clients that leave, one by one, in every phase (R10), and a thousand at once during a renewal (R11).

tests/e2e/test_leaving.py does the same with a few; here every leave is timed.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from chat2api.simulator.faults import At, Fault
from tests.e2e.harness import ANSWER, Bench, Caller, Wire, answering_tasks, open_bench, until
from tests.nightly.conftest import Note

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.nightly, pytest.mark.timeout(1800)]

CYCLES = 1000
LATEST, USUALLY = 1.0, 0.25
"""Within how many seconds upstream is left, and 99 of 100 times."""


@dataclass(frozen=True)
class Phase:
    """A phase in which requests are made to stand still.

    `lay` scripts it; `reached` and `left` tell from the counters that a request stands there, and that nothing of it is
    left. `wire` is the one over which it can happen.
    """

    name: str
    lay: Callable[[Bench], object]
    reached: Callable[[Bench], bool]
    left: Callable[[Bench], bool] = lambda bench: bench.control.counters.open_replies == 0
    wire: Wire = "plain"
    stream: bool = True
    until_bytes: bytes = b""
    """What the client has read before it leaves."""


def stall(route: str, at: At, after: int = 0) -> Callable[[Bench], object]:
    return lambda bench: bench.control.fail(route, Fault("stall", at=at, after=after), times=None)


def open_reply(bench: Bench) -> bool:
    return bench.control.counters.open_replies > 0


def leased(bench: Bench) -> bool:
    return bench.house.in_flight > 0


PHASES = [
    Phase("preparation", stall("requirements", "before_headers"), open_reply),
    Phase(
        "proof-of-work",
        lambda bench: bench.control.choose("requirements", times=None, difficulty="0000000000"),
        lambda bench: any(r.route == "requirements" and r.outcome == "completed" for r in bench.control.replies),
        left=lambda bench: not leased(bench),
    ),
    Phase("connect", lambda bench: bench.control.fail(None, Fault("stall", at="accept"), times=None), leased,
          left=lambda bench: not leased(bench), wire="tls"),
    Phase("before-headers", stall("conversation", "before_headers"), open_reply),
    Phase("before-headers-whole", stall("conversation", "before_headers"), open_reply, stream=False),
    Phase("before-headers-h2", stall("conversation", "before_headers"), open_reply, wire="tls"),
    Phase("mid-stream", lambda bench: bench.control.choose(times=None, events=100_000, delay=0.01),
          lambda bench: bench.control.counters.open_streams > 0, until_bytes=b"word2"),
    Phase("mid-stream-h2", lambda bench: bench.control.choose(times=None, events=100_000, delay=0.01),
          lambda bench: bench.control.counters.open_streams > 0, wire="tls", until_bytes=b"word2"),
    Phase("mid-stream-whole", lambda bench: bench.control.choose(times=None, events=100_000, delay=0.01),
          lambda bench: any(reply.deltas > 2 for reply in bench.control.streams), stream=False),
    Phase("stalled", stall("conversation", "mid_stream", 2), lambda bench: bench.control.counters.open_streams > 0,
          until_bytes=b"Nile"),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["plain", "tls"])
async def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    wire: Wire = request.param
    settings = {
        "POW_DIFFICULTY": "0000000000",
        "PROOF_TIMEOUT": "600",
        "ANSWER_TIMEOUT": "100000",
        "CONNECT_TIMEOUT": "600",
    }
    async with open_bench(tmp_path_factory.mktemp("leaving"), wire, **settings) as opened:  # type: ignore[arg-type]
        yield opened


async def leave_once(bench: Bench, phase: Phase, *, reset: bool) -> float:
    """Let one client come as far as the phase and leave; give the seconds until nothing is left of its request."""
    bench.control.requests.clear()
    bench.control.replies.clear()
    caller = Caller(bench, phase.stream)
    await caller.send()
    if phase.until_bytes:
        await caller.read_until(phase.until_bytes)
    await until(lambda: phase.reached(bench), f"{phase.name} is not reached")
    assert leased(bench), f"{phase.name}: it does not stand still"
    left_at = time.perf_counter()
    caller.leave(reset=reset)
    while not phase.left(bench):
        await asyncio.sleep(0.001)
        assert time.perf_counter() - left_at < LATEST, f"{phase.name}: not left after a second"
    took = time.perf_counter() - left_at
    await until(lambda: not leased(bench) and not open_reply(bench), f"{phase.name}: something is left")
    return took


def descriptors(phase: Phase) -> int:
    """Count those of this process, which is the simulator's, too; it keeps connections that it does not answer at all."""
    process = psutil.Process()
    kept = [one for one in process.net_connections("tcp") if one.status == psutil.CONN_CLOSE_WAIT]
    return process.num_fds() - (len(kept) if phase.name == "connect" else 0)


async def test_R10_a_thousand_cancels_in_all_phases_are_quick_and_leave_nothing(
    bench: Bench, wire: Wire, note: Note
) -> None:
    phases = [phase for phase in PHASES if phase.wire == wire]
    times = dict[str, list[float]]()
    resets = cycle((False, True))
    async with bench.case(4):
        for phase in phases:
            phase.lay(bench)
            for _ in range(5):  # what is opened once is open now
                await leave_once(bench, phase, reset=next(resets))
            before, tasks = descriptors(phase), len(asyncio.all_tasks())
            times[phase.name] = [
                await leave_once(bench, phase, reset=next(resets)) for _ in range(CYCLES // len(PHASES))
            ]
            bench.control.reset()
            bench.open_way()
            await until(lambda: not answering_tasks(), "tasks are left")
            assert abs(descriptors(phase) - before) <= 5, phase.name
            assert abs(len(asyncio.all_tasks()) - tasks) <= 5, phase.name
            assert (await bench.ask()).text() == ANSWER
    for name, taken in times.items():
        note(f"{name} p50 {statistics.median(taken) * 1000:.1f} ms, max {max(taken) * 1000:.1f} ms")
        assert sorted(taken)[int(len(taken) * 0.99) - 1] <= USUALLY, name


@pytest.fixture
def wire(bench: Bench) -> Wire:
    """The wire of the bench."""
    return "plain" if bench.house.runtime.config.upstream_ca_file == "" else "tls"


async def test_R11_a_thousand_clients_leave_during_a_renewal_and_none_ends_it(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench, bench.case(0):
        for round_ in range(20):
            account = bench.control.add_account()
            await bench.add(account.refresh_token)
            rule = bench.control.fail("oauth_token", Fault("stall", seconds=0.3))
            callers = [Caller(bench, number % 2 == 0) for number in range(50)]
            for caller in callers:
                await caller.send()
            await bench.control.wait_until(lambda rule=rule: rule.used == 1)  # type: ignore[misc]
            await until(lambda: leased(bench), "nobody waits for the renewal")
            for number, caller in enumerate(callers):
                caller.leave(reset=number % 3 == 0)
            await until(lambda: not leased(bench), "an account is still leased")
            assert len(bench.control.requests_to("oauth_token")) == round_ + 1
            await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)
            assert (await bench.ask()).text() == ANSWER
            assert len(bench.control.requests_to("oauth_token")) == round_ + 1, "the renewal was not begun again"
            await bench.clear()
