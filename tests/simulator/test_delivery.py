"""Tests of pace, back-pressure and faults on the way out, seen from a raw connection."""

import asyncio
import time

import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.simulator.raw_client import connect, send_turn
from tests.simulator.web_client import WebClient, read_classic, visible_text

_END = b"0\r\n\r\n"


async def _run(sim: Simulator, web: WebClient, fault: Fault, **body: object) -> tuple[bytes, bool]:
    sim.control.fail("conversation", fault)
    async with connect(sim) as connection:
        await send_turn(connection, web, **body)
        received, was_reset = await connection.read_to_end()
    await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)
    assert sim.control.replies[-1].outcome == "faulted"
    return received, was_reset


@pytest.mark.parametrize("do", ["reset", "close"])
async def test_nothing_is_answered_before_the_status_line(sim: Simulator, web: WebClient, do: str) -> None:
    received, was_reset = await _run(sim, web, Fault(do, at="before_headers"))  # type: ignore[arg-type]
    assert received == b""
    assert was_reset is (do == "reset")
    assert sim.control.requests_to("conversation")[0].request.body


@pytest.mark.parametrize("do", ["reset", "close"])
async def test_the_head_is_cut(sim: Simulator, web: WebClient, do: str) -> None:
    received, was_reset = await _run(sim, web, Fault(do, at="mid_headers"))  # type: ignore[arg-type]
    assert b"\r\n\r\n" not in received
    assert was_reset is (do == "reset")
    if do == "close":
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_headers_leave_but_no_body(sim: Simulator, web: WebClient) -> None:
    received, _ = await _run(sim, web, Fault("close", at="before_content"))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_a_stream_is_cut_after_so_many_deltas(sim: Simulator, web: WebClient, after: int) -> None:
    sim.control.set_options(events=8, encoding="v1")
    received, _ = await _run(sim, web, Fault("close", at="mid_stream", after=after))
    assert not received.endswith(_END)
    assert received.count(b"word") == after
    assert sim.control.streams[-1].deltas == after
    assert b"input_message" in received


async def test_a_reset_in_mid_stream_is_a_reset(sim: Simulator, web: WebClient) -> None:
    assert (await _run(sim, web, Fault("reset", at="mid_stream", after=1)))[1] is True


async def test_a_body_can_end_well_formed_but_too_early(sim: Simulator, web: WebClient) -> None:
    sim.control.fail("conversation", Fault("end", at="mid_stream", after=2))
    text = (await web.ask()).text
    assert "[DONE]" not in text
    assert visible_text(read_classic(text)) == "Nile, Amazon,"


async def test_an_error_event_ends_the_stream(sim: Simulator, web: WebClient) -> None:
    for at in ("before_content", "mid_stream"):
        sim.control.fail("conversation", Fault("error_event", at=at, after=1, body="It broke."))
        text = (await web.ask()).text
        assert text.endswith('"error":"It broke."}\n\ndata: [DONE]\n\n')
        assert ("Nile" in text) is (at == "mid_stream")


async def test_frames_and_characters_are_cut(sim: Simulator, web: WebClient) -> None:
    sim.control.set_options(encoding="v1", events=5)
    frame, _ = await _run(sim, web, Fault("cut_frame", at="mid_stream", after=2))
    assert not frame.rstrip().endswith((b"}", _END))
    character, _ = await _run(sim, web, Fault("cut_character", at="mid_stream", after=2))
    assert character.rstrip().endswith(b"caf\xc3")


async def test_a_line_without_end_and_a_huge_event(sim: Simulator, web: WebClient) -> None:
    endless, _ = await _run(sim, web, Fault("endless_line", at="mid_stream", size=300_000))
    assert endless.count(b"a") >= 300_000
    sim.control.fail("conversation", Fault("oversized_event", at="mid_stream", size=2_000_000))
    sim.control.fail("conversation", Fault("flood", at="before_content", size=2_000_000))
    huge, flooded = await web.ask(), await web.ask()
    for answer in (huge, flooded):
        assert len(answer.content) > 2_000_000
        assert visible_text(read_classic(answer.text)) == "Nile, Amazon, Danube."
    assert max(map(len, huge.text.split("\n"))) > 2_000_000
    assert max(map(len, flooded.text.split("\n"))) < 5_000


