"""Answers out of a socket's frames: what is sent, what is read, when it is over."""

import asyncio
import base64
import json

import pytest

from chat2api.errors import TransportError, UpstreamProtocolError
from chat2api.protocol.chatgpt.handoff import ACKNOWLEDGE_EVERY
from chat2api.upstream.chatgpt.moved import SocketAnswer, read_pubsub, read_topic

TOPIC = "conversation-turn-t-1"


class FakeSocket:
    """A socket whose messages are written down: None is its good end, an error its bad one."""

    def __init__(self, *messages: str | Exception | None) -> None:
        self.messages = list(messages)
        self.sent: list[object] = []
        self.closed = 0

    async def receive(self) -> str | None:
        await asyncio.sleep(0)
        message = self.messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    def send(self, text: bytes) -> None:
        self.sent.append(json.loads(text))

    async def aclose(self) -> None:
        self.closed += 1


async def read_all(answer: SocketAnswer) -> list[bytes]:
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return pieces


def frame(number: int, text: bytes, *, conversation: str = "c-1", more: bool = True) -> str:
    body = base64.b64encode(text).decode()
    data = {"type": "http.response.body", "conversation_id": conversation, "more_body": more, "body": body}
    return json.dumps({"type": "message", "sequenceId": number, "data": data})


def item(text: str, identifier: str) -> dict[str, object]:
    inner = {"type": "stream-item", "encoded_item": text, "stream_item_id": identifier}
    return {"type": "message", "topic_id": TOPIC, "payload": {"type": "conversation-turn-stream", "payload": inner}}


async def test_frames_of_2024_are_read_to_the_last_one() -> None:
    connected = json.dumps({"type": "system", "event": "connected"})
    other = frame(2, b"no", conversation="c-2")
    socket = FakeSocket(connected, frame(1, b"a"), other, frame(3, b"b", more=False), frame(4, b"late"))
    answer = read_pubsub(socket, "c-1")
    assert await read_all(answer) == [b"a", b"b"]
    assert await answer.read() == b""
    assert len(socket.messages) == 1
    await answer.aclose()
    assert socket.closed == 1


async def test_frames_of_2024_are_acknowledged_now_and_then() -> None:
    count = 2 * ACKNOWLEDGE_EVERY
    socket = FakeSocket(*(frame(number, b"x", more=number < count) for number in range(1, count + 1)))
    assert len(await read_all(read_pubsub(socket, "c-1"))) == count
    assert socket.sent == [{"type": "sequenceAck", "sequenceId": number} for number in (ACKNOWLEDGE_EVERY, count)]


async def test_a_close_in_good_order_is_the_end_and_a_break_is_an_error() -> None:
    assert await read_all(read_pubsub(FakeSocket(frame(1, b"a"), None), "c-1")) == [b"a"]
    answer = read_pubsub(FakeSocket(frame(1, b"a"), TransportError("cut")), "c-1")
    assert await answer.read() == b"a"
    with pytest.raises(TransportError):
        await answer.read()


async def test_a_topic_is_asked_for_from_its_beginning_behind_the_opening() -> None:
    socket = FakeSocket()
    read_topic(socket, TOPIC)
    opening, subscription = socket.sent
    assert isinstance(opening, list)
    assert [command["id"] for command in opening] == [1, 2, 3, 4]
    assert subscription == [{"id": 5, "command": {"type": "subscribe", "topic_id": TOPIC, "offset": "0"}}]


async def test_catch_ups_come_once_and_before_what_follows() -> None:
    items = [item(f"data: {number}\n\n", f"i-{number}") for number in range(4)]
    reply = json.dumps({"type": "reply", "id": 5, "reply": {"topic_id": TOPIC, "catchups": items[:3]}})
    done = {"type": "message", "topic_id": TOPIC, "payload": {"payload": {"type": "done"}}}
    socket = FakeSocket(reply, json.dumps([items[2], items[3]]), json.dumps(items[1]), json.dumps(done), "late")
    assert b"".join(await read_all(read_topic(socket, TOPIC))) == b"".join(b"data: %d\n\n" % n for n in range(4))
    assert socket.messages == ["late"]


async def test_a_topic_that_is_refused_is_an_error() -> None:
    socket = FakeSocket(json.dumps({"type": "reply", "id": 5, "error": {"code": "x"}}))
    with pytest.raises(UpstreamProtocolError):
        await read_topic(socket, TOPIC).read()
