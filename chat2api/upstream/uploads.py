"""A request's body that is sent while it comes: a short wait between who brings it and libcurl, never the whole.

Theory of operation. Bytes are put in at one end and read at the other by libcurl, which is told to PAUSE when there are none
and is woken when there are. Who puts waits while LIMIT bytes are unread. The beginning of the body is kept until more than
KEPT bytes of it have come: so long, an attempt that failed can be made again from the start.
"""

import asyncio
from collections import deque
from collections.abc import Callable

KEPT = 512 * 1024
"""Bytes of a body's beginning that are kept for another attempt."""

LIMIT = 256 * 1024
"""Bytes that wait behind those."""

PAUSE = 0x10000001
"""What `read` gives for "nothing now": libcurl's CURL_READFUNC_PAUSE."""


class Upload:
    """One body on its way. `length` is its size in bytes, None where it is not known beforehand."""

    def __init__(self, length: int | None = None) -> None:
        """Begin with nothing."""
        self.length = length
        self._start = bytearray()
        self._at = 0
        """How much of the beginning has been read."""
        self._rest: deque[bytes] = deque()
        self._waiting = 0
        """Bytes behind the beginning that are not read yet."""
        self._restartable = True
        self._ended = False
        self._stopped = False
        self._room = asyncio.Event()
        self._room.set()
        self._is_awaited = False
        self._wake: Callable[[], object] | None = None

    # Who brings the body

    async def put(self, data: bytes) -> bool:
        """Add bytes once there is room for them; False when nobody wants them any more."""
        while not self._stopped and self._waiting >= LIMIT:
            self._room.clear()
            await self._room.wait()
        if self._stopped:
            return False
        if data:
            self._add(data)
            self._tell()
        return True

    def end(self) -> None:
        """Say that all of it has been put in."""
        self._ended = True
        self._tell()

    def stop(self) -> None:
        """Let who puts go on in vain: the answer is here, or there will be none."""
        self._stopped = True
        self._room.set()

    # Who sends it

    @property
    def drained(self) -> bool:
        """Whether all of it has been read."""
        return self._ended and self._at == len(self._start) and not self._rest

    def attach(self, wake: Callable[[], object]) -> None:
        """Have `wake` called from ordinary code when there is something to read after PAUSE."""
        self._wake = wake

    def detach(self) -> None:
        """Send no more, for now."""
        self._wake = None
        self._is_awaited = False

    def restart(self) -> bool:
        """Go back to the beginning for another attempt; False when too much has been sent for that."""
        if self._restartable:
            self._at = 0
        return self._restartable

    def read(self, size: int) -> bytes | int:
        """Give up to `size` bytes, b"" at the end, PAUSE when there are none now."""
        if self._at < len(self._start):
            piece = bytes(self._start[self._at : self._at + size])
            self._at += len(piece)
            return piece
        if not self._rest:
            self._is_awaited = not self._ended
            return b"" if self._ended else PAUSE
        if self._restartable:
            self._restartable = False
            self._start.clear()
            self._at = 0
        piece = self._rest.popleft()
        if len(piece) > size:
            self._rest.appendleft(piece[size:])
            piece = piece[:size]
        self._waiting -= len(piece)
        if self._waiting < LIMIT:
            self._room.set()
        return piece

    def seek(self, offset: int, origin: int) -> None:
        """Let libcurl begin again when a kept connection turns out to be dead; not when the server has had everything."""
        if offset != 0 or origin != 0 or self.drained or not self.restart():
            raise OSError("this body cannot be sent again")

    def _add(self, data: bytes) -> None:
        if self._restartable and not self._rest and len(self._start) + len(data) <= KEPT:
            self._start += data
        else:
            self._rest.append(data)
            self._waiting += len(data)

    def _tell(self) -> None:
        if self._is_awaited and self._wake is not None:
            self._is_awaited = False
            self._wake()
