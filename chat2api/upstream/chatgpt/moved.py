"""Answers that come on web sockets, read like those that come in a response's body.

Two kinds of sockets bring them (see `protocol/chatgpt/handoff.py`). Each answer gets a socket of its own, which ends with
it.
"""

from collections.abc import Callable
from typing import Protocol

from chat2api.protocol.chatgpt.handoff import (
    FrameData,
    PubSubStream,
    TurnTopic,
    opening_commands,
    subscribe_command,
)
from chat2api.upstream.exchange import WebSocket

_SUBSCRIPTION = 5
"""The number of the command that asks for the answer's topic, after the four that every client opens with."""


class ByteSource(Protocol):
    """Where the bytes of an answer's event stream come from."""

    async def pass_on(self, take: Callable[[bytes], bool]) -> bool:
        """Hand all bytes to `take` until it answers False; give whether more follows then."""
        ...

    async def aclose(self) -> None:
        """Stop what still comes in; idempotent."""
        ...


class SocketAnswer:
    """The event stream of one answer, out of a web socket's frames."""

    def __init__(self, socket: WebSocket, read_frame: Callable[[str], FrameData]) -> None:
        """Read an open socket, which is closed with the answer."""
        self._socket = socket
        self._read_frame = read_frame
        self._is_over = False

    async def read(self) -> bytes:
        """Give the bytes of the next frame that brings some; b"" after the last one.

        Raises as WebSocket.receive does, and UpstreamProtocolError for a frame that cannot be read.
        """
        while not self._is_over:
            frame = await self._socket.receive()
            if frame is None:
                break
            brought = self._read_frame(frame)
            if brought.reply is not None:
                self._socket.send(brought.reply)
            self._is_over = brought.is_last
            if brought.data:
                return brought.data
        return b""

    async def pass_on(self, take: Callable[[bytes], bool]) -> bool:
        """Hand all bytes over; see ByteSource."""
        while data := await self.read():
            if not take(data):
                return True
        return False

    async def aclose(self) -> None:
        """Close the socket."""
        await self._socket.aclose()


def read_pubsub(socket: WebSocket, conversation_id: str | None) -> SocketAnswer:
    """Give the answer of a conversation on a socket of 2024."""
    return SocketAnswer(socket, PubSubStream(conversation_id).feed)


def read_topic(socket: WebSocket, topic_id: str) -> SocketAnswer:
    """Ask for an answer's topic on a fresh socket of 2026, from its beginning, and give the answer.

    Raises TransportError when the socket is closed already.
    """
    topic = TurnTopic(topic_id)

    def read_frame(frame: str) -> FrameData:
        data = topic.feed(frame)
        return FrameData(data, None, topic.is_done)

    socket.send(opening_commands())
    socket.send(subscribe_command(topic_id, _SUBSCRIPTION))
    return SocketAnswer(socket, read_frame)
