"""How Quart runs a request: in the listener's own task where that can be, and without what this app never uses.

Quart gives each request two further tasks, one that handles it and one that waits for messages, so that a client that
leaves is heard of. The listener can tell that without being asked (`BodyFlow.on_left`). So once a body has arrived
whole, the request is handled in the task that it came in, and its client's leaving cancels that. Clients often send a
head and a body in two packets, so a small body is waited for. All others go Quart's way.

`LeanQuart` is Quart all the same: it takes shorter ways to the same results where Quart's serve hosts, subdomains,
sessions, signals and functions that are not asynchronous, none of which this app has.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import cached_property, lru_cache, partial
from types import TracebackType
from typing import Any, NamedTuple, Protocol, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Quart, Request
from quart.asgi import ASGIHTTPConnection
from quart.ctx import AppContext, RequestContext
from quart.globals import _cv_app, _cv_request
from quart.routing import QuartRule
from quart.sessions import NullSession
from quart.typing import ResponseReturnValue, ResponseTypes
from quart.wrappers.base import BaseRequestWebsocket
from quart.wrappers.response import DataBody, IterableBody, Response
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
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


class StreamedResponse(Response):
    """A response of status 200 whose headers are taken as they are: nothing that a caller sent may be in them."""

    def __init__(self, pieces: AsyncIterator[bytes], headers: Iterable[tuple[str, str]]) -> None:
        """Stream the pieces, however long the next one takes."""
        self.headers = Headers()
        self.headers._list = list(headers)
        self.response = IterableBody(pieces)
        self.timeout = None  # Quart would cut the stream after a minute without a word
        self._status, self._status_code = "200 OK", 200


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
        request = self._create_whole_request(body, send)
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

    def _create_whole_request(self, body: bytes, send: ASGISendCallable) -> Request:
        """Make Quart's request with a body that is here; headers that our listener has checked are not checked again."""
        scope, config = self.scope, self.app.config
        limit = config["MAX_CONTENT_LENGTH"]
        if limit is not None and len(body) > limit:
            request = self._create_request_from_scope(send)
            request.body.set_result(body)
            return request
        client = scope.get("client")
        headers = CheckedHeaders(client[0] if client else "<local>", scope["headers"])
        return PacedRequest.whole(scope, headers, body, config["BODY_TIMEOUT"], partial(self._send_push_promise, send))

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        """Send head and body with no more messages than they need."""
        content = response.response
        if not isinstance(response, Response) or type(content) not in (DataBody, IterableBody):
            await super()._send_response(send, response)
            return
        await send({
            "type": "http.response.start",
            "status": response.status_code,
            "headers": [(_wire_name(name), value.encode()) for name, value in response.headers],
        })  # fmt: skip
        last = b""
        if type(content) is DataBody:
            last = content.data[content.begin : content.end]
        else:
            async with cast("IterableBody", content) as pieces:
                async for piece in pieces:
                    if isinstance(piece, LastPiece):
                        last = piece
                        break
                    data = piece.encode() if isinstance(piece, str) else piece
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": last, "more_body": False})


class LeanContext(RequestContext):
    """What `request`, `g` and `current_app` stand for while one request is handled; see LeanQuart."""

    app: "LeanQuart"
    request: Request = None  # type: ignore[assignment]  # in place of a property, which is asked for at each step

    def __init__(self, app: "LeanQuart", request: Request) -> None:
        """Make the context of a request and find its route; enter it by `async with`."""
        self.app = app
        self.request = self.request_websocket = request
        self.session = _NO_SESSION
        self.flashes = None
        self.preserved = False
        self._after_request_functions = []
        self._cv_tokens = []
        request.routing_exception = None
        request.json_module = app.json
        self._routes, self._path = app.find_routes(request)
        self.match_request()

    @cached_property
    def url_adapter(self) -> MapAdapter:  # type: ignore[override]  # most requests have no use for it
        """What finds routes and makes URLs: by the path alone, since one set of routes serves all hosts."""
        request = self.request
        root, scheme, method = request.root_path, request.scheme, request.method
        return MapAdapter(self._routes, "localhost", root, "", scheme, self._path, method)

    def match_request(self) -> None:
        """Find the request's route; those without arguments are known by heart once they have been found."""
        request = self.request
        asked = self._routes, request.method, self._path
        known = self.app.plain_routes.get(asked)
        if known is not None:
            request.url_rule, request.view_args = known, {}
            return
        super().match_request()
        if request.url_rule is not None and not request.view_args:
            self.app.plain_routes[asked] = request.url_rule

    async def __aenter__(self) -> "LeanContext":
        """Begin to stand for them."""
        self._entered = _cv_app.set(_LeanAppContext(self.app)), _cv_request.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what the request has opened."""
        try:
            if self.request._files:
                await self.request.close()
        finally:
            app, request = self._entered
            _cv_request.reset(request)
            _cv_app.reset(app)


class _LeanAppContext(AppContext):
    """What stands for the app while a request is handled: it makes no URLs of its own, as the request's context does."""

    url_adapter = None

    def __init__(self, app: Quart) -> None:
        self.app = app
        self.g = app.app_ctx_globals_class()
        self._cv_tokens = []


class _Hooks(NamedTuple):
    """The functions around the handler of a route, all of them asynchronous, in the order of their calls."""

    before: tuple[Callable[[], Awaitable[Any]], ...]
    handler: Callable[..., Awaitable[Any]] | None
    after: tuple[Callable[[Any], Awaitable[Any]], ...]


