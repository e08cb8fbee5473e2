"""Turns that are passed on: the backend's bytes and nothing else, from every era, with the limits of every answer."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from chat2api.errors import (
    AccountLimitedError,
    AllAccountsCoolingError,
    Chat2APIError,
    StreamInterruptedError,
    UpstreamError,
    UpstreamTimeoutError,
)
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.gateway.site_turns import (
    HALF_LIMIT,
    MARK_SECONDS,
    PassingChats,
    split_end_mark,
    split_half_event,
    without_handoff,
)
from chat2api.protocol.chatgpt.stream import ConversationDecoder
from chat2api.protocol.chatgpt.website_turns import SiteTurn, read_turn
from chat2api.protocol.events import End, Event, Failed, Finished, HandedOff
from chat2api.simulator.faults import Do, Fault
from chat2api.simulator.options import SimulatorOptions
from chat2api.storage.values import ConversationOwner
from tests.gateway.bench import ANSWER, OPERATOR, Gateway, open_gateway, text_of
from tests.origin import Exchange, Origin
from tests.protocol.chatgpt.streams import DATA

pytestmark = pytest.mark.asyncio(loop_scope="module")


def body_of(content: str = "Name three rivers.", **fields: object) -> dict[str, object]:
    """Give a turn's body as the least of clients sends it."""
    message = {"content": {"content_type": "text", "parts": [content]}}
    return {"model": "auto", "messages": [message], **fields}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("turns"), SimulatorOptions(accounts=0)) as made:
        yield made


def turn_of(gateway: Gateway, content: str = "Name three rivers.", **fields: object) -> SiteTurn:
    return read_turn(body_of(content, **fields), gateway.runtime.conversations.surroundings())


async def pass_on(
    gateway: Gateway, turn: SiteTurn | None = None, caller: Caller = OPERATOR, into: list[bytes] | None = None
) -> tuple[bytes, list[Event]]:
    """Give the bytes and the events of an answer; what came before a failure is left in `into`."""
    data: list[bytes] = [] if into is None else into
    events: list[Event] = []
    answer = gateway.runtime.conversations.turn(caller, turn or turn_of(gateway), AnswerFacts())
    async with aclosing(answer) as batches:
        async for pieces in batches:
            data += [piece.data for piece in pieces]
            events += [event for piece in pieces for event in piece.events]
    return b"".join(data), events


def spoken(data: bytes) -> list[Event]:
    """Give what a client understands of the bytes that it got."""
    decoder = ConversationDecoder()
    return decoder.feed(data) + decoder.close()


# Recorded streams of all eras, through a backend that only repeats them


