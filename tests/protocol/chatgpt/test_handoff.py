"""Web socket frames of 2024 and 2026: what they bring, once."""

import base64
import json
from typing import Any

import pytest

from chat2api.errors import UpstreamProtocolError
from chat2api.protocol.chatgpt.handoff import (
    FrameData,
    PubSubStream,
    TurnTopic,
    opening_commands,
    subscribe_command,
    unsubscribe_command,
)
from tests.protocol.chatgpt.streams import (
    COMPLETE,
    DONE,
    ENCODING,
    append,
    bare,
    begin,
    decode,
    last_patch,
    message,
    text_in,
)

STREAM = ENCODING + begin(message()) + append("Nile") + bare(", Amazon") + last_patch(".") + COMPLETE + DONE
TOPIC = "conversation-turn-t-1"


def pubsub(sequence: int | None, body: bytes = b"", **data: Any) -> str:
    inner = {"type": "http.response.body", "conversation_id": "c-1", "response_id": "r-1", "more_body": True, **data}
    inner["body"] = base64.b64encode(body).decode()
    frame = {"type": "message", "from": "group", "dataType": "json", "data": inner}
    return json.dumps(frame if sequence is None else {**frame, "sequenceId": sequence})


def test_frames_of_2024_give_the_bytes_of_the_stream() -> None:
    socket = PubSubStream("c-1", "r-1")
    cuts = [STREAM[at : at + 50] for at in range(0, len(STREAM), 50)]

    data = b"".join(socket.feed(pubsub(number, piece)).data for number, piece in enumerate(cuts, 1))

    assert data == STREAM
    assert text_in(decode(data)[0]) == "Nile, Amazon."


def test_a_frame_of_2024_counts_once_and_only_for_its_conversation() -> None:
    socket = PubSubStream("c-1", "r-1")

    assert socket.feed(pubsub(None, b"x")).data == b""
    assert socket.feed(pubsub(5, b"x", conversation_id="c-2")).data == b""
    assert socket.feed(pubsub(6, b"x", response_id="r-2")).data == b""
    assert socket.feed(pubsub(7, b"x", type="other")).data == b""
    assert socket.feed(pubsub(8, b"x")).data == b"x"
    assert socket.feed(pubsub(8, b"x")).data == b""
    assert socket.feed(json.dumps({"type": "system", "event": "connected"})) == FrameData(b"", None, False)
    assert socket.feed(pubsub(9, b"y", more_body=False)) == FrameData(b"y", None, True)


def test_every_eightieth_frame_of_2024_is_acknowledged() -> None:
    socket = PubSubStream(None)
    replies = {number: socket.feed(pubsub(number)).reply for number in range(1, 161)}

    assert {number for number, reply in replies.items() if reply} == {80, 160}
    assert json.loads(replies[160] or b"") == {"type": "sequenceAck", "sequenceId": 160}


@pytest.mark.parametrize("frame", ["{", b"\xff", pubsub(1).replace('"body": ""', '"body": "?"')])
def test_a_broken_frame_is_an_error(frame: str | bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        PubSubStream("c-1").feed(frame)


def item(text: str, identifier: str | None = None, topic: str = TOPIC) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "stream-item", "encoded_item": text}
    if identifier:
        inner["stream_item_id"] = identifier
    return {"type": "message", "topic_id": topic, "payload": {"type": "conversation-turn-stream", "payload": inner}}


def pieces_of(stream: bytes) -> list[str]:
    return [piece + "\n\n" for piece in stream.decode().split("\n\n") if piece]


def test_frames_of_2026_give_each_item_once() -> None:
    topic = TurnTopic(TOPIC)
    items = [item(piece, f"i-{number}") for number, piece in enumerate(pieces_of(STREAM))]
    reply = {"type": "reply", "id": 5, "reply": {"type": "subscribe", "topic_id": TOPIC, "catchups": items[:4]}}

    data = topic.feed(json.dumps([reply, items[2], items[4]]))
    data += topic.feed(json.dumps({**reply, "reply": {**reply["reply"], "catchups": items[:6]}}))  # type: ignore[dict-item]  # a dict
    data += b"".join(topic.feed(json.dumps(each)) for each in items)

    assert data == STREAM


def test_items_without_an_id_are_all_given() -> None:
    topic = TurnTopic(TOPIC)

    assert topic.feed(json.dumps([item("a"), item("a")])) == b"aa"


def test_other_topics_and_kinds_are_skipped() -> None:
    topic = TurnTopic(TOPIC)
    other = {"type": "reply", "reply": {"topic_id": "conversations", "catchups": [item("x", topic="conversations")]}}
    update = {"type": "message", "topic_id": TOPIC, "payload": {"type": "conversation-update", "payload": {}}}

    assert topic.feed(json.dumps([other, update, item("x", topic="conversations"), 5, None, {"type": "pong"}])) == b""
    assert topic.feed("5") == b""
    assert not topic.is_done


def test_a_topic_says_that_nothing_follows() -> None:
    topic = TurnTopic(TOPIC)
    topic.feed(json.dumps({"type": "message", "topic_id": TOPIC, "payload": {"payload": {"type": "done"}}}))

    assert topic.is_done


@pytest.mark.parametrize("frame", ["[", '{"type": "error"}', '{"type": "reply", "id": 5, "error": {"code": "x"}}'])
def test_a_refused_subscription_is_an_error(frame: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        TurnTopic(TOPIC).feed(frame)


def test_commands_are_numbered_lists() -> None:
    opening = json.loads(opening_commands())

    assert [command["id"] for command in opening] == [1, 2, 3, 4]
    assert opening[0]["command"]["type"] == "connect"
    assert {command["command"].get("topic_id") for command in opening[1:]} == {
        "calpico-chatgpt",
        "conversations",
        "app_notifications",
    }
    assert json.loads(subscribe_command(TOPIC, 5)) == [
        {"id": 5, "command": {"type": "subscribe", "topic_id": TOPIC, "offset": "0"}}
    ]
    assert json.loads(unsubscribe_command(TOPIC, 6)) == [
        {"id": 6, "command": {"type": "unsubscribe", "topic_id": TOPIC}}
    ]
