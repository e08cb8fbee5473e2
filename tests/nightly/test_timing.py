"""Every limit in time ends what stands still half a second off at most, and frees the account at once (R1).

tests/e2e/test_timeouts.py shows the same stalls with short limits and says what the caller is told.
"""

import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from chat2api.simulator.faults import Fault
from tests.e2e.harness import Bench, Caller, Wire, open_bench
from tests.e2e.test_timeouts import STALLS, Stall
from tests.nightly.conftest import Note

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.nightly]

LIMITS = {
    "CONNECT_TIMEOUT": 2.0,
    "PREPARATION_TIMEOUT": 2.5,
    "UPSTREAM_HEADERS_TIMEOUT": 2.0,
    "FIRST_CONTENT_TIMEOUT": 4.0,
    "EVENT_TIMEOUT": 2.0,
    "ANSWER_TIMEOUT": 5.0,
    "REFRESH_TIMEOUT": 2.0,
    "PROOF_TIMEOUT": 1.0,
    "CLIENT_HEADERS_TIMEOUT": 2.0,
    "CLIENT_BODY_TIMEOUT": 2.0,
}
EXACT, FREED = 0.5, 0.25
"""How far off an end may be, and how much later the account must be free, in seconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["plain", "tls"])
async def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    wire: Wire = request.param
    settings = {name: str(seconds) for name, seconds in LIMITS.items()} | {
        "POW_DIFFICULTY": "0000000000",
        "RETRY_TIMES": "0",  # another attempt would have its own limit
    }
    async with open_bench(tmp_path_factory.mktemp("timing"), wire, speed=1.0, **cast(dict[str, Any], settings)) as made:
        yield made


async def ends_in_time(bench: Bench, setting: str, *, stream: bool, note: Note, route: str | None = None) -> None:
    """Ask, and check when the answer ends and the account is free.

    Where a route is named, each call to it has the limit for itself.
    """
    began = time.monotonic()
    await bench.ask(stream)
    ended = time.monotonic()
    await bench.settled()
    freed = time.monotonic() - ended
    limit = LIMITS[setting] * (1 if route is None else len(bench.control.requests_to(route)))
    note(f"{setting} {limit:g} s: {ended - began:.3f} s, free {freed * 1000:.0f} ms later")
    assert abs(ended - began - limit) <= EXACT
    assert freed <= FREED


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("stall", STALLS, ids=lambda stall: stall.name)
async def test_R1_a_stall_ends_half_a_second_off_at_most(bench: Bench, stall: Stall, stream: bool, note: Note) -> None:
    async with bench.case() as (account,):
        stall.lay(bench, account)
        await ends_in_time(bench, stall.setting, stream=stream, note=note)


async def test_R1_a_search_ends_once_it_has_searched_that_long(bench: Bench, note: Note) -> None:
    """Searching counts, waiting for a core does not, so that a busy machine ends it later."""
    async with bench.case():
        bench.control.choose("requirements", times=None, difficulty="0000000000")
        began = time.monotonic()
        await bench.ask(True)
        took = time.monotonic() - began
    note(f"PROOF_TIMEOUT {LIMITS['PROOF_TIMEOUT']:g} s: {took:.3f} s")
    assert LIMITS["PROOF_TIMEOUT"] - EXACT <= took <= LIMITS["FIRST_CONTENT_TIMEOUT"] - EXACT


async def test_R1_a_connection_ends_half_a_second_off_at_most(bench: Bench, note: Note) -> None:
    if bench.sim.url == bench.house.runtime.config.chatgpt_base_url[0]:
        pytest.skip("a plain connection is there as soon as the system has taken it")
    async with bench.case():
        bench.control.fail(None, Fault("stall", at="accept"), times=None)
        await ends_in_time(bench, "CONNECT_TIMEOUT", stream=False, note=note)


async def test_R1_a_renewal_ends_half_a_second_off_at_most(bench: Bench, note: Note) -> None:
    async with bench.case(0):
        await bench.add(bench.control.add_account().refresh_token)
        bench.control.fail("oauth_token", Fault("stall"), times=None)
        await ends_in_time(bench, "REFRESH_TIMEOUT", stream=False, note=note, route="oauth_token")
        # A token of which nobody knows whether it was taken is sent once more, and no more.
        assert len(bench.control.requests_to("oauth_token")) <= 2


@pytest.mark.parametrize(("setting", "part"), [("CLIENT_HEADERS_TIMEOUT", "head"), ("CLIENT_BODY_TIMEOUT", "body")])
async def test_R1_a_client_is_sent_away_half_a_second_off_at_most(
    bench: Bench, setting: str, part: str, note: Note
) -> None:
    async with bench.case():
        caller = Caller(bench, False)
        caller.request = caller.request[:20] if part == "head" else caller.request[:-10]
        began = time.monotonic()
        await caller.send()
        assert (await caller.read()).startswith(b"HTTP/1.1 408 ")
        took = time.monotonic() - began
        caller.leave()
    note(f"{setting} {LIMITS[setting]:g} s: {took:.3f} s")
    assert abs(took - LIMITS[setting]) <= EXACT
