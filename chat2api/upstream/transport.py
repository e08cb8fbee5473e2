"""The door to the network: requests as a browser would make them, cancelled at once, slowed when we are slow.

Theory of operation. A `Channel` has one curl multi handle, and with it its own connections, TLS sessions and
cookies (`pools`); a request is one easy handle on it (`transfer`). curl says which sockets it waits for and until
when; `readiness` watches them, and each look at what is ready lets curl read and call back into the transfers. There
are no threads and no tasks per request. What is not obvious:

- Abort is `remove_handle` and then `close` of the easy handle, in that order, at once and from ordinary code, never
  inside a callback of curl's. It works in every phase since nothing waits for curl to notice. The multi handle is
  closed last, after all its easy handles: the other order is a use after free.
- Back-pressure: the write callback answers PAUSE while too much is held; curl then keeps the chunk and offers it again
  when the reader resumes it. `easy.pause` may call the write callback before it returns.
- An easy handle whose request ended well is kept for the next one of the same shape: most of what a request costs
  otherwise is telling a new handle which browser it is. Method and kind of body never change on a handle, so nothing
  of one request can be left over in the next but what `_Easy.prepare` sets each time.
- curl by itself resends a request when a pooled connection dies before a byte of the answer. It reads a body through
  `_Body`, which refuses to be rewound once curl has had all of it, so that no POST that the backend may have acted
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
from collections.abc import Callable
from math import inf
from typing import Any, Literal, cast

from curl_cffi import Curl, CurlError, CurlInfo, CurlMOpt, CurlOpt, ffi, lib  # noqa: TID251 - this is its door

from chat2api.clock import Clock, SystemClock
from chat2api.errors import DrainingError, UpstreamProtocolError
from chat2api.upstream.exchange import BrowserProfile, Channel, Request, Response, ResponseStream, Transport, WebSocket
from chat2api.upstream.pools import Pool
from chat2api.upstream.readiness import IN, OUT, Readiness, watch_sockets
from chat2api.upstream.sockets import FramedSocket
from chat2api.upstream.transfer import HEADER_LIMIT, HELD_LIMIT, Limits, Receiver, Transfer
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

_CONNECTIONS_KEPT = 64
_HANDLES_KEPT = 32
"""Easy handles that a channel keeps for requests to come, of all shapes together."""

_HOUSEKEEPING_PERIOD = 30.0
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_SUPPRESSED = (b"Expect:", b"Content-Type:")
_HTTP_1 = 2  # CURL_HTTP_VERSION_1_1
_RAW_FRAMES = 1  # CURLWS_RAW_MODE
_HTTP_2_OVER_TLS = 4  # CURL_HTTP_VERSION_2TLS: the plain `2` of the profiles would ask http origins for h2c
_NO_SOCKET = -1  # CURL_SOCKET_TIMEOUT and CURL_SOCKET_BAD
_FIXED_OPTIONS: tuple[tuple[CurlOpt, int | bytes], ...] = (
    (CurlOpt.HTTP_VERSION, _HTTP_2_OVER_TLS),
    (CurlOpt.PROTOCOLS_STR, b"http,https"),
    (CurlOpt.NOSIGNAL, 1),
    (CurlOpt.TCP_KEEPALIVE, 1),
    (CurlOpt.NOPROXY, b""),
    (CurlOpt.SUPPRESS_CONNECT_HEADERS, 1),
)
_SOCKET_OPTIONS: tuple[tuple[CurlOpt, int | bytes], ...] = (
    (CurlOpt.HTTP_VERSION, _HTTP_1),
    (CurlOpt.PROTOCOLS_STR, b"ws,wss"),
    (CurlOpt.FRESH_CONNECT, 1),
    (CurlOpt.WS_OPTIONS, _RAW_FRAMES),
)
_URL, _HTTPHEADER, _BODY_SIZE = int(CurlOpt.URL), int(CurlOpt.HTTPHEADER), int(CurlOpt.POSTFIELDSIZE_LARGE)

_Shape = tuple[str, Literal["none", "empty", "some", "upload", "socket"]]
"""What an easy handle is for: the method, and what body goes with it, or that it becomes a web socket."""


class _Body:
    """A request body that curl reads, and may rewind to send again only while it has not had all of it."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def load(self, data: bytes) -> None:
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


