"""Which sockets have something to say: all of them watched together, and looked at in beats when there are many.

Theory of operation. Every wake-up of the event loop costs several system calls and a round of Python, however little
has arrived, and a paced stream brings one small event at a time: with dozens of streams that is what the processor is
spent on. So the loop watches two epoll objects of ours instead of the sockets, and each look at one handles whatever
is ready in it:

- *urgent* holds sockets somebody waits for: connecting, greeting, sending, waiting for an answer's head. The loop
  watches it, so they are handled at once.
- *calm* holds sockets in the middle of a stream's body (`settle`). A socket moves there only when it wakes us while
  more than BUSY_STREAMS streams are read; a short answer that comes in one piece never moves at all.

The loop watches the calm ones too, until two looks would come within one beat of each other while that many streams
are read. Then they are looked at by a timer, once a beat, so that all events of a beat cost one wake-up, and those of one
socket one read. A beat that finds nothing hands them back to the loop: no timer runs when nothing comes, and the
first event after a rest is never late. With BUSY_STREAMS streams or fewer nothing is ever held back.

Both objects are level-triggered: what one look leaves, the next one finds.
"""

import asyncio
import select
import sys
from collections.abc import Callable
from typing import Protocol

IN, OUT = 1, 2
"""Bits of what a socket is watched for and found ready for; the numbers are curl's."""

BEAT = 0.010
"""Seconds between two looks at the calm sockets of many streams."""

BUSY_STREAMS = 16
"""With at most this many streams nothing is held back."""

TURN = 256
"""Sockets handled before the loop's other callbacks have their turn."""

OnReady = Callable[[int, int], None]
"""Called with a descriptor and the bits that it is ready for."""


class Readiness(Protocol):
    """Watches sockets and says which are ready."""

    loop: asyncio.AbstractEventLoop

    def watch(self, fd: int, wanted: int, on_ready: OnReady, *, renewed: bool = False) -> None:
        """Watch a socket for these bits, whatever it was watched for before.

        `renewed` says that the number may have passed from a closed socket to a new one.
        """
        ...

    def unwatch(self, fd: int) -> None:
        """Stop watching; a socket that is closed already or was never watched is no error."""
        ...

    def settle(self, fd: int) -> None:
        """Say that what comes on this socket may wait for a beat, also if it is not watched at the moment."""
        ...

    def hurry(self, fd: int) -> None:
        """Take `settle` back."""
        ...

    def begin_stream(self) -> None:
        """Count a stream whose body is being read."""
        ...

    def end_stream(self) -> None:
        """Count one less."""
        ...

    def close(self) -> None:
        """Watch nothing any more; idempotent."""
        ...


class _Socket:
    """One watched socket."""

    __slots__ = ("calm", "on_ready", "wanted")

    def __init__(self, wanted: int, on_ready: OnReady) -> None:
        self.wanted = wanted
        self.on_ready = on_ready
        self.calm = False


class LoopReadiness:
    """Readiness where there is no epoll: each socket on the loop by itself, and no beats."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch on a loop that has `add_reader` and `add_writer`."""
        self.loop = loop
        self._wanted: dict[int, int] = {}

    def watch(self, fd: int, wanted: int, on_ready: OnReady, *, renewed: bool = False) -> None:
        """Watch a socket; see Readiness."""
        self.unwatch(fd)
        if wanted & IN:
            self.loop.add_reader(fd, on_ready, fd, IN)
        if wanted & OUT:
            self.loop.add_writer(fd, on_ready, fd, OUT)
        self._wanted[fd] = wanted

    def unwatch(self, fd: int) -> None:
        """Stop watching; see Readiness."""
        if self._wanted.pop(fd, None) is not None:
            self.loop.remove_reader(fd)
            self.loop.remove_writer(fd)

    def settle(self, fd: int) -> None:
        """Change nothing: without beats nothing waits."""

    def hurry(self, fd: int) -> None:
        """Change nothing: without beats nothing waits."""

    def begin_stream(self) -> None:
        """Change nothing: without beats nobody counts."""

    def end_stream(self) -> None:
        """Change nothing: without beats nobody counts."""

    def close(self) -> None:
        """Watch nothing any more; idempotent."""
        for fd in list(self._wanted):
            self.unwatch(fd)


