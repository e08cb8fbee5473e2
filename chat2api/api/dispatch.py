"""How Quart runs a request: in the listener's own task where that can be, and without what this app never uses.

Quart gives each request two further tasks, one that handles it and one that waits for messages, so that a client that
leaves is heard of. The listener can tell that without being asked (`BodyFlow.on_left`). So once a body has arrived
whole, the request is handled in the task that it came in, and its client's leaving cancels that. Clients often send a
head and a body in two packets, so a small body is waited for. All others go Quart's way.

`LeanQuart` is Quart all the same: it takes shorter ways to the same results where Quart's serve hosts, subdomains and
functions that are not asynchronous, none of which this app has.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Protocol, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Quart, Request
from quart.asgi import ASGIHTTPConnection
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.base import BaseRequestWebsocket
from quart.wrappers.response import DataBody, IterableBody, Response
from werkzeug.datastructures import Headers
from werkzeug.routing import Map, MapAdapter

from chat2api.api.guards import BodyFlow, PacedRequest, flow_of

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
    """One request on its way through Quart."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the request; return once it is answered, or its handler has ended because the client left."""
        flow = flow_of(self.scope)
        if flow is None or (flow.whole is None and not flow.small):
            await super().__call__(receive, send)
            return
        pieces: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client left before there was anything to do for it
            pieces.append(message["body"])
            more = message["more_body"]
        await self._run_here(b"".join(pieces), flow, send)

    async def _run_here(self, body: bytes, flow: BodyFlow, send: ASGISendCallable) -> None:
        """Handle a request whose body is whole in the present task."""
        request = self._create_request_from_scope(send)
        request.body.append(body)
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

    def _create_request_from_scope(self, send: ASGISendCallable) -> Request:
        """Make Quart's request; headers that our listener has checked are not checked one by one again."""
        scope = self.scope
        if flow_of(scope) is None:
            return super()._create_request_from_scope(send)
        pairs = [("Remote-Addr", (scope.get("client") or ("<local>",))[0])]
        pairs += [(_title(name), value.decode("latin-1")) for name, value in scope["headers"]]
        config = self.app.config
        return self.app.request_class(
            scope["method"],
            scope["scheme"],
            scope["path"],
            scope["query_string"],
            _CheckedHeaders(pairs),
            scope.get("root_path", ""),
            scope["http_version"],
            scope,
            max_content_length=config["MAX_CONTENT_LENGTH"],
            body_timeout=config["BODY_TIMEOUT"],
            send_push_promise=partial(self._send_push_promise, send),
        )

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


class LeanQuart(Quart):
    """Quart with `RequestRun` and `PacedRequest`, and with shorter ways."""

    asgi_http_class = RequestRun
    request_class = PacedRequest
    find_mount: Callable[[BaseRequestWebsocket], tuple[Map, str] | None] | None = None
    """Gives other routes, and the path to look up there, for a request that is not for the app's own."""

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Return func itself if it is asynchronous, else what runs it in a thread."""
        code = getattr(func, "__code__", None)
        if code is not None and code.co_flags & inspect.CO_COROUTINE:
            return func
        return super().ensure_async(func)

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Return what finds a request's route: by its path alone, since one set of routes serves all hosts."""
        if request is None:
            return super().create_url_adapter(request)
        routes, path = self.url_map, request.path
        if self.find_mount is not None and (found := self.find_mount(request)) is not None:
            routes, path = found
        return MapAdapter(routes, "localhost", request.root_path, "", request.scheme, path, request.method)


class _CheckedHeaders(Headers):
    """A request's headers as they were checked already."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__()
        self._list = pairs


@lru_cache(maxsize=256)
def _title(name: bytes) -> str:
    """Return a header's name as Quart writes it."""
    return name.decode("latin-1").title()
