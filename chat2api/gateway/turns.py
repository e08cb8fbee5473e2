"""One turn to its real end: the rest of a cut answer, an answer that moved elsewhere, files that are still to be fetched.

The decoder says what it needs by events; here they are carried out, so what comes out holds content and one Finished.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from chat2api.clock import Clock
from chat2api.errors import (
    AnswerElsewhereError,
    StreamInterruptedError,
    UpstreamError,
    UpstreamNotFoundError,
    UpstreamTimeoutError,
)
from chat2api.gateway.deadlines import AnswerLimits, Watchdog, deadline
from chat2api.gateway.elsewhere import AnswerSource, Given, MovedAnswer, StoredAnswer, Way
from chat2api.protocol.chatgpt.faults import Call, classify_failed
from chat2api.protocol.chatgpt.history import StoredTurn, read_last_turn
from chat2api.protocol.events import (
    Event,
    Failed,
    FileLink,
    FilePointer,
    Finished,
    HandedOff,
    ImagePending,
    OnlyStored,
    ReasoningDelta,
    Started,
    TakeEvents,
    TextDelta,
)
from chat2api.protocol.prompt import Prompt
from chat2api.upstream.chatgpt.backend_turn import BackendTurn
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

log = logging.getLogger(__name__)

MAX_CONTINUES = 3
"""How often the rest of an answer is asked for that the backend cut at its own limit."""

MAX_MOVES = 3
"""How often an answer may be moved before it is read from where it is stored."""

MAX_MISSES = 3
"""How often a conversation that is to be read may not be there yet."""

PATIENCE = 60.0
"""Seconds for which a place that an answer was moved to may say nothing at all, where the answer is stored as well."""

POLL_SECONDS = 2.0
"""Pause between two looks at a stored conversation whose answer is still being made; public clients of 2026 take 2 to 4 s."""


@dataclass(slots=True)
class TurnFollower:
    """Follows one turn. Make one for each, call `next` until there is no more, then `aclose`."""

    client: ChatGPTClient
    clock: Clock
    session: Session
    prompt: Prompt
    limits: AnswerLimits
    first_by: float
    """When the first content must be here, by the loop's clock."""
    turn: AnswerSource
    take: TakeEvents | None = None
    """Is offered the deltas after the first content; those that it takes are not yielded."""
    watchdog: Watchdog = field(default_factory=Watchdog)
    """Watches what the turn waits for, as it may have watched what came before."""
    _whole_by: float = field(init=False)
    _unread: list[Event] = field(default_factory=list)
    _ended: bool = False
    _given: Given = field(default_factory=Given)
    _begun: bool = False
    _content: bool = False
    _continues: int = 0
    _moves: int = 0
    _misses: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    """How often each shape came in the turns before the present one that was not understood."""

    def __post_init__(self) -> None:
        """Begin to measure the time of the whole."""
        self._whole_by = asyncio.get_running_loop().time() + self.limits.whole

    async def next(self) -> list[Event]:
        """Wait for the next batch: at least one event, Finished as the very last one; nothing once that was given.

        Raises the error that a failure inside the stream stands for, UpstreamTimeoutError, TransportError,
        StreamInterruptedError or UpstreamProtocolError.
        """
        batch: list[Event] = []
        while not batch and not self._ended:
            events, self._unread = self._unread or await self._read(), []
            for place, event in enumerate(events):
                if batch and _leads_elsewhere(event):
                    # Following it may take long or fail: what came before it is given first, since it counts.
                    self._unread = events[place:]
                    break
                followed = await self._follow(event)
                if followed is not None:
                    batch.append(followed)
                    self._ended = self._ended or isinstance(followed, Finished)
        return batch

    async def aclose(self) -> None:
        """Abort the turn that is being read."""
        self.watchdog.close()
        await self.turn.aclose()

    async def _read(self) -> list[Event]:
        """Wait for the turn's next events within the limit of this phase."""
        clock = asyncio.get_running_loop().time
        at = clock() + self.limits.between_events if self._content else self.first_by
        take = self._pass_on if self._content and self.take is not None else None
        try:
            events = await self.watchdog.wait(self.turn.next(take), min(at, self._whole_by))
        except TimeoutError as error:
            if clock() >= self._whole_by:
                phase, what = "whole_answer", "took too long for its answer"
            elif self._content:
                phase, what = "between_events", "went silent in the middle of its answer"
            else:
                phase, what = "first_content", "did not begin its answer in time"
            raise UpstreamTimeoutError(f"The backend {what}.", phase=phase) from error
        if not events:
            raise StreamInterruptedError("The backend's answer ended before its end.")
        return events

    def _pass_on(self, events: Sequence[Event]) -> bool:
        """Have deltas taken where they stand; False leaves the batch to `next`."""
        assert self.take is not None
        for event in events:
            if type(event) is not TextDelta and type(event) is not ReasoningDelta:
                return False
        if not self.take(events):
            return False
        for event in events:
            self._given.note(event)
        silent_by = asyncio.get_running_loop().time() + self.limits.between_events
        self.watchdog.put_off(min(silent_by, self._whole_by))
        return True

    async def _follow(self, event: Event) -> Event | None:
        """Give what stands for an event in the answer, None when nothing does."""
        match event:
            case Started():
                if self._begun:
                    return None
                self._begun = True
            case FilePointer():
                self._content = True
                self._given.note(event)
                url = await self.client.file_url(self.session, event)
                return FileLink(url, event.kind, event.name)
            case Finished(continuable=True) if self._continues < MAX_CONTINUES and event.conversation_id is not None:
                return None if await self._continue(event) else event
            case Finished():
                pass
            case Failed():
                raise classify_failed(event, call=Call("conversation", self.session.credential, self.session.private))
            case HandedOff() if self._moves < MAX_MOVES:
                await self._resume(event)
                return None
            case HandedOff() | ImagePending() | OnlyStored():
                await self._poll(event.conversation_id, is_picture=isinstance(event, ImagePending))
                return None
            case _:
                self._content = True
                self._given.note(event)
        return event

    async def _continue(self, cut: Finished) -> bool:
        """Go on with the rest of a cut answer; False when the backend does not give it, which is no failure."""
        self._continues += 1
        try:
            rest = await self.client.continue_turn(
                self.session, self.prompt.model, cut, sent_text=self.turn.raw_text, temporary=self.prompt.temporary
            )
        except UpstreamError as error:
            log.info("the rest of a cut answer could not be had: %s", error)
            return False
        await self._replace(rest)
        return True

    async def _resume(self, handed: HandedOff) -> None:
        """Go on where the answer may be by now: the resume call, then the account's socket; or the one of 2024."""
        self._moves += 1
        client, session = self.client, self.session
        ways: list[Way] = []
        begun: AnswerSource | None = None
        if handed.websocket_url is not None:
            begun = self.turn.take_early() if isinstance(self.turn, BackendTurn) else None
            ways.append(lambda: client.socket_turn(session, handed))
        else:
            ways.append(lambda: client.resume_turn(session, handed))
            if handed.topic_id is not None:
                ways.append(lambda: client.topic_turn(session, handed))
        patience = None if self.prompt.temporary else PATIENCE
        moved = MovedAnswer(ways, handed.conversation_id, self._given, begun, patience=patience)
        await self._replace(moved)

    async def _poll(self, conversation_id: str | None, *, is_picture: bool) -> None:
        """Read the stored conversation until its last turn is whole, and go on with that.

        A picture that the backend has given up is not waited for: what it said instead is the answer.
        """
        if conversation_id is None or self.prompt.temporary:
            raise AnswerElsewhereError("The backend finishes its answer elsewhere, and a temporary chat is not stored.")
        at = asyncio.get_running_loop().time() + self.limits.between_events if self._content else self.first_by
        async with deadline(at, "stored_answer", "The backend did not finish its answer in time."):
            while True:
                stored = await self._look_up(conversation_id)
                if stored is not None and (stored.is_done or (is_picture and stored.is_work_over)):
                    break
                await self.clock.sleep(POLL_SECONDS)
        events = stored.events
        if not stored.is_done:
            if not any(isinstance(event, TextDelta | FilePointer) for event in events):
                raise AnswerElsewhereError("The backend has ended its work on the picture without giving one.")
            events = (*events, Finished("stop", conversation_id, stored.current_node or None, None))
        await self._replace(StoredAnswer(events, self._given))

    async def _look_up(self, conversation_id: str) -> StoredTurn | None:
        """Give the stored turn as it is by now; None while it is not stored yet, which is not believed for ever."""
        try:
            return read_last_turn(await self.client.stored_conversation(self.session, conversation_id))
        except UpstreamNotFoundError as error:
            self._misses += 1
            if self._misses > MAX_MISSES:
                raise AnswerElsewhereError(
                    "The backend finishes its answer elsewhere and does not store it."
                ) from error
            return None

    async def _replace(self, turn: AnswerSource) -> None:
        old, self.turn = self.turn, turn
        self.unknown += old.unknown
        await old.aclose()


def _leads_elsewhere(event: Event) -> bool:
    """Whether following the event takes another call, or ends the turn with an error."""
    if isinstance(event, Finished):
        return event.continuable
    return isinstance(event, FilePointer | Failed | HandedOff | ImagePending | OnlyStored)
