"""Clients that leave: how the app is told, and how it is noticed while nothing is read from them."""

import asyncio
import contextlib
import select
import socket
import sys
from collections.abc import Callable


class ClientLeftError(OSError):
    """The client is gone; what the app sends goes nowhere. The ASGI specification asks for an OSError."""


class HangupWatch:
    """Notices that clients have left while nothing is read from them.

    A connection that is not read from tells asyncio nothing, not even that it was reset. The kernel knows, and an
    epoll instance of our own can be asked for just that. Where there is no epoll, or while the client's end still
    waits behind data that the kernel has no room for, it is noticed when reading goes on.
    """

    def __init__(self) -> None:
        """Watch nothing; `close` it in the end."""
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None
        if sys.platform == "linux":
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll, self._notice)

    def watch(self, sock: socket.socket, left: Callable[[], None]) -> None:
        """Call left, once, if the client leaves before `forget`."""
        descriptor = sock.fileno()
        if self._epoll is None or descriptor < 0:
            return
        with contextlib.suppress(OSError):  # no room for another, which only makes the news late
            self._epoll.register(descriptor, select.EPOLLRDHUP)  # errors and resets are always told
            self._waiting[descriptor] = left

    def forget(self, sock: socket.socket, left: Callable[[], None]) -> None:
        """Watch no more; the socket must not be closed yet."""
        self._forget(sock.fileno(), left)

    def close(self) -> None:
        """Watch no more."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll)
            self._epoll.close()

    def _notice(self) -> None:
        if self._epoll is not None:
            for descriptor, _events in self._epoll.poll(0):
                left = self._waiting[descriptor]
                self._forget(descriptor, left)
                left()

    def _forget(self, descriptor: int, left: Callable[[], None]) -> None:
        """Watch no more, unless the descriptor serves another connection by now."""
        if self._waiting.get(descriptor) == left and self._epoll is not None:
            del self._waiting[descriptor]
            with contextlib.suppress(OSError, ValueError):  # a closed descriptor has left the epoll by itself
                self._epoll.unregister(descriptor)
