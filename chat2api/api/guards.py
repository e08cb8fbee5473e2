"""Guards between the listener and the app: how large a request's body may be and how slowly it may come.

`BodyGuard` is plain ASGI and stands around the app. It refuses by Content-Length before the body is read, counts a
chunked body while it streams, and gives up on a client that sends too slowly. The app hears of the latter two as it
hears of any client that has left, so that all its clean-up is the usual one; the guard then answers in its place.

`PacedRequest` makes Quart's body take part: Quart gathers whatever has arrived, and without it an upload would be held
whole in memory while the handler works on its first part.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from quart.wrappers import Request
from quart.wrappers.request import Body
from werkzeug.datastructures import Headers

from chat2api.api.errors import WriteError
from chat2api.errors import Chat2APIError, PayloadTooLargeError
from chat2api.protocol.openai.errors import error_object

BODY_FLOW = "chat2api.body_flow"

SMALL_BODY = 64 * 1024
"""Most bytes of a body that is worth waiting for before its request is handled."""


class RequestTimeoutError(Chat2APIError):
    """The client was too slow with its request; nothing has been done, so it may try again."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


def refusal(error: BaseException, write: WriteError = error_object) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body of the answer to a request that ends here, and its connection with it."""
    status, content, extra = write(error)
    body = json.dumps(content).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (b"x-request-id", b"req_" + secrets.token_hex(16).encode()),
    ]
    headers += [(name.encode(), value.encode()) for name, value in extra.items()]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
    return status, headers, body


def refusal_bytes(error: BaseException, *, with_body: bool = True) -> bytes:
    """Return the same as a whole HTTP/1.1 response, for where no request exists; the answer to HEAD has no body."""
    status, headers, body = refusal(error)
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body if with_body else b"")


@dataclass(frozen=True, slots=True)
class BodySettings:
    """How slowly a body may come; times in seconds."""

    timeout: float = 30.0
    """Without any byte; also the head start of a slow client before min_rate counts."""
    min_rate: float = 1024.0
    """Bytes per second on average over the time that we waited for the client."""


class BodyFlow:
    """What the listener and the readers of a request's body tell each other: how much has been given and not read.

    The listener puts one into each request's `extensions` under `BODY_FLOW` and gives nothing more while it is full.
    It is never full until a reader of the body says that it will report what it reads.
    """

    __slots__ = ("_given", "_limit", "_paced", "on_left", "small", "waiting", "whole")

    def __init__(self, limit: int) -> None:
        """Make a flow that is full above limit bytes."""
        self._limit = limit
        self._given = 0
        self._paced = False
        self.on_left: Callable[[], object] | None = None
        """Called once if the client leaves before its answer is whole, for an app that does not wait for messages."""
        self.waiting = False
        """Whether a message of the request waits for the app."""
        self.whole: int | None = None
        """The size of the request's body if all of it has arrived and waits as one message; None otherwise."""
        self.small = False
        """Whether the client says that its body is small, and sends it without being asked."""

    @property
    def ready(self) -> bool:
        """Whether the app would get a message at once."""
        return self.waiting and not self.full

    @property
    def full(self) -> bool:
        """Whether the app should read before it is given more."""
        return self._paced and self._given > self._limit

    def begin(self) -> None:
        """Count from now on: the reader reports what it reads."""
        self._paced = True

    def end(self) -> None:
        """Count no longer: the reader wants all there is."""
        self._paced = False
        self.made_room()

    def give(self, count: int) -> None:
        """Note bytes that the app was given."""
        self._given += count

    def release(self, count: int) -> None:
        """Note bytes that the app has read."""
        self._given -= count
        if not self.full:
            self.made_room()

    def made_room(self) -> None:
        """Be told that the flow is no longer full; the listener's own flow goes on then."""


class PacedBody(Body):
    """A request's body that lets the client send on only as far as it has been read."""

    flow: BodyFlow | None = None

    async def __anext__(self) -> bytes:
        """Return what has arrived since the last time."""
        data = await super().__anext__()
        if self.flow is not None:
            self.flow.release(len(data))
        return data

    def __await__(self) -> Generator[Any, None, bytes]:
        """Return the whole body."""
        if self.flow is not None:
            self.flow.end()
        return super().__await__()


class WholeBody(Body):
    """A request's body that is here already."""

    def __init__(self, data: bytes) -> None:
        """Take the body."""
        self._left = data

    async def __anext__(self) -> bytes:
        """Return all of it, once."""
        if not self._left:
            raise StopAsyncIteration
        data, self._left = self._left, b""
        return data

    def __await__(self) -> Generator[Any, None, bytes]:
        """Return all of it."""
        yield from ()
        return self._left

    def clear(self) -> None:
        """Hold it no longer."""
        self._left = b""


