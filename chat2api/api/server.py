"""The listener: binds, accepts, runs the app's lifespan, and stops without cutting what runs.

`serve` is all of it, in the loop that it is called in. Stopping goes in three steps (R24). The first signal makes the
server not ready, though it still accepts for `drain_accept` seconds, since those who send us traffic need time to
notice. Then the listeners close, idle connections with them, and running requests may finish for `drain_timeout`
seconds. When that is over, or at a second signal, `Shutdown.ending` tells streams to say so in the stream; shortly
after, what is left is cut. Each connection is a `chat2api.api.connection.Connection`.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from hypercorn.typing import ASGIFramework, ASGIReceiveEvent, ASGISendEvent, LifespanScope, LifespanState

from chat2api.api.connection import Connection, ConnectionSettings, Serving
from chat2api.api.hangup import HangupWatch
from chat2api.api.listening import Acceptor, Address, bind, connection_cap
from chat2api.errors import ConfigError

__all__ = ["Address", "Lifespan", "ServerSettings", "Shutdown", "bind", "serve"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the listener behaves as a whole; times in seconds."""

    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    backlog: int = 2048
    max_connections: int | None = None
    """Connections at once, further ones get a 503; None leaves three eighths of the descriptors to all else."""
    startup_timeout: float = 60.0
    shutdown_timeout: float = 30.0
    """For the app's own shutdown after its last request."""
    drain_accept: float = 5.0
    """From the first signal to closing the listeners."""
    drain_timeout: float = 120.0
    """For running requests after that."""
    end_grace: float = 0.8
    """From `Shutdown.ending` to cutting what is left."""
    cut_grace: float = 0.4
    """From cutting to cancelling apps that do not stop, and for the app's shutdown after a second signal."""


class Shutdown:
    """The state of stopping, for those who must know: health checks and streams.

    `draining` is set at the first request to stop: not ready. `ending` is set when running responses have no time
    left: a stream writes its error event and ends.
    """

    def __init__(self) -> None:
        """Make the state of a server that is not stopping."""
        self.draining = asyncio.Event()
        self.ending = asyncio.Event()

    def request(self) -> None:
        """Ask to stop; asked a second time, to stop now. A signal's handler."""
        if self.draining.is_set():
            self.ending.set()
        self.draining.set()


async def serve(
    app: ASGIFramework,
    *,
    binds: Sequence[Address] = (("127.0.0.1", 5005),),
    sockets: Sequence[socket.socket] | None = None,
    settings: ServerSettings | None = None,
    shutdown: Shutdown | None = None,
    on_ready: Callable[[Sequence[Address]], None] | None = None,
    on_draining: Callable[[], None] | None = None,
    handle_signals: bool = True,
) -> int:
    """Serve app until told to stop and return the exit status: 0, or 1 when running requests had to be cut.

    Listens on every address of binds (port 0 takes a free one), or on bound sockets, which it then owns. on_ready is
    called with the real addresses once connections are accepted, on_draining at the first request to stop. With
    handle_signals, which needs the main thread, SIGTERM and SIGINT ask to stop; otherwise only shutdown does. Raises
    ConfigError when an address cannot be bound or the app does not start.
    """
    settings = settings if settings is not None else ServerSettings()
    shutdown = shutdown if shutdown is not None else Shutdown()
    with contextlib.ExitStack() as resources:
        listeners = list(sockets) if sockets is not None else bind(binds)
        for listener in listeners:
            resources.callback(listener.close)
        if handle_signals:
            resources.enter_context(_signals_handled(shutdown))
        server = _Server(app, settings, shutdown, listeners)
        return await server.run(on_ready, on_draining)


