"""Answers that are read in more than one place: what comes again is told apart from what is new.

An answer that the backend moved may be had in several ways, and each may break off in the middle; a later one begins the
answer anew, or goes on where the stream before it ended, and does not say which. So all that was given to the caller is
remembered, and of each later source only what differs from it is passed on.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from chat2api.errors import UpstreamError, UpstreamTimeoutError
from chat2api.protocol.events import (
    End,
    Event,
    FilePointer,
    OnlyStored,
    ReasoningDelta,
    TakeEvents,
    TextDelta,
)

log = logging.getLogger(__name__)


class AnswerSource(Protocol):
    """Where the events of an answer come from: a BackendTurn, an answer that moved, or a stored conversation."""

    @property
    def raw_text(self) -> str:
        """The last visible message so far as the backend wrote it."""
        ...

    @property
    def unknown(self) -> Counter[str]:
        """How often each shape came so far that was not understood."""
        ...

    async def next(self, take: TakeEvents | None = None) -> list[Event]:
        """Give the next events, an empty list after the end; those that `take` takes are not given."""
        ...

    async def aclose(self) -> None:
        """Abort what still comes in."""
        ...


class Given:
    """What of an answer the caller has been given."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.pointers: set[str] = set()

    def note(self, event: Event) -> None:
        """Note an event that is given; most are deltas."""
        if type(event) is TextDelta:
            self.text.append(event.text)
        elif type(event) is ReasoningDelta:
            self.reasoning.append(event.text)
        elif type(event) is FilePointer:
            self.pointers.add(event.pointer)


class _Rest:
    """Text that may begin with what was given."""

    def __init__(self, given: Sequence[str]) -> None:
        self._given = "".join(given)
        self._at = 0
        """Up to where it has been as given; the rest of the text is new once that is all of it."""

    def feed(self, text: str) -> str:
        """Give what is new of the next piece."""
        left = len(self._given) - self._at
        if left <= 0:
            return text
        if self._given.startswith(text, self._at):
            self._at += len(text)
            return ""
        held, self._at = self._given[: self._at], len(self._given)
        if text.startswith(self._given[len(held) :]):
            return text[left:]
        # It is another text, or the rest only, and began like the given one by chance.
        return held + text


class NewEvents:
    """Sorts out of one source's events what the caller has been given already."""

    def __init__(self, given: Given) -> None:
        """Compare with what has been given until now."""
        self._text = _Rest(given.text)
        self._reasoning = _Rest(given.reasoning)
        self._pointers = frozenset(given.pointers)

    def of(self, events: Sequence[Event]) -> list[Event]:
        """Give the new ones among the next events."""
        return [new for event in events if (new := self._new(event)) is not None]

    def _new(self, event: Event) -> Event | None:
        if isinstance(event, TextDelta):
            text = self._text.feed(event.text)
            return TextDelta(text) if text else None
        if isinstance(event, ReasoningDelta):
            text = self._reasoning.feed(event.text)
            return ReasoningDelta(text) if text else None
        if isinstance(event, FilePointer) and event.pointer in self._pointers:
            return None
        return event


class StoredAnswer:
    """The events of a stored turn."""

    raw_text = ""

    def __init__(self, events: Sequence[Event], given: Given) -> None:
        """Give what is new among the events."""
        self.unknown = Counter[str]()
        self._events = NewEvents(given).of(events)

    async def next(self, take: TakeEvents | None = None) -> list[Event]:
        """Give all events, then an empty list."""
        events, self._events = self._events, []
        return events

    async def aclose(self) -> None:
        """Forget the events."""
        self._events = []


Way = Callable[[], Awaitable[AnswerSource]]
"""Opens one place where an answer may be had. Raises UpstreamError when it is not there."""


class MovedAnswer:
    """An answer that the backend moved: read in the first place where it is, and on in the next when that breaks off.

    After the last place comes OnlyStored.
    """

    def __init__(
        self,
        ways: Sequence[Way],
        conversation_id: str | None,
        given: Given,
        begun: AnswerSource | None = None,
        *,
        patience: float | None = None,
    ) -> None:
        """Read `begun` first, where the answer comes already, then try the ways in their order.

        `given` is kept up to date by whoever calls `next`. A place that says nothing for `patience` seconds, from the
        beginning on, is left; None where there is nothing to be had behind it.
        """
        self._ways = list(ways)
        self._conversation_id = conversation_id
        self._given = given
        self._source = begun
        self._new = NewEvents(given)
        self._unknown = Counter[str]()
        """Of the places that were left."""
        self._patience = patience
        self._is_heard = False
        self._is_over = False

    @property
    def raw_text(self) -> str:
        """The last visible message so far as the backend wrote it."""
        return "" if self._source is None else self._source.raw_text

    @property
    def unknown(self) -> Counter[str]:
        """How often each shape came so far that was not understood."""
        return self._unknown if self._source is None else self._unknown + self._source.unknown

    async def next(self, take: TakeEvents | None = None) -> list[Event]:
        """Give the next events that are new. None is taken where it stands: what is old must go."""
        while not self._is_over:
            try:
                events = await self._read()
            except UpstreamError as error:
                log.info("an answer that moved is not to be had there: %s", error)
                await self._leave()
                continue
            self._is_over = bool(events) and isinstance(events[-1], End)
            if new := self._new.of(events):
                return new
        return []

    async def aclose(self) -> None:
        """Stop what still comes in."""
        self._is_over = True
        await self._leave()

    async def _read(self) -> list[Event]:
        if self._source is None:
            if not self._ways:
                return [OnlyStored(self._conversation_id)]
            self._source = await self._ways.pop(0)()
            self._new = NewEvents(self._given)
            self._is_heard = False
        try:
            async with asyncio.timeout(None if self._is_heard else self._patience) as limit:
                events = await self._source.next()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise UpstreamTimeoutError("The backend says nothing where it moved its answer.", phase="moved") from error
        self._is_heard = True
        if not events:
            await self._leave()
        return events

    async def _leave(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            self._unknown += source.unknown
            await source.aclose()
