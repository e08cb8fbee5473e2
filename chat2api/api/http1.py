"""HTTP/1.1 over one connection: checked bytes in, prompt cancellation, cheap chunks out.

Theory of operation. A request's bytes are checked by `RequestBytes`, parsed by h11, and become the messages of one run
of the app; the app's messages become bytes by `ResponseBytes`. An `Exchange` is one such request and its response. What
hypercorn's `H11Protocol` does for us is websockets alone. What differs from it:

* What `RequestBytes` refuses is answered with an error object.
* hypercorn stops reading when a following request has arrived early, and with it hears no more of a client that
  leaves. Here those bytes wait in `RequestBytes` and the one task that reads goes on.
* A body that arrived with its head is one message, and a piece of a response is one write.
* A response that the app does not finish never gets a regular end.

HTTP/2 is not spoken: hypercorn's does not push back on a client that reads slowly.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote

import h11
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Data
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.typing import ASGISendEvent, ConnectionState, HTTPScope

from chat2api.api.app_tasks import AppTasks, ClientLeftError, Inbox
from chat2api.api.guards import refusal_bytes
from chat2api.api.request_bytes import MalformedRequestError, RequestBytes
from chat2api.api.response_bytes import ResponseBytes, ResponseError
from chat2api.errors import Chat2APIError

if TYPE_CHECKING:
    from chat2api.api.connection import Connection

WRITE_SLICE = 64 * 1024
"""Bytes that are written before looking at how much is unsent."""


class Exchange:
    """One request and its response, between the protocol and one run of the app."""

    def __init__(self, protocol: "HTTP1", response: ResponseBytes) -> None:
        """Make an exchange that has nothing from the app yet."""
        self._protocol = protocol
        self.response = response
        self.closed = False
        self.inbox: Inbox
        """The messages for the app; set as soon as it runs."""

    async def send(self, message: ASGISendEvent | None) -> None:
        """Take one message of the app's; None says that it has returned. Raises ClientLeftError, ResponseError."""
        if message is None:
            if not self.closed:
                await self._protocol.end_exchange(self)
        elif self.closed:
            raise ClientLeftError("the client has left")
        elif message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif message["type"] == "http.response.start":
            self._protocol.hold_head(self.response, int(message["status"]), message.get("headers", []))
        else:
            raise ResponseError(f"a message that has no place here: {message['type']}")

    def close(self) -> None:
        """Take nothing more from the app, and tell it that its client is gone unless its response is whole."""
        self.closed = True
        self.inbox.end(left=not self.response.whole)

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        around = self.response.frame(len(data))
        end = b"" if more else self.response.end()
        if around is None:
            await self._protocol.send_piece(b"", b"", end)
        else:
            await self._protocol.send_piece(around[0], data, around[1] + end)
        if not more and not self.closed:
            await self._protocol.end_exchange(self)


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
        self._tasks = tasks
        self._incoming = RequestBytes(owner.settings.head)
        self._handling = False
        self._exchange: Exchange | None = None
        self._read = False
        self.turn = asyncio.Event()

    @property
    def _running(self) -> bool:
        """Whether the app runs for a request of this connection, or a websocket is open."""
        return self._exchange is not None or self.stream is not None

    @property
    def idle(self) -> bool:
        """Whether no request runs and none has begun to arrive."""
        return not self._running and not self._incoming.in_head

    @property
    def in_head(self) -> bool:
        """Whether a request's head has begun to arrive and no request runs."""
        return not self._running and self._incoming.in_head

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
        begun = self._exchange is not None and self._exchange.response.begun
        if self.connection.they_are_waiting_for_100_continue and not begun:
            self._owner.write(self.connection.send(h11.InformationalResponse(status_code=100, headers=[])))

    def hold_head(self, response: ResponseBytes, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Queue the head of a response, to leave with the body's first bytes or else within this turn of the loop."""
        close = (
            self.context.terminated.is_set()
            or self.keep_alive_requests >= self.config.keep_alive_max_requests
            or not self._incoming.complete
        )
        self._owner.hold(response.head(status, headers, close=close, now=time.time()))

    async def send_piece(self, before: bytes, data: bytes, after: bytes) -> None:
        """Send a piece of a body in its framing and wait while too much is unsent. Raises ClientLeftError."""
        if len(data) <= WRITE_SLICE:
            self._owner.write(before + data + after if before or after else data)
            await self._owner.make_room()
            return
        self._owner.write(before)
        try:
            await self._owner.send(data)
        except BaseException:
            self._owner.abort()  # half a piece is out, and nothing may follow it
            raise
        self._owner.write(after)

    def refuse(self, error: BaseException) -> None:
        """Answer with the error, if an answer can still be given, and end the connection."""
        if self._owner.closing:
            return
        exchange = self._exchange
        if self.stream is None and (exchange is None or not exchange.response.begun):
            with_body = not (exchange is not None and exchange.response.to_head)
            self._owner.write(refusal_bytes(error, with_body=with_body))
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
            self.refuse(error)
            await self._close_stream()
        except h11.RemoteProtocolError:
            self.refuse(MalformedRequestError("The request is malformed."))
            await self._close_stream()
        finally:
            self._handling = False

    async def _handle_event(self) -> bool:
        """Handle one event; False when there is none before more bytes or the end of the response."""
        if self._read:
            return False
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
            return True
        if self._exchange is not None:
            return await self._handle_body(self._exchange.inbox, event)
        if self.stream is not None and isinstance(event, Data):
            await self.stream.handle(event)
            return True
        return False

    async def _handle_body(self, inbox: Inbox, event: object) -> bool:
        """Give the app what has arrived of the request's body, as one message, and with the body's end if it is there."""
        pieces = []
        while isinstance(event, h11.Data):
            pieces.append(event.data)
            event = self.connection.next_event()
        whole = isinstance(event, h11.EndOfMessage)
        if not pieces and not whole:
            return False
        await inbox.put({"type": "http.request", "body": b"".join(pieces), "more_body": not whole})
        self._read = whole
        return not whole

    async def _create_stream(self, request: h11.Request) -> None:
        """Start the app for a request that h11 has read; `Upgrade: h2c` is ignored, as HTTP allows."""
        upgrade, tokens = _connection_wishes(request)
        if request.method == b"GET" and b"upgrade" in tokens and upgrade == b"websocket":
            await super()._create_stream(request)
            self._incoming.pass_through()
            return
        path, _, query = bytes(request.target).partition(b"?")
        version = request.http_version.decode("ascii")
        method = request.method.decode("ascii")
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": version,
            "method": method,
            "scheme": "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": self.config.root_path,
            "headers": list(request.headers),
            "client": self.client,
            "server": self.server,
            "extensions": {},
            "state": ConnectionState(self.connection_state.copy()),
        }
        self.keep_alive_requests += 1
        persistent = version != "1.0" and b"close" not in tokens
        exchange = self._exchange = Exchange(self, ResponseBytes(method, version, persistent=persistent))
        exchange.inbox = self._tasks.start_app(self.app, scope, exchange.send)

    async def end_exchange(self, exchange: Exchange) -> None:
        """End a response: go on with the next request, or end the connection, cleanly only if the response is whole.

        A stream that failed must not look finished. Without its last chunk, or short of its Content-Length, a
        response is seen to be cut; a body that only the connection's end delimits needs a reset.
        """
        response = exchange.response
        if not response.begun:
            self.refuse(RuntimeError("the app gave no response"))
        await self._close_stream()
        self.turn.set()
        if self._owner.closing:
            return
        if response.whole and response.persistent and self._read and not self.context.terminated.is_set():
            self._read = False
            self.connection = h11.Connection(h11.SERVER, self.config.h11_max_incomplete_size)
            self._incoming.next_request()
            self._owner.request_ended()
            await self._handle_events()
        elif response.until_close and not response.whole:
            self._owner.reset()
        else:
            self._owner.close(linger=not self._incoming.complete)

    async def _send_h11_event(self, event: h11.Event) -> None:
        """Send what a websocket's handshake takes."""
        data = self.connection.send(event)  # type: ignore[arg-type]  # hypercorn's alias names fewer events
        if data:
            await self._owner.send(data)

    async def _close_stream(self) -> None:
        """End what runs, and tell the app."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()
        await super()._close_stream()

    async def _maybe_recycle(self) -> None:
        """End a websocket, and its connection with it."""
        await self._close_stream()
        self.turn.set()
        if not self._owner.closing:
            self._owner.close(linger=True)


def _connection_wishes(request: h11.Request) -> tuple[bytes, list[bytes]]:
    """Return what a request would upgrade to, b"" for nothing, and the tokens of its Connection headers."""
    upgrade = b""
    tokens: list[bytes] = []
    for name, value in request.headers:
        if name == b"upgrade":
            upgrade = value.strip().lower()
        elif name == b"connection":
            tokens += [token.strip() for token in value.lower().split(b",")]
    return upgrade, tokens
