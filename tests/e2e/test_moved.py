"""Answers that the backend moves: to the resume call, to web sockets, to the stored conversation; whole or broken."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chat2api.simulator.faults import Fault
from tests.e2e.harness import ANSWER, WIRES, Bench, Benches, Caller, Told, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
everywhere = pytest.mark.parametrize("bench", WIRES, indirect=True)
wires = pytest.mark.parametrize("bench", ["plain", "tls"], indirect=True)

LONG = [f"word{number}" for number in range(1, 401)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def benches(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Benches]:
    async with Benches(tmp_path_factory, EVENT_TIMEOUT="1.5") as benches:
        yield benches


@pytest_asyncio.fixture(loop_scope="module")
async def bench(request: pytest.FixtureRequest, benches: Benches) -> Bench:
    return await benches.at(request.param)


def check(told: Told) -> None:
    """Check that the answer is whole and ends well."""
    assert told.status == 200, told.body
    assert told.text() == ANSWER
    assert told.finish_reasons() == ["stop"]
    if told.headers["content-type"].startswith("text/event-stream"):
        assert told.data[-1] == "[DONE]"
        assert not told.stream_errors


def hand_off(bench: Bench, **options: Any) -> None:
    """Have the next turn handed off, and not to the resume call."""
    bench.control.choose(answer="handoff", encoding="v1", **options)
    bench.control.refuse("resume", "not_found", times=None)


@streamed
@everywhere
async def test_an_answer_on_a_socket_of_2024_reaches_the_caller(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(times=None, answer="websocket_2024")
        for _ in range(3):
            check(await bench.ask(stream))
        assert not bench.control.violations
        sockets = bench.control.requests_to("websocket_2024")
        assert len(sockets) == 3
        order = [r.route for r in bench.control.requests if r.route in ("websocket_2024", "conversation")]
        assert order == ["conversation", "websocket_2024", *["websocket_2024", "conversation"] * 2]
        for record in sockets:
            assert record.request.http_version == "1.1"
            assert record.request.header("origin") == record.request.origin
            assert record.request.header("user-agent") is not None
            assert record.request.header("authorization") is None


@wires
async def test_two_turns_of_one_account_share_no_frames(bench: Bench) -> None:
    async with bench.case():
        bench.control.choose(times=None, answer="websocket_2024")
        check(await bench.ask())
        questions = [f"Say: number {number}" for number in range(6)]
        told = await asyncio.gather(*(bench.ask(True, content=question) for question in questions))
    assert [answer.text() for answer in told] == [f"number {number}" for number in range(6)]


@streamed
@everywhere
async def test_an_answer_whose_resume_is_refused_comes_by_its_topic(bench: Bench, stream: bool) -> None:
    async with bench.case():
        hand_off(bench)
        check(await bench.ask(stream))
        assert len(bench.control.requests_to("websocket_2026")) == 1
        assert not bench.control.requests_to("history_get")
        assert not bench.control.violations


@streamed
@wires
async def test_catch_ups_that_come_again_are_told_once(bench: Bench, stream: bool) -> None:
    async with bench.case():
        hand_off(bench, events=len(LONG))
        told = await bench.ask(stream)
    assert told.text().split() == LONG


@streamed
@wires
async def test_the_resume_call_is_asked_for_what_follows_what_was_received(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(answer="handoff", encoding="v1")
        check(await bench.ask(stream))
        (resume,) = bench.control.requests_to("resume")
    body = resume.request.json()
    assert isinstance(body, dict)
    assert isinstance(body["offset"], int)
    assert body["offset"] > 2


@streamed
@pytest.mark.parametrize("do", ["close", "reset", "end"])
@wires
async def test_a_socket_that_closes_in_mid_answer_is_made_up_for_by_what_is_stored(
    bench: Bench, do: Any, stream: bool
) -> None:
    async with bench.case():
        hand_off(bench, events=len(LONG))
        bench.control.fail("websocket_2026", Fault(do, at="mid_stream", after=100))
        told = await bench.ask(stream, history_disabled=False)
        assert len(bench.control.requests_to("websocket_2026")) == 1
        assert bench.control.requests_to("history_get")
    assert told.text().split() == LONG
    assert told.finish_reasons() == ["stop"]


@streamed
@pytest.mark.parametrize("do", ["close", "end"])
@wires
async def test_R14_a_temporary_answer_whose_socket_closes_is_an_error_that_blames_no_exit(
    bench: Bench, do: Any, stream: bool
) -> None:
    async with bench.case():
        hand_off(bench, events=len(LONG))
        bench.control.fail("websocket_2026", Fault(do, at="mid_stream", after=100))
        told = await bench.ask(stream)
        check_interrupted(told, stream)
        if stream:
            given = told.text().split()
            assert given
            assert given == LONG[: len(given)]


@streamed
@wires
async def test_a_temporary_answer_that_is_only_stored_never_opens_the_breaker(bench: Bench, stream: bool) -> None:
    async with bench.case():
        for _ in range(6):
            bench.control.reset()
            hand_off(bench)
            bench.control.refuse("celsius", "not_found")
            told = await bench.ask(stream)
            assert told.status == 502
            assert told.error["code"] == "stream_interrupted"
        bench.control.reset()
        check(await bench.ask(stream))


@streamed
@wires
async def test_R1_a_stalled_socket_ends_at_the_limit_between_events(bench: Bench, stream: bool) -> None:
    async with bench.case():
        hand_off(bench, events=len(LONG))
        bench.control.fail("websocket_2026", Fault("stall", at="mid_stream", after=100))
        told = await asyncio.wait_for(bench.ask(stream), 10.0)
        check_interrupted(told, stream)


@streamed
@pytest.mark.parametrize("route", ["websocket_2024", "websocket_2026"])
@wires
async def test_R10_a_caller_who_leaves_closes_the_socket(bench: Bench, route: str, stream: bool) -> None:
    async with bench.case():
        if route == "websocket_2026":
            hand_off(bench, events=len(LONG))
        else:
            bench.control.choose(answer="websocket_2024", events=len(LONG))
        bench.control.fail(route, Fault("stall", at="mid_stream", after=1))
        caller = Caller(bench, stream)
        await caller.send()
        await bench.control.wait_until(lambda: bool(bench.control.requests_to(route)))
        await until(lambda: bench.control.replies[-1].deltas > 0, "the socket does not stall")
        caller.leave()
        await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)
        assert bench.control.counters.open_streams == 0


@streamed
@wires
async def test_a_picture_that_was_given_up_is_told_at_once(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(answer="image_given_up")
        told = await bench.ask(stream, history_disabled=False)
        assert len(bench.control.requests_to("history_get")) == 1
    assert (told.status, told.error["code"]) == (502, "stream_interrupted")


def check_interrupted(told: Told, stream: bool) -> None:
    """Check that an answer that had begun was cut off by an error."""
    if stream:
        (error,) = told.stream_errors
        assert error["code"] == "stream_interrupted"
        assert "[DONE]" not in told.data
    else:
        assert (told.status, told.error["code"]) == (502, "stream_interrupted")
