"""A web socket as messages: frames read from the bytes of an upgraded connection, pings answered, an end told as one.

The bytes come from a `Transfer`, with its limits, its back-pressure and its abort; curl frames what is sent. Reading the
frames is wsproto's, on whose word it depends what is allowed on the wire (RFC 6455).
"""

import asyncio
from collections import deque
from contextlib import suppress
from enum import IntEnum
from typing import Protocol

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.extensions import Extension, PerMessageDeflate

from chat2api.errors import TransportError, UpstreamProtocolError

MESSAGE_LIMIT = 1024 * 1024
"""Characters of one message, however many frames it came in."""

PING_PERIOD = 25.0
"""Seconds between two pings where the other side wants them."""

_BITE = 4096
"""Bytes read at once: compressed ones may stand for a thousand times as many."""

_NORMAL = 1000  # RFC 6455, section 7.4.1
_GOODBYE = _NORMAL.to_bytes(2, "big")


class FrameKind(IntEnum):
    """What frames are sent, in the numbers of libcurl's interface (curl_ws_send(3))."""

    TEXT = 1
    CLOSE = 8
    PING = 16
    PONG = 64


class UpgradedConnection(Protocol):
    """The part of a Transfer that a web socket needs."""

    async def read(self) -> bytes:
        """Give all bytes that have arrived; see ResponseStream."""
        ...

    def send_frame(self, kind: int, payload: bytes) -> None:
        """Send a frame, without waiting. Raises TransportError."""
        ...

    async def aclose(self) -> None:
        """Close the connection at once."""
        ...


class FramedSocket:
    """An open web socket; see WebSocket for what its methods promise."""

    def __init__(self, connection: UpgradedConnection, extensions: str = "", ping_period: float | None = None) -> None:
        """Take over a connection on which the handshake has been answered with 101 and these extensions.

        `ping_period` is in seconds, None for no pings. Raises UpstreamProtocolError for an extension that is not known.
        """
        self._connection = connection
        self._frames = Connection(ConnectionType.CLIENT, _agreed(extensions))
        self._messages: deque[str] = deque()
        self._parts: list[str] = []
        self._size = 0
        self._ended = False
        self._failure: TransportError | UpstreamProtocolError | None = None
        self._loop = asyncio.get_running_loop()
        self._ping_period = ping_period
        self._timer: asyncio.TimerHandle | None = None
        self._wait_to_ping()

    async def receive(self) -> str | None:
        """Give the next message; see WebSocket."""
        if self._messages:
            await asyncio.sleep(0)
        while not self._messages:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            self._read_frames(await self._connection.read())
        return self._messages.popleft()

    def send(self, text: bytes) -> None:
        """Send a message; see WebSocket."""
        self._connection.send_frame(FrameKind.TEXT, text)

    async def aclose(self) -> None:
        """Close the connection; see WebSocket."""
        self._end(None)
        await self._connection.aclose()

    def _read_frames(self, data: bytes) -> None:
        if not data:
            self._end(TransportError("The web socket's connection ended without a goodbye.", phase="body"))
            return
        for start in range(0, len(data), _BITE):
            self._frames.receive_data(data[start : start + _BITE])
            for event in self._frames.events():
                self._take(event)
                if self._ended:
                    return

    def _take(self, event: object) -> None:
        match event:
            case TextMessage():
                self._add(event.data, is_last=event.message_finished)
            case BytesMessage():
                self._end(UpstreamProtocolError("The upstream's web socket sent a message that is no text."))
            case Ping():
                self._try_to_send(FrameKind.PONG, bytes(event.payload))
            case CloseConnection(code=code):  # the server's, or what wsproto makes of bytes that are no frames
                closed = f"The upstream closed its web socket (code {int(code)})."
                self._end(None if code == _NORMAL else TransportError(closed, phase="body", request_sent=True))

    def _add(self, text: str, *, is_last: bool) -> None:
        self._size += len(text)
        if self._size > MESSAGE_LIMIT:
            self._parts.clear()
            self._end(UpstreamProtocolError(f"The upstream's message is longer than {MESSAGE_LIMIT} characters."))
            return
        self._parts.append(text)
        if is_last:
            self._messages.append("".join(self._parts))
            self._parts.clear()
            self._size = 0

    def _try_to_send(self, kind: FrameKind, payload: bytes) -> None:
        """Send a frame that nobody waits for; where it fails, the next read tells why."""
        with suppress(TransportError):
            self._connection.send_frame(kind, payload)

    def _end(self, failure: TransportError | UpstreamProtocolError | None) -> None:
        """Note the end, once, and say goodbye where the connection may still stand."""
        if self._ended:
            return
        self._ended = True
        self._failure = failure
        if self._timer is not None:
            self._timer.cancel()
        self._try_to_send(FrameKind.CLOSE, _GOODBYE)

    def _wait_to_ping(self) -> None:
        if self._ping_period is not None:
            self._timer = self._loop.call_later(self._ping_period, self._ping)

    def _ping(self) -> None:
        if not self._ended:
            self._try_to_send(FrameKind.PING, b"")
            self._wait_to_ping()


def _agreed(extensions: str) -> list[Extension]:
    """Give the extensions that the server chose: none, or the only one that browsers offer."""
    if not extensions:
        return []
    compression = PerMessageDeflate()
    try:
        if extensions.partition(";")[0].strip() == compression.name and "," not in extensions:
            compression.finalize(extensions)
            return [compression]
    except (ValueError, IndexError) as error:
        raise UpstreamProtocolError("The upstream's web socket compresses in a way that cannot be read.") from error
    raise UpstreamProtocolError("The upstream's web socket wants an extension that was not offered.")
