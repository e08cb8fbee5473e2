"""The door to the network: requests as a browser would make them, cancelled at once, slowed when we are slow.

Theory of operation. A `Channel` has one curl multi handle, and with it its own connections, TLS sessions and
cookies; a request is one easy handle on it. curl calls back into `_Transfer` from the event loop's reader callbacks, so
there are no threads and no tasks per request: the callbacks put bytes into a list and set an event, `read` empties the
list. What is not obvious:

- Abort is `remove_handle` and then `close` of the easy handle, in that order, at once and from ordinary code, never
  inside a callback of curl's. It works in every phase since nothing waits for curl to notice. The multi handle is
  closed last, after all its easy handles: the other order is a use after free.
- Back-pressure: the write callback answers PAUSE while too much is held; curl then keeps the chunk and offers it again
  when `read` resumes it. `easy.pause` may call the write callback before it returns.
- curl by itself resends a request when a pooled connection dies before a byte of the answer. It reads a body through
  `_Body`, which refuses to be rewound once curl has had all of it, so that no POST that the backend may have acted
  upon is ever sent twice; a POST without a body gets a connection of its own for the same reason.
- Requests that start at once on a new channel wait until the first of them has its connection, to share it when it is
  HTTP/2. curl's own PIPEWAIT is no use: what waits there is let go when a transfer ends, not when it is connected, so
  one long stream over HTTP/1.1, or a hundred over HTTP/2, hold up all others (seen with 8.21).
- curl's HTTP_PROXY and NO_PROXY variables are switched off: the exit of a channel is what the channel says.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol, cast
from urllib.parse import urlsplit

from curl_cffi import (  # noqa: TID251 - this is its door
    AsyncCurl,
    Curl,
    CurlECode,
    CurlError,
    CurlInfo,
    CurlMOpt,
    CurlOpt,
    ffi,
)

from chat2api.clock import Clock, SystemClock
from chat2api.errors import DrainingError, TransportError, UpstreamError, UpstreamProtocolError, UpstreamTimeoutError
from chat2api.upstream.cookies import Cookies
from chat2api.upstream.headers import HeaderBlock, wire_headers


@dataclass(frozen=True, slots=True)
class BrowserProfile:
    """One consistent browser: TLS and HTTP/2 profile, User-Agent and client hints name the same version.

    `impersonate` is curl_cffi's name of the TLS profile (such as `chrome136`); `headers` are the client hints that
    the browser sends beside its User-Agent, empty for browsers that send none. They, `accept_encoding` and
    `Accept: */*` are all that a profile sends by itself: what a browser adds to a navigation or to a script's call is
    for the request to say. `header_order` holds lower-case names, and "" where all others go; empty for as given.
    """

    name: str
    impersonate: str
    user_agent: str
    headers: tuple[tuple[str, str], ...]
    accept_encoding: str = "gzip, deflate, br, zstd"
    header_order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Channel:
    """The scope of connections and cookies: never shared between accounts, exits or browser profiles.

    `key` is an opaque name of the account (never a token). `proxy` is a URL with http, https, socks5 or socks5h
    scheme, None for a direct connection.
    """

    key: str
    proxy: str | None = field(repr=False)
    profile: BrowserProfile


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request over http or https.

    `headers` go out beside what the profile itself sends and replace what it sends under the same name; their order is
    the profile's. Cookies of the channel are added to a Cookie header given here. `address` is an IP address to
    connect to instead of asking for the host's own, when the caller has looked it up and judged it; through a proxy
    that resolves names itself (http, https, socks5h) it has no effect.
    """

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)
    address: str | None = None


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
    """An answer whose body is read as it comes. Always `aclose` it, also after an error."""

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


HELD_LIMIT = 256 * 1024
"""Bytes that wait for `read` before curl is paused; it is resumed when they are taken, which `read` does all at once."""

HEADER_LIMIT = 128 * 1024
"""Bytes of an answer's head, 1xx answers included."""

IDLE_TIMEOUT = 300.0
"""Seconds without a request after which a channel's connections are closed."""

IDLE_CHANNELS = 128
"""Channels that keep connections while no request runs on them; past it the longest unused are closed sooner.

curl parses the authorities' bundle once for each channel and keeps it with the connections: about 700 KiB.
"""

