"""HTTP/1.1 over one connection: hypercorn's parts with checked bytes, prompt cancellation and cheap chunks.

Theory of operation. hypercorn's `HTTPStream` speaks ASGI with the app and `H11Protocol` speaks HTTP through h11. What
differs here:

* `RequestBytes` checks the bytes before h11 sees them, and what is refused is answered with an error object.
* hypercorn stops reading when a following request has arrived early, and with it hears no more of a client that
  leaves. Here those bytes wait in `RequestBytes` and the one task that reads goes on.
* A chunk of a stream is framed here and goes out in one write. h11 would do the same with more ceremony: its framing
  of chunks keeps no state, so its own idea of the connection stays right.
* A response that the app does not finish never gets a regular end.

HTTP/2 is not spoken: hypercorn's does not push back on a client that reads slowly.
"""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, Data, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ASGISendEvent, ConnectionState

from chat2api.api.app_tasks import AppTasks, ClientLeftError
from chat2api.api.guards import refusal_bytes
from chat2api.api.request_bytes import MalformedRequestError, RequestBytes
from chat2api.errors import Chat2APIError

if TYPE_CHECKING:
    from chat2api.api.connection import Connection

WRITE_SLICE = 64 * 1024
"""Bytes that are written before looking at how much is unsent."""


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
        if len(data) <= WRITE_SLICE:
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
