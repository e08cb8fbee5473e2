"""One client's connection: hypercorn's HTTP/1.1 classes with the limits, the timing and the cancellation we promise.

Theory of operation. hypercorn gives one task per connection, which reads, and one task per request, which runs the
app; `HTTPStream` speaks ASGI, `H11Protocol` speaks HTTP through h11. Four things differ here.

* Bytes are checked by `RequestBytes` before h11 sees them, and what is refused is answered with an error object.
* Reading never stops while a request runs, since the end of the input is how a client says that it has left. A client
  that only shuts its sending side looks the same from here and is taken for one that left: nothing on the wire tells
  the two apart, and the client that left is the common case.
* A chunk of a stream goes out in one write, framed here and not by h11 (whose framing of chunks keeps no state); the
  sending side waits only while the transport holds more than its mark, and only then is a timer set.
* Time limits are one timer per connection, set for the phase that it is in. It acts by itself, so no task is
  cancelled to enforce it.

HTTP/2 is not spoken: hypercorn's does not push back on a client that reads slowly.
"""

import asyncio
import contextlib
import fcntl
import logging
import select
import socket
import struct
import sys
import termios
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import h11
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, Data, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveEvent,
    ASGISendEvent,
    ConnectionState,
    LifespanState,
    Scope,
)
from hypercorn.utils import parse_socket_addr

from chat2api.api.guards import BODY_FLOW, BodyFlow, RequestTimeoutError, refusal_bytes
from chat2api.api.request_bytes import HeadLimits, MalformedRequestError, RequestBytes
from chat2api.errors import Chat2APIError

log = logging.getLogger(__name__)

_READ_SIZE = 64 * 1024
_WRITE_SLICE = 64 * 1024

# A generator that never waits would keep the loop, and with it the news that its client has left, to itself.
_CHUNKS_PER_TURN = 16


class ClientLeftError(OSError):
    """The client is gone; what the app sends goes nowhere. The ASGI specification asks for an OSError."""


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
    write_buffer: int = 64 * 1024
    """High-water mark of unsent bytes in the process; the app waits above it."""
    kernel_unsent: int = 128 * 1024
    """Unsent bytes that the kernel may hold beside them."""
    body_held: int = 256 * 1024
    """Bytes of a request's body that wait for the app, and as many that it may have and not have read."""
    pipelined_held: int = 64 * 1024
    """Bytes of following requests that wait for their turn; reading stops above them."""