class _Easy(Curl):
    """An easy handle of one channel and shape, without curl_cffi's websocket buffer of 128 KiB; see `Handle`."""

    _WS_RECV_BUFFER_SIZE = 1

    def __init__(self, multi: "_Multi", shape: _Shape) -> None:
        super().__init__(cacert=multi.ca_file)
        self.shape = shape
        self.single = False
        """Whether it has options that no other request may inherit."""
        self.receiver: Receiver | None = None
        self.socket = _NO_SOCKET
        self.settled = False
        self._multi = multi
        self._body = _Body()
        self._configure(multi.channel)

    def _configure(self, channel: Channel) -> None:
        method, body = self.shape
        if channel.profile.impersonate:
            self.impersonate(channel.profile.impersonate, default_headers=False)
        for option, value in _FIXED_OPTIONS:
            self.setopt(option, value)
        self.setopt(CurlOpt.PROXY, (channel.proxy or "").encode())
        self.setopt(CurlOpt.ACCEPT_ENCODING, channel.profile.accept_encoding.encode())
        self.setopt(CurlOpt.WRITEFUNCTION, None)
        self.setopt(CurlOpt.HEADERFUNCTION, None)
        if body == "some":
            self.setopt(CurlOpt.POST, 1)
            self.setopt(CurlOpt.READDATA, self._body)
            self.setopt(CurlOpt.SEEKDATA, self._body)
        elif body == "upload":
            self.single = True
            self.setopt(CurlOpt.POST, 1)
        elif body == "empty":
            self.setopt(CurlOpt.POST, 1)
            self.setopt(CurlOpt.POSTFIELDS, b"")
            self.setopt(CurlOpt.POSTFIELDSIZE_LARGE, 0)
            self.setopt(CurlOpt.FRESH_CONNECT, 1)
        elif body == "socket":
            self.single = True
            for option, value in _SOCKET_OPTIONS:
                self.setopt(option, value)
        elif method == "HEAD":
            self.setopt(CurlOpt.NOBODY, 1)
        if method not in ("GET", "HEAD", "POST") or (method == "GET" and body in ("some", "empty")):
            self.setopt(CurlOpt.CUSTOMREQUEST, method.encode())

    def prepare(self, request: Request, lines: list[bytes], pinned: bytes | None) -> None:
        """Set all that differs between two requests of one shape."""
        self._set(_URL, (_socket_url(request.url) if request.upgrade else request.url).encode())
        if request.body:
            self._body.load(request.body)
            self._set(_BODY_SIZE, ffi.new("int64_t *", len(request.body)))
        elif request.upload is not None:
            self.setopt(CurlOpt.READDATA, request.upload)
            self.setopt(CurlOpt.SEEKDATA, request.upload)
            length = request.upload.length
            self._set(_BODY_SIZE, ffi.new("int64_t *", -1 if length is None else length))
        headers = ffi.NULL
        for line in (*lines, *_SUPPRESSED):
            headers = lib.curl_slist_append(headers, line)
        self._headers = headers
        self._set(_HTTPHEADER, headers)
        if pinned is not None:
            self.single = True
            self.setopt(CurlOpt.RESOLVE, [pinned])

    def _set(self, option: int, value: object) -> None:
        # Like setopt, which spends more on looking for the kind of an option than curl does on setting it.
        self._check_error(lib._curl_easy_setopt(self._curl, option, value), "setopt", option)

    def start(self, receiver: Receiver) -> None:
        self.receiver = receiver
        ffi.from_handle(self._write_handle).callback = receiver.on_data
        ffi.from_handle(self._header_handle).callback = receiver.on_header
        self._multi.add(self)

    def settle(self, *, shared: bool) -> None:
        self._multi.settle(self, shared=shared)

    def afterwards(self, callback: Callable[[], None]) -> None:
        self._multi.afterwards(callback)

    def resume(self) -> int:
        return self._multi.resume(self)

    def send_frame(self, kind: int, payload: bytes) -> int:
        self.setopt(CurlOpt.WS_OPTIONS, 0)
        try:
            self.ws_send(payload, kind)
        except CurlError as error:
            return int(error.code)
        finally:
            self.setopt(CurlOpt.WS_OPTIONS, _RAW_FRAMES)
            self._multi.grant()
        return 0

    def stop(self) -> None:
        self._multi.remove(self)

    def release(self, *, keep: bool) -> None:
        """Close the handle, or keep it empty: no header, body or receiver of a request stays longer than it runs."""
        self.receiver = None
        if not keep or self.single or not self._multi.give_back(self):
            self.close()
            return
        for kept in (self._write_handle, self._header_handle):
            ffi.from_handle(kept).callback = None
        self._body.load(b"")
        self._set(_HTTPHEADER, ffi.NULL)
        lib.curl_slist_free_all(self._headers)
        self._headers = ffi.NULL

    def raised(self) -> BaseException | None:
        """Give what one of the callbacks raised."""
        return self._get_callback_exception()

    def connected_after(self) -> float | None:
        micros = self.number(CurlInfo.PRETRANSFER_TIME_T)
        return micros / 1e6 if micros else None

    def sent(self) -> tuple[int, int]:
        return self.number(CurlInfo.REQUEST_SIZE), self.number(CurlInfo.SIZE_UPLOAD_T)

    def tunnel_stands(self) -> bool:
        return self.number(CurlInfo.HTTP_CONNECTCODE) == 200

    def number(self, info: CurlInfo) -> int:
        """Give one of curl's numbers about the transfer."""
        return cast(int, self.getinfo(info))