class PacedRequest(Request):
    """Quart's request with a paced body; `app.request_class = PacedRequest` turns it on."""

    body_class = PacedBody

    @property
    def blueprints(self) -> list[str]:
        """The names of the blueprints around the route, the innermost first."""
        return _blueprints_of(self.endpoint or "").copy()

    def __init__(self, *args: Any, **options: Any) -> None:
        """Make a request of what Quart passes."""
        super().__init__(*args, **options)
        flow = flow_of(cast(HTTPScope, self.scope))
        if flow is not None and isinstance(self.body, PacedBody):
            flow.begin()
            self.body.flow = flow

    @classmethod
    def whole(
        cls,
        scope: HTTPScope,
        headers: Headers,
        body: bytes,
        timeout: int | None,
        push: Callable[[str, Headers], Awaitable[None]],
    ) -> "PacedRequest":
        """Make a request whose body is here. It has what Quart's own has, which makes and checks much that nobody uses."""
        request = cls.__new__(cls)
        request.method = scope["method"].upper()
        request.scheme = scope["scheme"]
        request.server = scope.get("server")
        request.root_path = scope.get("root_path", "").rstrip("/")
        request.path = "/" + scope["path"].lstrip("/")
        request.query_string = scope["query_string"]
        request.headers = headers
        request.remote_addr = headers.get("Remote-Addr")
        request.http_version = scope["http_version"]
        request.scope = scope
        request.body_timeout = timeout
        request.body = WholeBody(body)
        request._cached_json = {False: Ellipsis, True: Ellipsis}
        request._form = request._files = None
        request._parsing_lock = cls.lock_class()
        request._send_push_promise = push
        return request


@lru_cache(maxsize=1024)
def _blueprints_of(endpoint: str) -> list[str]:
    """Return the prefixes of an endpoint, the longest first."""
    parts = endpoint.split(".")[:-1]
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


class BodyGuard:
    """An ASGI app around an ASGI app that bounds the size and the slowness of request bodies."""

    def __init__(
        self,
        app: ASGIFramework,
        *,
        limit_for: Callable[[str], int],
        write_for: Callable[[str], WriteError] = lambda path: error_object,
        settings: BodySettings | None = None,
    ) -> None:
        """Guard app; limit_for gives the largest body in bytes that a path takes, write_for the shape of its errors."""
        self._app = app
        self._limit_for = limit_for
        self._write_for = write_for
        self._settings = settings if settings is not None else BodySettings()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Run the app for one scope; anything but a request passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_for(scope["path"])
        flow = flow_of(scope)
        if flow is not None and flow.whole is not None and flow.whole <= limit:
            await self._app(scope, receive, send)  # it is here, so that nothing is left to guard
            return
        length = 0
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = int(value)
        if length > limit:
            await _refuse(send, _too_large(limit), self._write_for(scope["path"]))
            return
        meter = _Meter(receive, send, limit, self._settings, flow)
        await self._app(scope, meter.receive, meter.send)
        if meter.refusal is not None and not meter.started:
            await _refuse(send, meter.refusal, self._write_for(scope["path"]))


class _Meter:
    """One request's body on its way to the app, counted and timed."""

    def __init__(
        self,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        limit: int,
        settings: BodySettings,
        flow: BodyFlow | None,
    ) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._settings = settings
        self._flow = flow
        self._complete = False
        self._received = 0
        self._waited = 0.0
        self.refusal: Chat2APIError | None = None
        self.started = False

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message; a disconnect once the body has broken a limit."""
        if self._complete:
            return await self._receive()
        message = None if self.refusal is not None else await self._receive_in_time()
        if message is None:
            return {"type": "http.disconnect"}
        if message["type"] != "http.request":
            self._complete = True
            return message
        self._received += len(message["body"])
        if self._received > self._limit:
            self.refusal = _too_large(self._limit)
            return {"type": "http.disconnect"}
        self._complete = not message["more_body"]
        return message

    async def _receive_in_time(self) -> ASGIReceiveEvent | None:
        """Return the next message, None when the client took too long. Waits that the app caused do not count."""
        settings = self._settings
        if self._flow is not None and self._flow.ready:
            return await self._receive()
        clock = asyncio.get_running_loop().time
        while True:
            ours = self._flow is not None and self._flow.full
            earned = settings.timeout + self._received / settings.min_rate - self._waited
            start = clock()
            try:
                async with asyncio.timeout(max(0.0, min(settings.timeout, earned))):
                    message = await self._receive()
            except TimeoutError:
                if ours:
                    continue
                self.refusal = RequestTimeoutError("The request's body came too slowly.")
                return None
            if not ours:
                self._waited += clock() - start
            return message

    async def send(self, message: ASGISendEvent) -> None:
        """Pass on what the app answers, unless the guard is going to."""
        if self.refusal is not None and not self.started:
            raise OSError("the request was refused while its body came")
        self.started = True
        await self._send(message)


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The request's body is over {limit} bytes, the limit of this route.")


def flow_of(scope: HTTPScope) -> BodyFlow | None:
    """Return the flow that the listener put into a request, None under another server or a test client."""
    flow = cast(dict[str, object], scope.get("extensions", {})).get(BODY_FLOW)
    return flow if isinstance(flow, BodyFlow) else None


async def _refuse(send: ASGISendCallable, error: Chat2APIError, write: WriteError) -> None:
    """Answer in the app's place."""
    status, headers, body = refusal(error, write)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
