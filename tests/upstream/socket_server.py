"""A small web socket server on a loopback port: each connection is handed to the test's handler once it is open."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Pong, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from tests.origin import server_context


class Peer:
    """One client: what it asked for, what it sent, and the means to answer it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.frames = WSConnection(ConnectionType.SERVER)
        self.request = Request("", "")
        self.head = b""
        self.alpn: str | None = None
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.gone = asyncio.Event()
        self._reader = reader
        self._writer = writer

    async def open(self, *, sub_protocol: str | None = None, compress: bool = False) -> None:
        """Read the handshake and accept it."""
        tls = self._writer.get_extra_info("ssl_object")
        self.alpn = None if tls is None else tls.selected_alpn_protocol()
        self.head = await self._reader.readuntil(b"\r\n\r\n")
        self.frames.receive_data(self.head)
        for event in self.frames.events():
            assert isinstance(event, Request)
            self.request = event
        extensions = [PerMessageDeflate()] if compress else []
        await self.send(AcceptConnection(subprotocol=sub_protocol, extensions=list(extensions)))

    async def send(self, event: Event) -> None:
        """Send a frame, waiting while the client takes none."""
        await self.send_bytes(self.frames.send(event))

    async def say(self, text: str) -> None:
        """Send one text message."""
        await self.send(TextMessage(data=text))

    async def send_bytes(self, data: bytes) -> None:
        """Put these bytes on the wire as they are."""
        self._writer.write(data)
        await self._writer.drain()

    def leave(self) -> None:
        """Close the connection without a word."""
        self._writer.close()

    async def read(self) -> None:
        """Collect what the client sends, until it goes."""
        with suppress(ConnectionError):
            while data := await self._reader.read(65536):
                self.frames.receive_data(data)
                for event in self.frames.events():
                    if isinstance(event, Ping | CloseConnection):
                        self._writer.write(self.frames.send(event.response()))
                    self.events.put_nowait(event)
        self.gone.set()

    @property
    def header_names(self) -> list[str]:
        """The handshake's header names in the order of the wire, lower case."""
        return [line.partition(b":")[0].decode().lower() for line in self.head.split(b"\r\n")[1:-2]]


Handler = Callable[[Peer], Awaitable[None]]


class SocketServer:
    """The server; an async context manager. A handler that returns leaves the connection open."""

    def __init__(
        self, handler: Handler, *, tls: bool = False, sub_protocol: str | None = None, compress: bool = False
    ) -> None:
        """Make a server; over TLS it offers HTTP/2 first, as the backend's front does."""
        self._handler = handler
        self._tls = tls
        self._sub_protocol = sub_protocol
        self._compress = compress
        self._tasks: set[asyncio.Task[None]] = set()
        self.peers: list[Peer] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        context: ssl.SSLContext | None = server_context(http2=True) if self._tls else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.url = (
            f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/socket?token=x"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.leave()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await peer.open(sub_protocol=self._sub_protocol, compress=self._compress)
            async with asyncio.TaskGroup() as group:
                group.create_task(peer.read())
                group.create_task(self._handle(peer))

    async def _handle(self, peer: Peer) -> None:
        with suppress(ConnectionError):
            await self._handler(peer)


__all__ = ["CloseConnection", "Peer", "Ping", "Pong", "SocketServer", "TextMessage"]
