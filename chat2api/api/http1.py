"""HTTP/1.1 over one connection: checked requests in, runs of the app, cheap answers out.

Theory of operation. `RequestBytes` makes heads and bodies of what arrives; an `Exchange` is one request and its response,
and at once the two ASGI channels of the app's run for it; `ResponseBytes` makes bytes of what the app says. Nothing in
between waits: what arrives is dealt with in the turn of the loop in which it came, and only an app that wants more than
there is, or sends more than its client takes, is made to wait. Besides:

* What `RequestBytes` refuses is answered with an error object.
* A request that arrives before the present one is answered waits for its turn; too much of it stops the reading.
* A body that arrived with its head is one message, and a piece of a response is one write.
* A response that the app does not finish never gets a regular end.

Websockets are hypercorn's, see `chat2api.api.websocket`. HTTP/2 is not spoken: hypercorn's does not push back on a client
that reads slowly.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, ConnectionState, HTTPScope

from chat2api.api.dispatch import DIRECT_BODY
from chat2api.api.guards import BODY_FLOW, SMALL_BODY, BodyFlow, refusal_bytes
from chat2api.api.hangup import ClientLeftError
from chat2api.api.request_bytes import RequestBytes, RequestHead
from chat2api.api.response_bytes import ResponseBytes, ResponseError
from chat2api.api.websocket import WebSocket
from chat2api.errors import Chat2APIError

if TYPE_CHECKING:
    from chat2api.api.connection import Connection

log = logging.getLogger(__name__)

WRITE_SLICE = 32 * 1024
"""Bytes that are written before looking at how much is unsent: so many may have to be copied to wait for the client."""

_ASGI = {"version": "3.0", "spec_version": "2.1"}


class Exchange(BodyFlow):
    """One request and its response, between the protocol and one run of the app."""

    __slots__ = ("_begun", "_closed", "_expects_continue", "_http", "_last", "_pieces", "_waiter", "held", "response")

    def __init__(self, http: "HTTP1", head: RequestHead, limit: int) -> None:
        """Make an exchange of which only the head is here; limit is for `BodyFlow`."""
        super().__init__(limit)
        self._http = http
        self._expects_continue = head.expects_continue
        self.small = 0 < head.length <= SMALL_BODY and not head.expects_continue
        self._pieces: list[bytes] = []
        self._begun = False
        self._last = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self.held = 0
        """Bytes of the body that wait for the app."""
        self.response = ResponseBytes(head.method, head.version, persistent=head.persistent)

    def put(self, data: bytes, *, last: bool) -> None:
        """Add a piece of the request's body, with last the one that ends it."""
        if not data and not last:
            return
        self.whole = len(data) if last and not self._begun else None
        self._begun = True
        self._pieces.append(data)
        self._last = last
        self._expects_continue = False
        self.held += len(data)
        self.waiting = True
        self._wake()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the app's next message; a disconnect overtakes everything and is told however often it is asked for."""
        while not self._closed:
            if self.ready:
                return self._take()
            if self._expects_continue and not self.response.begun:
                self._expects_continue = False
                self._http.send_continue()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return {"type": "http.disconnect"}

    def _take(self) -> ASGIReceiveEvent:
        data = self._pieces.pop(0)
        self.waiting = bool(self._pieces)
        self.whole = None
        self.held -= len(data)
        self.give(len(data))
        self._http.regulate()
        return {"type": "http.request", "body": data, "more_body": self.waiting or not self._last}

    async def send(self, message: ASGISendEvent) -> None:
        """Take one message of the app's. Raises ClientLeftError, ResponseError."""
        if self._closed:
            raise ClientLeftError("the client has left")
        if message["type"] == "http.response.body":
            more = message.get("more_body", False)
            await self._http.send_piece(self.response, message.get("body", b""), last=not more)
            if not more and not self._closed:
                self._http.end_exchange(self)
        elif message["type"] == "http.response.start":
            self._http.hold_head(self.response, int(message["status"]), message.get("headers", []))
        else:
            raise ResponseError(f"a message that has no place here: {message['type']}")

    @property
    def may_write(self) -> bool:
        """Whether a piece may be written at once; see DirectBody."""
        return not self._closed and self.response.begun and self._http.connection.keeps_up

    def write_now(self, data: bytes) -> None:
        """Write a piece of the body at once; see DirectBody."""
        if framed := self.response.framed(data):
            self._http.connection.write(framed)

    def app_returned(self) -> None:
        """Take the news that the app will send nothing more."""
        if not self._closed:
            self._http.end_exchange(self)

    def close(self) -> None:
        """Take nothing more from the app, and tell it that its client is gone unless its response is whole."""
        self._closed = True
        self._pieces.clear()
        self.whole = None
        self._wake()
        if not self.response.whole and self.on_left is not None:
            self.on_left()

    def made_room(self) -> None:
        """Go on giving what waits."""
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class HTTP1:
    """HTTP/1.1 between a connection and the app, one request at a time, in their order."""

    def __init__(self, connection: "Connection") -> None:
        """Speak for that connection."""
        self.connection = connection
        """It does the reading and writing."""
        self._serving = connection.serving
        self._settings = connection.serving.settings
        self._incoming = RequestBytes(self._settings.head)
        self._exchange: Exchange | None = None
        self._websocket: WebSocket | None = None

    @property
    def idle(self) -> bool:
        """Whether no request runs and none has begun to arrive."""
        return self._exchange is None and self._websocket is None and not self._incoming.in_head

    @property
    def in_head(self) -> bool:
        """Whether a request's head has begun to arrive and no request runs."""
        return self._exchange is None and self._websocket is None and self._incoming.in_head

    def received(self, data: bytes) -> None:
        """Take bytes that arrived."""
        if self._websocket is not None:
            self._websocket.received(data)
            return
        self._incoming.feed(data)
        self._advance()
        self.regulate()

    def client_left(self) -> None:
        """Take the news that nothing more comes and nothing more can be sent."""
        self._close_exchange()
        if self._websocket is not None:
            self._websocket.client_left()

    def regulate(self) -> None:
        """Let the connection be read on, or not while too much waits here for the app."""
        if self._exchange is not None:
            held, settings = self._exchange.held, self._settings
            full = held > settings.body_held or (
                self._incoming.complete and self._incoming.held > settings.pipelined_held
            )
            self.connection.read_on(not full)
        elif self._websocket is None:
            self.connection.read_on(True)

    def refuse(self, error: BaseException) -> None:
        """Answer with the error, if an answer can still be given, and end the connection."""
        connection, exchange = self.connection, self._exchange
        if connection.closing:
            return
        if self._websocket is None and (exchange is None or not exchange.response.begun):
            with_body = not (exchange is not None and exchange.response.to_head)
            connection.write(refusal_bytes(error, with_body=with_body))
            connection.close(linger=True)
        else:
            connection.abort()
        self._close_exchange()

    def _advance(self) -> None:
        """Deal with what has arrived, up to the end of the present request."""
        incoming = self._incoming
        try:
            if self._exchange is None and not self._begin_request():
                return
            if self._exchange is not None and not incoming.complete:
                data = incoming.take_body()
                self._exchange.put(data, last=incoming.complete)
        except Chat2APIError as error:
            self.refuse(error)

    def _begin_request(self) -> bool:
        """Start the app for the next request and return True once its head is here."""
        head = self._incoming.take_head()
        if head is None:
            self.connection.head_progress()
            return False
        self.connection.request_started()
        if head.upgrade == b"websocket" and head.method == "GET":
            self._websocket = WebSocket(self.connection, head)
            self._websocket.received(self._incoming.take_rest())
            return False
        exchange = self._exchange = Exchange(self, head, self._settings.body_held)
        if self._incoming.complete:
            exchange.put(b"", last=True)
        self.connection.spawn(self._run_app(head, exchange))
        return True

    async def _run_app(self, head: RequestHead, exchange: Exchange) -> None:
        """Run the app for one request; what it raises ends its response without a clean end."""
        connection = self.connection
        path = head.path.decode("ascii")
        scope: HTTPScope = {
            "type": "http",
            "asgi": _ASGI.copy(),  # type: ignore[typeddict-item]  # a dict of the very keys
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": head.path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.fields,
            "client": connection.client,
            "server": connection.server,
            "extensions": cast(dict[str, dict[object, object]], {BODY_FLOW: exchange, DIRECT_BODY: exchange}),
            "state": ConnectionState(self._serving.state.copy()),
        }
        try:
            await self._serving.app(scope, exchange.receive, exchange.send)
        except ClientLeftError:
            pass
        except Exception:
            # The outermost loop of a connection's app: others must not end with it, and its client still gets an end.
            log.exception("the app failed outside its own error handler")
        finally:
            exchange.app_returned()

    def send_continue(self) -> None:
        """Let a client that asked send its body; done when the app first waits for it, so that a refusal can come first."""
        self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def hold_head(self, response: ResponseBytes, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Queue the head of a response, to leave with the body's first bytes or else within this turn of the loop."""
        close = self._serving.stopping or not self._incoming.complete
        self.connection.hold(response.head(status, headers, close=close, now=time.time()))

    async def send_piece(self, response: ResponseBytes, data: bytes, *, last: bool) -> None:
        """Send a piece of a body in its framing and wait while too much is unsent. Raises ClientLeftError, ResponseError."""
        connection = self.connection
        if len(data) > WRITE_SLICE and (around := response.frame(len(data))) is not None:
            try:
                await connection.send(data, around[0], around[1] + (response.end() if last else b""))
            except BaseException:
                connection.abort()  # half a piece is out, and nothing may follow it
                raise
            return
        framed = response.framed(data)
        if connection.write(framed + response.end() if last else framed):
            await connection.make_room()

    def end_exchange(self, exchange: Exchange) -> None:
        """End a response: go on with the next request, or end the connection, cleanly only if the response is whole.

        A stream that failed must not look finished. Without its last chunk, or short of its Content-Length, a
        response is seen to be cut; a body that only the connection's end delimits needs a reset.
        """
        response, connection, incoming = exchange.response, self.connection, self._incoming
        if not response.begun:
            self.refuse(RuntimeError("the app gave no response"))
        self._close_exchange()
        if connection.closing:
            return
        if response.whole and response.persistent and incoming.complete and not self._serving.stopping:
            incoming.next_request()
            connection.request_ended()
            if incoming.held:
                self._advance()
            self.regulate()
        elif response.until_close and not response.whole:
            connection.reset()
        else:
            connection.close(linger=not incoming.complete)

    def _close_exchange(self) -> None:
        """End what runs, and tell the app."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()
