"""A connection as both forms of HTTP have it: its transport, the gate that holds senders, and how it ends."""

import asyncio
import socket
import struct

from chat2api.simulator.backend import Backend
from chat2api.simulator.tasks import Tasks
from chat2api.simulator.wire import PeerGone

_WRITE_BUFFER = 65_536
_LINGER_OFF = struct.pack("ii", 1, 0)


def abort_with_reset(transport: asyncio.Transport) -> None:
    """Close the connection so that the peer sees a TCP reset."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
    transport.abort()


class WriteGate:
    """Lets a sender wait while the transport's buffer is over its mark."""

    def __init__(self) -> None:
        """Start open."""
        self._open = asyncio.Event()
        self._open.set()
        self.broken = False

    def shut(self) -> None:
        """Make senders wait."""
        self._open.clear()

    def release(self) -> None:
        """Let senders go on."""
        self._open.set()

    def break_off(self) -> None:
        """Let senders fail: the connection is gone."""
        self.broken = True
        self._open.set()

    async def wait(self) -> None:
        """Suspend at least once, and as long as the gate is shut. Raises PeerGone."""
        if self._open.is_set():
            # A fast stream never fills the buffer of a fast reader; without this it would keep the loop to itself.
            await asyncio.sleep(0)
        else:
            await self._open.wait()
        if self.broken:
            raise PeerGone


class PeerConnection(asyncio.Protocol):
    """What a connection does whatever is spoken on it. Subclasses take its bytes."""

    def __init__(self, backend: Backend, tasks: Tasks, scheme: str, number: int, received: bytes) -> None:
        """Make one; `received` is what was already read from the transport."""
        self.backend = backend
        self.tasks = tasks
        self.scheme = scheme
        self.number = number
        self.received = received
        self.transport: asyncio.Transport | None = None
        self.gate = WriteGate()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start on a transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        self.begin()
        if self.received:
            self.data_received(self.received)

    def begin(self) -> None:
        """Send what comes before the first request."""

    def eof_received(self) -> bool:
        """Treat a half-closed connection as a peer that left: browsers and curl close both ways."""
        self.leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End what still runs."""
        self.leave()
        self.backend.recorder.close_connection()

    def pause_writing(self) -> None:
        """Hold the sender."""
        self.gate.shut()

    def resume_writing(self) -> None:
        """Let the sender go on."""
        self.gate.release()

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self.gate.broken

    def close(self) -> None:
        """Send what is buffered, then close; once only, because asyncio's TLS transport breaks at the second time."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def shut_down(self) -> None:
        """Close at once."""
        self.leave()
        if self.transport is not None:
            self.transport.abort()

    def leave(self) -> None:
        """Let whoever still sends fail."""
        self.gate.break_off()
