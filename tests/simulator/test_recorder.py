"""Tests of the records."""

import asyncio

import pytest

from chat2api.simulator.recorder import Recorder
from chat2api.simulator.wire import Request
from tests.clocks import FakeClock


def _request() -> Request:
    return Request("POST", "/a?b=1", (("x-a", "1"),), b"\xff{}", "2", "https", 3)


def test_the_first_outcome_of_a_reply_stands() -> None:
    clock = FakeClock()
    recorder = Recorder(clock)
    reply = recorder.add_request(_request(), "route", "user-1")
    recorder.start_stream(reply)
    assert (recorder.counters.open_replies, recorder.counters.open_streams) == (1, 1)
    clock.advance(2)
    recorder.end(reply, "aborted")
    clock.advance(2)
    recorder.end(reply, "completed")
    assert (reply.outcome, reply.ended_at) == ("aborted", clock.monotonic() - 2)
    assert (recorder.counters.open_replies, recorder.counters.open_streams, recorder.counters.aborted) == (0, 0, 1)
    assert recorder.counters.completed == 0


def test_records_go_out_as_json() -> None:
    recorder = Recorder(FakeClock())
    recorder.add_request(_request(), "route", None)
    record = recorder.requests[0].to_json()
    assert record["headers"] == [["x-a", "1"]]
    assert record["body"] == "\ufffd{}"
    assert (record["path"], record["target"], record["http_version"]) == ("/a", "/a?b=1", "2")


def test_nothing_is_kept_on_wish_and_a_reset_keeps_what_is_open() -> None:
    recorder = Recorder(FakeClock(), keep=False)
    reply = recorder.add_request(_request(), "route", None)
    assert recorder.requests == []
    recorder.reset()
    assert (recorder.counters.requests, recorder.counters.open_replies) == (0, 1)
    recorder.end(reply, "completed")
    assert recorder.counters.open_replies == 0


async def test_waiting_ends_with_the_change_or_the_time() -> None:
    recorder = Recorder(FakeClock())
    waiting = asyncio.create_task(recorder.wait_until(lambda: recorder.counters.requests == 2))
    for _ in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        recorder.add_request(_request(), "route", None)
    await asyncio.wait_for(waiting, 1)
    with pytest.raises(TimeoutError):
        await recorder.wait_until(lambda: False, timeout=0.01)
