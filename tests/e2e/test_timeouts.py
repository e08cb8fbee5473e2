"""Every limit in time (R1), each with a fault that stalls its phase; and what keeps a silent stream alive (R2)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from quart import Quart

from chat2api.simulator.accounts import Credentials
from chat2api.simulator.faults import Fault
from tests.e2e.harness import ANSWER, WIRES, Bench, Benches, Caller, Wire, open_bench

pytestmark = pytest.mark.asyncio(loop_scope="module")

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

# A server has one of these and else its usual limits, so that no other ends what is looked at, on a busy machine neither.
LIMITS = {
    "CONNECT_TIMEOUT": 0.5,
    "PREPARATION_TIMEOUT": 0.6,
    "UPSTREAM_HEADERS_TIMEOUT": 0.5,
    "FIRST_CONTENT_TIMEOUT": 1.2,
    "EVENT_TIMEOUT": 0.4,
    "ANSWER_TIMEOUT": 1.5,
    "REFRESH_TIMEOUT": 0.5,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def benches(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Benches]:
    # Many servers stay open, and one that has nothing to do costs the less the slower its time goes by.
    async with Benches(tmp_path_factory, speed=1.0) as benches:
        yield benches


async def limited(benches: Benches, wire: Wire, setting: str) -> Bench:
    """Give a bench whose server has that limit."""
    return await benches.at(wire, **{setting: str(LIMITS[setting])})


@dataclass(frozen=True)
class Stall:
    """A fault that stalls the phase of one setting, and what the caller is told then.

    `begun` tells that the answer has begun, so that a streamed one ends with the error inside.
    """

    setting: str
    name: str
    lay: Callable[[Bench, Credentials], object]
    status: int = 504
    code: str = "upstream_timeout"
    calls: int = 1
    begun: bool = False


def _stall(route: str, at: str, after: int = 0) -> Callable[[Bench, Credentials], object]:
    return lambda bench, account: bench.control.fail(
        route,
        Fault("stall", at=at, after=after),  # type: ignore[arg-type]
        account=account.user_id,
        times=None,
    )


STALLS = [
    Stall("PREPARATION_TIMEOUT", "requirements", _stall("requirements", "before_headers"), calls=0),
    Stall("PREPARATION_TIMEOUT", "requirements-body", _stall("requirements", "before_content"), calls=0),
    Stall("UPSTREAM_HEADERS_TIMEOUT", "headers", _stall("conversation", "before_headers")),
    Stall("UPSTREAM_HEADERS_TIMEOUT", "half-headers", _stall("conversation", "mid_headers")),
    Stall("FIRST_CONTENT_TIMEOUT", "first-content", _stall("conversation", "before_content")),
    Stall("FIRST_CONTENT_TIMEOUT", "first-text", _stall("conversation", "mid_stream")),
    Stall("EVENT_TIMEOUT", "event", _stall("conversation", "mid_stream", 1), 502, "stream_interrupted", begun=True),
    Stall(
        "ANSWER_TIMEOUT",
        "whole-answer",
        lambda bench, account: bench.control.choose(times=None, events=10_000, delay=0.05),
        502,
        "stream_interrupted",
        begun=True,
    ),
]


@streamed
@pytest.mark.parametrize("stall", STALLS, ids=lambda stall: stall.name)
async def test_R1_a_stalled_phase_ends_at_its_limit(benches: Benches, stall: Stall, stream: bool) -> None:
    opened = [await limited(benches, wire, stall.setting) for wire in WIRES]
    async with asyncio.TaskGroup() as group:
        for wire, bench in zip(WIRES, opened, strict=True):
            group.create_task(_check_stall(bench, stall, stream), name=wire)


async def _check_stall(bench: Bench, stall: Stall, stream: bool) -> None:
    limit = LIMITS[stall.setting]
    async with bench.case() as (account,):
        stall.lay(bench, account)
        began = time.monotonic()
        told = await bench.ask(stream)
        ended = time.monotonic()
        assert bench.calls == stall.calls
        await bench.settled()  # the account and the backend are free at once, long before any other limit
    assert limit * 0.9 <= ended - began <= limit * 10
    if stream and stall.begun:
        assert told.status == 200
        (error,) = told.stream_errors
        assert "[DONE]" not in told.data
    else:
        assert told.status == stall.status, told.body
        assert told.headers["x-should-retry"] == "false"
        error = told.error
    assert error["code"] == stall.code


@pytest.mark.parametrize(("wire", "stream"), [(wire, wire != "tls") for wire in WIRES])
async def test_R1_R3_where_time_is_left_another_account_answers(benches: Benches, wire: Wire, stream: bool) -> None:
    bench = await limited(benches, wire, "UPSTREAM_HEADERS_TIMEOUT")
    async with bench.case(2) as (account, _):
        bench.control.fail("conversation", Fault("stall"), account=account.user_id, times=None)
        told = await bench.ask(stream)
        assert bench.calls == 2
    assert told.text() == ANSWER


@streamed
async def test_R1_the_first_content_has_one_limit_for_all_attempts(benches: Benches, stream: bool) -> None:
    bench = await limited(benches, "plain", "FIRST_CONTENT_TIMEOUT")
    async with bench.case(3):
        bench.control.fail("conversation", Fault("stall", at="before_content"), times=None)
        told = await bench.ask(stream)
        assert bench.calls == 1, "no time was left for another"
    assert (told.status, told.error["code"]) == (504, "upstream_timeout")
    assert told.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("wire", ["tls", "http_proxy", "socks5_proxy"])
async def test_R1_a_connection_that_does_not_come_about_ends_at_its_limit(benches: Benches, wire: Wire) -> None:
    bench = await limited(benches, wire, "CONNECT_TIMEOUT")
    async with bench.case():
        bench.control.fail(None, Fault("stall", at="accept"), times=None)
        began = time.monotonic()
        told = await bench.ask()
        took = time.monotonic() - began
        assert bench.calls == 0
    assert (told.status, told.error["code"]) == (504, "upstream_timeout")
    assert LIMITS["CONNECT_TIMEOUT"] * 0.9 <= took <= LIMITS["CONNECT_TIMEOUT"] * 10


@pytest.mark.parametrize("wire", WIRES)
async def test_R1_a_renewal_that_stalls_ends_at_its_limit_and_the_next_account_answers(
    benches: Benches, wire: Wire
) -> None:
    bench = await limited(benches, wire, "REFRESH_TIMEOUT")
    async with bench.case() as (_,):
        await bench.clear()
        renewing, healthy = bench.control.add_account(), bench.control.add_account()
        await bench.add(renewing.refresh_token)
        bench.control.fail("oauth_token", Fault("stall"), times=None)
        began = time.monotonic()
        told = await bench.ask()
        assert LIMITS["REFRESH_TIMEOUT"] * 0.9 <= time.monotonic() - began <= LIMITS["REFRESH_TIMEOUT"] * 10
        assert told.status in (503, 504), told.body
        assert told.headers["x-should-retry"] == "false"
        assert len(bench.control.requests_to("oauth_token")) <= 2, "the same token once more at most"
        await bench.add(healthy.access_token)
        assert (await bench.ask()).text() == ANSWER


SLOW_FAILURE: dict[str, Any] = {"first_delay": 0.5, "answer": "empty"}
"""Options of a backend that accepts a turn, thinks, and then has nothing to say."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A bench that says something every moment and has long limits."""
    folder = tmp_path_factory.mktemp("patient")
    settings = {"KEEP_ALIVE_INTERVAL": "0.1", "CLIENT_BODY_TIMEOUT": "0.5", "CLIENT_HEADERS_TIMEOUT": "0.5"}
    async with open_bench(folder, **cast(dict[str, Any], settings)) as bench:
        yield bench


