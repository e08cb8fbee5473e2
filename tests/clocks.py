"""A clock that tests set by hand."""

import asyncio


class FakeClock:
    """Time that moves only when told; `sleep` moves it and lets others run."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self.jumped = 0.0
        """By how much the wall clock was set, forward or back."""
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now + self.jumped

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)