class Repeater:
    """A backend that answers each turn with the same bytes, cut at random."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.kind = "text/event-stream; charset=utf-8"
        self.rng = random.Random(20261121)

    async def handle(self, exchange: Exchange) -> None:
        data = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await exchange.respond(200, [("content-type", self.kind)])
        while data:
            size = self.rng.randrange(1, 4000)
            await exchange.send(data[:size])
            data = data[size:]
            await asyncio.sleep(0)
        await exchange.finish()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def repeater(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Repeater, Gateway]]:
    repeating = Repeater()
    folder = tmp_path_factory.mktemp("repeater")
    async with (
        Origin(repeating.handle) as origin,
        open_gateway(folder, CHATGPT_BASE_URL=origin.url, CONVERSATION_ONLY="true", RETRY_TIMES="0") as gateway,
    ):
        await gateway.fresh()
        yield repeating, gateway


def understood(recorded: bytes) -> list[Event] | None:
    """Give what a recorded stream says, None for one that ends in an error of its form."""
    decoder = ConversationDecoder()
    try:
        return decoder.feed(recorded) + decoder.close()
    except UpstreamError:
        return None


RECORDED = {path.stem: path.read_bytes() for path in sorted(DATA.glob("*.sse"))}
MOVED = {name for name, data in RECORDED.items() if any(isinstance(one, HandedOff) for one in understood(data) or ())}
REFUSED = {
    name
    for name, data in RECORDED.items()
    if (events := understood(data)) is None or isinstance(events[0], Failed) or isinstance(events[1], Failed)
}
"""Those that say nothing before they fail, or end in the middle."""


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - MOVED - REFUSED))
async def test_every_byte_of_a_recorded_stream_arrives_and_no_other(
    repeater: tuple[Repeater, Gateway], name: str
) -> None:
    repeating, gateway = repeater
    repeating.answers = [RECORDED[name]]
    data, events = await pass_on(gateway)
    assert data == RECORDED[name]
    assert sum(isinstance(event, End) for event in events) == 1


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_a_stream_that_fails_first_is_an_error_and_one_that_breaks_off_ends_in_one(
    repeater: tuple[Repeater, Gateway], name: str
) -> None:
    repeating, gateway = repeater
    gateway.clock.advance(4000.0)
    repeating.answers = [RECORDED[name]]
    given: list[bytes] = []
    with pytest.raises(Chat2APIError):
        await pass_on(gateway, into=given)
    assert b"".join(given) in (b"", RECORDED[name])


# Answers that go on elsewhere


@pytest.mark.parametrize("split", [None, 1, 2])
@pytest.mark.parametrize("answer", ["handoff", "websocket_2024"])
async def test_an_answer_that_the_backend_moves_comes_all_the_same_and_names_no_socket(
    gateway: Gateway, answer: str, split: int | None
) -> None:
    await gateway.fresh()
    gateway.control.set_options(answer=answer, split=split)
    began = asyncio.get_running_loop().time()
    data, events = await pass_on(gateway)
    seconds = asyncio.get_running_loop().time() - began
    gateway.control.set_options(answer="text", split=None)
    assert seconds < 10 * MARK_SECONDS, "the socket, which stays open, is not waited for"
    decoded = [event for event in events if isinstance(event, Finished)]
    assert len(decoded) == 1
    assert text_of(events).endswith(ANSWER)
    assert b"wss_url" not in data
    assert b"stream_handoff" not in data
    assert b"Danube" in data
    assert data.count(b"[DONE]") == 1, "who reads up to the mark has it all"
    assert data.endswith(b"data: [DONE]\n\n")
    assert [one for one in understood(data) or () if isinstance(one, End)] == decoded
    await gateway.settled()


@pytest.mark.parametrize(
    ("data", "half"),
    [
        (b"data: 1\n\ndata: 2", b"data: 2"),
        (b"data: 1\r\n\r\ndata: 2\r\n", b"data: 2\r\n"),
        (b"data: 1\r\rdata: 2", b"data: 2"),
        (b"data: 1\n\n", b""),
        (b"\n\n", b""),
        (b"data: 1\n", b"data: 1\n"),
        (b"data: " + b"x" * HALF_LIMIT, b""),
        (b"data: 1\n\ndata: " + b"x" * HALF_LIMIT, b""),
        (b"", b""),
    ],
)
async def test_half_an_event_waits_for_its_other_half(data: bytes, half: bytes) -> None:
    assert split_half_event(data) == (data[: len(data) - len(half)], half)


@pytest.mark.parametrize("fault", ["cut_frame", "cut_character", "reset", "close"])
async def test_of_an_answer_that_breaks_off_only_whole_events_are_given(gateway: Gateway, fault: Do) -> None:
    await gateway.fresh()
    gateway.control.fail("conversation", Fault(fault, at="mid_stream", after=2))
    given: list[bytes] = []
    with pytest.raises(StreamInterruptedError):
        async with aclosing(gateway.runtime.conversations.turn(OPERATOR, turn_of(gateway), AnswerFacts())) as batches:
            async for pieces in batches:
                given += [piece.data for piece in pieces]
    data = b"".join(given)
    assert data.endswith(b"\n\n")
    assert "Nile, Amazon," in data.decode()
    await gateway.settled()


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b'data: {"type":"stream_handoff"}\n\n', b""),
        (b'data: 1\n\nevent: x\ndata: {"type":"stream_handoff"}\n\ndata: 2\n\n', b"data: 1\n\ndata: 2\n\n"),
        (b'data: 1\n\ndata: {"type":"stream_handoff"', b'data: 1\n\ndata: {"type":"stream_handoff"'),
        (b'data: {"v":"\\"stream_handoff\\""}\n\n', b'data: {"v":"\\"stream_handoff\\""}\n\n'),
        (b"data: 1\n\n", b"data: 1\n\n"),
        (b"", b""),
    ],
)
async def test_the_event_that_says_where_an_answer_goes_on_is_cut_out_whole(data: bytes, left: bytes) -> None:
    assert without_handoff(data) == left


async def test_an_answer_that_moved_and_is_not_to_be_had_is_an_error(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.set_options(answer="handoff_poll")
    with pytest.raises(StreamInterruptedError):
        await pass_on(gateway)
    gateway.control.set_options(answer="text")
    await gateway.settled()


async def test_a_cut_answer_goes_on_by_itself_where_that_is_asked_for(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.set_options(text="one two three four five six seven eight")
    gateway.control.choose("conversation", answer="max_tokens")
    data, events = await pass_on(gateway, turn_of(gateway, auto_continue=True))
    assert text_of(events).split() == ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    assert data.count(b"[DONE]") == 1
    assert data.rstrip().endswith(b"[DONE]")
    actions = [record.request.json()["action"] for record in gateway.control.requests_to("conversation")]  # type: ignore[index,call-overload]
    assert actions == ["next", "continue"]
    await gateway.fresh()
    gateway.control.choose("conversation", answer="max_tokens")
    data, events = await pass_on(gateway)
    gateway.control.set_options(text=None)
    (end,) = [event for event in events if isinstance(event, Finished)]
    assert end.continuable
    assert len(gateway.control.requests_to("conversation")) == 1


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"data: {}\n\ndata: [DONE]\n\n", b"data: [DONE]\n\n"),
        (b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n", b"data: [DONE]\r\n\r\n"),
        (b"data: [DONE]", b"data: [DONE]"),
        (b"data: {}\n\nda", b"da"),
        (b"data: {}\n\ndata: [DO", b"data: [DO"),
        (b"data: {}\n\n", b""),
        (b"data: {}", b""),
        (b"data: [DONE]\n\ndata: {}\n\n", b""),
        (b"da\n\n", b""),
        (b"", b""),
    ],
)
async def test_the_end_mark_is_cut_off_wherever_the_bytes_were_cut(data: bytes, end: bytes) -> None:
    assert split_end_mark(data) == (data[: len(data) - len(end)], end)


# Attempts and limits


async def test_R3_another_account_is_tried_before_the_first_content(gateway: Gateway) -> None:
    first, second = await gateway.fresh(2)
    gateway.control.refuse("conversation", "rate_limit_exceeded", account=first.user_id)
    data, _ = await pass_on(gateway)
    assert b"Danube" in data
    bearers = [record.request.header("authorization") for record in gateway.control.requests_to("conversation")]
    assert bearers == [f"Bearer {first.access_token}", f"Bearer {second.access_token}"]


async def test_R3_a_conversation_stays_with_its_account(gateway: Gateway) -> None:
    await gateway.fresh(2)
    _, events = await pass_on(gateway)
    (end,) = [event for event in events if isinstance(event, Finished)]
    gateway.control.fail("conversation", Fault("answer", named="rate_limit_exceeded"))
    with pytest.raises((AccountLimitedError, AllAccountsCoolingError)):
        await pass_on(gateway, turn_of(gateway, conversation_id=end.conversation_id))
    assert gateway.turns == 2
    await gateway.settled()


async def test_R2_nothing_is_tried_again_after_the_first_content(gateway: Gateway) -> None:
    await gateway.fresh(2)
    gateway.control.fail("conversation", Fault("close", at="mid_stream", after=2))
    given: list[bytes] = []
    with pytest.raises(StreamInterruptedError):
        await pass_on(gateway, into=given)
    assert b"".join(given)
    assert gateway.turns == 1


@pytest.mark.parametrize(("after", "first", "phase"), [(0, "0.3", "first_content"), (2, "30", "between_events")])
async def test_R1_a_silent_backend_is_given_up(
    tmp_path_factory: pytest.TempPathFactory, after: int, first: str, phase: str
) -> None:
    folder, options = tmp_path_factory.mktemp(phase), SimulatorOptions(accounts=0)
    async with open_gateway(
        folder, options, FIRST_CONTENT_TIMEOUT=first, EVENT_TIMEOUT="0.3", RETRY_TIMES="0"
    ) as gateway:
        await gateway.fresh()
        gateway.control.fail("conversation", Fault("stall", at="mid_stream", after=after))
        with pytest.raises((UpstreamTimeoutError, StreamInterruptedError)) as caught:
            await pass_on(gateway)
        cause = caught.value if isinstance(caught.value, UpstreamTimeoutError) else caught.value.__cause__
        assert isinstance(cause, UpstreamTimeoutError)
        assert cause.phase == phase
        await gateway.settled()


async def test_a_backend_that_leaves_its_stream_open_behind_the_end_is_not_waited_for(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat2api.gateway.site_turns.TAIL_SECONDS", 0.1)
    recorded = (DATA / "2025-01_v1_plain.sse").read_bytes()

    async def leave_open(exchange: Exchange) -> None:
        await exchange.respond(200, [("content-type", "text/event-stream")])
        await exchange.send(recorded)
        await exchange.gone.wait()

    async with (
        Origin(leave_open) as origin,
        open_gateway(tmp_path_factory.mktemp("open"), CHATGPT_BASE_URL=origin.url, CONVERSATION_ONLY="true") as gateway,
    ):
        await gateway.fresh()
        data, events = await pass_on(gateway)
        assert data == recorded
        assert isinstance(events[-1], Finished)


async def test_R12_what_has_no_content_is_held_back_only_so_far(
    repeater: tuple[Repeater, Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat2api.gateway.site_turns.HELD_LIMIT", 2000)
    repeating, gateway = repeater
    repeating.answers = [b": nothing to say\n\n" * 1000]
    given: list[bytes] = []
    with pytest.raises(StreamInterruptedError):
        await pass_on(gateway, into=given)
    assert b"".join(given) == repeating.answers[0]


async def test_R12_who_does_not_read_holds_the_backend_up(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.set_options(events=400_000)
    answer = gateway.runtime.conversations.turn(OPERATOR, turn_of(gateway), AnswerFacts())
    async with aclosing(answer) as batches:
        await anext(batches)
        before, still = -1, 0
        while still < 50:
            await asyncio.sleep(0.01)
            now = gateway.control.streams[-1].bytes_written
            before, still = now, still + 1 if now == before else 0
        assert before < 10_000_000
        assert gateway.control.streams[-1].outcome == "open"
    gateway.control.set_options(events=None)
    await gateway.settled()
    assert [stream.outcome for stream in gateway.control.streams] == ["aborted"]


async def test_a_failure_that_the_backend_tells_in_the_middle_is_told_once_and_counts(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.set_options(answer="error_midway")
    data, events = await pass_on(gateway)
    gateway.control.set_options(answer="text")
    assert sum(isinstance(event, Failed) for event in events) == 1
    assert b"errorMessage" not in data
    (view,) = gateway.source.pool.views()
    assert view.last_error is not None


# Temporary chats


async def test_owners_of_temporary_chats_are_kept_while_they_are_among_the_last() -> None:
    chats = PassingChats(limit=2)
    for name in ("a", "b"):
        chats.put(ConversationOwner(name, "account", "owner", None, 1.0))
    chats.put(ConversationOwner("a", "account", "owner", "m-2", 2.0))
    chats.put(ConversationOwner("c", "account", "owner", None, 3.0))
    assert chats.get("b") is None
    kept = chats.get("a")
    assert kept is not None
    assert kept.last_message_id == "m-2"
    assert chats.get("c") is not None
