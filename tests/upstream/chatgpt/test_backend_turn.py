import json
from collections.abc import Callable, Sequence

import pytest

from chat2api.errors import StreamInterruptedError
from chat2api.protocol.chatgpt.stream import ConversationDecoder
from chat2api.protocol.events import Event, Finished, TextDelta
from chat2api.upstream.chatgpt.backend_turn import BackendTurn

DONE = b"data: [DONE]\n\n"


def snapshot(text: str, status: str = "in_progress") -> bytes:
    """Give an event that holds the whole message so far."""
    message = {
        "id": "m-1",
        "author": {"role": "assistant"},
        "content": {"content_type": "text", "parts": [text]},
        "status": status,
        "end_turn": True if status == "finished_successfully" else None,
        "recipient": "all",
        "metadata": {},
    }
    return b"data: " + json.dumps({"conversation_id": "c-1", "message": message}).encode() + b"\n\n"


class Pieces:
    """A stream whose bytes come in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.left = list(pieces)
        self.closed = 0

    async def pass_on(self, take: Callable[[bytes], bool]) -> bool:
        while self.left:
            if not take(self.left.pop(0)):
                return True
        return False

    async def aclose(self) -> None:
        self.closed += 1


class Early:
    """A socket that was opened early."""

    def __init__(self) -> None:
        self.closed = 0

    async def receive(self) -> str | None:
        return None

    def send(self, text: bytes) -> None: ...

    async def aclose(self) -> None:
        self.closed += 1


def turn_of(*pieces: bytes, early: Early | None = None) -> tuple[BackendTurn, Pieces]:
    stream = Pieces(*pieces)
    return BackendTurn(stream, ConversationDecoder(), early), stream


async def everything(turn: BackendTurn) -> list[Event]:
    events: list[Event] = []
    while more := await turn.next():
        events += more
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


WHOLE = (snapshot("one"), snapshot("one two"), snapshot("one two", "finished_successfully"), DONE)


async def test_an_answer_comes_as_events_and_ends() -> None:
    turn, _ = turn_of(*WHOLE)
    events = await everything(turn)
    assert (text_of(events), turn.raw_text, turn.conversation_id) == ("one two", "one two", "c-1")
    assert isinstance(events[-1], Finished)
    assert await turn.next() == []


async def test_what_is_taken_is_not_given_again() -> None:
    turn, _ = turn_of(*WHOLE)
    taken: list[Event] = []

    def take(events: Sequence[Event]) -> bool:
        taken.extend(events)
        return True

    assert await turn.next(take) == []
    assert text_of(taken) == "one two"


async def test_what_is_not_taken_is_given() -> None:
    turn, _ = turn_of(*WHOLE)
    assert text_of(await turn.next(lambda _: False)) == "one"


async def test_the_bytes_go_on_behind_the_answers_end() -> None:
    turn, _ = turn_of(*WHOLE, b"data: more\n\n")
    read = [await turn.read() for _ in range(6)]
    assert [data for data, _ in read] == [*WHOLE, b"data: more\n\n", b""]
    assert text_of([event for _, events in read for event in events]) == "one two"


async def test_R14_an_answer_without_an_end_gives_all_that_came_and_then_says_so() -> None:
    turn, _ = turn_of(snapshot("one"), snapshot("one two")[:-2])
    events: list[Event] = []
    with pytest.raises(StreamInterruptedError):
        while True:
            events += await turn.next()
    assert text_of(events).startswith("one")
    with pytest.raises(StreamInterruptedError):
        await turn.next()


async def test_R10_closing_a_turn_closes_the_socket_that_was_opened_early() -> None:
    early = Early()
    turn, stream = turn_of(*WHOLE, early=early)
    await turn.aclose()
    assert (stream.closed, early.closed) == (1, 1)


async def test_an_early_socket_that_was_taken_belongs_to_its_own_turn() -> None:
    early = Early()
    turn, stream = turn_of(*WHOLE, early=early)
    other = turn.take_early()
    assert other is not None
    assert turn.take_early() is None
    await turn.aclose()
    assert (stream.closed, early.closed) == (1, 0)
    await other.aclose()
    assert early.closed == 1