class _Wishes:
    """Notes what curl's two callbacks ask for, to be granted when curl has returned; only a leave is taken at once.

    Once curl has closed a socket it is late for that: a forked process that still has it would keep it in the epoll
    object, where it could not be named any more.

    curl_cffi's callbacks expect an AsyncCurl with its loop and its set of sockets; this stands for all three. It
    asks whether a descriptor is in the set first, then adds readers and writers or removes it: so `changed` ends up with
    the bits to watch for, none for a socket that is done with.
    """

    def __init__(self, leave: Callable[[int], None]) -> None:
        self.loop = self._sockfds = self
        self._leave = leave
        self._timer = None
        self.changed: dict[int, int] = {}
        self.left: set[int] = set()
        """Descriptors that were done with at some moment: their numbers may have gone to new sockets since."""
        self.delay: float | None = None
        """Seconds until curl wants to be called; negative for not at all, None for as before."""

    def __contains__(self, fd: int) -> bool:
        self.changed[fd] = 0
        return False

    def add_reader(self, fd: int, *_: object) -> None:
        self.changed[fd] |= IN

    def add_writer(self, fd: int, *_: object) -> None:
        self.changed[fd] |= OUT

    def add(self, fd: int) -> None:
        """Nothing: the reader or writer said it."""

    def remove(self, fd: int) -> None:
        self.left.add(fd)
        self._leave(fd)

    def call_later(self, delay: float, *_: object) -> None:
        self.delay = delay

    def process_data(self) -> None:
        """Nothing: it is only handed to call_later and its like."""