if sys.platform == "linux":
    _EVENTS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
    """What to ask of epoll, by the bits of a watch."""

    class EpollReadiness:
        """Readiness with epoll: all sockets behind two descriptors of the loop's, calm ones looked at in beats."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            """Watch on that loop; its thread must be the one that calls."""
            self.loop = loop
            self._sockets: dict[int, _Socket] = {}
            self._settled: set[int] = set()
            self._urgent = select.epoll()
            self._calm = select.epoll()
            self._streams = 0
            self._looked_at = 0.0
            self._beat: asyncio.Handle | None = None
            loop.add_reader(self._urgent.fileno(), self._look_at_urgent)
            loop.add_reader(self._calm.fileno(), self._look_at_calm)

        def watch(self, fd: int, wanted: int, on_ready: OnReady, *, renewed: bool = False) -> None:
            """Watch a socket; see Readiness."""
            socket = self._sockets.get(fd)
            if socket is None or (renewed and socket.calm):
                if socket is not None:
                    self.unwatch(fd)
                self._sockets[fd] = _Socket(wanted, on_ready)
                _enter(self._urgent, fd, wanted)
                return
            if renewed or socket.wanted != wanted:
                _enter(self._calm if socket.calm else self._urgent, fd, wanted, known=True)
                socket.wanted = wanted
            socket.on_ready = on_ready

        def unwatch(self, fd: int) -> None:
            """Stop watching; see Readiness."""
            if (socket := self._sockets.pop(fd, None)) is not None:
                _leave(self._calm if socket.calm else self._urgent, fd)

        def settle(self, fd: int) -> None:
            """Let a socket wait for beats; see Readiness."""
            self._settled.add(fd)

        def hurry(self, fd: int) -> None:
            """Handle a socket at once from now on; see Readiness."""
            self._settled.discard(fd)
            socket = self._sockets.get(fd)
            if socket is not None and socket.calm:
                socket.calm = False
                _leave(self._calm, fd)
                _enter(self._urgent, fd, socket.wanted)

        def begin_stream(self) -> None:
            """Count a stream; see Readiness."""
            self._streams += 1

        def end_stream(self) -> None:
            """Count one less; see Readiness."""
            self._streams -= 1
            if self._beat is not None and self._streams <= BUSY_STREAMS:
                self._stop_beats()

        @property
        def in_beats(self) -> bool:
            """Whether the calm sockets wait for a timer now."""
            return self._beat is not None

        def close(self) -> None:
            """Watch nothing any more; idempotent."""
            if self._urgent.closed:
                return
            if self._beat is not None:
                self._stop_beats()
            for watching in (self._urgent, self._calm):
                self.loop.remove_reader(watching.fileno())
                watching.close()
            self._sockets.clear()

        def _look_at_urgent(self) -> None:
            busy = self._streams > BUSY_STREAMS
            for fd in self._handle_ready(self._urgent):
                if busy and fd in self._settled and (socket := self._sockets.get(fd)) is not None:
                    socket.calm = True
                    _leave(self._urgent, fd)
                    _enter(self._calm, fd, socket.wanted)

        def _look_at_calm(self) -> None:
            """Called by the loop: something is ready. The second time within a beat is the time to begin with beats."""
            now = self.loop.time()
            dense = now - self._looked_at < BEAT and self._streams > BUSY_STREAMS
            self._looked_at = now
            self._handle_ready(self._calm)
            if dense and self._beat is None and not self._calm.closed:
                self.loop.remove_reader(self._calm.fileno())
                self._beat = self.loop.call_later(BEAT, self._on_beat)

        def _on_beat(self) -> None:
            count = len(self._handle_ready(self._calm))
            if self._beat is None:
                return  # what was handled ended the beats
            if count == 0 or self._streams <= BUSY_STREAMS:
                self._stop_beats()
            elif count < TURN:
                self._beat = self.loop.call_later(BEAT, self._on_beat)
            else:
                self._beat = self.loop.call_soon(self._on_beat)

        def _stop_beats(self) -> None:
            """Give the calm sockets back to the loop, which handles at once what is ready."""
            assert self._beat is not None
            self._beat.cancel()
            self._beat = None
            self._looked_at = 0.0
            self.loop.add_reader(self._calm.fileno(), self._look_at_calm)

        def _handle_ready(self, watching: select.epoll) -> list[int]:
            """Call what waits for the sockets that are ready, TURN at most, and give their descriptors."""
            ready = watching.poll(0, TURN)
            for fd, events in ready:
                socket = self._sockets.get(fd)
                if socket is None:
                    continue  # unwatched by what was handled before it
                # An error or a hang-up is for whoever is there to notice it.
                bits = (IN if events & ~select.EPOLLOUT else 0) | (OUT if events & ~select.EPOLLIN else 0)
                socket.on_ready(fd, bits & socket.wanted)
            return [fd for fd, _ in ready]

    def _enter(watching: select.epoll, fd: int, wanted: int, *, known: bool = False) -> None:
        """Have a socket watched; `known` is only where to try first, as closing a socket takes it out unseen."""
        events = _EVENTS[wanted]
        try:
            if known:
                watching.modify(fd, events)
            else:
                watching.register(fd, events)
        except FileNotFoundError:
            watching.register(fd, events)
        except FileExistsError:
            watching.modify(fd, events)

    def _leave(watching: select.epoll, fd: int) -> None:
        try:
            watching.unregister(fd)
        except OSError:
            return  # a closed socket is out already


def watch_sockets(loop: asyncio.AbstractEventLoop) -> Readiness:
    """Give the best Readiness of this machine."""
    return EpollReadiness(loop) if sys.platform == "linux" else LoopReadiness(loop)
