"""Time, handed down so that tests can pass their own."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the program knows of time."""

    def now(self) -> float:
        """Unix seconds; for instants that are kept or shown (`…_at`)."""
        ...

    def monotonic(self) -> float:
        """Seconds from some start that never jump; for deadlines and durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend for that many seconds."""
        await asyncio.sleep(seconds)
