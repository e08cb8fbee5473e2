"""Turns that are passed on: the backend's bytes and nothing else, from every era, with the limits of every answer."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from chat2api.errors import (
    Chat2APIError,
    UpstreamError,
)
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.protocol.chatgpt.stream import ConversationDecoder
from chat2api.protocol.chatgpt.website import SiteTurn, read_turn
from chat2api.protocol.events import End, Event, Failed, HandedOff
from chat2api.simulator.options import SimulatorOptions
from tests.gateway.bench import OPERATOR, Gateway, open_gateway
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
