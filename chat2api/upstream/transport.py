"""The door to the network: requests as a browser would make them, cancelled at once, slowed when we are slow.

Theory of operation. A `Channel` has one curl multi handle (`multi`), and with it its own connections, TLS sessions and
cookies (`pools`); a request is one easy handle on it (`easy`), and what becomes of it a `transfer`. There are no threads
and no tasks per request. What is not obvious:

- Back-pressure: the write callback answers PAUSE while too much is held; curl then keeps the chunk and offers it again
  when the reader resumes it. `easy.pause` may call the write callback before it returns.
- curl by itself resends a request when a pooled connection dies before a byte of the answer. It reads a body through
  an object that refuses to be rewound once curl has had all of it, so that no POST that the backend may have acted
  upon is ever sent twice; a POST without a body gets a connection of its own for the same reason.
- A body that comes while it is sent (`uploads`) is read in the same way; where nothing of it is here yet, curl is paused
  and resumed once there is.
- Requests that start at once on a new channel wait until the first of them has its connection, to share it when it is
  HTTP/2. curl's own PIPEWAIT is no use: what waits there is let go when a transfer ends, not when it is connected, so
  one long stream over HTTP/1.1, or a hundred over HTTP/2, hold up all others (seen with 8.21).
- A web socket is a request that is answered with 101, over HTTP/1.1 and a connection of its own. curl gives its bytes
  as they come (WS_OPTIONS raw) and `sockets` reads the frames; only so are messages told apart, and PAUSE holds them up.
  In that mode curl sends nothing outside of its callbacks, so it is off while a frame is sent.
- curl's HTTP_PROXY and NO_PROXY variables are switched off: the exit of a channel is what the channel says.
"""

import asyncio
import os
from base64 import b64encode

from chat2api.clock import Clock, SystemClock
from chat2api.errors import DrainingError, UpstreamProtocolError
from chat2api.upstream.alarms import Alarms
from chat2api.upstream.exchange import BrowserProfile, Channel, Request, Response, ResponseStream, Transport, WebSocket
from chat2api.upstream.multi import MultiHandle
from chat2api.upstream.pools import Pool
from chat2api.upstream.readiness import Readiness, watch_sockets
from chat2api.upstream.sockets import FramedSocket
from chat2api.upstream.transfer import HEADER_LIMIT, HELD_LIMIT, Limits, Transfer
from chat2api.upstream.urls import Location, locate

__all__ = [
    "FIRST_CONNECTION_WAIT",
    "HEADER_LIMIT",
    "HELD_LIMIT",
    "IDLE_CHANNELS",
    "IDLE_TIMEOUT",
    "BrowserProfile",
    "Channel",
    "CurlTransport",
    "Request",
    "Response",
    "ResponseStream",
    "Transport",
    "WebSocket",
]

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

