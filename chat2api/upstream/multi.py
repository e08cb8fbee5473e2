"""A channel's multi handle: its connections and sockets, the easy handles at work, and those kept for later.

Theory of operation. curl says which sockets it waits for and until when; `readiness` watches them, and each look at what is
ready (`_act`) lets curl read and call back into the transfers. What curl asks for in its callbacks is noted and granted when
it has returned. What is not obvious:

- Abort is `remove_handle` and then `close` of the easy handle, in that order, at once and from ordinary code, never
  inside a callback of curl's. It works in every phase since nothing waits for curl to notice. The multi handle is
  closed last, after all its easy handles: the other order is a use after free.
- An easy handle whose request ended well is kept for the next one of the same shape (`easy`).
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any

from curl_cffi import CurlError, CurlMOpt, ffi, lib  # noqa: TID251 - one of its two doors

from chat2api.upstream.easy import NO_SOCKET, EasyHandle, LineLists, Shape, shape_of
from chat2api.upstream.exchange import Channel, Request
from chat2api.upstream.headers import Lines, Plan
from chat2api.upstream.readiness import IN, OUT, Readiness

_CONNECTIONS_KEPT = 64
_HANDLES_KEPT = 32
"""Easy handles that a channel keeps for requests to come, of all shapes together."""

_PLANS_KEPT = 64
"""Plans of header lines whose lists are kept."""


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


class MultiHandle:
    """The connections of one channel."""

    def __init__(self, channel: Channel, ca_file: str | None, readiness: Readiness) -> None:
        """Make a handle without connections; `ca_file` holds the trusted authorities, None for the machine's."""
        self.channel = channel
        self.ca_file = ca_file or ""
        self._readiness = readiness
        self._loop = readiness.loop
        self._curlm = lib.curl_multi_init()
        self._running = ffi.new("int *")
        self._number = ffi.new("int *")
        self._easies: dict[Any, EasyHandle] = {}
        self._kept: dict[Shape, list[EasyHandle]] = {}
        self._kept_count = 0
        self._line_lists: dict[Plan, LineLists] = {}
        self._sockets: set[int] = set()
        self._acting = NO_SOCKET
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

    def take(self, request: Request, lines: Lines, pinned: bytes | None) -> EasyHandle:
        """Give a handle that is ready to start, an old one if there is one of its shape."""
        shape = shape_of(request)
        if pinned is None and (kept := self._kept.get(shape)):
            easy = kept.pop()
            self._kept_count -= 1
        else:
            easy = EasyHandle(self, shape)
        try:
            easy.prepare(request, lines, pinned)
        except BaseException:
            easy.close()
            raise
        return easy

    def line_lists(self, plan: Plan) -> LineLists:
        """Give the lists of header lines for this plan, those that others use if there are some."""
        if (known := self._line_lists.get(plan)) is not None:
            return known
        if len(self._line_lists) >= _PLANS_KEPT:
            self._line_lists.clear()  # those in use are held by their requests
        made = self._line_lists[plan] = LineLists(plan)
        return made

    def give_back(self, easy: EasyHandle) -> bool:
        """Keep a handle whose request ended well, unless there are enough."""
        if self._kept_count >= _HANDLES_KEPT:
            return False
        self._kept.setdefault(easy.shape, []).append(easy)
        self._kept_count += 1
        return True

    def add(self, easy: EasyHandle) -> None:
        """Start a request with the loop's next turn; curl asks for it by its timer."""
        pointer = easy.pointer
        _check_multi(lib.curl_multi_add_handle(self._curlm, pointer))
        self._easies[pointer] = easy
        easy.socket, easy.settled = NO_SOCKET, False
        self._hurried += 1
        for fd in self._shared:
            self._readiness.hurry(fd)
        self.grant()

    def remove(self, easy: EasyHandle) -> None:
        """Take a request out, whatever it is doing."""
        if self._easies.pop(easy.pointer, None) is not None:
            lib.curl_multi_remove_handle(self._curlm, easy.pointer)
            self._forget(easy)

    def resume(self, easy: EasyHandle) -> int:
        """Let a paused request go on; give curl's result code."""
        code = int(lib.curl_easy_pause(easy.pointer, 0))
        self.grant()
        return code

    def settle(self, easy: EasyHandle, *, shared: bool) -> None:
        """Let a stream's socket wait for beats: its own, or a shared one while no other request is in a hurry.

        curl does not tell which socket is whose, but it was that socket's turn when the head came. When curl looks at
        another one in passing, the wrong one is settled: then some request on this channel may wait for a beat.
        """
        easy.settled = True
        self._readiness.begin_stream()
        if shared and self._acting != NO_SOCKET:
            self._shared.add(self._acting)
        elif self._acting != NO_SOCKET:
            easy.socket = self._acting
            self._readiness.settle(easy.socket)
        self._calm_down()

    def _calm_down(self) -> None:
        self._hurried -= 1
        if self._hurried == 0:
            for fd in self._shared:
                self._readiness.settle(fd)

    def _forget(self, easy: EasyHandle) -> None:
        """Take a request out of all counts, once what its removal closed is not watched any more."""
        self.grant()
        if not easy.settled:
            self._calm_down()
            return
        self._readiness.end_stream()
        if easy.socket != NO_SOCKET:
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
        if self._running[0] != len(self._easies) or fd == NO_SOCKET:
            self._collect()
        wishes = self._wishes
        if wishes.changed or wishes.delay is not None:
            self.grant()
        if self._afterwards:
            callbacks, self._afterwards = self._afterwards, []
            for callback in callbacks:
                callback()
        if code:
            _check_multi(code)

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Call back at the end of the present act; without one, with the loop's next turn."""
        if self._has_floor:
            self._afterwards.append(callback)
        else:
            self._loop.call_soon(callback)

    def _collect(self) -> None:
        """Tell the requests that are over."""
        left = 1
        while left and (message := lib.curl_multi_info_read(self._curlm, self._number)) != ffi.NULL:
            left = self._number[0]
            pointer, code = message.easy_handle, message.data.result
            easy = self._easies.pop(pointer)
            lib.curl_multi_remove_handle(self._curlm, pointer)
            self._forget(easy)
            if easy.receiver is not None:
                # A callback that raised has ended its request with an error.
                easy.receiver.on_end(code, easy.raised() if code else None)

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
            self._act(NO_SOCKET, 0)

    def _on_timer(self) -> None:
        """Called at the time that was set last, or at an earlier one that curl has put off since."""
        self._timer = None
        left = self._due_at - self._loop.time()
        if left <= 0:
            self._due_at = inf
            self._act(NO_SOCKET, 0)
        elif left < inf:
            self._timer = self._loop.call_at(self._due_at, self._on_timer)


def _check_multi(code: int) -> None:
    if code:
        raise CurlError(f"libcurl refused a multi call ({code})")
