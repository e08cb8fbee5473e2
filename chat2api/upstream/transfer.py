"""One request on its way and its answer: limits, back-pressure, cancelling. What libcurl does is behind `Handle`.

A transfer has no task of its own: its handle calls `head.write`, `on_data` and `on_end` from the loop's callbacks, they put
what came into lists and wake the one reader. One alarm stands for whichever limit ends next.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol

from chat2api.errors import TransportError, UpstreamProtocolError
from chat2api.upstream.alarms import Alarms
from chat2api.upstream.exchange import Request
from chat2api.upstream.failures import Progress, describe_failure, proxy_refused, timed_out
from chat2api.upstream.headers import HeaderBlock
from chat2api.upstream.urls import Location

HELD_LIMIT = 32 * 1024
"""Bytes that wait for `read` before curl is paused; it is resumed when they are taken, which `read` does all at once."""

HEADER_LIMIT = 128 * 1024
"""Bytes of an answer's head, 1xx answers included."""

PAUSE = 0x10000001
"""What `on_data` answers instead of a length to be offered the same bytes again after `resume` (curl's number)."""


class Receiver(Protocol):
    """Who is told what arrives."""

    head: HeaderBlock
    """Takes the lines of the head, of a 1xx answer's or of a trailer. What it raises comes back in on_end."""

    def on_data(self, data: bytes) -> int:
        """Take bytes of the body and give their length, or PAUSE. What it raises comes back in on_end."""
        ...

    def on_end(self, code: int, raised: BaseException | None) -> None:
        """Learn that it is over: curl's result code, and what a callback raised."""
        ...


class Handle(Protocol):
    """A request that libcurl makes. Nothing here but `settle` and `afterwards` may be called from within its callbacks."""

    def start(self, receiver: Receiver) -> None:
        """Begin with the loop's next turn."""
        ...

    def settle(self, *, shared: bool) -> None:
        """Say that the head is here and the body is read as a stream, so that its bytes may come in beats.

        Called from within `head.write`. `shared` says that other requests may use the connection at the same time.
        """
        ...

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Have that called once libcurl has given all that it has now: before the loop turns, where it is giving."""
        ...

    def resume(self) -> int:
        """Offer what was answered with PAUSE again, also before this returns. Give curl's result code."""
        ...

    def send_frame(self, kind: int, payload: bytes) -> int:
        """Send a frame of a web socket, of a kind in curl's numbers, without waiting. Give curl's result code."""
        ...

    def stop(self) -> None:
        """Stop at once: the connection is closed, or the HTTP/2 stream reset. `on_end` is not called any more."""
        ...

    def release(self, *, keep: bool) -> None:
        """Give the handle up after it has ended or was stopped; `keep` it for another request if nothing went wrong."""
        ...

    def connected_after(self) -> float | None:
        """Give the seconds that resolving, connecting and TLS took; None while they go on."""
        ...

    def sent(self) -> tuple[int, int]:
        """Give how many bytes have left: of the request's head, and of its body."""
        ...

    def tunnel_stands(self) -> bool:
        """Whether a proxy has opened the way to the host."""
        ...


class Owner(Protocol):
    """Whose transfer it is."""

    alarms: Alarms

    def arrive(self, transfer: "Transfer", set_cookies: list[str]) -> None:
        """Learn that an answer's head is here, and the cookies that it sets."""
        ...

    def end(self, transfer: "Transfer", *, failed: bool) -> None:
        """Learn that the transfer is over; `failed` covers the cancelled ones."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When a transfer is too late.

    `connect_by` and `whole_by` are instants of the loop's clock; `headers_timeout` counts from when the connection stands.
    `max_bytes` bounds the body of an answer that is taken whole; None makes it a stream.
    """

    connect_by: float
    headers_timeout: float = inf
    whole_by: float = inf
    max_bytes: int | None = None


