"""The door to the network: requests as a browser would make them, cancelled at once, slowed when we are slow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BrowserProfile:
    """One consistent browser: TLS and HTTP/2 profile, User-Agent and client hints name the same version.

    `impersonate` is curl_cffi's name of the TLS profile (such as `chrome136`); `headers` are the client hints that
    the browser sends beside its User-Agent, empty for browsers that send none.
    """

    name: str
    impersonate: str
    user_agent: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Channel:
    """The scope of connections and cookies: never shared between accounts, exits or browser profiles.

    `key` is an opaque name of the account (never a token). `proxy` is a URL with http, https, socks5 or socks5h
    scheme, None for a direct connection.
    """

    key: str
    proxy: str | None
    profile: BrowserProfile


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `headers` go out beside what the profile itself sends, in this order."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. Header names are lower case; a repeated header keeps its values joined by ', '."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class ResponseStream(Protocol):
    """An answer whose body is read as it comes. Always `aclose` it, also after an error."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header values by lower-case name."""
        ...

    async def read(self) -> bytes:
        """Give all bytes that have arrived, waiting for the first; b"" at the end of the body.

        Always suspends at least once, so a caller that leaves is noticed. Raises TransportError when the
        connection breaks (also when the body ends before its declared length).
        """
        ...

    async def aclose(self) -> None:
        """Abort the transfer if it still runs, within milliseconds and in every phase; idempotent."""
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

    async def aclose(self) -> None:
        """Abort what still runs and close all connections."""
        ...