FIRST_CONNECTION_WAIT = 1.0
"""Seconds that a request waits for another one's first connection before it makes its own."""

COOKIE_TIMEOUT = 86_400.0
"""Seconds without a request after which a channel's cookies are forgotten."""

_CONNECTIONS_KEPT = 64
_HOUSEKEEPING_PERIOD = 30.0
_PAUSE = 0x10000001  # CURL_WRITEFUNC_PAUSE, for which curl_cffi's package exports no name
_STOP = 0xFFFFFFFF  # CURL_WRITEFUNC_ERROR
_HTTP_2_OVER_TLS = 4  # CURL_HTTP_VERSION_2TLS: the plain `2` of the profiles would ask http origins for h2c
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_CONNECT_CODES = frozenset({CurlECode.COULDNT_RESOLVE_PROXY, CurlECode.COULDNT_CONNECT, CurlECode.PROXY})
_TLS_CODES = frozenset(
    {
        CurlECode.SSL_CONNECT_ERROR,
        CurlECode.PEER_FAILED_VERIFICATION,
        CurlECode.SSL_CIPHER,
        CurlECode.SSL_CERTPROBLEM,
        CurlECode.SSL_CACERT_BADFILE,
        CurlECode.SSL_ISSUER_ERROR,
        CurlECode.SSL_INVALIDCERTSTATUS,
        CurlECode.SSL_PINNEDPUBKEYNOTMATCH,
    }
)
_TIMEOUT_TEXTS = {
    "connect": "The connection to {host} was not made in time.",
    "headers": "{host} took the request but did not begin to answer in time.",
    "body": "{host} fell silent in the middle of its answer.",
    "whole": "The answer of {host} was not complete in time.",
}
_FAILURE_TEXTS = {
    "resolve": "The name {host} could not be resolved",
    "connect": "The connection to {host} failed",
    "tls": "No trusted TLS connection to {host} could be made",
    "proxy": "The account's proxy did not connect to {host}",
    "send": "The connection to {host} broke before the request was sent",
    "headers": "The connection to {host} broke before its answer began",
    "body": "The answer of {host} broke off",
}
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"})
_SUPPRESSED = ("Expect:", "Content-Type:")
_FIXED_OPTIONS: tuple[tuple[CurlOpt, int | str], ...] = (
    (CurlOpt.HTTP_VERSION, _HTTP_2_OVER_TLS),
    (CurlOpt.PROTOCOLS_STR, "http,https"),
    (CurlOpt.NOSIGNAL, 1),
    (CurlOpt.TCP_KEEPALIVE, 1),
    (CurlOpt.NOPROXY, ""),
    (CurlOpt.SUPPRESS_CONNECT_HEADERS, 1),
)


class _Easy(Curl):
    """An easy handle without curl_cffi's websocket buffer, which is 128 KiB for each handle."""

    _WS_RECV_BUFFER_SIZE = 1


class _Multi(AsyncCurl):
    """A multi handle that sleeps when it has nothing to do.

    The base class wakes each handle ten times a second for ever in case curl missed an event; with a handle for each
    account that is all that an idle server would do. curl's own timers and sockets are enough.
    """

    def __init__(self) -> None:
        super().__init__()
        # Without this, closing waits for resolver threads that still run, and the event loop with it.
        self._set(CurlMOpt.QUICK_EXIT, ffi.new("long *", 1))
        self._set(CurlMOpt.MAXCONNECTS, _CONNECTIONS_KEPT)

    def _set(self, option: CurlMOpt, value: object) -> None:
        super().setopt(option, value)  # type: ignore[no-untyped-call]  # curl_cffi leaves it without annotations

    async def _force_timeout(self) -> None:
        return

    async def close(self) -> None:
        """Close the connections; every easy handle must have been removed before."""
        await super().close()  # type: ignore[no-untyped-call]  # as above


