"""One client's connection: its reading and writing, its time limits, and how it ends.

Theory of operation. Nothing here is a task: asyncio calls when bytes arrive, when the transport holds too much or
little enough, and when the connection is gone. Tasks run the app alone, one for each request.

* Reading goes on while a request runs, since the end of the input is how a client says that it has left. A client
  that only shuts its sending side looks the same from here and is taken for one that left: nothing on the wire tells
  the two apart, and the client that left is the common case.
* The sending side waits only while the transport holds more than its mark, and only then is a timer set.
* Other time limits are one timer per connection, moved on as its phases change. It acts by itself, so no task is
  cancelled to enforce it.
"""

import asyncio
import contextlib
import contextvars
import fcntl
import logging
import socket
import struct
import sys
import termios
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from hypercorn.typing import ASGIFramework, LifespanState

from chat2api.api.guards import RequestTimeoutError
from chat2api.api.hangup import ClientLeftError, HangupWatch
from chat2api.api.http1 import HTTP1, WRITE_SLICE
from chat2api.api.request_bytes import HeadLimits

log = logging.getLogger(__name__)

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


@dataclass(slots=True)
class Serving:
    """What all connections of one server share."""

    app: ASGIFramework
    settings: ConnectionSettings
    watch: HangupWatch
    closed: Callable[["Connection"], None]
    """Called once with each connection that is over, its last app task ended."""
    state: LifespanState
    """What the app leaves for its requests when it starts."""
    stopping: bool = False
    """Whether each connection should end with its present request."""


