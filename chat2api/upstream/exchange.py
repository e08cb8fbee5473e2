"""What is asked and what is answered: the values that go through a Transport, and the Transport itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from chat2api.upstream.uploads import Upload


@dataclass(frozen=True, slots=True)
class BrowserProfile:
    """One consistent browser: TLS and HTTP/2 profile, User-Agent and client hints name the same version.

    `impersonate` is curl_cffi's name of the TLS profile (such as `chrome136`); `headers` are the client hints that
    the browser sends beside its User-Agent, empty for browsers that send none. They, `accept_encoding` and
    `Accept: */*` are all that a profile sends by itself: what a browser adds to a navigation or to a script's call is
    for the request to say. `header_order` holds lower-case names, and "" where all others go; empty for as given.

    A client that is no browser has an empty `impersonate` and keeps no cookies (`cookies`).
    """

    name: str
    impersonate: str = field(hash=False)
    user_agent: str = field(hash=False)
    headers: tuple[tuple[str, str], ...] = field(hash=False)
    accept_encoding: str = field(default="gzip, deflate, br, zstd", hash=False)
    header_order: tuple[str, ...] = field(default=(), hash=False)
    cookies: bool = field(default=True, hash=False)


@dataclass(frozen=True, slots=True)
class Channel:
    """The scope of connections and cookies: never shared between accounts, exits or browser profiles.

    `key` is an opaque name of the account (never a token). `proxy` is a URL with http, https, socks5 or socks5h
    scheme, None for a direct connection.
    """

    key: str
    proxy: str | None = field(repr=False)
    profile: BrowserProfile = field(hash=False)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request over http or https.

    `headers` go out beside what the profile itself sends and replace what it sends under the same name; their order is
    the profile's. Cookies of the channel are added to a Cookie header given here. `varying` are headers as well, which
    count as given last: those that are different in each request, while all of `headers` is likely to come again.
    `address` is an IP address to connect to instead of asking for the host's own, when the caller has looked it up and
    judged it; through a proxy that resolves names itself (http, https, socks5h) it has no effect. `upgrade` asks for a
    web socket in place of an answer: only `Transport.connect` makes such a request, over a connection of its own that
    speaks HTTP/1.1. `upload` is a body that comes while it is sent, in place of `body`; such a request is a POST.
    """

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)
    address: str | None = None
    upgrade: bool = False
    upload: Upload | None = field(default=None, repr=False)
    varying: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer.

    Header names are lower case; a repeated header keeps its values joined by ', ', Set-Cookie by a line feed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class ResponseStream(Protocol):
    """An answer whose body is read as it comes, by one reader at a time. Always `aclose` it, also after an error."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header values by lower-case name, repeated ones joined as in Response."""
        ...

    async def read(self) -> bytes:
        """Give all bytes that have arrived, waiting for the first; b"" at the end of the body.

        Always suspends at least once, so a caller that leaves is noticed. Raises TransportError when the
        connection breaks (also when the body ends before its declared length).
        """
        ...

    async def pass_on(self, take: Callable[[bytes], bool]) -> bool:
        """Hand all bytes to `take` as they arrive, until it answers False; give whether the body goes on then.

        `take` is called from the loop, without a switch of tasks; what it raises is raised here. A cancel ends the
        wait and nothing else. Raises as `read` does.
        """
        ...

    async def aclose(self) -> None:
        """Abort the transfer if it still runs, within milliseconds and in every phase; idempotent."""
        ...


class WebSocket(Protocol):
    """An open web socket, read by one reader at a time. Always `aclose` it, also after an error."""

    async def receive(self) -> str | None:
        """Give the next message, waiting for it; None once the server has closed in good order (code 1000).

        Always suspends at least once. Raises TransportError when the connection breaks or is closed for another
        reason, UpstreamProtocolError for a message that is too long or no text.
        """
        ...

    def send(self, text: bytes) -> None:
        """Send a message of a few kilobytes, without waiting. Raises TransportError when that cannot be done."""
        ...

    async def aclose(self) -> None:
        """Say goodbye and close the connection, without waiting for an answer; idempotent."""
        ...


class Transport(Protocol):
    """Makes requests on channels."""

    async def fetch(
        self,
        channel: Channel,
        request: Request,
        *,
        connect_timeout: float,
        timeout: float,
        max_bytes: int = 4 * 1024 * 1024,
    ) -> Response:
        """Give the whole answer, at most max_bytes of body.

        Raises TransportError, UpstreamTimeoutError (phase connect or whole) or UpstreamProtocolError (too long).
        No redirect is followed. Cancelling aborts the transfer.
        """
        ...

    async def open(
        self, channel: Channel, request: Request, *, connect_timeout: float, headers_timeout: float
    ) -> ResponseStream:
        """Send the request and give the answer once its final status and headers are here (1xx skipped).

        Raises TransportError, UpstreamTimeoutError (phase connect or headers). Cancelling aborts the transfer.
        """
        ...

    async def connect(
        self,
        channel: Channel,
        url: str,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        sub_protocol: str | None = None,
        ping_period: float | None = None,
        connect_timeout: float,
        headers_timeout: float,
    ) -> WebSocket:
        """Open a web socket (ws or wss) as the channel's browser; a ping goes out every `ping_period` seconds.

        Raises TransportError, UpstreamTimeoutError (phase connect or headers), and UpstreamProtocolError for an
        answer that opens none. Cancelling aborts the attempt.
        """
        ...

    async def aclose(self) -> None:
        """Abort what still runs and close all connections."""
        ...