class _Body:
    """A request body that curl reads, and may rewind to send again only while it has not had all of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def seek(self, offset: int, origin: int) -> None:
        if origin != 0 or (offset < self._at and self._at == len(self._data)):
            raise OSError("the backend may have acted on this request already")
        self._at = offset


class _Pool:
    """One channel's connections, cookies and running transfers."""

    def __init__(self) -> None:
        self.multi: _Multi | None = None
        self.cookies = Cookies()
        self.running: set[_Transfer] = set()
        self.used_at = 0.0
        self.reached: set[str] = set()
        """Origins that a connection stood to; a failure takes its origin out again."""
        self._first: dict[str, _Transfer] = {}

    def start(self) -> _Multi:
        """Give the multi handle, made on first use."""
        if self.multi is None:
            self.multi = _Multi()
        return self.multi

    async def wait_for_first(self, origin: str, limit: float) -> None:
        """Return when no other request is making the first connection to that origin, or after `limit` seconds."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + limit
        pause = 0.0
        while origin not in self.reached and (first := self._first.get(origin)) is not None:
            if not first.connecting or loop.time() >= give_up_at:
                return
            await asyncio.sleep(pause)
            pause = min(pause + 0.001, 0.01)

    def begin(self, transfer: "_Transfer") -> None:
        """Note a transfer that starts."""
        self.running.add(transfer)
        if transfer.origin not in self.reached:
            self._first[transfer.origin] = transfer

    def end(self, transfer: "_Transfer", *, failed: bool) -> None:
        """Note a transfer that is over."""
        self.running.discard(transfer)
        if self._first.get(transfer.origin) is transfer:
            del self._first[transfer.origin]
        if failed:
            self.reached.discard(transfer.origin)

    async def disconnect(self) -> None:
        """Abort what runs and close the connections; the cookies stay."""
        self.reached.clear()
        for transfer in list(self.running):
            transfer.abort(TransportError("The server is stopping.", phase="connect"))
        if (multi := self.multi) is not None:
            self.multi = None
            await multi.close()


class _Transfer:
    """One request on its way and its answer; the ResponseStream that `CurlTransport.open` gives."""

    def __init__(self, channel: Channel, request: Request, pool: _Pool, ca_file: str | None) -> None:
        self._channel = channel
        self._request = request
        self._host = urlsplit(request.url).hostname or ""
        self.origin = _origin(request.url)
        self._pool = pool
        self._multi = pool.start()
        self._block = HeaderBlock(HEADER_LIMIT)
        self._parts: list[bytes] = []
        self._held = 0
        self._paused = False
        self._ended = False
        self._failure: BaseException | None = None
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._easy: _Easy | None = _Easy(cacert=ca_file or "")
        try:
            self._configure(self._easy)
            self._done = cast("asyncio.Future[None]", self._multi.add_handle(self._easy))
        except BaseException:
            self._easy.close()
            raise
        self._done.add_done_callback(self._on_done)
        pool.begin(self)

    def _configure(self, easy: _Easy) -> None:
        request, channel = self._request, self._channel
        easy.impersonate(channel.profile.impersonate, default_headers=False)
        set_option = easy.setopt
        for option, value in _FIXED_OPTIONS:
            set_option(option, value)
        set_option(CurlOpt.URL, request.url)
        set_option(CurlOpt.PROXY, channel.proxy or "")
        set_option(CurlOpt.ACCEPT_ENCODING, channel.profile.accept_encoding)
        set_option(CurlOpt.WRITEFUNCTION, self._on_data)
        set_option(CurlOpt.HEADERFUNCTION, self._on_header)
        if request.address is not None:
            set_option(CurlOpt.RESOLVE, [_pin(request.url, request.address)])
        self._configure_method(easy)
        headers = wire_headers(channel.profile.header_order, self._default_headers(), self._given_headers())
        # "Name;" is curl's way to write a header whose value is empty; "Name:" would suppress it.
        lines = [f"{name}: {value}" if value else f"{name};" for name, value in headers]
        easy.setopt(CurlOpt.HTTPHEADER, [line.encode("latin-1") for line in [*lines, *_SUPPRESSED]])

    def _configure_method(self, easy: _Easy) -> None:
        method, body = self._request.method, self._request.body
        if body is None and method == "HEAD":
            easy.setopt(CurlOpt.NOBODY, 1)
        elif body is not None or method == "POST":
            easy.setopt(CurlOpt.POST, 1)
            easy.setopt(CurlOpt.POSTFIELDSIZE_LARGE, len(body or b""))
            if body:
                source = _Body(body)
                easy.setopt(CurlOpt.READDATA, source)
                easy.setopt(CurlOpt.SEEKDATA, source)
            else:
                easy.setopt(CurlOpt.POSTFIELDS, b"")
                easy.setopt(CurlOpt.FRESH_CONNECT, 1)
        if method not in ("GET", "HEAD", "POST") or (method == "GET" and body is not None):
            easy.setopt(CurlOpt.CUSTOMREQUEST, method)

    def _default_headers(self) -> list[tuple[str, str]]:
        profile = self._channel.profile
        defaults = [("User-Agent", profile.user_agent), *profile.headers, ("Accept", "*/*")]
        defaults.append(("Accept-Encoding", profile.accept_encoding))
        if self._request.body is not None or self._request.method == "POST":
            defaults.append(("Content-Length", str(len(self._request.body or b""))))
        return defaults

    def _given_headers(self) -> list[tuple[str, str]]:
        """Give the request's headers with the channel's cookies merged into its own."""
        given = list(self._request.headers)
        cookies = "; ".join(value for name, value in given if name.lower() == "cookie")
        if merged := self._pool.cookies.header(self._request.url, cookies):
            given = [(name, value) for name, value in given if name.lower() != "cookie"]
            given.append(("Cookie", merged))
        return given

    @property
    def status(self) -> int:
        return self._block.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._block.headers

    async def wait_for_headers(self, connect_timeout: float, headers_timeout: float) -> None:
        """Return when the final head is here. The second limit counts from the end of the first phase."""
        connect_by = self._started_at + connect_timeout
        while not self._block.complete:
            if self._failure is not None:
                raise self._failure
            now = self._loop.time()
            connected = self._connected_after()
            if connected is None:
                # Whenever the connection stands, its own limit ends later than this, so nothing is missed by sleeping.
                wake_at, phase = min(connect_by, now + headers_timeout), "connect"
                late = now >= connect_by
            else:
                wake_at, phase = self._started_at + connected + headers_timeout, "headers"
                late = now >= wake_at
            if late:
                raise UpstreamTimeoutError(_TIMEOUT_TEXTS[phase].format(host=self._host), phase=phase)
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(wake_at):
                    await self._wake.wait()
        self._pool.reached.add(self.origin)
        if self._block.set_cookies:
            self._pool.cookies.store(self._request.url, self._block.set_cookies)
        if self._block.status == 407 and self._channel.proxy is not None:
            # Asked in absolute form, for an http origin, a proxy refuses with an answer; a tunnel fails as an error.
            raise TransportError(_FAILURE_TEXTS["proxy"].format(host=self._host), phase="proxy")

    async def read(self) -> bytes:
        if self._parts:
            await asyncio.sleep(0)
        while not self._parts:
            if self._failure is not None:
                await asyncio.sleep(0)
                raise self._failure
            if self._ended:
                await asyncio.sleep(0)
                return b""
            self._wake.clear()
            await self._wake.wait()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if self._paused:
            self._resume()
        return data

    async def aclose(self) -> None:
        self.abort(TransportError("The answer was closed by its reader.", phase="body", request_sent=True))

    def abort(self, failure: BaseException) -> None:
        """Stop now: the connection is closed, or the HTTP/2 stream reset. A reader that waits gets `failure`."""
        if self._easy is None:
            return
        if not self._done.done():
            self._multi.remove_handle(self._easy)
        self._finish(failure)

    def _resume(self) -> None:
        self._paused = False
        if self._easy is None:
            return
        try:
            self._easy.pause(0)
        except CurlError as error:
            self.abort(self._describe(error))

    def _finish(self, failure: BaseException | None) -> None:
        self._failure = self._failure or failure
        self._ended = True
        self._pool.end(self, failed=failure is not None)
        if self._easy is not None:
            self._easy.close()
            self._easy = None
        self._wake.set()

    # Called by curl, inside the loop's reader callbacks. What they raise reaches `_on_done` through the future.

    def _on_header(self, line: bytes) -> int:
        self._block.feed(line)
        if self._block.complete and not self._wake.is_set():
            self._wake.set()
        return len(line)

    def _on_data(self, data: bytes) -> int:
        if self._held >= HELD_LIMIT:
            self._paused = True
            return _PAUSE
        self._parts.append(data)
        self._held += len(data)
        self._wake.set()
        return len(data)

    def _on_done(self, done: asyncio.Future[None]) -> None:
        if done.cancelled():
            return
        error = done.exception()  # asked for even when nobody cares any more, or asyncio would report it as lost
        if self._easy is None:
            return
        if isinstance(error, CurlError):
            self._finish(self._describe(error))
        elif error is None and not self._block.complete:
            sent = self._request_sent()
            text = f"{self._host} ended the answer before its headers."
            self._finish(TransportError(text, phase="headers", request_sent=sent))
        else:
            self._finish(error)

    @property
    def connecting(self) -> bool:
        """Whether the transfer still resolves, connects or greets; asking also notes an origin that was reached."""
        if self._easy is None:
            return False
        if self._connected_after() is None:
            return True
        self._pool.reached.add(self.origin)
        return False

    def _connected_after(self) -> float | None:
        """Give the seconds that resolving, connecting and TLS took; None while they go on."""
        micros = self._number(CurlInfo.PRETRANSFER_TIME_T)
        return micros / 1e6 if micros else None

    def _number(self, info: CurlInfo) -> int:
        return cast(int, self._easy.getinfo(info)) if self._easy is not None else 0

    def _describe(self, error: CurlError) -> UpstreamError:
        """Turn curl's error into ours. Its own text is left out: it may name the proxy or the whole URL."""
        code = int(error.code)
        failure: UpstreamError
        phase = self._phase(code)
        if code == CurlECode.OPERATION_TIMEDOUT:
            phase = phase if phase in ("headers", "body") else "connect"
            failure = UpstreamTimeoutError(_TIMEOUT_TEXTS[phase].format(host=self._host), phase=phase)
        else:
            text = f"{_FAILURE_TEXTS[phase].format(host=self._host)} (curl {code})"
            failure = TransportError(
                text, phase=phase, request_sent=phase in ("headers", "body") and self._request_sent()
            )
        failure.__cause__ = error
        return failure

    def _phase(self, code: int) -> str:
        """Name how far the request came. The failed connection's own codes go first, the rest by what was sent."""
        if self._block.complete:
            return "body"
        proxy = self._channel.proxy
        if code in _TLS_CODES:
            own = proxy is None or not proxy.startswith("https:") or self._number(CurlInfo.HTTP_CONNECTCODE) == 200
            return "tls" if own else "proxy"
        if code == CurlECode.COULDNT_RESOLVE_HOST:
            return "resolve"
        if code in _CONNECT_CODES or not self._number(CurlInfo.REQUEST_SIZE):
            return "connect" if proxy is None else "proxy"
        return "headers" if self._request_sent() else "send"

    def _request_sent(self) -> bool:
        """Whether the last byte of the request has left, as far as our side can know."""
        uploaded = self._number(CurlInfo.SIZE_UPLOAD_T)
        return self._number(CurlInfo.REQUEST_SIZE) > 0 and uploaded >= len(self._request.body or b"")


