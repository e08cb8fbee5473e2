"""Answers that come by web socket: frames in, the bytes of an event stream out.

Two systems are known. In 2024 the answer to the conversation call could be a web socket's address (Azure Web PubSub,
sub-protocol `json.reliable.webpubsub.azure.v1`), whose frames carry the event stream in base64, numbered. Since 2026 a
`stream_handoff` names a topic on the one socket of an account; its frames carry events as text, and what was sent before
the subscription is repeated in the reply to it. Both may repeat frames, so both are de-duplicated here.

The bytes given are for a new `ConversationDecoder`.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from chat2api.errors import UpstreamProtocolError
from chat2api.protocol.chatgpt.patches import Json, text_of
from chat2api.protocol.chatgpt.visibility import mapping_of

PUBSUB_PROTOCOL = "json.reliable.webpubsub.azure.v1"
ACKNOWLEDGE_EVERY = 80
_GENERAL_TOPICS = ("calpico-chatgpt", "conversations", "app_notifications")


class FrameData(NamedTuple):
    """What one frame brought: bytes of the stream, a frame to send back, and whether it was the last."""

    data: bytes
    reply: bytes | None
    is_last: bool


class PubSubStream:
    """Reads the frames of 2024 for one conversation."""

    def __init__(self, conversation_id: str | None, response_id: str | None = None) -> None:
        """Begin; frames of other conversations and responses are skipped (None skips none)."""
        self._conversation_id = conversation_id
        self._response_id = response_id
        self._sequence = 0

    def feed(self, frame: str | bytes) -> FrameData:
        """Give what a frame brings; raises UpstreamProtocolError for what is no such frame."""
        message = mapping_of(_parse(frame))
        sequence = message.get("sequenceId")
        if type(sequence) is not int or sequence <= self._sequence:
            return FrameData(b"", None, False)
        self._sequence = sequence
        reply = None
        if sequence % ACKNOWLEDGE_EVERY == 0:
            reply = orjson.dumps({"type": "sequenceAck", "sequenceId": sequence})
        body = mapping_of(message.get("data"))
        if not self._is_ours(body):
            return FrameData(b"", reply, False)
        try:
            data = base64.b64decode(text_of(body.get("body")), validate=True)
        except (binascii.Error, ValueError) as error:
            raise UpstreamProtocolError("The backend sent a web socket frame that is not base64.") from error
        return FrameData(data, reply, body.get("more_body") is False)

    def _is_ours(self, body: Json) -> bool:
        if body.get("type", "http.response.body") != "http.response.body":
            return False
        if self._conversation_id is not None and body.get("conversation_id", "") != self._conversation_id:
            return False
        return self._response_id is None or body.get("response_id", self._response_id) == self._response_id


class TurnTopic:
    """Reads the frames of 2026 for one topic."""

    def __init__(self, topic_id: str) -> None:
        """Begin; frames of other topics are skipped."""
        self.is_done = False
        """Whether the topic said that nothing follows."""
        self._topic_id = topic_id
        self._seen: set[str] = set()

    def feed(self, frame: str | bytes) -> bytes:
        """Give the events that a frame brings and no frame before it brought.

        Raises UpstreamProtocolError for what is no frame, and when the subscription was refused.
        """
        return b"".join(self._read(message) for message in self._messages(_parse(frame)))

    def _messages(self, frame: Json) -> Iterator[Json]:
        for message in frame if type(frame) is list else [frame]:
            facts = mapping_of(message)
            reply = mapping_of(facts.get("reply"))
            if facts.get("type") == "error" or (facts.get("type") == "reply" and facts.get("error")):
                raise UpstreamProtocolError("The backend refused the subscription to the answer's topic.")
            catchups = reply.get("catchups")
            if reply.get("topic_id", self._topic_id) == self._topic_id and type(catchups) is list:
                yield from catchups
            if facts.get("type") == "message":
                yield facts

    def _read(self, message: Json) -> bytes:
        facts = mapping_of(message)
        if facts.get("topic_id", self._topic_id) != self._topic_id:
            return b""
        item = mapping_of(mapping_of(facts.get("payload")).get("payload"))
        kind = item.get("type")
        if kind == "done":
            self.is_done = True
        if kind != "stream-item":
            return b""
        identifier = text_of(item.get("stream_item_id"))
        if identifier in self._seen:
            return b""
        if identifier:
            self._seen.add(identifier)
        encoded = text_of(item.get("encoded_item"))
        # A lone half of a surrogate pair cannot be encoded and stands for nothing.
        return encoded.encode("utf-8", "replace")


def opening_commands() -> bytes:
    """Give the frame with which a client of 2026 introduces itself, numbered 1 to 4."""
    presence = {"type": "connect", "presence": {"type": "presence", "state": "background"}}
    commands: list[Json] = [presence, *({"type": "subscribe", "topic_id": topic} for topic in _GENERAL_TOPICS)]
    return orjson.dumps([{"id": number, "command": command} for number, command in enumerate(commands, 1)])


def subscribe_command(topic_id: str, number: int, offset: str = "0") -> bytes:
    """Give the frame that asks for a topic from an offset on; "0" asks for all of it."""
    return orjson.dumps([{"id": number, "command": {"type": "subscribe", "topic_id": topic_id, "offset": offset}}])


def unsubscribe_command(topic_id: str, number: int) -> bytes:
    """Give the frame that ends a subscription."""
    return orjson.dumps([{"id": number, "command": {"type": "unsubscribe", "topic_id": topic_id}}])


def _parse(frame: str | bytes) -> Json:
    try:
        return orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocolError("The backend sent a web socket frame that is not JSON.") from error