class Connection(asyncio.Protocol):
    """One accepted connection, from its first byte to the end of its last app task."""

    _transport: asyncio.Transport

    def __init__(self, serving: Serving) -> None:
        """Wait for the transport."""
        self.loop = asyncio.get_running_loop()
        self.serving = serving
        self.closing = False
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self._http = HTTP1(self)
        self._context = contextvars.copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._made = self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._head_timed = True
        self._reading = True
        self._full = False
        self._held = b""
        self._burst = 0
        self._writers: list[asyncio.Future[None]] = []

    # -----------------------------------------------------------------------------------------------------------------
    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what waits to be sent, and start the clock of the first head."""
        self._transport = cast(asyncio.Transport, transport)
        self._made = True
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if peer is None or own is None:
            self.abort()  # it was gone before its addresses could be read
            return
        self.client, self.server = _host_and_port(peer), _host_and_port(own)
        self._transport.set_write_buffer_limits(high=self.serving.settings.write_buffer)
        _set_options(self._socket, self.serving.settings.kernel_unsent)
        self._set_timer(self.serving.settings.header_timeout)

    def data_received(self, data: bytes) -> None:
        """Take bytes; what comes after our own end is dropped."""
        if not self.closing:
            self._http.received(data)

    def eof_received(self) -> None:
        """End the connection: nobody is there for an answer any more."""
        if self._http.idle:
            self.close()
        elif not self.closing:
            self.abort()

    def pause_writing(self) -> None:
        """Note that the transport holds more than its mark."""
        self._full = True

    def resume_writing(self) -> None:
        """Let those who send go on."""
        self._full = False
        self._wake_writers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell a running app that its client has left, and cancel it when it does not end by itself."""
        self.read_on(True)
        self.closing = self._lost = True
        self._stop_timer()
        self._wake_writers()
        self._http.client_left()
        if self._tasks:
            self._timer = self.loop.call_later(self.serving.settings.disconnect_grace, self.cancel)
        else:
            self.serving.closed(self)

    # -----------------------------------------------------------------------------------------------------------------
    # Tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the app in a task of its own, which knows nothing of the task that happens to run now."""
        task = self.loop.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection failed", exc_info=error)
            self.abort()
        if self._lost and not self._tasks:
            self._stop_timer()
            self.serving.closed(self)

    def cancel(self) -> None:
        """Cancel what still runs. Only for apps that heard of a disconnect and went on."""
        for task in self._tasks:
            task.cancel()

    # -----------------------------------------------------------------------------------------------------------------
    # Reading

    def read_on(self, wanted: bool) -> None:
        """Read, or do not until told otherwise; that the client leaves is noticed all the same."""
        if wanted == self._reading or self._lost:
            return
        self._reading = wanted
        if wanted:
            self.serving.watch.forget(self._socket, self.abort)
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
            self.serving.watch.watch(self._socket, self.abort)

    # -----------------------------------------------------------------------------------------------------------------
    # Writing

    async def send(self, data: bytes, before: bytes = b"", after: bytes = b"") -> None:
        """Write data between its framing, waiting whenever too much is unsent. Raises ClientLeftError."""
        view, size = memoryview(data), len(data)
        for begin in range(0, size, WRITE_SLICE):
            end = begin + WRITE_SLICE
            if self.write(b"".join((b"" if begin else before, view[begin:end], b"" if end < size else after))):
                await self.make_room()

    def write(self, data: bytes | memoryview) -> bool:
        """Write data at once, behind what is held back; return whether to wait for `make_room` before the next."""
        if self._held:
            data = self._held + data
            self._held = b""
        if not self._transport.is_closing():
            self._transport.write(data)
        self._burst += 1
        return self._full or self._burst >= _CHUNKS_PER_TURN

    def hold(self, data: bytes) -> None:
        """Write data together with the next write, or by itself at the end of this turn of the loop."""
        if not self._held:
            self.loop.call_soon(self._release)
        self._held += data

    def _release(self) -> None:
        if self._held:
            self.write(b"")

    @property
    def keeps_up(self) -> bool:
        """Whether the client is there and has been sent all that was written."""
        return not self._transport.is_closing() and not self._transport.get_write_buffer_size()

    async def make_room(self) -> None:
        """Wait until no more than the mark is unsent; let the loop turn now and then. Raises ClientLeftError."""
        self._burst = 0
        if self._full:
            await self._wait_for_client()
        else:
            await asyncio.sleep(0)
        if self._transport.is_closing():
            raise ClientLeftError("the client has left")

    async def _wait_for_client(self) -> None:
        """Wait until the transport has drained; end the connection when nothing moves for send_timeout."""
        limit = self.serving.settings.send_timeout
        unsent, moved_at = self._unsent(), self.loop.time()
        while self._full and not self._lost:
            waiter = self.loop.create_future()
            self._writers.append(waiter)
            try:
                async with asyncio.timeout(min(_PROGRESS_CHECK, limit / 10)):
                    await waiter
            except TimeoutError:
                now = self._unsent()
                if now < unsent:
                    unsent, moved_at = now, self.loop.time()  # slow, but reading
                elif self.loop.time() - moved_at >= limit:
                    log.info("closed a connection whose client took nothing for %g s", limit)
                    self.abort()
                    return
            finally:
                with contextlib.suppress(ValueError):
                    self._writers.remove(waiter)

    def _wake_writers(self) -> None:
        for waiter in self._writers:
            if not waiter.done():
                waiter.set_result(None)
        self._writers.clear()

    def _unsent(self) -> int:
        """Return the bytes that the client has not acknowledged, here and in the kernel where it can be asked."""
        unsent = self._transport.get_write_buffer_size()
        try:
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return unsent
        return unsent + int.from_bytes(answer, sys.byteorder)

    @property
    def _socket(self) -> socket.socket:
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    # -----------------------------------------------------------------------------------------------------------------
    # Phases and their time limits

    def request_started(self) -> None:
        """Stop the clock of the head: a request is with the app."""
        self._head_timed = False
        self._deadline = None

    def request_ended(self) -> None:
        """Start the clock of an idle connection."""
        self._set_timer(self.serving.settings.keep_alive_timeout)

    def head_progress(self) -> None:
        """Start the clock of a head once its first bytes are there; later bytes do not start it again."""
        if not self._head_timed and self._http.in_head:
            self._head_timed = True
            self._set_timer(self.serving.settings.header_timeout)

    def _set_timer(self, delay: float) -> None:
        """Set when the present phase has taken too long.

        A timer that is set already fires early enough for a later instant, and is moved on then: on a busy connection
        the phases change several times in the life of one timer.
        """
        self._deadline = self.loop.time() + delay
        if self._timer is None or self._timer.when() > self._deadline:
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
        elif self._http.in_head:
            self._http.refuse(RequestTimeoutError("The request's headers did not arrive in time."))
        else:
            self.close()

    # -----------------------------------------------------------------------------------------------------------------
    # The end

    def close(self, *, linger: bool = False) -> None:
        """End the connection once what is written has left, for which there is send_timeout.

        With linger our side is shut first and what still comes is read and dropped for linger_timeout. Closing at
        once would answer a client that still sends with a reset, and it might never see why.
        """
        if self.closing:
            return
        self._release()
        self.closing = True
        if linger and not self._transport.is_closing():
            self.read_on(True)
            try:
                self._transport.write_eof()
            except OSError:
                self._transport.abort()
            self._set_timer(self.serving.settings.linger_timeout)
        else:
            self._transport.close()
            self._set_timer(self.serving.settings.send_timeout)

    def close_if_idle(self) -> None:
        """End the connection unless a request runs or has begun to arrive, or it has not begun itself."""
        if self._made and self._http.idle:
            self.close()

    def abort(self) -> None:
        """End the connection now and drop what is unsent; a running app hears that its client has left."""
        self.closing = True
        if self._made:
            self._transport.abort()

    def reset(self) -> None:
        """End the connection with a reset, which no client can take for the regular end of a body."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()


def _host_and_port(address: object) -> tuple[str, int] | None:
    """Return the part of a socket's address that ASGI knows, None for one without a port."""
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


def _set_options(sock: socket.socket, kernel_unsent: int) -> None:
    """Bound what waits in the kernel to be sent, and have it notice a peer that vanished."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = (
        # asyncio sets it only on sockets that name their protocol; without it a small write waits 40 ms for an ACK.
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", None), 60),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), 15),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), 4),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", None), kernel_unsent),
    )
    for level, option, value in options:
        if option is not None:  # absent on some systems
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, value)
