"""How Quart runs a request: in the listener's own task, where that can be.

Quart gives each request two further tasks, one that handles it and one that waits for messages, so that a client that
leaves is heard of. The listener can tell that without being asked (`BodyFlow.on_left`). So once a body has arrived
whole, which nearly all have when the app starts, the request is handled in the task that it came in, and its client's
leaving cancels that. All others go Quart's way.
"""

import asyncio
from typing import Protocol, cast

from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, HTTPRequestEvent
from quart.asgi import ASGIHTTPConnection
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.response import DataBody, IterableBody, Response

from chat2api.api.guards import BodyFlow, flow_of

DIRECT_BODY = "chat2api.direct_body"
"""The ASGI extension by which a streamed body's pieces may go out without a switch of tasks: a DirectBody."""


class DirectBody(Protocol):
    """The body of a response that has begun, for writes outside of `send`; never use it while a `send` is on."""

    @property
    def may_write(self) -> bool:
        """Whether a piece may be written now: the head is out, the client is there and keeps up."""
        ...

    def write_now(self, data: bytes) -> None:
        """Write a piece; only while `may_write`."""
        ...


class LastPiece(bytes):
    """The last piece of a streamed body: it leaves in one write with the body's end."""

    __slots__ = ()


class RequestRun(ASGIHTTPConnection):
    """One request on its way through Quart; `app.asgi_http_class = RequestRun` turns it on."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the request; return once it is answered, or its handler has ended because the client left."""
        flow = flow_of(self.scope)
        if flow is None or flow.whole is None:
            await super().__call__(receive, send)
            return
        first = await receive()
        if first["type"] != "http.request" or first["more_body"]:
            await super().__call__(_Replay(first, receive), send)
            return
        await self._run_here(first, flow, send)

    async def _run_here(self, body: HTTPRequestEvent, flow: BodyFlow, send: ASGISendCallable) -> None:
        """Handle a request whose body is whole in the present task."""
        request = self._create_request_from_scope(send)
        request.body.append(body["body"])
        request.body.set_complete()
        task = cast("asyncio.Task[None]", asyncio.current_task())
        left = False

        def end() -> None:
            nonlocal left
            left = task.cancel()

        flow.on_left = end
        try:
            await self.handle_request(request, send)
        except asyncio.CancelledError:
            if not left or task.cancelling() > 1:
                raise  # it is somebody else's wish, too
        finally:
            flow.on_left = None
            if left:
                task.uncancel()

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        """Send head and body with no more messages than they need."""
        content = response.response
        if not isinstance(response, Response) or not isinstance(content, DataBody | IterableBody):
            await super()._send_response(send, response)
            return
        await send({
            "type": "http.response.start",
            "status": response.status_code,
            "headers": encode_headers(response.headers),
        })  # fmt: skip
        last = b""
        if isinstance(content, DataBody):
            last = content.data[content.begin : content.end]
        else:
            async with content as pieces:
                async for piece in pieces:
                    if isinstance(piece, LastPiece):
                        last = piece
                        break
                    data = piece.encode() if isinstance(piece, str) else piece
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": last, "more_body": False})


class _Replay:
    """A channel of messages whose first one has been taken, and is given again."""

    def __init__(self, first: ASGIReceiveEvent, receive: ASGIReceiveCallable) -> None:
        self._first: ASGIReceiveEvent | None = first
        self._receive = receive

    async def __call__(self) -> ASGIReceiveEvent:
        first, self._first = self._first, None
        return first if first is not None else await self._receive()
