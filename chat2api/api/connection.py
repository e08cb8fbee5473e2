"""One client's connection: its reading and writing, its time limits, and how it ends.

Theory of operation. One task per connection reads; one task per request runs the app and writes.

* Reading goes on while a request runs, since the end of the input is how a client says that it has left. A client
  that only shuts its sending side looks the same from here and is taken for one that left: nothing on the wire tells
  the two apart, and the client that left is the common case.
* The sending side waits only while the transport holds more than its mark, and only then is a timer set.
* Other time limits are one timer per connection, moved on as its phases change. It acts by itself, so no task is
  cancelled to enforce it.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import sys
import termios
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from chat2api.api.app_tasks import AppTasks, ClientLeftError
from chat2api.api.guards import RequestTimeoutError
from chat2api.api.hangup import HangupWatch
from chat2api.api.http1 import HTTP1, WRITE_SLICE
from chat2api.api.request_bytes import HeadLimits

log = logging.getLogger(__name__)

_READ_SIZE = 64 * 1024

# Seconds between looks at whether a client that made us wait has taken anything.
_PROGRESS_CHECK = 0.5

# A generator that never waits would keep the loop, and with it the news that its client has left, to itself.
_CHUNKS_PER_TURN = 16


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The limits of one connection; times in seconds, sizes in bytes."""

    head: HeadLimits = field(default_factory=HeadLimits)
    header_timeout: float = 5.0
    """From the connection's start, or a later request's first byte, to the end of its head."""
    keep_alive_timeout: float = 75.0
    """Between requests; longer than the 60 s that proxies keep theirs, so that the proxy is the one to close."""
    send_timeout: float = 60.0
    """For a client that takes nothing of what waits for it."""
    linger_timeout: float = 2.0
    """For reading on after a refusal, so that the client sees the answer and not a reset."""
    disconnect_grace: float = 5.0
    """From telling the app that the client has left to cancelling it."""
    write_buffer: int = 16 * 1024
    """High-water mark of unsent bytes in the process; the app waits above it."""
    kernel_unsent: int = 128 * 1024
    """Unsent bytes that the kernel may hold beside them."""
    body_held: int = 256 * 1024
    """Bytes of a request's body that wait for the app, and as many that it may have and not have read."""
    pipelined_held: int = 64 * 1024
    """Bytes of following requests that wait for their turn; reading stops above them."""


