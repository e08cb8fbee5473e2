"""The listening sockets: accepts connections, lets faults act on them, and hands them to HTTP/1.1 or HTTP/2."""

import asyncio
import socket
import ssl
import struct
from contextlib import suppress

from chat2api.simulator.backend import Backend
from chat2api.simulator.faults import Fault
from chat2api.simulator.http1 import HTTP1Connection
from chat2api.simulator.http2 import HTTP2Connection
from chat2api.simulator.tasks import Tasks

_BACKLOG = 2_048
_ACCEPT_AGAIN = 0.05
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LINGER_OFF = struct.pack("ii", 1, 0)


class _Front(asyncio.Protocol):
    """Waits for ALPN or the first bytes, then hands the transport to the right protocol."""

    def __init__(self, listener: "Listener", number: int) -> None:
        self._listener = listener
        self._number = number
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self._hand_over(tls.selected_alpn_protocol() == "h2")
        else:
            self._listener.fronts.add(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        seen = self._received[: len(_PREFACE)]
        if seen == _PREFACE or not _PREFACE.startswith(seen):
            self._listener.fronts.discard(self)
            self._hand_over(seen == _PREFACE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.fronts.discard(self)
        self._listener.backend.recorder.close_connection()

    def shut_down(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _hand_over(self, http2: bool) -> None:
        listener, transport = self._listener, self._transport
        assert transport is not None
        kind = HTTP2Connection if http2 else HTTP1Connection
        scheme = "https" if listener.tls is not None else "http"
        protocol = kind(listener.backend, listener.tasks, scheme, self._number, self._received)
        listener.add(protocol)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class Listener:
    """One listening socket. `port` is known after `start`."""

    def __init__(self, backend: Backend, tasks: Tasks, tls: ssl.SSLContext | None) -> None:
        """Make one; `tls` None serves plain HTTP/1.1 and HTTP/2 with prior knowledge."""
        self.backend = backend
        self.tasks = tasks
        self.tls = tls
        self.port = 0
        self.fronts: set[_Front] = set()
        self._socket: socket.socket | None = None
        self._connections: list[HTTP1Connection | HTTP2Connection] = []
        self._held: list[socket.socket] = []

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setblocking(False)
            listening.bind((host, port))
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        self._socket = listening
        self.port = listening.getsockname()[1]
        self.tasks.start(self._accept(listening), f"accept-{self.port}")

    def add(self, connection: HTTP1Connection | HTTP2Connection) -> None:
        """Remember a connection, to close it at the end."""
        if len(self._connections) > 64 and len(self._connections) > 2 * self.backend.recorder.counters.open_connections:
            self._connections = [known for known in self._connections if not known.closed]
        self._connections.append(connection)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError:  # no descriptor is left, or the peer has gone before its turn
                await self.backend.clock.sleep(_ACCEPT_AGAIN)
                continue
            with suppress(OSError):  # macOS says so here when the peer has gone
                # Without it a head and a body in two small writes wait 40 ms for the peer's acknowledgement.
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = self.backend.recorder.open_connection()
            fault = self.backend.rules.for_connection()
            self.tasks.start(self._admit(accepted, number, fault), f"admit-{number}")

    async def _admit(self, accepted: socket.socket, number: int, fault: Fault | None) -> None:
        if fault is not None and not await self._act(accepted, fault):
            self.backend.recorder.close_connection()
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: _Front(self, number), accepted, ssl=self.tls)
        except OSError:  # also a failed TLS handshake
            accepted.close()
            self.backend.recorder.close_connection()

    async def _act(self, accepted: socket.socket, fault: Fault) -> bool:
        """Let a fault act on a fresh connection; give whether it may go on."""
        if fault.do == "stall":
            self._held.append(accepted)
            if fault.seconds is None:
                return False
            await self.backend.clock.sleep(fault.seconds)
            self._held.remove(accepted)
            return True
        if fault.do == "reset":
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        accepted.close()
        return False

    def close(self) -> None:
        """Stop listening and close all connections at once."""
        for open_socket in (*self._held, *((self._socket,) if self._socket is not None else ())):
            open_socket.close()
        for front in list(self.fronts):
            front.shut_down()
        for connection in self._connections:
            connection.shut_down()
        self._held.clear()
        self._connections.clear()
