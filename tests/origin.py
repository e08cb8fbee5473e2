"""A small scripted web server on a loopback port: what arrived is recorded, what is answered is the test's choice.

It speaks HTTP/1.1, in the clear or over TLS, and HTTP/2 over TLS. A handler gets one `Exchange` and answers through it;
the same handler serves both versions unless it needs the raw bytes of one of them.

    async def handler(exchange: Exchange) -> None:
        await exchange.respond(200, [("content-type", "text/plain")])
        await exchange.send(b"hello")
        await exchange.finish()

    async with Origin(handler, tls=True, http2=True) as origin:
        ...  # origin.url, origin.ca_file, origin.requests, origin.open_connections
"""

import asyncio
import functools
import socket
import ssl
import struct
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trustme


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived. `headers` keep the wire's order and spelling; pseudo headers come first."""

    http: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Give the value of the first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def names(self) -> list[str]:
        """Header names in the order of the wire, lower case, pseudo headers included."""
        return [name.lower() for name, _ in self.headers]


class Exchange(Protocol):
    """One request and the means to answer it."""

    seen: Seen
    gone: asyncio.Event
    """Set once the client has left: connection lost or stream reset."""

    async def respond(self, status: int, headers: list[tuple[str, str]] | None = None) -> None:
        """Send the status and the headers; 1xx may come before the real ones."""
        ...

    async def send(self, data: bytes) -> None:
        """Send body bytes, waiting while the client takes none. Raises ConnectionError once the client left."""
        ...

    async def finish(self, trailers: list[tuple[str, str]] | None = None) -> None:
        """End the body as the protocol wants it."""
        ...

    def abort(self) -> None:
        """Cut: a TCP reset in HTTP/1.1, RST_STREAM in HTTP/2."""
        ...

    async def raw(self, data: bytes) -> None:
        """Put these bytes on the wire as they are (HTTP/1.1 only)."""
        ...

    def close(self) -> None:
        """Close the whole connection in an orderly way, whatever is unfinished."""
        ...


Handler = Callable[[Exchange], Awaitable[None]]


@functools.cache
def _certificates() -> tuple[trustme.CA, str]:
    """Give one authority for the whole run and the file of its certificate (making keys is slow)."""
    authority = trustme.CA()
    folder = Path(tempfile.mkdtemp(prefix="origin-ca-"))
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return authority, str(folder / "ca.pem")


def server_context(host: str = "127.0.0.1", *, http2: bool = False) -> ssl.SSLContext:
    """Give a server's TLS context whose certificate names `host` and is signed by the run's authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _certificates()[0].issue_cert(host, "localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


def ca_file() -> str:
    """Give the path of the authority's certificate."""
    return _certificates()[1]