class _Multi:
    """A channel's multi handle: its connections, the easy handles at work, and those kept for later."""

    def __init__(self, channel: Channel, ca_file: str | None, readiness: Readiness) -> None:
        self.channel = channel
        self.ca_file = ca_file or ""
        self._readiness = readiness
        self._loop = readiness.loop
        self._curlm = lib.curl_multi_init()
        self._running = ffi.new("int *")
        self._number = ffi.new("int *")
        self._easies: dict[Any, _Easy] = {}
        self._kept: dict[_Shape, list[_Easy]] = {}
        self._kept_count = 0
        self._sockets: set[int] = set()
        self._acting = _NO_SOCKET
        """The socket whose turn it is, or was last."""
        self._has_floor = False
        """Whether curl is at work on what a look at the sockets has found."""
        self._afterwards: list[Callable[[], None]] = []
        self._hurried = 0
        """Requests that wait for their answer's head, or for a whole answer."""
        self._shared: set[int] = set()
        """Sockets of HTTP/2 connections that have brought a stream's head."""
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = inf
        self._is_next = False
        self._closed = False
        self._wishes = _Wishes(readiness.unwatch)
        self._wishes_handle = ffi.new_handle(self._wishes)
        for option, value in (
            (CurlMOpt.SOCKETFUNCTION, lib.socket_function),
            (CurlMOpt.SOCKETDATA, self._wishes_handle),
            (CurlMOpt.TIMERFUNCTION, lib.timer_function),
            (CurlMOpt.TIMERDATA, self._wishes_handle),
            (CurlMOpt.MAXCONNECTS, ffi.new("long *", _CONNECTIONS_KEPT)),
            # Without this, closing waits for resolver threads that still run, and the event loop with it.
            (CurlMOpt.QUICK_EXIT, ffi.new("long *", 1)),
        ):
            _check_multi(lib.curl_multi_setopt(self._curlm, option, value))

    def take(self, request: Request, lines: list[bytes], pinned: bytes | None) -> _Easy:
        """Give a handle that is ready to start, an old one if there is one of its shape."""
        shape = _shape(request)
        if pinned is None and (kept := self._kept.get(shape)):
            easy = kept.pop()
            self._kept_count -= 1
        else:
            easy = _Easy(self, shape)
        try:
            easy.prepare(request, lines, pinned)
        except BaseException:
            easy.close()
            raise
        return easy

    def give_back(self, easy: _Easy) -> bool:
        """Keep a handle whose request ended well, unless there are enough."""
        if self._kept_count >= _HANDLES_KEPT:
            return False
        self._kept.setdefault(easy.shape, []).append(easy)
        self._kept_count += 1
        return True

    def add(self, easy: _Easy) -> None:
        """Start a request with the loop's next turn; curl asks for it by its timer."""
        easy._ensure_cacert()
        _check_multi(lib.curl_multi_add_handle(self._curlm, easy._curl))
        self._easies[easy._curl] = easy
        easy.socket, easy.settled = _NO_SOCKET, False
        self._hurried += 1
        for fd in self._shared:
            self._readiness.hurry(fd)
        self.grant()

    def remove(self, easy: _Easy) -> None:
        """Take a request out, whatever it is doing."""
        if self._easies.pop(easy._curl, None) is not None:
            lib.curl_multi_remove_handle(self._curlm, easy._curl)
            self._forget(easy)

    def resume(self, easy: _Easy) -> int:
        """Let a paused request go on; give curl's result code."""
        code = int(lib.curl_easy_pause(easy._curl, 0))
        self.grant()
        return code

    def settle(self, easy: _Easy, *, shared: bool) -> None:
        """Let a stream's socket wait for beats: its own, or a shared one while no other request is in a hurry.

        curl does not tell which socket is whose, but it was that socket's turn when the head came. When curl looks at
        another one in passing, the wrong one is settled: then some request on this channel may wait for a beat.
        """
        easy.settled = True
        self._readiness.begin_stream()
        if shared and self._acting != _NO_SOCKET:
            self._shared.add(self._acting)
        elif self._acting != _NO_SOCKET:
            easy.socket = self._acting
            self._readiness.settle(easy.socket)
        self._calm_down()

    def _calm_down(self) -> None:
        self._hurried -= 1
        if self._hurried == 0:
            for fd in self._shared:
                self._readiness.settle(fd)

    def _forget(self, easy: _Easy) -> None:
        """Take a request out of all counts, once what its removal closed is not watched any more."""
        self.grant()
        if not easy.settled:
            self._calm_down()
            return
        self._readiness.end_stream()
        if easy.socket != _NO_SOCKET:
            self._readiness.hurry(easy.socket)

    def close(self) -> None:
        """Close the connections; see Connections."""
        self._closed = True
        for kept in self._kept.values():
            for easy in kept:
                easy.close()
        self._kept.clear()
        lib.curl_multi_cleanup(self._curlm)
        for fd in self._sockets:
            self._readiness.unwatch(fd)
            self._readiness.hurry(fd)
        if self._timer is not None:
            self._timer.cancel()

    def _act(self, fd: int, bits: int) -> None:
        """Let curl do what there is to do for a ready socket, or for its timers when there is none."""
        self._acting = fd
        self._has_floor = True
        code = lib.curl_multi_socket_action(self._curlm, fd, bits, self._running)
        self._has_floor = False
        # curl reports an end by a message; there can be none while all handles that were added still run.
        if self._running[0] != len(self._easies) or fd == _NO_SOCKET:
            self._collect()
        self.grant()
        if self._afterwards:
            callbacks, self._afterwards = self._afterwards, []
            for callback in callbacks:
                callback()
        _check_multi(code)

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Call back at the end of the present act; without one, with the loop's next turn."""
        if self._has_floor:
            self._afterwards.append(callback)
        else:
            self._loop.call_soon(callback)

    def _collect(self) -> None:
        """Tell the requests that are over."""
        while (message := lib.curl_multi_info_read(self._curlm, self._number)) != ffi.NULL:
            easy, code = self._easies.pop(message.easy_handle), int(message.data.result)
            lib.curl_multi_remove_handle(self._curlm, easy._curl)
            self._forget(easy)
            if easy.receiver is not None:
                easy.receiver.on_end(code, easy.raised())

    def grant(self) -> None:
        """Do what curl's callbacks asked for."""
        wishes = self._wishes
        if wishes.changed:
            for fd, wanted in wishes.changed.items():
                renewed = fd in wishes.left
                if renewed and fd in self._shared:
                    self._shared.discard(fd)
                    self._readiness.unwatch(fd)
                    self._readiness.hurry(fd)
                if wanted:
                    self._sockets.add(fd)
                    self._readiness.watch(fd, wanted, self._act, renewed=renewed)
                else:
                    self._sockets.discard(fd)
                    if not renewed:  # else it was unwatched when it was left
                        self._readiness.unwatch(fd)
            wishes.changed.clear()
            wishes.left.clear()
        if (delay := wishes.delay) is not None:
            wishes.delay = None
            self._set_timer(delay)

    def _set_timer(self, delay: float) -> None:
        """Have curl called after that many seconds, or not at all when they are negative."""
        if delay == 0:
            # All requests that start in one turn of the loop begin together.
            self._due_at = inf
            if not self._is_next:
                self._is_next = True
                self._loop.call_soon(self._on_next_turn)
            return
        self._due_at = inf if delay < 0 else self._loop.time() + delay
        if self._due_at < inf and (self._timer is None or self._timer.when() > self._due_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._due_at, self._on_timer)

    def _on_next_turn(self) -> None:
        self._is_next = False
        if not self._closed:
            self._act(_NO_SOCKET, 0)

    def _on_timer(self) -> None:
        """Called at the time that was set last, or at an earlier one that curl has put off since."""
        self._timer = None
        left = self._due_at - self._loop.time()
        if left <= 0:
            self._due_at = inf
            self._act(_NO_SOCKET, 0)
        elif left < inf:
            self._timer = self._loop.call_at(self._due_at, self._on_timer)