class CurlTransport:
    """The Transport that speaks as a browser, over libcurl."""

    def __init__(
        self, *, ca_file: str | None = None, idle_timeout: float = IDLE_TIMEOUT, clock: Clock | None = None
    ) -> None:
        """Make a transport; nothing happens before the first request.

        `ca_file` is a PEM file of trusted authorities, None for the machine's; `idle_timeout` is when the connections
        of an unused channel are closed.
        """
        self._ca_file = ca_file
        self._idle_timeout = idle_timeout
        self._clock = clock or SystemClock()
        self._pools: dict[Channel, _Pool] = {}
        self._housekeeping: asyncio.Task[None] | None = None
        self._closed = False

    async def fetch(
        self,
        channel: Channel,
        request: Request,
        *,
        connect_timeout: float,
        timeout: float,
        max_bytes: int = 4 * 1024 * 1024,
    ) -> Response:
        """Give the whole answer; see Transport."""
        try:
            async with asyncio.timeout(timeout):
                stream = await self.open(channel, request, connect_timeout=connect_timeout, headers_timeout=timeout)
                try:
                    body = await _read_all(stream, max_bytes)
                finally:
                    await stream.aclose()
        except TimeoutError as error:
            text = _TIMEOUT_TEXTS["whole"].format(host=urlsplit(request.url).hostname)
            raise UpstreamTimeoutError(text, phase="whole") from error
        return Response(stream.status, stream.headers, body, request.url)

    async def open(
        self, channel: Channel, request: Request, *, connect_timeout: float, headers_timeout: float
    ) -> ResponseStream:
        """Give the answer as a stream; see Transport. Raises DrainingError once the transport is closed."""
        _check(channel, request)
        loop = asyncio.get_running_loop()
        connect_by = loop.time() + connect_timeout
        await self._pool(channel).wait_for_first(_origin(request.url), min(connect_timeout, FIRST_CONNECTION_WAIT))
        pool = self._pool(channel)  # asked for again: the transport may have been closed meanwhile
        connect_timeout = connect_by - loop.time()
        transfer = _Transfer(channel, request, pool, self._ca_file)
        try:
            await transfer.wait_for_headers(connect_timeout, headers_timeout)
        except BaseException:
            await transfer.aclose()
            raise
        finally:
            pool.used_at = self._clock.monotonic()
        return transfer

    async def close_idle(self) -> None:
        """Close the connections of channels that are long unused, and forget cookies that are longer unused still."""
        now = self._clock.monotonic()
        idle: list[tuple[float, _Pool]] = []
        for channel, pool in list(self._pools.items()):
            if pool.running:
                pool.used_at = now
                continue
            unused = now - pool.used_at
            if unused >= (COOKIE_TIMEOUT if pool.cookies else self._idle_timeout):
                del self._pools[channel]
            if pool.multi is not None:
                idle.append((unused, pool))
        idle.sort(key=lambda item: item[0])
        for place, (unused, pool) in enumerate(idle):
            if unused >= self._idle_timeout or place >= IDLE_CHANNELS:
                await pool.disconnect()

    async def aclose(self) -> None:
        """Abort what runs and close all connections; idempotent."""
        self._closed = True
        if (task := self._housekeeping) is not None:
            self._housekeeping = None
            task.cancel()
            await asyncio.wait([task])
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.disconnect()

    def _pool(self, channel: Channel) -> _Pool:
        if self._closed:
            raise DrainingError("The server is stopping.")
        pool = self._pools.get(channel)
        if pool is None:
            pool = self._pools[channel] = _Pool()
        pool.used_at = self._clock.monotonic()
        if self._housekeeping is None:
            loop = asyncio.get_running_loop()
            self._housekeeping = loop.create_task(self._keep_house(), name="transport housekeeping")
        return pool

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(_HOUSEKEEPING_PERIOD)
            await self.close_idle()


def _check(channel: Channel, request: Request) -> None:
    """Refuse what curl would read differently than the caller meant. Raises ValueError."""
    parts = urlsplit(request.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("a request needs an http or https URL with a host and without credentials")
    if channel.proxy is not None and urlsplit(channel.proxy).scheme not in _PROXY_SCHEMES:
        raise ValueError("a proxy needs one of the schemes " + ", ".join(_PROXY_SCHEMES))
    if not request.method.isalpha() or not request.method.isupper():
        raise ValueError("a method is written in capital letters")
    for name, _ in request.headers:
        if name.lower() in _OURS:
            raise ValueError(f"header {name} is for the transport to write")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _pin(url: str, address: str) -> str:
    """Give curl's entry that binds the host of `url` to an address; "+" lets it expire like a looked-up one."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    parsed = ip_address(address)
    return f"+{parts.hostname}:{port}:{f'[{parsed}]' if parsed.version == 6 else parsed}"


async def _read_all(stream: ResponseStream, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await stream.read():
        size += len(part)
        if size > max_bytes:
            raise UpstreamProtocolError(f"The upstream's answer is longer than {max_bytes} bytes.")
        parts.append(part)
    return b"".join(parts)
