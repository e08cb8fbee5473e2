"""The values between the HTTP layers and the handlers: a request in, a reply out.

A handler is a plain function from a `Request` to an `Answer` or an `EventStream`. Everything that takes time or goes
wrong on the way out (pace, stalls, resets) is done later, by `delivery.py`, through an `Exchange`; so a handler's
effect on the simulated state is whole or absent, never half done.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple, Protocol, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
Object: TypeAlias = dict[str, JSON]
Headers: TypeAlias = tuple[tuple[str, str], ...]


class PeerGone(Exception):
    """The peer closed the connection or the stream while something was still to be sent."""


@dataclass(frozen=True)
class Request:
    """One request as it arrived. Header names are lower case, in the order of arrival, repeats kept."""

    method: str
    target: str
    headers: Headers
    body: bytes
    http_version: str
    """`1.1` or `2`."""
    scheme: str
    connection: int
    """Number of the TCP connection, counted from 1."""

    @cached_property
    def path(self) -> str:
        """The path, percent-decoded, without the query."""
        return unquote(urlsplit(self.target).path)

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's values by name; the last of a repeated name."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @cached_property
    def _by_name(self) -> dict[str, str]:
        joined: dict[str, str] = {}
        for name, value in self.headers:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        return joined

    def header(self, name: str) -> str | None:
        """Give the value of a header by its lower-case name, repeats joined by ', '; None when absent."""
        return self._by_name.get(name)

    @property
    def origin(self) -> str:
        """Scheme, host and port that the peer used."""
        return f"{self.scheme}://{self.header('host') or 'localhost'}"

    @cached_property
    def cookies(self) -> dict[str, str]:
        """Cookies by name; empty when the header cannot be read."""
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load("; ".join(value for name, value in self.headers if name == "cookie"))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in jar.items()}

    def json(self) -> JSON:
        """Parse the body. Raises ValueError when it is not JSON."""
        parsed: JSON = json.loads(self.body)
        return parsed


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply."""

    status: int
    body: bytes = b""
    headers: Headers = ()


class Frame(NamedTuple):
    """Bytes of a stream that belong together, mostly one event; `delta` tells that they carry new answer text."""

    data: bytes
    delta: bool = False


@dataclass(frozen=True, slots=True)
class EventStream:
    """A reply of status 200 that is made while it is sent.

    `frames` is asked for the next frame only when the peer has taken the earlier ones. `delay` is in seconds, before
    each delta; `first_delay` before the first frame. `split` seeds random cuts of the bytes; None sends frames whole.
    """

    frames: Iterator[Frame]
    headers: Headers = ()
    delay: float = 0.0
    first_delay: float = 0.0
    split: int | None = None


@dataclass(frozen=True, slots=True)
class Socket:
    """A reply that opens a web socket.

    `outgoing` holds texts to send, None closes; `receive` is called with each text of the peer, `on_close` at the end.
    `before_frame` is awaited before each text is sent; False closes the socket in its place.
    """

    outgoing: "asyncio.Queue[str | None]"
    receive: Callable[[str], None]
    on_close: Callable[[], None]
    sub_protocol: str | None = None
    before_frame: Callable[[], Awaitable[bool]] | None = None


Reply: TypeAlias = Answer | EventStream | Socket


@dataclass(slots=True)
class Refusal(Exception):
    """A handler's way to end a request early with an answer."""

    answer: Answer = field()

    def __str__(self) -> str:
        """Name the status, for a traceback."""
        return f"refused with {self.answer.status}"


class Exchange(Protocol):
    """The way out for one reply. Methods that send wait while the peer does not read, and raise PeerGone."""

    async def send_headers(self, status: int, headers: Sequence[tuple[str, str]], length: int | None) -> None:
        """Send the status line and the headers; `length` None means a body of unknown length."""
        ...

    async def send_partial_headers(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Send about half of the bytes of the headers."""
        ...

    async def send_data(self, data: bytes) -> None:
        """Send more of the body."""
        ...

    async def end(self) -> None:
        """End the body as the protocol wants it."""
        ...

    async def open_socket(self, socket: Socket) -> None:
        """Turn the connection into a web socket and return when it is closed; 400 where that cannot be."""
        ...

    def close(self) -> None:
        """Close the connection cleanly (FIN) without ending the body."""
        ...

    def reset(self) -> None:
        """Reset the TCP connection (RST)."""
        ...

    def reset_stream(self) -> None:
        """Reset the HTTP/2 stream; over HTTP/1.1 the connection."""
        ...

    def go_away(self) -> None:
        """Send HTTP/2 GOAWAY and close; over HTTP/1.1 close."""
        ...


def json_answer(value: JSON, status: int = 200, headers: Headers = ()) -> Answer:
    """Give an answer with a JSON body."""
    return Answer(status, orjson.dumps(value), (("content-type", "application/json"), *headers))


def html_answer(text: str, status: int = 200, headers: Headers = ()) -> Answer:
    """Give an answer with an HTML body."""
    return Answer(status, text.encode(), (("content-type", "text/html; charset=utf-8"), *headers))