class LeanQuart(Quart):
    """Quart with `RequestRun` and `PacedRequest`, and with shorter ways.

    Signals are not sent, there is no session, and nothing is called at the end of a request or with the arguments of its
    route: an app that has such functions is refused with its first request.
    """

    asgi_http_class = RequestRun
    request_class = PacedRequest
    find_mount: Callable[[BaseRequestWebsocket], tuple[Map, str] | None] | None = None
    """Gives other routes, and the path to look up there, for a request that is not for the app's own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Make an app of what Quart takes."""
        super().__init__(*args, **options)
        self.plain_routes: dict[tuple[Map, str, str], QuartRule] = {}
        """Those without arguments that were asked for before, by where they were found, method and path; they are few."""
        self._hooks: dict[str | None, _Hooks] = {}

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Return func itself if it is asynchronous, else what runs it in a thread."""
        code = getattr(func, "__code__", None)
        if code is not None and code.co_flags & inspect.CO_COROUTINE:
            return func
        return super().ensure_async(func)

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Return what finds the route of a websocket, or of a request whose context a test keeps."""
        if request is None:
            return super().create_url_adapter(request)
        routes, path = self.find_routes(request)
        return MapAdapter(routes, "localhost", request.root_path, "", request.scheme, path, request.method)

    def find_routes(self, request: BaseRequestWebsocket) -> tuple[Map, str]:
        """Return the routes that a request is for, and the path to look up among them."""
        found = self.find_mount(request) if self.find_mount is not None else None
        return found or (self.url_map, request.path)

    def request_context(self, request: Request) -> RequestContext:
        """Return the request's context; Quart's own where a test wants to keep it."""
        if request.scope.get("_quart._preserve_context"):
            return super().request_context(request)
        return LeanContext(self, request)

    async def preprocess_request(self, request_context: RequestContext | None = None) -> ResponseReturnValue | None:
        """Call what comes before the handler, until something gives an answer."""
        assert request_context is not None
        for function in self._hooks_of(request_context.request).before:
            result: ResponseReturnValue | None = await function()
            if result is not None:
                return result
        return None

    async def dispatch_request(self, request_context: RequestContext | None = None) -> ResponseReturnValue:
        """Call the handler."""
        assert request_context is not None
        request = request_context.request
        handler = self._hooks_of(request).handler
        if handler is None or request.method == "OPTIONS":
            return await super().dispatch_request(request_context)
        result: ResponseReturnValue = await handler(**(request.view_args or {}))
        return result

    async def finalize_request(
        self,
        result: ResponseReturnValue | HTTPException,
        request_context: RequestContext | None = None,
        from_error_handler: bool = False,
    ) -> ResponseTypes:
        """Make a response of what the handler gave, and call what comes after."""
        if from_error_handler or not isinstance(result, Response):
            return await super().finalize_request(result, request_context, from_error_handler)
        return await self.process_response(result, request_context)

    async def process_response(
        self, response: ResponseTypes, request_context: RequestContext | None = None
    ) -> ResponseTypes:
        """Call what comes after the handler."""
        assert request_context is not None
        for function in self._hooks_of(request_context.request).after:
            response = await function(response)
        return response

    def _hooks_of(self, request: Request) -> _Hooks:
        """Return the functions around a request's handler. Raises RuntimeError for an app that has others besides."""
        endpoint = request.endpoint
        hooks = self._hooks.get(endpoint)
        if hooks is None:
            names = [None, *reversed(request.blueprints)]
            if any(self.teardown_request_funcs[name] or self.url_value_preprocessors[name] for name in names):
                raise RuntimeError("the app has functions that are not called here")
            after = [hook for name in reversed(names) for hook in reversed(self.after_request_funcs[name])]
            hooks = self._hooks[endpoint] = _Hooks(
                tuple([self.ensure_async(hook) for name in names for hook in self.before_request_funcs[name]]),
                self.ensure_async(self.view_functions[endpoint]) if endpoint is not None else None,
                tuple([self.ensure_async(hook) for hook in after]),
            )
        return hooks


_NO_SESSION = NullSession()
"""Refuses to be written to."""


class CheckedHeaders(Headers):
    """A request's headers as our listener has checked them; nobody changes them.

    Most are never looked at, so they stay as they came until somebody wants to see all of them.
    """

    def __init__(self, peer: str, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the peer's address, which Quart has among them, and fields whose names are in lower case."""
        self._peer = peer
        self._fields = list(fields)
        self._first = dict(reversed(self._fields))
        self._first[b"remote-addr"] = peer.encode("latin-1")

    @cached_property
    def _list(self) -> list[tuple[str, str]]:  # type: ignore[override]  # read only
        pairs = [("Remote-Addr", self._peer)]
        pairs += [(_title(name), value.decode("latin-1")) for name, value in self._fields]
        return pairs

    def get(  # type: ignore[override]  # it stands for all overloads
        self, key: str, default: Any = None, *further: Any, **named: Any
    ) -> Any:
        """Return the first value of that name as `Headers.get` does, which raises and catches for one that is not there."""
        if further or named:
            return super().get(key, default, *further, **named)
        value = self._first.get(key.lower().encode("latin-1", "replace"))
        return default if value is None else value.decode("latin-1")


@lru_cache(maxsize=256)
def _wire_name(name: str) -> bytes:
    """Return the name of a response's header as it is sent."""
    return name.lower().encode()


@lru_cache(maxsize=256)
def _title(name: bytes) -> str:
    """Return a header's name as Quart writes it."""
    return name.decode("latin-1").title()
