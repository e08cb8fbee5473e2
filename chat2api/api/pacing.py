"""When deltas leave together: on a busy loop, never for a lone stream.

Every write to a client is a system call, and a paced stream writes one delta at a time: with many streams that is what
the processor is spent on. While more streams are live than BUSY_STREAMS, each waits for the next beat of one common
timer before it writes, so deltas that came within one beat share a write. A beat lasts 10 ms, which no reader notices.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

BEAT = 0.010
"""Longest time that a delta is held back, in seconds."""

BUSY_STREAMS = 16
"""With at most this many live streams nothing is ever held back."""


class Pacer:
    """The common beat of all streams of one event loop."""

    def __init__(self, *, beat: float = BEAT, busy_streams: int = BUSY_STREAMS) -> None:
        """Make a pacer; times in seconds."""
        self._beat = beat
        self._busy_streams = busy_streams
        self._live = 0
        self._next: asyncio.Future[None] | None = None

    @property
    def live(self) -> int:
        """Streams that are being sent now."""
        return self._live

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a stream as live while the block runs."""
        self._live += 1
        try:
            yield
        finally:
            self._live -= 1

    async def hold(self) -> None:
        """Wait for the next beat while the loop is busy; return at once otherwise."""
        if self._live <= self._busy_streams:
            return
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            loop.call_later(self._beat, self._tick)
        await asyncio.shield(self._next)

    def _tick(self) -> None:
        beat, self._next = self._next, None
        if beat is not None:
            beat.set_result(None)