async def test_bytes_are_sent_as_given_and_the_stream_goes_on(sim: Simulator, web: WebClient) -> None:
    sim.control.fail("conversation", Fault("bytes", at="mid_stream", after=1, body="data: {bad\xff\n\n"))
    content = (await web.ask()).content
    assert b"data: {bad\xff\n\n" in content
    assert content.endswith(b"data: [DONE]\n\n")


async def test_a_pause_ends_by_itself_and_a_stall_with_the_peer(sim: Simulator, web: WebClient) -> None:
    for at in ("before_headers", "before_content", "mid_stream"):
        sim.control.fail("conversation", Fault("stall", at=at, seconds=0.02))
        assert visible_text(read_classic((await web.ask()).text)) == "Nile, Amazon, Danube."
        sim.control.fail("conversation", Fault("stall", at=at))
        async with connect(sim) as connection:
            await send_turn(connection, web)
            if at != "before_headers":
                await connection.read_head()
            else:
                await sim.control.wait_until(lambda: sim.control.requests[-1].route == "conversation")
            left_at = time.monotonic()
            connection.close()
            await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)
        last = sim.control.replies[-1]
        assert last.outcome == "aborted"
        assert last.ended_at is not None
        assert 0 <= last.ended_at - left_at < 1.0


async def test_an_answer_can_be_replaced_by_any_other(sim: Simulator, web: WebClient) -> None:
    sim.control.fail("conversation", Fault("answer", status=529, body="<p>busy</p>", headers=(("retry-after", "3"),)))
    answer = await web.ask()
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (529, "<p>busy</p>", "3")
    assert answer.headers["content-type"].startswith("text/html")
    assert (await web.ask()).status_code == 200


async def test_random_cuts_change_nothing_but_the_packets(sim: Simulator, web: WebClient) -> None:
    sim.control.choose(split=7, text="Grüße 🌊 über alles")
    answer = await web.ask()
    assert visible_text(read_classic(answer.text)) == "Grüße 🌊 über alles"


async def test_a_drip_sends_single_bytes(sim: Simulator, web: WebClient) -> None:
    sim.control.fail("conversation", Fault("drip", at="mid_stream", after=2, seconds=0.0))
    sim.control.set_options(encoding="v1", side_events=False)
    async with connect(sim) as connection:
        await send_turn(connection, web, history_and_training_disabled=True)
        received = await connection.reader.readuntil(_END)
    assert received.count(b"\r\n1\r\n") > 20


async def test_deltas_come_at_their_pace(sim: Simulator, web: WebClient) -> None:
    sim.control.choose(delay=0.02, first_delay=0.05)
    started = time.monotonic()
    await web.ask()
    assert 0.05 + 3 * 0.02 <= time.monotonic() - started < 2


async def test_nothing_is_made_that_the_peer_does_not_read(sim: Simulator, web: WebClient) -> None:
    sim.control.choose(events=2_000_000, encoding="v1")
    async with connect(sim, receive_buffer=8_192) as connection:
        await send_turn(connection, web)
        await connection.read_head()
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        written = -1
        while written != sim.control.streams[-1].bytes_written:
            written = sim.control.streams[-1].bytes_written
            await asyncio.sleep(0.05)
        assert 0 < written < 8 * 1024 * 1024
        connection.close()
    await sim.control.wait_until(lambda: sim.control.counters.aborted == 1)
    assert sim.control.streams[-1].bytes_written == written


async def test_hundreds_of_paced_streams_run_side_by_side(sim: Simulator, web: WebClient) -> None:
    sim.control.set_options(delay=0.2, proof_required=False, events=3, encoding="v1")

    async def read_one() -> bytes:
        async with connect(sim) as connection:
            await send_turn(connection, web)
            return await asyncio.wait_for(connection.reader.readuntil(_END), 60)

    started = time.monotonic()
    received = await asyncio.gather(*(read_one() for _ in range(150)))
    assert all(b"word3" in body for body in received)
    assert time.monotonic() - started < 45  # one after the other they would take 90 seconds
    assert sim.control.counters.open_streams == 0