class Transfer:
    """A request and its answer; the ResponseStream that `CurlTransport.open` gives."""

    __slots__ = (
        "_body_length",
        "_ended",
        "_failure",
        "_handle",
        "_has_waited",
        "_held",
        "_is_handing",
        "_limits",
        "_loop",
        "_owner",
        "_parts",
        "_paused",
        "_proxy",
        "_started_at",
        "_taker",
        "_upload",
        "_waiter",
        "head",
        "location",
        "url",
    )

    def __init__(
        self, handle: Handle, owner: Owner, request: Request, location: Location, proxy: str | None, limits: Limits
    ) -> None:
        """Make a transfer that `start` begins."""
        self.url = request.url
        self.location = location
        self._handle: Handle | None = handle
        self._owner = owner
        self._body_length = len(request.body or b"")
        self._upload = request.upload
        self._proxy = proxy
        self._limits = limits
        # The reader of a whole answer is woken by its end.
        tell = self._on_head if limits.max_bytes is None else None
        self.head = HeaderBlock(HEADER_LIMIT, upgrade=request.upgrade, tell=tell)
        self._parts: list[bytes] = []
        self._held = 0
        self._paused = False
        self._ended = False
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._taker: Callable[[bytes], bool] | None = None
        self._is_handing = False
        self._has_waited = False
        """Whether the loop has turned since bytes were handed over: it does between any two times."""
        self._loop = asyncio.get_running_loop()
        self._started_at = 0.0

    def start(self) -> None:
        """Begin. Raises CurlError when libcurl cannot even do that."""
        assert self._handle is not None
        now = self._started_at = self._loop.time()
        limits = self._limits
        self._owner.alarms.set(self, min(limits.connect_by, now + limits.headers_timeout, limits.whole_by))
        if self._upload is not None:
            self._upload.attach(self._wake_upload)
        self._handle.start(self)

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.head.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Header values by lower-case name."""
        return self.head.headers

    async def wait_for_head(self) -> None:
        """Return when the final head is here. Raises what ended the transfer before it."""
        while not self.head.complete:
            if self._ended:
                raise self._failure or TransportError(f"{self.location.host} gave no answer.", phase="headers")
            await self._wait()
        self._owner.alarms.drop(self)
        self._note_head()

    async def take_whole(self) -> bytes:
        """Give the whole body once it is complete. Raises what ended the transfer before that."""
        while not self._ended:
            await self._wait()
        if self.head.complete:
            self._note_head()
        if self._failure is not None:
            raise self._failure
        return b"".join(self._parts)

    async def read(self) -> bytes:
        """Give all bytes that have arrived; see ResponseStream."""
        if self._parts or self._ended:
            await asyncio.sleep(0)
        while not self._parts:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            await self._wait()
        return self._take_parts()

    async def pass_on(self, take: Callable[[bytes], bool]) -> bool:
        """Hand bytes over as they arrive; see ResponseStream."""
        while True:
            if self._parts:
                if not self._has_waited:
                    await asyncio.sleep(0)
                self._has_waited = False
                if not take(self._take_parts()):
                    return True
                continue
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return False
            self._taker = take
            try:
                if await self._wait():
                    return True
            finally:
                self._taker = None

    def send_frame(self, kind: int, payload: bytes) -> None:
        """Send a frame of a web socket. Raises TransportError when it cannot be sent at once, and closes the socket."""
        if self._handle is not None and (code := self._handle.send_frame(kind, payload)):
            self.abort(describe_failure(code, self.location.host, self._progress()))
        if self._handle is None:
            raise self._failure or TransportError(f"{self.location.host} has closed the web socket.", phase="body")

    async def aclose(self) -> None:
        """Abort the transfer if it still runs; see ResponseStream."""
        if self._handle is not None:
            self.abort(TransportError("The answer was closed by its reader.", phase="body", request_sent=True))

    def abort(self, failure: BaseException) -> None:
        """Stop now: the connection is closed, or the HTTP/2 stream reset. A reader that waits gets `failure`."""
        if self._handle is not None:
            self._handle.stop()
            self._finish(failure)

    @property
    def connecting(self) -> bool:
        """Whether it still resolves, connects or greets."""
        return self._handle is not None and self._handle.connected_after() is None

    # Called by the handle, inside the loop's callbacks.

    def _on_head(self) -> None:
        if self._handle is not None:
            self._handle.settle(shared=self.head.http2)
        self._wake()

    def on_data(self, data: bytes) -> int:
        """Take bytes; see Receiver."""
        most = self._limits.max_bytes
        if most is not None:
            if self._held + len(data) > most:
                raise UpstreamProtocolError(f"The upstream's answer is longer than {most} bytes.")
        elif self._held >= HELD_LIMIT:
            self._paused = True
            return PAUSE
        else:
            self._wake()
        self._parts.append(data)
        self._held += len(data)
        return len(data)

    def on_end(self, code: int, raised: BaseException | None) -> None:
        """Learn of the end; see Receiver."""
        if raised is not None:
            self._finish(raised)
        elif code:
            self._finish(describe_failure(code, self.location.host, self._progress()))
        elif not self.head.complete:
            text = f"{self.location.host} ended the answer before its headers."
            self._finish(TransportError(text, phase="headers", request_sent=self._progress().sent))
        else:
            self._finish(None)

    def ring(self) -> None:
        """Called at the instant at which some limit may have run out: abort, or wait for the next one."""
        if self._handle is None:
            return
        now, limits = self._loop.time(), self._limits
        if now >= limits.whole_by:
            return self.abort(timed_out("whole", self.location.host))
        again_at = limits.whole_by
        if not self.head.complete:
            connected = self._handle.connected_after()
            phase = "connect" if connected is None else "headers"
            late_at = limits.connect_by if connected is None else self._started_at + connected + limits.headers_timeout
            if now >= late_at:
                return self.abort(timed_out(phase, self.location.host))
            # While it connects: whenever the connection stands, its own limit ends later than this.
            again_at = (
                min(again_at, late_at, now + limits.headers_timeout) if connected is None else min(again_at, late_at)
            )
        if again_at < inf:
            self._owner.alarms.set(self, again_at)
        return None

    def _note_head(self) -> None:
        self._owner.arrive(self, self.head.set_cookies)
        if self.head.status == 407 and self._proxy is not None:
            # Asked in absolute form, for an http origin, a proxy refuses with an answer; a tunnel fails as an error.
            raise proxy_refused(self.location.host)

    def _wake_upload(self) -> None:
        """Have libcurl ask for the body again; what it has of the answer is offered again as well, and held as before."""
        if self._handle is not None and (code := self._handle.resume()):
            self.abort(describe_failure(code, self.location.host, self._progress()))

    def _resume(self) -> None:
        self._paused = False
        if self._handle is not None and (code := self._handle.resume()):
            self.abort(describe_failure(code, self.location.host, self._progress()))

    def _finish(self, failure: BaseException | None) -> None:
        self._failure = self._failure or failure
        self._ended = True
        if self._upload is not None:
            self._upload.detach()
        self._owner.alarms.drop(self)
        if self._handle is not None:
            self._handle.release(keep=failure is None)
            self._handle = None
        self._owner.end(self, failed=failure is not None)
        self._wake()

    def _progress(self) -> Progress:
        assert self._handle is not None
        head, body = self._handle.sent()
        return Progress(
            head=self.head.complete,
            started=head > 0,
            sent=head > 0 and body >= self._body_length and (self._upload is None or self._upload.drained),
            tunnel=self._handle.tunnel_stands(),
            proxy=self._proxy,
        )

    def _take_parts(self) -> bytes:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if self._paused:
            self._resume()
        return data

    async def _wait(self) -> bool:
        """Wait for news; give True when they were handed over and the taker wants no more."""
        if self._waiter is not None:
            raise RuntimeError("an answer has one reader at a time")
        self._waiter = self._loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None
            self._has_waited = True

    def _wake(self) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if self._taker is None or self._ended:
            self._waiter.set_result(False)
        elif not self._is_handing and self._handle is not None:
            # Not at once: libcurl has the floor, and there may be more to come.
            self._is_handing = True
            self._handle.afterwards(self._hand_over)

    def _hand_over(self) -> None:
        self._is_handing = False
        if self._taker is None or self._waiter is None or self._waiter.done() or not self._parts:
            return  # the reader has been woken meanwhile, and sees to it
        try:
            if not self._taker(self._take_parts()):
                self._waiter.set_result(True)
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            self._waiter.set_exception(error)
