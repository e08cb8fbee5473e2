"""A connection that has become a websocket: hypercorn's websocket between our reading and writing and the app.

hypercorn's `WSStream` knows the handshake, the frames and the app's messages. It awaits what it does, so one task for each
websocket hands it what arrives; what waits for that task, and for the app, is bounded and then stops the reading.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config as HypercornConfig
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, ConnectionState, Scope, TaskGroup

from chat2api.api.hangup import ClientLeftError
from chat2api.api.request_bytes import RequestHead
from chat2api.api.response_bytes import ResponseBytes, switching_head

if TYPE_CHECKING:
    from chat2api.api.connection import Connection

log = logging.getLogger(__name__)

_STREAM_ID = 1
_SWITCHING_PROTOCOLS = 101


class WebSocket:
    """One connection from its request for a websocket on."""

    def __init__(self, connection: "Connection", head: RequestHead) -> None:
        """Start the handshake; the app runs if it is a good one."""
        self._connection = connection
        self._limit = connection.serving.settings.body_held
        self._arrived: deque[bytes] = deque()
        self._held = 0
        self._left = False
        self._news: asyncio.Future[None] | None = None
        self._inbox = Inbox(self._limit)
        self._refusal = ResponseBytes(head.method, head.version, persistent=False)
        config = HypercornConfig()
        config.accesslog = None
        config.errorlog = None
        self._stream = WSStream(
            cast(AppWrapper, None),  # it only hands it to `spawn_app`
            config,
            WorkerContext(None),
            cast(TaskGroup, self),  # it only calls `spawn_app`
            False,
            connection.client,
            connection.server,
            self._send,
            _STREAM_ID,
        )
        target = head.path + (b"?" + head.query if head.query else b"")
        state = ConnectionState(connection.serving.state.copy())
        connection.spawn(self._run(Request(_STREAM_ID, head.fields, head.version, head.method, target, state)))

    def received(self, data: bytes) -> None:
        """Take bytes that arrived."""
        if data:
            self._arrived.append(data)
            self._held += len(data)
            self._connection.read_on(self._held <= self._limit)
            _wake(self._news)

    def client_left(self) -> None:
        """Take the news that nothing more comes and nothing more can be sent."""
        self._left = True
        self._inbox.let_go()
        _wake(self._news)

    async def _run(self, request: Request) -> None:
        """Hand hypercorn what arrives until the client has left."""
        with contextlib.suppress(ClientLeftError):
            await self._stream.handle(request)
            while True:
                while self._arrived and not self._left:
                    data = self._arrived.popleft()
                    self._held -= len(data)
                    await self._stream.handle(Data(_STREAM_ID, data))
                if self._left:
                    break
                self._connection.read_on(True)
                self._news = asyncio.get_running_loop().create_future()
                await self._news
        await self._stream.handle(StreamClosed(_STREAM_ID))

    async def spawn_app(
        self,
        _app: AppWrapper,
        _config: HypercornConfig,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start the app, as hypercorn asks for it, and return where its messages go."""
        self._connection.spawn(self._run_app(scope, send))
        return self._inbox.put

    async def _run_app(self, scope: Scope, send: Callable[[ASGISendEvent | None], Awaitable[None]]) -> None:
        try:
            await self._connection.serving.app(scope, self._inbox.get, send)
        except ClientLeftError:
            pass
        except Exception:
            # The outermost loop of a connection's app: others must not end with it, and its client still gets an end.
            log.exception("the app failed outside its own error handler")
        finally:
            with contextlib.suppress(ClientLeftError):
                await send(None)

    async def _send(self, event: Event) -> None:
        """Take what hypercorn sends. Raises ClientLeftError."""
        connection = self._connection
        match event:
            case Data():
                await connection.send(event.data)
            case Response(status_code=status) if status == _SWITCHING_PROTOCOLS:
                await connection.send(switching_head(event.headers))
            case Response():
                head = self._refusal.head(event.status_code, event.headers, close=True, now=time.time())
                await connection.send(head)
            case Body():
                around = self._refusal.frame(len(event.data))
                if around is not None:
                    await connection.send(around[0] + event.data + around[1])
            case EndBody():
                await connection.send(self._refusal.end())
                connection.close(linger=True)
            case StreamClosed():
                await self._stream.handle(event)
                connection.close(linger=True)


class Inbox:
    """The messages that wait for one run of the app, at most about limit bytes of them."""

    def __init__(self, limit: int) -> None:
        """Make an empty inbox."""
        self._limit = limit
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._held = 0
        self._let_go = False
        self._goodbye: ASGIReceiveEvent | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message; wait while too much waits already. A disconnect overtakes everything and ends the wait."""
        if message["type"] == "websocket.disconnect":
            self._goodbye = message
            self.let_go()
            _wake(self._arrived)
            return
        size = _size(message)
        while self._held and self._held + size > self._limit and not self._let_go:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._messages.append(message)
        self._held += size
        _wake(self._arrived)

    def let_go(self) -> None:
        """Make nobody wait for room any more: what waits will not be read."""
        self._let_go = True
        _wake(self._room)

    async def get(self) -> ASGIReceiveEvent:
        """Return the next message; after a disconnect that one, however often it is asked for."""
        while self._goodbye is None:
            if self._messages:
                message = self._messages.popleft()
                self._held -= _size(message)
                _wake(self._room)
                return message
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._goodbye


def _size(message: ASGIReceiveEvent) -> int:
    """Return how many bytes or characters of payload a message carries."""
    carried: dict[str, Any] = cast(dict[str, Any], message)
    return len(carried.get("bytes") or carried.get("text") or b"")


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