_HOUSEKEEPING_PERIOD = 30.0
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


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
        self._pools: dict[Channel, Pool] = {}
        self._readiness: Readiness | None = None
        self._alarms: Alarms | None = None
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
        now = asyncio.get_running_loop().time()
        limits = Limits(now + min(connect_timeout, timeout), whole_by=now + timeout, max_bytes=max_bytes)
        transfer = self._start(channel, request, limits) or await self._start_later(channel, request, limits)
        try:
            body = await transfer.take_whole()
        finally:
            await transfer.aclose()
        return Response(transfer.status, transfer.headers, body, request.url)

    async def open(
        self, channel: Channel, request: Request, *, connect_timeout: float, headers_timeout: float
    ) -> ResponseStream:
        """Give the answer as a stream; see Transport. Raises DrainingError once the transport is closed."""
        now = asyncio.get_running_loop().time()
        limits = Limits(now + connect_timeout, headers_timeout)
        transfer = self._start(channel, request, limits) or await self._start_later(channel, request, limits)
        try:
            await transfer.wait_for_head()
        except BaseException:
            await transfer.aclose()
            raise
        return transfer

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
        """Open a web socket; see Transport. Raises DrainingError once the transport is closed."""
        if locate(url).scheme not in ("ws", "wss"):
            raise ValueError("a web socket needs a ws or wss URL")
        headers = (*headers, ("Sec-WebSocket-Key", b64encode(os.urandom(16)).decode()))
        if sub_protocol is not None:
            headers = (*headers, ("Sec-WebSocket-Protocol", sub_protocol))
        # Cookies and origins go by the http URL, as in a browser.
        request = Request("GET", "http" + url.removeprefix("ws"), headers, upgrade=True)
        _check(request, locate(request.url))
        limits = Limits(asyncio.get_running_loop().time() + connect_timeout, headers_timeout)
        transfer = self._pool(channel).send(request, locate(url), limits)
        try:
            await transfer.wait_for_head()
            if transfer.status != 101:
                answered = f"{transfer.location.host} answered {transfer.status} and opened no web socket."
                raise UpstreamProtocolError(answered)
            return FramedSocket(transfer, transfer.headers.get("sec-websocket-extensions", ""), ping_period)
        except BaseException:
            await transfer.aclose()
            raise

    def _start(self, channel: Channel, request: Request, limits: Limits) -> Transfer | None:
        """Start a request; None while another one makes the first connection, which it could share."""
        location = locate(request.url)
        _check(request, location)
        pool = self._pool(channel)
        return None if pool.must_wait(location.origin) else pool.send(request, location, limits)

    async def _start_later(self, channel: Channel, request: Request, limits: Limits) -> Transfer:
        """Start a request once nobody makes the first connection that it could share."""
        location = locate(request.url)
        left = limits.connect_by - asyncio.get_running_loop().time()
        await self._pool(channel).wait_for_first(location.origin, min(left, FIRST_CONNECTION_WAIT))
        # The pool is asked for again: the transport may have been closed meanwhile.
        return self._pool(channel).send(request, location, limits)

    async def close_idle(self) -> None:
        """Close the connections of channels that are long unused, and forget cookies that are longer unused still."""
        now = self._clock.monotonic()
        idle: list[tuple[float, Pool]] = []
        for channel, pool in list(self._pools.items()):
            if pool.running:
                pool.used_at = now
                continue
            unused = now - pool.used_at
            if unused >= (COOKIE_TIMEOUT if pool.cookies else self._idle_timeout):
                del self._pools[channel]
            if pool.connected:
                idle.append((unused, pool))
        idle.sort(key=lambda item: item[0])
        for place, (unused, pool) in enumerate(idle):
            if unused >= self._idle_timeout or place >= IDLE_CHANNELS:
                pool.disconnect()

    async def aclose(self) -> None:
        """Abort what runs and close all connections; idempotent."""
        self._closed = True
        if (task := self._housekeeping) is not None:
            self._housekeeping = None
            task.cancel()
            await asyncio.wait([task])
        while self._pools:
            _, pool = self._pools.popitem()
            pool.disconnect()
        if self._readiness is not None:
            self._readiness.close()
        if self._alarms is not None:
            self._alarms.close()

    def _pool(self, channel: Channel) -> Pool:
        if self._closed:
            raise DrainingError("The server is stopping.")
        pool = self._pools.get(channel)
        if pool is None:
            pool = self._pools[channel] = self._make_pool(channel)
        pool.used_at = self._clock.monotonic()
        if self._housekeeping is None:
            loop = asyncio.get_running_loop()
            self._housekeeping = loop.create_task(self._keep_house(), name="transport housekeeping")
        return pool

    def _make_pool(self, channel: Channel) -> Pool:
        if channel.proxy is not None and locate(channel.proxy).scheme not in _PROXY_SCHEMES:
            raise ValueError("a proxy needs one of the schemes " + ", ".join(_PROXY_SCHEMES))
        if self._alarms is None:
            self._alarms = Alarms(asyncio.get_running_loop())
        return Pool(channel, self._connect, self._clock, self._alarms)

    def _connect(self, channel: Channel) -> MultiHandle:
        if self._readiness is None:
            self._readiness = watch_sockets(asyncio.get_running_loop())
        return MultiHandle(channel, self._ca_file, self._readiness)

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(_HOUSEKEEPING_PERIOD)
            await self.close_idle()


def _check(request: Request, location: Location) -> None:
    """Refuse what curl would read differently than the caller meant. Raises ValueError."""
    if location.scheme not in ("http", "https") or not location.host or location.credentials:
        raise ValueError("a request needs an http or https URL with a host and without credentials")
    if request.upload is not None and (request.method != "POST" or request.body is not None):
        raise ValueError("an upload is the body of a POST")
    if not request.method.isalpha() or not request.method.isupper():
        raise ValueError("a method is written in capital letters")
