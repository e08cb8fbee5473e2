"""What the simulator saw: requests, streams and broken habits, for tests to look at."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from chat2api.clock import Clock
from chat2api.simulator.wire import JSON, Object, Request


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as it arrived; `at` is monotonic seconds, `account` the user id of its bearer if known."""

    number: int
    at: float
    route: str
    account: str | None
    request: Request

    def to_json(self) -> Object:
        """Give it as JSON; a body that is not UTF-8 shows replacement characters."""
        request = self.request
        headers: list[JSON] = [[name, value] for name, value in request.headers]
        return {
            "number": self.number,
            "at": self.at,
            "route": self.route,
            "account": self.account,
            "method": request.method,
            "target": request.target,
            "path": request.path,
            "headers": headers,
            "body": request.body.decode(errors="replace"),
            "http_version": request.http_version,
            "connection": request.connection,
        }


@dataclass(slots=True)
class ReplyRecord:
    """How one reply went out. Instants are monotonic seconds.

    `outcome` is open until the end, then completed (the whole reply left us), aborted (the peer went first) or
    faulted (a fault cut it). `bytes_written` counts body bytes handed to the connection, `deltas` events with text.
    """

    number: int
    route: str
    started_at: float
    streamed: bool = False
    status: int | None = None
    headers_at: float | None = None
    ended_at: float | None = None
    outcome: Literal["open", "completed", "aborted", "faulted"] = "open"
    bytes_written: int = 0
    deltas: int = 0

    def to_json(self) -> Object:
        """Give it as JSON."""
        return {
            "number": self.number,
            "route": self.route,
            "started_at": self.started_at,
            "streamed": self.streamed,
            "status": self.status,
            "headers_at": self.headers_at,
            "ended_at": self.ended_at,
            "outcome": self.outcome,
            "bytes_written": self.bytes_written,
            "deltas": self.deltas,
        }


@dataclass(slots=True)
class Counters:
    """Totals since the start or the last reset."""

    requests: int = 0
    connections: int = 0
    open_connections: int = 0
    open_replies: int = 0
    open_streams: int = 0
    completed: int = 0
    aborted: int = 0
    faulted: int = 0
    bytes_written: int = 0

    def to_json(self) -> Object:
        """Give it as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Recorder:
    """Collects records and lets tests wait for a change."""

    clock: Clock
    keep: bool = True
    requests: list[RequestRecord] = field(default_factory=list)
    replies: list[ReplyRecord] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    """Habits that the backend tolerates but a browser would not have, one sentence each."""
    counters: Counters = field(default_factory=Counters)
    _watchers: set[asyncio.Event] = field(default_factory=set)
    _connections: int = 0

    def open_connection(self) -> int:
        """Count a new TCP connection and give its number."""
        self._connections += 1
        self.counters.connections += 1
        self.counters.open_connections += 1
        self.changed()
        return self._connections

    def close_connection(self) -> None:
        """Count the end of a connection."""
        self.counters.open_connections -= 1
        self.changed()

    def add_request(self, request: Request, route: str, account: str | None) -> ReplyRecord:
        """Record a request and open the record of its reply."""
        self.counters.requests += 1
        number = self.counters.requests
        at = self.clock.monotonic()
        reply = ReplyRecord(number, route, at)
        if self.keep:
            self.requests.append(RequestRecord(number, at, route, account, request))
            self.replies.append(reply)
        self.counters.open_replies += 1
        self.changed()
        return reply

    def start_stream(self, reply: ReplyRecord) -> None:
        """Note that the reply is an event stream."""
        reply.streamed = True
        self.counters.open_streams += 1
        self.changed()

    def add_bytes(self, reply: ReplyRecord, count: int) -> None:
        """Count body bytes handed to the connection."""
        reply.bytes_written += count
        self.counters.bytes_written += count

    def end(self, reply: ReplyRecord, outcome: Literal["completed", "aborted", "faulted"]) -> None:
        """Close the record; the first outcome stands."""
        if reply.outcome != "open":
            return
        reply.outcome = outcome
        reply.ended_at = self.clock.monotonic()
        self.counters.open_replies -= 1
        if reply.streamed:
            self.counters.open_streams -= 1
        if outcome == "completed":
            self.counters.completed += 1
        elif outcome == "aborted":
            self.counters.aborted += 1
        else:
            self.counters.faulted += 1
        self.changed()

    def add_violation(self, text: str) -> None:
        """Note a habit once."""
        if text not in self.violations:
            self.violations.append(text)

    def changed(self) -> None:
        """Wake those who wait."""
        for watcher in self._watchers:
            watcher.set()

    async def wait_until(self, holds: Callable[[], bool], timeout: float = 20.0) -> None:
        """Return as soon as `holds()` is true, looking after each change. Raises TimeoutError."""
        watcher = asyncio.Event()
        self._watchers.add(watcher)
        try:
            async with asyncio.timeout(timeout):
                while not holds():
                    watcher.clear()
                    await watcher.wait()
        finally:
            self._watchers.discard(watcher)

    def reset(self) -> None:
        """Forget the records; what is still open stays counted as open."""
        self.requests.clear()
        self.replies.clear()
        self.violations.clear()
        old = self.counters
        self.counters = Counters(
            open_connections=old.open_connections, open_replies=old.open_replies, open_streams=old.open_streams
        )
