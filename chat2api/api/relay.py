"""From the gateway's generators to the response: a bounded outbox between those who make events and the one who sends.

Theory of operation. Each choice of an answer has a pump, a task that runs the gateway's generator and lays its events
into the outbox. The response takes all that is there at once, so events that came together leave together. Two
things follow from the outbox: the response can wait for the first content before it starts (and answer with a real
status when there is none), and it can say that nothing came for a while without disturbing the pump.

While a response flows, most batches need neither outbox nor switch of tasks: a source offers its deltas first, and the
response's `sink` sends them where they stand if it can, that is if it waits for news and its client keeps up.

A pump waits when the outbox is full, so a client that does not read slows the upstream down. Closing the relay ends the
pumps, which closes the upstream response and frees the account; it happens exactly once, however the request ends.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from math import inf
from typing import Any, Generic, Protocol, TypeVar

from chat2api.errors import Chat2APIError
from chat2api.protocol.events import Event, ReasoningDelta, TextDelta
from chat2api.upstream.alarms import Alarms

OUTBOX_LIMIT = 16 * 1024
"""Characters held for one answer before its pumps wait."""

_EVENT_OVERHEAD = 64
_LONG = 3600.0

Batch = TypeVar("Batch")
"""What a source yields: events, or bytes that are passed on as they are."""


class Spawn(Protocol):
    """Starts a background task that the runtime keeps and names."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Start it."""
        ...


class AnswerRelay(Generic[Batch]):
    """One answer on its way from the gateway to the response.

    What is taken comes as pairs of a choice's index and a batch of it.
    """

    def __init__(
        self,
        open_source: Callable[[Callable[[Batch], bool]], AsyncGenerator[Batch]],
        spawn: Spawn,
        size_of: Callable[[Batch], int],
        alarms: Alarms,
        *,
        choices: int = 1,
    ) -> None:
        """Start a pump for each choice.

        `open_source` gives the generator of one choice, which may offer batches before it yields them; `size_of` tells
        what counts of a batch towards the limit.
        """
        self._loop = asyncio.get_running_loop()
        self._held: list[tuple[int, Batch]] = []
        self._size_of = size_of
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._wait_until = 0.0
        self._timeout = 0.0
        self._alarms = alarms
        self._rings_at = inf
        self._room: asyncio.Event | None = None
        self._interruption: Chat2APIError | None = None
        self.sink: Callable[[int, Batch], bool] | None = None
        """Set by the response while it flows: takes a batch of a choice at once, or answers False to have it held."""
        self._failure: BaseException | None = None
        self._running = choices
        sources = [open_source(partial(self._offer, index)) for index in range(choices)]
        self._pumps = [spawn(self._pump(index, source), "answer") for index, source in enumerate(sources)]

    async def _pump(self, index: int, source: AsyncGenerator[Batch]) -> None:
        try:
            async with aclosing(source):
                async for events in source:
                    self._held.append((index, events))
                    self._size += self._size_of(events)
                    self._wake()
                    if self._size > OUTBOX_LIMIT:
                        await self._make_room()
        except asyncio.CancelledError:
            self._running = 0
            raise
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._running -= 1
            self._wake()

    async def _make_room(self) -> None:
        if self._room is None:
            self._room = asyncio.Event()
        await self._room.wait()

    def _offer(self, index: int, events: Batch) -> bool:
        """Have the response take events at once, if it waits for nothing else and can send them."""
        if self.sink is None or self._held or self._waiter is None or self._waiter.done():
            return False
        if not self.sink(index, events):
            return False
        self._wait_until = self._loop.time() + self._timeout
        return True

    async def wait(self, timeout: float) -> bool:
        """Return True once there is something to take or the answer is over; False after timeout seconds.

        One alarm serves all waits of an answer: it is set when there is none and looks, once it rings, whether the
        wait that is on then has more time. A stream that flows would otherwise set and drop one for each delta.
        """
        if not self._held and not self._over():
            self._timeout = timeout
            self._wait_until = self._loop.time() + timeout
            if self._rings_at > self._wait_until:
                self._set_alarm()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return bool(self._held) or self._over()

    def _set_alarm(self) -> None:
        self._rings_at = self._wait_until
        self._alarms.set(self, self._rings_at)

    def ring(self) -> None:
        """See whether the wait that is on has lasted long enough."""
        self._rings_at = inf
        if self._waiter is None:
            return
        if self._loop.time() < self._wait_until:
            self._set_alarm()
        else:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> list[tuple[int, Batch]]:
        """Give all that arrived, oldest first; an empty list when the answer is over.

        Raises what ended a pump, after everything that came before it was taken. Call it after `wait` gave True.
        """
        if self._interruption is not None and not self._held:
            raise self._interruption
        taken, self._held, self._size = self._held, [], 0
        if self._room is not None:
            self._room.set()
            self._room = None
        if not taken and self._failure is not None:
            raise self._failure
        return taken

    async def next(self) -> list[tuple[int, Batch]]:
        """Wait for what comes next, however long it takes, and give it as `take` does."""
        while not await self.wait(_LONG):
            pass
        return self.take()

    def check_begun(self) -> None:
        """Raise what ended the answer if that came before any content."""
        if not self._held:
            self.take()

    def interrupt(self, error: Chat2APIError) -> None:
        """End the answer with that error; what has arrived is still given first."""
        self._interruption = error
        self._wake()

    async def aclose(self) -> None:
        """End the pumps and wait until they have cleaned up; idempotent."""
        self.sink = None
        self._alarms.drop(self)
        if running := [pump for pump in self._pumps if not pump.done()]:
            for pump in running:
                pump.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        for pump in self._pumps:
            if not pump.cancelled():
                pump.exception()  # seen, even if nobody took it: the caller had left

    @property
    def failed(self) -> bool:
        """Whether an error ended one of the choices."""
        return self._failure is not None

    def _over(self) -> bool:
        return self._running <= 0 or self._failure is not None or self._interruption is not None


def size_of_events(events: Sequence[Event]) -> int:
    """Give how many characters some events hold, with what the events themselves take."""
    size = len(events) * _EVENT_OVERHEAD
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta):
            size += len(event.text)
    return size
