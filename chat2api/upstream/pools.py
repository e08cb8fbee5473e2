"""What belongs to one channel: its connections, its cookies, its running transfers, its browser's headers."""

import asyncio
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Protocol

from chat2api.clock import Clock
from chat2api.errors import TransportError
from chat2api.upstream.alarms import Alarms
from chat2api.upstream.cookies import Cookies
from chat2api.upstream.exchange import Channel, Request
from chat2api.upstream.headers import HeaderLines, Lines
from chat2api.upstream.transfer import Handle, Limits, Transfer
from chat2api.upstream.urls import Location

_SOCKET_ORDER = (
    "pragma",
    "cache-control",
    "user-agent",
    "origin",
    "sec-websocket-version",
    "accept-encoding",
    "accept-language",
    "cookie",
    "sec-websocket-key",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
)
"""How Chromium orders the headers of a web socket's handshake, as published captures show it (2025).

curl writes Upgrade before them and Connection behind them."""

_HANDSHAKE = (
    ("Pragma", "no-cache"),
    ("Cache-Control", "no-cache"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
)
"""What a browser says in every handshake. It tells neither its client hints nor what it accepts there."""


class Connections(Protocol):
    """The connections of one channel."""

    def take(self, request: Request, lines: Lines, pinned: bytes | None) -> Handle:
        """Give a handle for a request with these header lines.

        `pinned` is curl's entry that binds the URL's host to an address.
        """
        ...

    def close(self) -> None:
        """Close them; every handle must have been released before."""
        ...


class Pool:
    """One channel's part of a transport."""

    def __init__(
        self, channel: Channel, connect: Callable[[Channel], Connections], clock: Clock, alarms: Alarms
    ) -> None:
        """Make a pool whose connections are made by `connect` on first use; `alarms` ring for its transfers' limits."""
        profile = channel.profile
        self.alarms = alarms
        self.cookies = Cookies(clock.now)
        self.running: set[Transfer] = set()
        self.used_at = 0.0
        """When a request last began or ended, on the clock's monotonic time."""
        self._clock = clock
        self._channel = channel
        self._connect = connect
        self._connections: Connections | None = None
        self._lines = HeaderLines(
            profile.header_order,
            [
                ("User-Agent", profile.user_agent),
                *profile.headers,
                ("Accept", "*/*"),
                ("Accept-Encoding", profile.accept_encoding),
            ],
        )
        own = (("User-Agent", profile.user_agent), ("Accept-Encoding", profile.accept_encoding))
        self._socket_lines = HeaderLines(_SOCKET_ORDER, (*_HANDSHAKE, *own))
        self._reached: set[str] = set()
        """Origins that a connection stood to; a failure takes its origin out again."""
        self._first: dict[str, Transfer] = {}

    @property
    def connected(self) -> bool:
        """Whether there may be open connections."""
        return self._connections is not None

    def send(self, request: Request, location: Location, limits: Limits) -> Transfer:
        """Start a request. Raises ValueError for headers or an address that cannot go on the wire."""
        body = request.body
        length = None if body is None and request.method != "POST" else len(body or b"")
        if request.upload is not None:
            length = request.upload.length
        known = self._socket_lines if request.upgrade else self._lines
        lines = known.lines(
            request.headers,
            request.varying,
            length=length,
            add_cookies=partial(self.cookies.header, request.url) if self.cookies else None,
        )
        pinned = None if request.address is None else _pin(location, request.address)
        if self._connections is None:
            self._connections = self._connect(self._channel)
        handle = self._connections.take(request, lines, pinned)
        transfer = Transfer(handle, self, request, location, self._channel.proxy, limits)
        self.running.add(transfer)
        if location.origin not in self._reached:
            self._first[location.origin] = transfer
        try:
            transfer.start()
        except BaseException as error:
            transfer.abort(error)
            raise
        return transfer

    def arrive(self, transfer: Transfer, set_cookies: list[str]) -> None:
        """Note an origin that answered, and its cookies."""
        self._reached.add(transfer.location.origin)
        if set_cookies and self._channel.profile.cookies:
            self.cookies.store(transfer.url, set_cookies)

    def end(self, transfer: Transfer, *, failed: bool) -> None:
        """Note a transfer that is over."""
        self.running.discard(transfer)
        self.used_at = self._clock.monotonic()
        origin = transfer.location.origin
        if self._first.get(origin) is transfer:
            del self._first[origin]
        if failed:
            self._reached.discard(origin)

    def must_wait(self, origin: str) -> bool:
        """Whether another request is making the first connection to that origin."""
        if origin in self._reached or (first := self._first.get(origin)) is None:
            return False
        if first.connecting:
            return True
        self._reached.add(origin)
        return False

    async def wait_for_first(self, origin: str, limit: float) -> None:
        """Return when no other request is making the first connection to that origin, or after `limit` seconds."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + limit
        pause = 0.0
        while self.must_wait(origin) and loop.time() < give_up_at:
            await asyncio.sleep(pause)
            pause = min(pause + 0.001, 0.01)

    def disconnect(self) -> None:
        """Abort what runs and close the connections; the cookies stay."""
        self._reached.clear()
        for transfer in list(self.running):
            transfer.abort(TransportError("The server is stopping.", phase="connect"))
        if (connections := self._connections) is not None:
            self._connections = None
            connections.close()


def _pin(location: Location, address: str) -> bytes:
    """Give curl's entry that binds a host to an address; "+" lets it expire like a looked-up one."""
    parsed = ip_address(address)
    return f"+{location.host}:{location.port}:{f'[{parsed}]' if parsed.version == 6 else parsed}".encode()