class Origin:
    """The server; an async context manager. Handlers that still run when it closes are cancelled."""

    def __init__(self, handler: Handler, *, tls: bool = False, http2: bool = False, host: str = "127.0.0.1") -> None:
        """Make a server; `http2` offers h2 in ALPN and needs `tls`."""
        self.handler = handler
        self.requests: list[Seen] = []
        self.connections = 0
        self.open_connections = 0
        self.failures: list[BaseException] = []
        self._tls = server_context(host, http2=http2) if tls else None
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.Transport] = set()
        self.quiet = asyncio.Event()
        """Set while no connection is open."""
        self.quiet.set()

    async def __aenter__(self) -> Self:
        """Start on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls, backlog=2048)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; a handler's own failure surfaces here."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in list(self._transports):
            transport.abort()
        await self._server.wait_closed()
        if self.failures:
            raise self.failures[0]

    def begin(self, exchange: Exchange) -> None:
        """Run the handler for a whole request."""
        self.requests.append(exchange.seen)
        task = asyncio.get_running_loop().create_task(self._run(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        try:
            with suppress(ConnectionError):
                await self.handler(exchange)
        except Exception as error:  # noqa: BLE001 - kept for the end of the test, where it is raised
            self.failures.append(error)
            exchange.abort()

    def opened(self, transport: asyncio.Transport) -> None:
        """Count a new connection."""
        self._transports.add(transport)
        self.connections += 1
        self.open_connections += 1
        self.quiet.clear()

    def closed(self, transport: asyncio.Transport) -> None:
        """Count a lost connection."""
        self._transports.discard(transport)
        self.open_connections -= 1
        if not self.open_connections:
            self.quiet.set()


class _Connection(asyncio.Protocol):
    """One TCP connection: asks ALPN what it speaks and hands the bytes to that speaker."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.lost = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.origin.opened(self.transport)
        tls = transport.get_extra_info("ssl_object")
        http2 = tls is not None and tls.selected_alpn_protocol() == "h2"
        self.speaker: _Http1 | _Http2 = _Http2(self) if http2 else _Http1(self)

    def data_received(self, data: bytes) -> None:
        self.speaker.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.origin.closed(self.transport)
        self.lost.set()
        self.writable.set()
        self.speaker.lost()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def write(self, data: bytes) -> None:
        """Send bytes once the socket takes some. Raises ConnectionResetError when the client is gone."""
        await self.writable.wait()
        if self.lost.is_set():
            raise ConnectionResetError
        self.transport.write(data)

    def reset(self) -> None:
        """Close with a TCP reset instead of an orderly end."""
        sock = self.transport.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class _Http1:
    """Reads requests with a Content-Length or none; answers in chunks unless the handler writes raw bytes."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._exchange: _Exchange1 | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            method, target, version = head[0].split(" ")
            pairs = [line.partition(":") for line in head[1:]]
            headers = tuple((name, value.strip()) for name, _, value in pairs)
            length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            self._exchange = _Exchange1(self._connection, Seen(version, method, target, headers, body))
            self._connection.origin.begin(self._exchange)

    def lost(self) -> None:
        if self._exchange is not None:
            self._exchange.gone.set()


class _Exchange1:
    """An exchange over HTTP/1.1."""

    def __init__(self, connection: _Connection, seen: Seen) -> None:
        self.seen = seen
        self.gone = asyncio.Event()
        self._connection = connection
        self._chunked = True

    async def respond(self, status: int, headers: list[tuple[str, str]] | None = None) -> None:
        fields = list(headers or [])
        if status >= 200:
            self._chunked = not any(name.lower() == "content-length" for name, _ in fields) and status != 204
            if self._chunked:
                fields.append(("transfer-encoding", "chunked"))
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields)]
        await self._connection.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def send(self, data: bytes) -> None:
        await self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def finish(self, trailers: list[tuple[str, str]] | None = None) -> None:
        if self._chunked:
            lines = "".join(f"{name}: {value}\r\n" for name, value in trailers or [])
            await self._connection.write(f"0\r\n{lines}\r\n".encode("latin-1"))

    def abort(self) -> None:
        self._connection.reset()

    async def raw(self, data: bytes) -> None:
        await self._connection.write(data)

    def close(self) -> None:
        self._connection.transport.close()


class _Http2:
    """The server's side of HTTP/2, with flow control."""

    def __init__(self, connection: _Connection) -> None:
        self.connection = connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self.h2.initiate_connection()
        self._pending: dict[int, tuple[tuple[tuple[str, str], ...], bytearray]] = {}
        self._exchanges: dict[int, _Exchange2] = {}
        self.window = asyncio.Event()
        self.flush()

    def flush(self) -> None:
        """Send what the state machine has made."""
        if data := self.h2.data_to_send():
            self.connection.transport.write(data)

    def feed(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.flush()
            self.connection.transport.close()
            return
        for event in events:
            self._handle(event)
        self.flush()

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers = tuple((str(name), str(value)) for name, value in event.headers)
            self._pending[event.stream_id] = (headers, bytearray())
        elif isinstance(event, h2.events.DataReceived):
            self._pending[event.stream_id][1].extend(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            headers, body = self._pending.pop(event.stream_id)
            pseudo = dict(headers[:4])
            seen = Seen("HTTP/2", pseudo[":method"], pseudo[":path"], headers, bytes(body))
            exchange = self._exchanges[event.stream_id] = _Exchange2(self, event.stream_id, seen)
            self.connection.origin.begin(exchange)
        elif isinstance(event, h2.events.StreamReset):
            if (left := self._exchanges.pop(event.stream_id, None)) is not None:
                left.gone.set()
            self.window.set()
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self.window.set()

    def lost(self) -> None:
        for exchange in self._exchanges.values():
            exchange.gone.set()
        self.window.set()


class _Exchange2:
    """An exchange over HTTP/2: one stream of a connection."""

    def __init__(self, speaker: _Http2, stream: int, seen: Seen) -> None:
        self.seen = seen
        self.gone = asyncio.Event()
        self._speaker = speaker
        self._stream = stream

    def _check(self) -> None:
        if self.gone.is_set() or self._speaker.connection.lost.is_set():
            raise ConnectionResetError

    async def respond(self, status: int, headers: list[tuple[str, str]] | None = None) -> None:
        self._check()
        self._speaker.h2.send_headers(self._stream, [(":status", str(status)), *(headers or [])])
        self._speaker.flush()

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await self._speaker.connection.writable.wait()
            self._check()
            room = self._speaker.h2.local_flow_control_window(self._stream)
            size = min(room, self._speaker.h2.max_outbound_frame_size, len(view))
            if not size:
                self._speaker.window.clear()
                await self._speaker.window.wait()
                continue
            self._speaker.h2.send_data(self._stream, bytes(view[:size]))
            self._speaker.flush()
            view = view[size:]

    async def finish(self, trailers: list[tuple[str, str]] | None = None) -> None:
        self._check()
        if trailers:
            self._speaker.h2.send_headers(self._stream, trailers, end_stream=True)
        else:
            self._speaker.h2.end_stream(self._stream)
        self._speaker.flush()

    def abort(self) -> None:
        if not self._speaker.connection.lost.is_set():
            self._speaker.h2.reset_stream(self._stream, 2)
            self._speaker.flush()

    async def raw(self, data: bytes) -> None:
        raise NotImplementedError("raw bytes are for HTTP/1.1")

    def close(self) -> None:
        self._speaker.h2.close_connection()
        self._speaker.flush()
        self._speaker.connection.transport.close()
