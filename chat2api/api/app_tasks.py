"""The runs of the app that belong to one connection, and the messages that wait for them."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, cast

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.config import Config as HypercornConfig
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

from chat2api.api.guards import BODY_FLOW, BodyFlow

if TYPE_CHECKING:
    from chat2api.api.connection import Connection

log = logging.getLogger(__name__)


class ClientLeftError(OSError):
    """The client is gone; what the app sends goes nowhere. The ASGI specification asks for an OSError."""


class Inbox:
    """The messages that wait for one run of the app, at most about limit bytes of body."""

    def __init__(
        self,
        limit: int,
        flow: BodyFlow,
        before_first: Callable[[], None],
        watching: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Make an empty inbox.

        before_first is called when the app first asks for a message. watching surrounds a wait of the reading side.
        """
        self._limit = limit
        self._watching = watching
        self._flow = flow
        flow.on_room = lambda: self._wake(self._arrived)
        self._before_first: Callable[[], None] | None = before_first
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._held = 0
        self._goodbye: ASGIReceiveEvent | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message; wait while too much waits already. A disconnect overtakes everything and ends the wait."""
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self._say_goodbye(message)
            return
        size = _size(message)
        while self._held and self._held + size > self._limit and self._goodbye is None:
            self._room = asyncio.get_running_loop().create_future()
            with self._watching():
                await self._room
        self._messages.append(message)
        self._held += size
        self._flow.waiting = True
        self._wake(self._arrived)

    def end(self, *, left: bool) -> None:
        """Let a disconnect overtake everything; with left, an app that asked to be told is told at once."""
        self._say_goodbye({"type": "http.disconnect"})
        if left and self._flow.on_left is not None:
            self._flow.on_left()

    def _say_goodbye(self, message: ASGIReceiveEvent) -> None:
        self._goodbye = message
        self._wake(self._arrived)
        self._wake(self._room)

    async def get(self) -> ASGIReceiveEvent:
        """Return the next message; after a disconnect that one, however often it is asked for."""
        if self._before_first is not None:
            self._before_first()
            self._before_first = None
        while True:
            if self._goodbye is not None:
                return self._goodbye
            if self._messages and not self._flow.full:
                message = self._messages.popleft()
                size = _size(message)
                self._held -= size
                self._flow.waiting = bool(self._messages)
                self._flow.give(size)
                self._wake(self._room)
                return message
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _size(message: ASGIReceiveEvent) -> int:
    """Return how many bytes of body or websocket payload a message carries."""
    if message["type"] == "http.request":
        return len(message["body"])
    if message["type"] == "websocket.receive":
        return len(message.get("bytes") or message.get("text") or b"")
    return 0


class AppTasks(TaskGroup):
    """The tasks of one connection; those that run the app are told that the client has left, then cancelled."""

    def __init__(self, connection: "Connection") -> None:
        """Make an empty group for that connection."""
        super().__init__(connection.loop)
        self._connection = connection
        self._running: set[asyncio.Task[None]] = set()

    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start the app for one websocket, as hypercorn asks for it, and return where its messages go."""
        return self.start_app(app, scope, send).put

    def start_app(
        self, app: AppWrapper, scope: Scope, send: Callable[[ASGISendEvent | None], Awaitable[None]]
    ) -> Inbox:
        """Start the app for one request and return where its messages go."""
        settings = self._connection.settings
        flow = BodyFlow(settings.body_held)
        if scope["type"] == "http":
            cast(dict[str, object], scope["extensions"])[BODY_FLOW] = flow
        inbox = Inbox(settings.body_held, flow, self._connection.protocol.send_continue, self._connection.watching)
        task = self._task_group.create_task(_run_app(app, scope, inbox, send))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return inbox

    def cancel(self) -> None:
        """Cancel what still runs. Only for apps that heard of a disconnect and went on: Quart cancels its own."""
        for task in self._running:
            task.cancel()


async def _run_app(
    app: AppWrapper,
    scope: Scope,
    inbox: Inbox,
    send: Callable[[ASGISendEvent | None], Awaitable[None]],
) -> None:
    """Run the app for one request; what it raises ends its response without a clean end."""
    try:
        await app(scope, inbox.get, send, _no_threads, _no_threads)
    except ClientLeftError:
        pass
    except Exception:
        log.exception("the app failed outside its own error handler")
    finally:
        await send(None)


def _no_threads(*_: object) -> None:
    """Stand where hypercorn's WSGI side would get its threads."""
    raise RuntimeError("only ASGI apps are served")