async def test_R2_a_silent_stream_is_kept_alive_by_comments(patient: Bench) -> None:
    async with patient.case():
        patient.control.choose(first_delay=0.5)
        told = await patient.ask(True)
        patient.control.choose(delay=0.3)
        between = await patient.ask(True)
    for answer in (told, between):
        assert answer.comments >= 2
        assert answer.text() == ANSWER
        assert answer.data[-1] == "[DONE]"
    assert told.body.startswith(b":"), "nothing but comments goes out before the first content"


async def test_R2_an_error_before_the_first_comment_has_its_status_and_after_it_is_in_the_stream(
    benches: Benches, patient: Bench
) -> None:
    usual = await benches.at("plain")  # whose first comment would come after 15 seconds
    async with usual.case():
        usual.control.refuse("conversation", "model_cap", clears_in=90)
        early = await usual.ask(True)
    async with patient.case():
        patient.control.choose(times=None, **SLOW_FAILURE)
        late = await patient.ask(True)
        assert patient.calls == 1
    assert (early.status, early.error["code"]) == (429, "rate_limit_exceeded")
    assert late.status == 200
    assert late.comments >= 2
    (error,) = late.stream_errors
    assert error["code"] == "upstream_protocol"
    assert len(late.data) == 1, "the error is all that the stream says"


async def test_R2_another_account_may_still_answer_after_a_comment(patient: Bench) -> None:
    async with patient.case(2) as (account, _):
        patient.control.choose(account=account.user_id, times=None, **SLOW_FAILURE)
        told = await patient.ask(True)
        assert patient.calls == 2
    assert told.comments >= 2
    assert told.text() == ANSWER
    assert told.data[-1] == "[DONE]"


@pytest.mark.parametrize("part", ["head", "body"])
async def test_R1_a_client_that_stalls_in_its_request_is_sent_away(patient: Bench, part: str) -> None:
    async with patient.case():
        caller = Caller(patient, False)
        whole = caller.request
        caller.request = whole[:20] if part == "head" else whole[:-10]
        began = time.monotonic()
        await caller.send()
        answer = b""
        while data := await caller.read():
            answer += data
        caller.leave()
        assert 0.4 <= time.monotonic() - began <= 5.0
        assert not patient.control.requests
    assert answer.startswith(b"HTTP/1.1 408 ")


@streamed
async def test_F5_no_answer_is_cut_by_the_frameworks_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(Quart, "default_config", {**Quart.default_config, "RESPONSE_TIMEOUT": 0.2})
    async with open_bench(tmp_path) as bench, bench.case():
        bench.control.choose(first_delay=0.3, delay=0.3)
        told = await bench.ask(stream)
    assert told.text() == ANSWER
    assert told.finish_reasons() == ["stop"]
