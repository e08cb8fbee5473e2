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
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

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

_FLOW = "chat2api.body_flow"


def refusal_body(status: int, code: str, message: str) -> bytes:
    """Return the error object for a request that never became one of the app's."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def refusal_headers(status: int, body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with a refusal; the connection ends with it."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (b"x-request-id", b"req_" + secrets.token_hex(16).encode()),
    ]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return headers


def refusal_bytes(status: int, code: str, message: str) -> bytes:
    """Return a whole HTTP/1.1 response that refuses, for where no request exists yet."""
    body = refusal_body(status, code, message)
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [name + b": " + value for name, value in refusal_headers(status, body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass(frozen=True, slots=True)
class BodySettings:
    """How slowly a body may come, and how much of it may wait unread; times in seconds, sizes in bytes."""

    timeout: float = 30.0
    """Without any byte; also the head start of a slow client before min_rate counts."""
    min_rate: float = 1024.0
    """Bytes per second on average over the time that we waited for the client."""
    held: int = 512 * 1024
    """Bytes that the app has been given and has not read; only for apps whose requests are a PacedRequest."""


class BodyFlow:
    """How much of a body the app has been given and has not read, and the wait until that is less."""

    def __init__(self, limit: int) -> None:
        """Start with nothing held; give waits above limit bytes."""
        self._limit = limit
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()

    def give(self, count: int) -> None:
        """Count bytes handed to the app."""
        self._held += count
        if self._held > self._limit:
            self._room.clear()

    def release(self, count: int) -> None:
        """Count bytes that the app has read."""
        self._held -= count
        if self._held <= self._limit:
            self._room.set()

    def release_all(self) -> None:
        """Stop waiting for good: the app wants the body whole."""
        self._limit = sys.maxsize
        self._room.set()

    async def room(self) -> None:
        """Return when the app may be given more."""
        await self._room.wait()
