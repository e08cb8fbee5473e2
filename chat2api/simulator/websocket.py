"""Web socket framing on a connection that was HTTP/1.1, by the wsproto package."""

import base64
import hashlib
from collections.abc import Awaitable, Callable

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from chat2api.simulator.wire import Socket

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


def accept_value(key: str) -> str:
    """Give Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()


class WebSocket:
    """One open web socket: feeds the session what arrives and sends what it puts out."""

    def __init__(
        self, session: Socket, send: Callable[[bytes], Awaitable[None]], write: Callable[[bytes], None]
    ) -> None:
        """Make one; `send` waits for the peer to read, `write` does not (for pongs)."""
        self._session = session
        self._send = send
        self._write = write
        self._frames = Connection(ConnectionType.SERVER)
        self._text = ""

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer."""
        try:
            self._frames.receive_data(data)
            for event in self._frames.events():
                if isinstance(event, TextMessage):
                    self._text += event.data
                    if event.message_finished:
                        text, self._text = self._text, ""
                        self._session.receive(text)
                elif isinstance(event, Ping):
                    self._write(self._frames.send(event.response()))
                elif isinstance(event, CloseConnection):
                    self._write(self._frames.send(event.response()))
                    self._session.outgoing.put_nowait(None)
        except RemoteProtocolError:
            self._session.outgoing.put_nowait(None)

    async def run(self) -> None:
        """Send until the session or the peer ends. Raises PeerGone."""
        before = self._session.before_frame
        while (text := await self._session.outgoing.get()) is not None:
            if before is not None and not await before():
                break
            await self._send(self._frames.send(TextMessage(data=text)))
        try:
            closing = self._frames.send(CloseConnection(code=1000))
        except LocalProtocolError:  # the peer closed first, and was answered
            return
        await self._send(closing)
