"""Listening sockets: binding them with clear errors, and accepting while descriptors last."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence

from chat2api.api.guards import refusal_bytes
from chat2api.errors import Chat2APIError, ConfigError

log = logging.getLogger(__name__)

Address = tuple[str, int]

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ACCEPTS_PER_TURN = 64
_REST_WHEN_FULL = 0.1


class OverloadedError(Chat2APIError):
    """There is no room for another connection."""

    status = 503
    default_code = "overloaded"


def bind(binds: Sequence[Address]) -> list[socket.socket]:
    """Return sockets bound to those hosts and ports, not yet listening. Raises ConfigError naming HOST and PORT."""
    bound: list[socket.socket] = []
    try:
        for host, port in binds:
            bound += _bind_host(host, port)
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bind_host(host: str, port: int) -> list[socket.socket]:
    """Return one socket for each address of the host; `localhost` has two where there is IPv6."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"HOST={host}: no such address on this machine ({error})") from error
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = error  # no IPv6 here
            continue
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
        except OSError as error:
            sock.close()
            failure = error
            if error.errno != errno.EADDRNOTAVAIL:
                break
        else:
            bound.append(sock)
    if not bound or (failure is not None and failure.errno == errno.EADDRINUSE):
        for sock in bound:
            sock.close()
        raise _cannot_listen(host, port, failure) from failure
    return bound


def _cannot_listen(host: str, port: int, error: OSError | None) -> ConfigError:
    """Return the error for an address that cannot be had, with what to do about it."""
    where = f"HOST={host} PORT={port}"
    number = error.errno if error is not None else None
    if number == errno.EADDRINUSE:
        return ConfigError(f"{where}: another program listens there; stop it or choose another PORT")
    if number == errno.EACCES:
        return ConfigError(f"{where}: not permitted; ports below 1024 need privileges, choose another PORT")
    if number == errno.EADDRNOTAVAIL:
        return ConfigError(f"{where}: this machine does not have that address; choose another HOST")
    return ConfigError(f"{where}: cannot listen there ({error})")


def connection_cap() -> int:
    """Return how many connections may be open: five eighths of the descriptors, the rest is for upstream and files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft * 5 // 8


class Acceptor:
    """Accepts connections, and says so to a client when there is no room for one.

    asyncio's own acceptor goes on trying a whole backlog when descriptors run out, logging each failure. This one
    keeps a spare descriptor for telling clients, and rests a moment.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        backlog: int,
        take: Callable[[socket.socket], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._listeners = listeners
        self._backlog = backlog
        self._take = take
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._spare: int | None = None
        self._out_of_descriptors = False
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}

    def start(self) -> list[Address]:
        """Listen and return the real addresses. Raises ConfigError when somebody else listens there."""
        addresses: list[Address] = []
        for listener in self._listeners:
            host, port = listener.getsockname()[:2]
            try:
                listener.setblocking(False)
                listener.listen(self._backlog)
            except OSError as error:
                raise _cannot_listen(host, port, error) from error
            addresses.append((host, port))
        self._spare = os.open(os.devnull, os.O_RDONLY)
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)
        return addresses

    def stop(self) -> None:
        """Take the connections that are already made, then close the listeners."""
        for listener in self._listeners:
            resting = self._resting.pop(listener, None)
            if resting is not None:
                resting.cancel()
            elif self._loop.remove_reader(listener):
                self._accept(listener)
                self._loop.remove_reader(listener)
            listener.close()
        for resting in self._resting.values():
            resting.cancel()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _accept(self, listener: socket.socket) -> None:
        """Take the connections that wait, up to so many that the loop is not kept."""
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _peer = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._turn_away_some(listener)
                else:
                    log.exception("could not accept a connection")
                self._rest(listener)
                return
            sock.setblocking(False)
            self._out_of_descriptors = False
            if self._has_room():
                self._take(sock)
            else:
                _turn_away(sock)

    def _turn_away_some(self, listener: socket.socket) -> None:
        """Tell waiting clients that there is no room, one at a time on the spare descriptor."""
        if not self._out_of_descriptors:
            self._out_of_descriptors = True  # said once, not ten times a second
            log.warning("out of file descriptors: turning clients away; raise the limit (ulimit -n)")
        if self._spare is None:
            return
        os.close(self._spare)
        self._spare = None
        with contextlib.suppress(OSError):
            for _ in range(_ACCEPTS_PER_TURN):
                _turn_away(listener.accept()[0])
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _rest(self, listener: socket.socket) -> None:
        self._loop.remove_reader(listener)
        self._resting[listener] = self._loop.call_later(_REST_WHEN_FULL, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        del self._resting[listener]
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)
        self._loop.add_reader(listener, self._accept, listener)


def _turn_away(sock: socket.socket) -> None:
    """Answer 503 without reading the request, as far as that goes without waiting."""
    with contextlib.suppress(OSError), sock:
        sock.setblocking(False)
        sock.send(refusal_bytes(OverloadedError("The server has no room for another connection.", retry_after=1)))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(65536)  # closing with bytes unread would send a reset, which may overtake the answer