class HangupWatch:
    """Notices that clients have left while nothing is read from them.

    A connection that is not read from tells asyncio nothing, not even that it was reset. The kernel knows, and an
    epoll instance of our own can be asked for just that. Where there is no epoll, or while the client's end still
    waits behind data that the kernel has no room for, it is noticed when reading goes on.
    """

    def __init__(self) -> None:
        """Watch nothing; `close` it in the end."""
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None
        if sys.platform == "linux":
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll, self._notice)

    @contextlib.contextmanager
    def watching(self, sock: socket.socket, left: Callable[[], None]) -> Iterator[None]:
        """Call left, once, if the client leaves during the block."""
        descriptor = sock.fileno()
        if self._epoll is None or descriptor < 0:
            yield
            return
        try:
            self._epoll.register(descriptor, select.EPOLLRDHUP)  # errors and resets are always told
        except OSError:
            yield  # already watched, or no room for another
            return
        self._waiting[descriptor] = left
        try:
            yield
        finally:
            self._forget(descriptor)

    def close(self) -> None:
        """Watch no more."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll)
            self._epoll.close()

    def _notice(self) -> None:
        if self._epoll is not None:
            for descriptor, _events in self._epoll.poll(0):
                left = self._waiting.get(descriptor)
                self._forget(descriptor)
                if left is not None:
                    left()

    def _forget(self, descriptor: int) -> None:
        if self._waiting.pop(descriptor, None) is not None and self._epoll is not None:
            with contextlib.suppress(OSError, ValueError):  # a closed descriptor has left the epoll by itself
                self._epoll.unregister(descriptor)


class Inbox:
    """The messages that wait for one run of the app, at most about limit bytes of body."""

    def __init__(
        self,
        limit: int,
        flow: BodyFlow,
        before_first: Callable[[], None],
        watching: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Make an empty inbox.

        before_first is called when the app first asks for a message. watching surrounds a wait of the reading side.
        """
        self._limit = limit
        self._watching = watching
        self._flow = flow
        flow.on_room = lambda: self._wake(self._arrived)
        self._before_first: Callable[[], None] | None = before_first
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._held = 0
        self._goodbye: ASGIReceiveEvent | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message; wait while too much waits already. A disconnect overtakes everything and ends the wait."""
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self._goodbye = message
            self._wake(self._arrived)
            self._wake(self._room)
            return
        size = _size(message)
        while self._held and self._held + size > self._limit and self._goodbye is None:
            self._room = asyncio.get_running_loop().create_future()
            with self._watching():
                await self._room
        self._messages.append(message)
        self._held += size
        self._wake(self._arrived)

    async def get(self) -> ASGIReceiveEvent:
        """Return the next message; after a disconnect that one, however often it is asked for."""
        if self._before_first is not None:
            self._before_first()
            self._before_first = None
        while True:
            if self._goodbye is not None:
                return self._goodbye
            if self._messages and not self._flow.full:
                message = self._messages.popleft()
                size = _size(message)
                self._held -= size
                self._flow.give(size)
                self._wake(self._room)
                return message
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _size(message: ASGIReceiveEvent) -> int:
    """Return how many bytes of body or websocket payload a message carries."""
    if message["type"] == "http.request":
        return len(message["body"])
    if message["type"] == "websocket.receive":
        return len(message.get("bytes") or message.get("text") or b"")
    return 0


class AppTasks(TaskGroup):
    """The tasks of one connection; those that run the app are told that the client has left, then cancelled."""

    def __init__(self, connection: "Connection") -> None:
        """Make an empty group for that connection."""
        super().__init__(connection.loop)
        self._connection = connection
        self._running: set[asyncio.Task[None]] = set()

    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start the app for one request and return where its messages go."""
        settings = self._connection.settings
        flow = BodyFlow(settings.body_held)
        if scope["type"] == "http":
            cast(dict[str, object], scope["extensions"])[BODY_FLOW] = flow
        inbox = Inbox(settings.body_held, flow, self._connection.protocol.send_continue, self._connection.watching)
        task = self._task_group.create_task(_run_app(app, scope, inbox, send, self._loop))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return inbox.put

    def cancel(self) -> None:
        """Cancel what still runs. Only for apps that heard of a disconnect and went on: Quart cancels its own."""
        for task in self._running:
            task.cancel()