def _socket_url(url: str) -> str:
    """Give the web socket's URL for the http(s) URL by which everything else knows it."""
    return "ws" + url.removeprefix("http")


def _shape(request: Request) -> _Shape:
    if request.upgrade:
        return request.method, "socket"
    if request.upload is not None:
        return request.method, "upload"
    if request.body:
        return request.method, "some"
    return request.method, "none" if request.body is None and request.method != "POST" else "empty"


def _check_multi(code: int) -> None:
    if code:
        raise CurlError(f"libcurl refused a multi call ({code})")


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
        transfer = await self._send(channel, request, limits)
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
        transfer = await self._send(channel, request, Limits(now + connect_timeout, headers_timeout))
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
        _check(channel, request, locate(request.url))
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

    async def _send(self, channel: Channel, request: Request, limits: Limits) -> Transfer:
        """Start a request, once nobody makes the first connection that it could share."""
        location = locate(request.url)
        _check(channel, request, location)
        pool = self._pool(channel)
        if pool.must_wait(location.origin):
            left = limits.connect_by - asyncio.get_running_loop().time()
            await pool.wait_for_first(location.origin, min(left, FIRST_CONNECTION_WAIT))
            pool = self._pool(channel)  # asked for again: the transport may have been closed meanwhile
        return pool.send(request, location, limits)

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

    def _pool(self, channel: Channel) -> Pool:
        if self._closed:
            raise DrainingError("The server is stopping.")
        pool = self._pools.get(channel)
        if pool is None:
            pool = self._pools[channel] = Pool(channel, self._connect, self._clock)
        pool.used_at = self._clock.monotonic()
        if self._housekeeping is None:
            loop = asyncio.get_running_loop()
            self._housekeeping = loop.create_task(self._keep_house(), name="transport housekeeping")
        return pool

    def _connect(self, channel: Channel) -> _Multi:
        if self._readiness is None:
            self._readiness = watch_sockets(asyncio.get_running_loop())
        return _Multi(channel, self._ca_file, self._readiness)

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(_HOUSEKEEPING_PERIOD)
            await self.close_idle()


def _check(channel: Channel, request: Request, location: Location) -> None:
    """Refuse what curl would read differently than the caller meant. Raises ValueError."""
    if location.scheme not in ("http", "https") or not location.host or location.credentials:
        raise ValueError("a request needs an http or https URL with a host and without credentials")
    if channel.proxy is not None and locate(channel.proxy).scheme not in _PROXY_SCHEMES:
        raise ValueError("a proxy needs one of the schemes " + ", ".join(_PROXY_SCHEMES))
    if request.upload is not None and (request.method != "POST" or request.body is not None):
        raise ValueError("an upload is the body of a POST")
    if not request.method.isalpha() or not request.method.isupper():
        raise ValueError("a method is written in capital letters")