class Connection(TCPServer):
    """One accepted connection, from its first byte to the end of its last app task."""

    protocol: HTTP1  # type: ignore[assignment]  # not hypercorn's wrapper, which would go over to HTTP/2

    def __init__(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        context: WorkerContext,
        state: LifespanState,
        settings: ConnectionSettings,
        watch: HangupWatch,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Make a connection over those streams; `run` does the work and closes them."""
        super().__init__(app, asyncio.get_running_loop(), config, context, state, reader, writer)
        self.settings = settings
        self.closing = False
        self._watch = watch
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._head_timed = True
        self._held = b""
        self._burst = 0

    async def run(self) -> None:
        """Serve until either side ends it."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        try:
            self.client = parse_socket_addr(sock.family, sock.getpeername())
            self.server = parse_socket_addr(sock.family, sock.getsockname())
            self._prepare(sock)
        except OSError:
            self.writer.transport.abort()  # it was gone before its addresses could be read
            return
        tasks = AppTasks(self)
        self.protocol = HTTP1(self, tasks, ConnectionState(self.state))
        try:
            async with tasks:
                self._set_timer(self.settings.header_timeout)
                await self._read_data()
                patience = self.loop.call_later(self.settings.disconnect_grace, tasks.cancel)
            patience.cancel()
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        """Take what hypercorn's own parts send: bytes, or the wish to end."""
        if isinstance(event, RawData):
            await self.send(event.data)
        elif isinstance(event, Closed):
            self.close()

    async def send(self, data: bytes) -> None:
        """Write data, waiting whenever too much is unsent. Raises ClientLeftError."""
        if len(data) <= WRITE_SLICE:
            self.write(data)
            await self.make_room()
            return
        view = memoryview(data)
        for start in range(0, len(data), WRITE_SLICE):
            self.write(view[start : start + WRITE_SLICE])
            await self.make_room()

    def write(self, data: bytes | memoryview) -> None:
        """Write data at once, behind what is held back."""
        if self._held:
            data = b"".join((self._held, data))
            self._held = b""
        self.writer.write(data)

    def hold(self, data: bytes) -> None:
        """Write data together with the next write, or by itself at the end of this turn of the loop."""
        if not self._held:
            self.loop.call_soon(self._release)
        self._held += data

    def _release(self) -> None:
        if self._held:
            self.write(b"")

    async def make_room(self) -> None:
        """Wait until no more than the mark is unsent; let the loop turn now and then. Raises ClientLeftError."""
        transport = self.writer.transport
        if transport.is_closing():
            raise ClientLeftError("the client has left")
        if transport.get_write_buffer_size() > self.settings.write_buffer:
            self._burst = 0
            await self._wait_for_client()
            return
        self._burst += 1
        if self._burst >= _CHUNKS_PER_TURN:
            self._burst = 0
            await asyncio.sleep(0)

    async def _wait_for_client(self) -> None:
        """Wait until the transport has drained; end the connection when nothing moves for send_timeout."""
        limit = self.settings.send_timeout
        unsent, moved_at = self._unsent(), self.loop.time()
        while True:
            try:
                async with asyncio.timeout(min(_PROGRESS_CHECK, limit / 10)):
                    await self.writer.drain()
                return
            except TimeoutError:
                now = self._unsent()
                if now < unsent:
                    unsent, moved_at = now, self.loop.time()  # slow, but reading
                elif self.loop.time() - moved_at >= limit:
                    log.info("closed a connection whose client took nothing for %g s", limit)
                    self.abort()
                    raise ClientLeftError("the client does not read") from None
            except OSError as error:
                raise ClientLeftError("the client has left") from error

    def _unsent(self) -> int:
        """Return the bytes that the client has not acknowledged, here and in the kernel where it can be asked."""
        unsent = self.writer.transport.get_write_buffer_size()
        sock: socket.socket = self.writer.get_extra_info("socket")
        try:
            answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return unsent
        return unsent + int.from_bytes(answer, sys.byteorder)

    def request_started(self) -> None:
        """Stop the clock of the head: a request is with the app."""
        self._head_timed = False
        self._set_timer(None)

    def request_ended(self) -> None:
        """Start the clock of an idle connection."""
        self._set_timer(self.settings.keep_alive_timeout)

    def head_progress(self) -> None:
        """Start the clock of a head once its first bytes are there; later bytes do not start it again."""
        if not self._head_timed and self.protocol.in_head:
            self._head_timed = True
            self._set_timer(self.settings.header_timeout)

    def close(self, *, linger: bool = False) -> None:
        """End the connection once what is written has left, for which there is send_timeout.

        With linger our side is shut first and what still comes is read and dropped for linger_timeout. Closing at
        once would answer a client that still sends with a reset, and it might never see why.
        """
        if self.closing:
            return
        self.closing = True
        self._release()
        if linger and not self.writer.transport.is_closing():
            try:
                self.writer.write_eof()
            except OSError:
                self.writer.transport.abort()
            self._set_timer(self.settings.linger_timeout)
        else:
            self.writer.close()
            self._set_timer(self.settings.send_timeout)

    def close_if_idle(self) -> None:
        """End the connection unless a request runs or has begun to arrive."""
        if self.protocol.idle:
            self.close()

    def abort(self) -> None:
        """End the connection now and drop what is unsent; a running app hears that its client has left."""
        self.closing = True
        self.writer.transport.abort()

    def reset(self) -> None:
        """End the connection with a reset, which no client can take for the regular end of a body."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def _prepare(self, sock: socket.socket) -> None:
        """Bound what waits to be sent, here and in the kernel, and have the kernel notice a peer that vanished."""
        self.writer.transport.set_write_buffer_limits(high=self.settings.write_buffer)
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        options = (
            # asyncio sets it only on sockets that it accepted itself; without it a small write waits 40 ms for an ACK.
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", None), 60),
            (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), 15),
            (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), 4),
            (socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", None), self.settings.kernel_unsent),
        )
        for level, option, value in options:
            if option is not None:  # absent on some systems
                with contextlib.suppress(OSError):
                    sock.setsockopt(level, option, value)

    def _set_timer(self, delay: float | None) -> None:
        """Set when the present phase has taken too long, None for a phase without a limit.

        A timer that is set already fires early enough for a later instant, and is moved on then: on a busy connection
        the phases change several times in the life of one timer.
        """
        self._deadline = None if delay is None else self.loop.time() + delay
        if self._deadline is not None and (self._timer is None or self._timer.when() > self._deadline):
            self._stop_timer()
            self._timer = self.loop.call_at(self._deadline, self._timer_fired)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._timer_fired)
        else:
            self._time_is_up()

    def _time_is_up(self) -> None:
        """Act on the phase that took too long: the end, a head, or the wait for a request."""
        if self.closing:
            self.abort()
        elif self.protocol.in_head:
            self.protocol.refuse(RequestTimeoutError("The request's headers did not arrive in time."))
        else:
            self.close()

    async def _read_data(self) -> None:
        """Read until the client ends, dropping what comes after our own end; then tell a running app."""
        try:
            while data := await self.reader.read(_READ_SIZE):
                if self.closing:
                    continue
                await self.protocol.handle(RawData(data))
                while self.protocol.waiting > self.settings.pipelined_held and not self.closing:
                    self.protocol.turn.clear()
                    with self.watching():
                        await self.protocol.turn.wait()
        except OSError:
            pass
        if not self.protocol.idle:
            self.abort()
        await self.protocol.handle(Closed())

    def watching(self) -> AbstractContextManager[None]:
        """Notice during the block, in which nothing is read, that the client leaves."""
        return self._watch.watching(self.writer.get_extra_info("socket"), self._hung_up)

    def _hung_up(self) -> None:
        """Tell a running app that its client has left, and let the reading task find the connection ended."""
        self.abort()
        self.protocol.turn.set()
        self.protocol.task_group.spawn(self.protocol.handle, Closed())

    async def _close(self) -> None:
        """Wait until what was written has left, or its time is up."""
        self.close()
        self.writer.close()  # where our own end had come before the client's
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
        self._stop_timer()