async def _run_app(
    app: AppWrapper,
    scope: Scope,
    inbox: Inbox,
    send: Callable[[ASGISendEvent | None], Awaitable[None]],
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Run the app for one request; what it raises ends its response without a clean end."""
    try:
        await app(scope, inbox.get, send, _no_threads, _no_threads)
    except ClientLeftError:
        pass
    except Exception:
        log.exception("the app failed outside its own error handler")
    finally:
        await send(None)


def _no_threads(*_: object) -> None:
    """Stand where hypercorn's WSGI side would get its threads."""
    raise RuntimeError("only ASGI apps are served")


class Stream(HTTPStream):
    """One request and its response, with a short way for the chunks of a stream."""

    protocol: "HTTP1"

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take one message of the app's; None says that it has returned."""
        if message is None:
            await super().app_send(None)
        elif self.closed:
            raise ClientLeftError("the client has left")
        elif self.protocol.chunked and message["type"] == "http.response.body" and message.get("more_body", False):
            body = message.get("body", b"")
            if body:
                await self.protocol.send_chunk(body)
        else:
            await super().app_send(message)

    async def _send_error_response(self, status_code: int) -> None:
        """Answer for an app that returned or failed without a word."""
        self.state = ASGIHTTPState.CLOSED
        self.protocol.refuse(RuntimeError(f"the app gave no response where {status_code} was due"))


class HTTP1(H11Protocol):
    """HTTP/1.1 between a connection and the app, one request at a time, in their order."""

    connection: h11.Connection | H11WSConnection

    def __init__(self, owner: "Connection", tasks: AppTasks, state: ConnectionState) -> None:
        """Speak for that connection, which does the reading and writing."""
        super().__init__(
            owner.app,
            owner.config,
            owner.context,
            tasks,
            state,
            False,
            owner.client,
            owner.server,
            owner.protocol_send,
        )
        self._owner = owner
        self._incoming = RequestBytes(owner.settings.head)
        self._handling = False
        self._method = ""
        self.chunked = False
        self.turn = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether no request runs and none has begun to arrive."""
        return self.stream is None and not self._incoming.in_head

    @property
    def in_head(self) -> bool:
        """Whether a request's head has begun to arrive and no request runs."""
        return self.stream is None and self._incoming.in_head

    @property
    def waiting(self) -> int:
        """How many bytes of following requests wait for the present one to end."""
        return self._incoming.held if self._incoming.complete else 0

    async def handle(self, event: Event) -> None:
        """Take bytes that arrived, or the news that no more will."""
        if isinstance(event, RawData):
            self._incoming.feed(event.data)
            await self._handle_events()
        elif isinstance(event, Closed):
            await self._close_stream()

    def send_continue(self) -> None:
        """Let a client that asked send its body; called when the app first wants it, so a refusal can come first."""
        if self.connection.they_are_waiting_for_100_continue:
            self._owner.write(self.connection.send(h11.InformationalResponse(status_code=100, headers=[])))

    async def send_chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked response and wait while too much is unsent."""
        if len(data) <= _WRITE_SLICE:
            self._owner.write(b"%x\r\n%b\r\n" % (len(data), data))
            await self._owner.make_room()
            return
        self._owner.write(b"%x\r\n" % len(data))
        try:
            await self._owner.send(data)
        except BaseException:
            self._owner.abort()  # half a chunk is out, and nothing may follow it
            raise
        self._owner.write(b"\r\n")

    def refuse(self, error: BaseException) -> None:
        """Answer with the error, if an answer can still be given, and end the connection."""
        if self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._owner.write(refusal_bytes(error, with_body=self._method != "HEAD"))
            self._owner.close(linger=True)
        else:
            self._owner.abort()

    async def _handle_events(self) -> None:
        """Go through what has arrived, up to the end of what may be looked at now.

        Runs in the reading task, or, for what was pipelined, in the task of the response that just ended; never in
        both, since the first to come goes on until nothing is left.
        """
        if self._handling:
            return
        self._handling = True
        try:
            while not self._owner.closing and await self._handle_event():
                pass
        except Chat2APIError as error:
            await self._close_stream()
            self.refuse(error)
        except h11.RemoteProtocolError:
            await self._close_stream()
            self.refuse(MalformedRequestError("The request is malformed."))
        finally:
            self._handling = False

    async def _handle_event(self) -> bool:
        """Handle one event; False when there is none before more bytes or the end of the response."""
        event = self.connection.next_event()
        if event is h11.NEED_DATA:
            data = self._incoming.take()
            if data:
                self.connection.receive_data(data)
            self._owner.head_progress()
            return bool(data)
        if isinstance(event, h11.Request):
            self._owner.request_started()
            await self._create_stream(event)
            if isinstance(self.connection, H11WSConnection):
                self._incoming.pass_through()
            return True
        if self.stream is None:
            return False
        if isinstance(event, h11.Data):
            await self.stream.handle(Body(stream_id=STREAM_ID, data=bytes(event.data)))
        elif isinstance(event, h11.EndOfMessage):
            await self.stream.handle(EndBody(stream_id=STREAM_ID))
        elif isinstance(event, Data):
            await self.stream.handle(event)
        else:
            return False
        return True

    async def _create_stream(self, request: h11.Request) -> None:
        """Start the app for a request that h11 has read; `Upgrade: h2c` is ignored, as HTTP allows."""
        if _asks_for_websocket(request):
            await super()._create_stream(request)
            return
        stream = Stream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        stream.protocol = self
        self.stream = stream
        self._method = request.method.decode("ascii")
        self.keep_alive_requests += 1
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=self._method,
                raw_path=bytes(request.target),
                state=self.connection_state,
            )
        )

    async def stream_send(self, event: StreamEvent) -> None:
        """Take one event of the response's."""
        if isinstance(event, Response) and event.status_code >= 200:
            self._send_response_head(event)
        else:
            await super().stream_send(event)

    def _send_response_head(self, event: Response) -> None:
        """Queue the head of the response, to leave with the body's first bytes or else within this turn of the loop."""
        headers = [*event.headers, *self.config.response_headers("h11")]
        if self._must_close_after() and not any(name.lower() == b"connection" for name, _ in headers):
            headers.append((b"connection", b"close"))
        # The constructor checks names and values and leaves the connection as it is when it objects.
        response = h11.Response(status_code=event.status_code, headers=headers, reason=_reason(event.status_code))
        head = self.connection.send(response)
        self.chunked = (
            isinstance(self.connection, h11.Connection)
            and isinstance(self.stream, Stream)
            and (self.connection.their_http_version or b"1.0") >= b"1.1"
            and self._method != "HEAD"
            and event.status_code not in (204, 304)
            and not any(name == b"content-length" for name, _ in response.headers)
        )
        self._owner.hold(head)

    def _must_close_after(self) -> bool:
        """Whether the connection ends with this response, so that the client may be told."""
        return (
            self.context.terminated.is_set()
            or self.keep_alive_requests >= self.config.keep_alive_max_requests
            or not self._incoming.complete
        )

    async def _send_h11_event(self, event: h11.Event) -> None:
        data = self.connection.send(event)  # type: ignore[arg-type]  # hypercorn's alias names fewer events
        if data:
            await self._owner.send(data)

    async def _maybe_recycle(self) -> None:
        """End the response: go on with the next request, or end the connection, cleanly only if the response is whole.

        A stream that failed must not look finished. Without its last chunk, or short of its Content-Length, a
        response is seen to be cut; a body that only the connection's end delimits needs a reset.
        """
        await self._close_stream()
        self.turn.set()
        if self._owner.closing:
            return
        ours = self.connection.our_state
        self.chunked = False
        if ours is h11.DONE and self.connection.their_state is h11.DONE and not self.context.terminated.is_set():
            self.connection.start_next_cycle()
            self._incoming.next_request()
            self._method = ""
            self._owner.request_ended()
            await self._handle_events()
        elif ours is h11.SEND_BODY and self._http10():
            self._owner.reset()
        else:
            self._owner.close(linger=not self._incoming.complete)

    def _http10(self) -> bool:
        return isinstance(self.connection, h11.Connection) and self.connection.their_http_version == b"1.0"


def _reason(status: int) -> bytes:
    """Return the phrase that goes with a status, b"" for one that has none."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _asks_for_websocket(request: h11.Request) -> bool:
    """Whether the request would become a websocket; what hypercorn asks, so that both take the same way."""
    upgrade = connection = b""
    for name, value in request.headers:
        if name == b"upgrade":
            upgrade = value
        elif name == b"connection":
            connection = value
    tokens = [token.strip() for token in connection.lower().split(b",")]
    return request.method == b"GET" and b"upgrade" in tokens and upgrade.strip().lower() == b"websocket"


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
        if len(data) <= _WRITE_SLICE:
            self.write(data)
            await self.make_room()
            return
        view = memoryview(data)
        for start in range(0, len(data), _WRITE_SLICE):
            self.write(view[start : start + _WRITE_SLICE])
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
        while True:
            unsent = self._unsent()
            try:
                async with asyncio.timeout(self.settings.send_timeout):
                    await self.writer.drain()
                return
            except TimeoutError:
                if self._unsent() < unsent:
                    continue  # slow, but reading
                log.info("closed a connection whose client took nothing for %g s", self.settings.send_timeout)
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
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay is None else self.loop.call_later(delay, self._time_is_up)

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
        self._set_timer(None)