@contextlib.contextmanager
def _signals_handled(shutdown: Shutdown) -> Iterator[None]:
    """Let SIGTERM and SIGINT ask to stop while the block runs."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, shutdown.request)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


class _Server:
    """One run of the server."""

    def __init__(
        self, app: ASGIFramework, settings: ServerSettings, shutdown: Shutdown, listeners: list[socket.socket]
    ) -> None:
        self._settings = settings
        self._shutdown = shutdown
        self._listeners = listeners
        state: LifespanState = {}
        self._lifespan = Lifespan(app, state)
        self._connections: set[Connection] = set()
        self._no_connections = asyncio.Event()
        self._no_connections.set()
        self._watch = HangupWatch()
        self._serving = Serving(app, settings.connection, self._watch, self._closed, state)

    async def run(
        self, on_ready: Callable[[Sequence[Address]], None] | None, on_draining: Callable[[], None] | None
    ) -> int:
        """Go through the whole life; see `serve`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._lifespan.start(tasks, self._settings.startup_timeout)
                await self._accept_until_stopped(tasks, on_ready, on_draining)
                status = await self._drain()
                hurried = self._shutdown.ending.is_set()
                if not await self._lifespan.stop(
                    self._settings.cut_grace if hurried else self._settings.shutdown_timeout
                ):
                    status = 1
                self._lifespan.cancel()
            return status
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None  # callers wait for ConfigError, not for a group with one in it
            raise
        finally:
            self._watch.close()

    async def _accept_until_stopped(
        self,
        tasks: asyncio.TaskGroup,
        on_ready: Callable[[Sequence[Address]], None] | None,
        on_draining: Callable[[], None] | None,
    ) -> None:
        """Accept connections until the time to notice that we are stopping is over."""
        settings, shutdown = self._settings, self._shutdown
        cap = settings.max_connections if settings.max_connections is not None else connection_cap()
        acceptor = Acceptor(
            self._listeners, settings.backlog, lambda sock: self._open(tasks, sock), lambda: self._has_room(cap)
        )
        try:
            addresses = acceptor.start()
            for address in addresses:
                log.info("listening on http://%s", _shown(address))
            if on_ready is not None:
                on_ready(addresses)
            await shutdown.draining.wait()
            log.info("stopping: accepting for %g s more", settings.drain_accept)
            if on_draining is not None:
                on_draining()
            self._serving.stopping = True  # responses say `connection: close` from here on
            await _first_of(shutdown.ending, timeout=settings.drain_accept)
        finally:
            acceptor.stop()

    def _has_room(self, cap: int) -> bool:
        return len(self._connections) < cap

    def _open(self, tasks: asyncio.TaskGroup, sock: socket.socket) -> None:
        """Begin to serve a connection."""
        connection = Connection(self._serving)
        self._connections.add(connection)
        self._no_connections.clear()
        tasks.create_task(self._connect(connection, sock))

    async def _connect(self, connection: Connection, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        except OSError:
            sock.close()
            self._closed(connection)

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._no_connections.set()

    async def _drain(self) -> int:
        """Let running requests finish as far as there is time, cut the rest, and return the exit status."""
        settings, shutdown = self._settings, self._shutdown
        for connection in list(self._connections):
            connection.close_if_idle()
        if self._connections:
            log.info("stopping: %d connections still have requests running", len(self._connections))
        await _first_of(self._no_connections, shutdown.ending, timeout=settings.drain_timeout)
        if not self._connections:
            return 0
        shutdown.ending.set()
        await _first_of(self._no_connections, timeout=settings.end_grace)
        if not self._connections:
            return 0
        log.warning("stopping: cut %d connections", len(self._connections))
        for connection in list(self._connections):
            connection.abort()
        await _first_of(self._no_connections, timeout=settings.cut_grace)
        for connection in list(self._connections):
            connection.cancel()
        await _first_of(self._no_connections, timeout=settings.cut_grace)
        return 1


async def _first_of(*events: asyncio.Event, timeout: float) -> None:
    """Return when the first event is set, or after timeout."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
            waiters = [group.create_task(event.wait()) for event in events]
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            for waiter in waiters:
                waiter.cancel()


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Lifespan:
    """The app's start and stop by the ASGI lifespan protocol, each within a time."""

    def __init__(self, app: ASGIFramework, state: LifespanState) -> None:
        """Prepare; state is what the app leaves for its requests."""
        self._app = app
        self._state = state
        self._messages: asyncio.Queue[ASGIReceiveEvent] = asyncio.Queue()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, tasks: asyncio.TaskGroup, timeout: float) -> None:
        """Start the app. Raises ConfigError with its reason when it does not start, or not in time."""
        self._task = tasks.create_task(self._run())
        self._messages.put_nowait({"type": "lifespan.startup"})
        await _first_of(self._started, timeout=timeout)
        if not self._started.is_set():
            raise ConfigError(f"the server could not start: the app was not ready within {timeout:g} s")
        if self._failure is not None:
            raise ConfigError(f"the server could not start: {self._failure}")

    async def stop(self, timeout: float) -> bool:
        """Stop the app and return whether it did so well and in time."""
        if self._stopped.is_set():
            return True
        self._messages.put_nowait({"type": "lifespan.shutdown"})
        await _first_of(self._stopped, timeout=timeout)
        if not self._stopped.is_set():
            log.error("the app did not shut down within %g s", timeout)
            return False
        if self._failure is not None:
            log.error("the app failed to shut down: %s", self._failure)
            return False
        return True

    def cancel(self) -> None:
        """End the app's lifespan task, in whatever state it is."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        scope: LifespanScope = {
            "type": "lifespan",
            "asgi": {"spec_version": "2.0", "version": "3.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, self._messages.get, self._send)
        except Exception as error:
            log.exception("the app's lifespan failed")
            self._failure = self._failure or f"{type(error).__name__} (see the log)"
        finally:
            self._started.set()
            self._stopped.set()

    async def _send(self, message: ASGISendEvent) -> None:
        """Take the app's answer."""
        if message["type"] in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._failure = str(message.get("message", "")) or "no reason given"
        if message["type"].startswith("lifespan.startup."):
            self._started.set()
        elif message["type"].startswith("lifespan.shutdown."):
            self._stopped.set()
        else:
            raise ValueError(f"unexpected message: {message['type']}")
