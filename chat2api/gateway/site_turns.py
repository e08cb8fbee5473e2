"""One turn that is passed on as it comes, byte for byte, with the same deadlines as an answer that is translated (R1).

The bytes go through a decoder on their way, which changes none of them: it tells when the first content is here, whose
conversation it is, what the answer costs, and where it goes on when the backend has moved it.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from chat2api.accounts.health import Verdict
from chat2api.accounts.pool import Lease, Outcome
from chat2api.errors import (
    StreamInterruptedError,
    TransportError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from chat2api.gateway.attempts import Trials, is_unreadable
from chat2api.gateway.deadlines import Watchdog, deadline
from chat2api.gateway.sources import Way
from chat2api.protocol.chatgpt.drift import UNREADABLE, DriftWatch
from chat2api.protocol.chatgpt.faults import Call, classify_failed
from chat2api.protocol.chatgpt.website_files import file_of
from chat2api.protocol.chatgpt.website_turns import SiteTurn
from chat2api.protocol.event_stream import MAX_STREAM
from chat2api.protocol.events import (
    End,
    Event,
    Failed,
    FilePointer,
    Finished,
    HandedOff,
    ImagePending,
    OnlyStored,
    ReasoningDelta,
    TextDelta,
)
from chat2api.storage.values import ConversationOwner
from chat2api.upstream.chatgpt.backend_turn import BackendTurn
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

log = logging.getLogger(__name__)

HELD_LIMIT = 256 * 1024
"""Bytes that are held back for want of content; beyond, they are given all the same."""

HALF_LIMIT = 64 * 1024
"""Bytes of an event that are held back until it is whole."""

TAIL_SECONDS = 5.0
"""How long the backend may leave its stream open behind the answer's end."""

MARK_SECONDS = 0.25
"""The same behind the end mark, where only the connection's own end can follow; a socket has none."""

MAX_CONTINUES = 3
MAX_MOVES = 3

_CONTENT = (TextDelta, ReasoningDelta, FilePointer, Finished, ImagePending, OnlyStored)
_DONE = b"data: [DONE]"
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of an answer as they came, and what they say."""

    data: bytes = field(repr=False)
    events: Sequence[Event]


class PassingChats:
    """Who temporary chats belong to: kept in memory only, for as long as they are among the last ones (G6)."""

    def __init__(self, limit: int = 10_000) -> None:
        """Keep that many."""
        self._limit = limit
        self._owners: OrderedDict[str, ConversationOwner] = OrderedDict()
        self._files: OrderedDict[str, ConversationOwner] = OrderedDict()

    def put(self, owner: ConversationOwner, files: Iterable[str] = ()) -> None:
        """Keep the owner of a temporary chat, and that it holds those files."""
        self._keep(self._owners, owner.conversation_id, owner)
        for file in files:
            self._keep(self._files, file, owner)

    def get(self, conversation_id: str) -> ConversationOwner | None:
        """Give the owner of a temporary chat, None for other chats and those of long ago."""
        return self._owners.get(conversation_id)

    def holder(self, file: str) -> ConversationOwner | None:
        """Give the owner of the temporary chat that held a file last."""
        return self._files.get(file)

    def _keep(self, kept: OrderedDict[str, ConversationOwner], name: str, owner: ConversationOwner) -> None:
        kept[name] = owner
        kept.move_to_end(name)
        if len(kept) > self._limit:
            kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class SiteAsk:
    """What is asked, and through whom."""

    client: ChatGPTClient
    turn: SiteTurn
    drift: DriftWatch
    passing: PassingChats


class SiteAttempt:
    """One attempt at a turn that is passed on; see `attempts.Attempt`."""

    def __init__(self, work: SiteAsk, trials: Trials, lease: Lease, first_by: float) -> None:
        """Make an attempt; call `finish` once it is over, however it ends."""
        self._work = work
        self._trials = trials
        self._lease = lease
        self._first_by = first_by
        self._watchdog = Watchdog()
        self._source: BackendTurn | None = None
        self._unknown = Counter[str]()
        self._received = 0
        self._end: Event | None = None
        self._remembered: str | None = None
        self._files = {file for file in work.turn.files if isinstance(file, str)}
        self._failed: UpstreamError | None = None
        self._served = False
        self.session: Session | None = None
        self.begun = False

    async def answer(self, avoid: Set[Way], *, renew: bool) -> AsyncGenerator[Sequence[Piece]]:
        """Yield the pieces of the answer, all that came before the first content with it."""
        work, trials = self._work, self._trials
        async with deadline(self._first_by, "first_content", "The backend did not begin its answer in time."):
            self.session = session = await trials.open_session(self._lease, avoid, renew=renew)
            turn = work.turn
            if turn.conversation_id is not None and turn.parent_message_id is None:
                turn = replace(turn, parent_message_id=await work.client.current_message(session, turn.conversation_id))
            self._source = await work.client.send_turn(session, turn)
        held: list[Piece] = []
        async with aclosing(self._follow(session, held)) as pieces:
            async for piece in pieces:
                held.append(piece)
                if not self.begun:
                    has_content = any(isinstance(event, _CONTENT) for event in piece.events)
                    if not has_content and sum(len(one.data) for one in held) <= HELD_LIMIT:
                        continue
                    self.begun = True
                    trials.share.begin()
                await self._remember(piece)
                given = held.copy()
                held.clear()
                yield given
        self._served = True

    async def finish(self, failure: Exception | None) -> Verdict:
        """Free the account and abort what still runs; give what the failure means."""
        failure = failure or self._failed
        self._watchdog.close()
        unreadable = is_unreadable(failure)
        if self._source is not None:
            self._unknown += self._source.unknown
            await self._source.aclose()
        if self._source is not None or unreadable:
            self._unknown[UNREADABLE] += unreadable
            self._work.drift.note(+self._unknown, self._trials.clock.monotonic())
        outcome = failure or (Outcome.SERVED if self._served or self.begun else Outcome.ABANDONED)
        return await self._trials.free(self._lease, self.session, outcome)

    # The stream, and what comes behind it

    async def _follow(self, session: Session, held: list[Piece]) -> AsyncGenerator[Piece]:
        """Yield the pieces of the stream, and of the streams in which its answer goes on."""
        continues = moves = 0
        while True:
            last = b""
            async with aclosing(self._read()) as pieces:
                async for piece in pieces:
                    self._check_failed(piece.events, session)
                    data = without_handoff(piece.data)
                    if self._work.turn.auto_continue or isinstance(self._end, HandedOff):
                        data, last = split_end_mark(last + data)
                    yield Piece(data, piece.events)
            end = self._end
            if (
                isinstance(end, Finished)
                and end.continuable
                and self._work.turn.auto_continue
                and continues < MAX_CONTINUES
            ):
                continues += 1
                if await self._continue(session, end):
                    continue
            elif isinstance(end, HandedOff) and moves < MAX_MOVES:
                moves += 1
                if end.websocket_url is not None:
                    held.clear()  # it is no event stream, and names a socket that would show all of the account's chats
                await self._move(session, end)
                continue
            if last:
                yield Piece(last, ())
            return

    async def _read(self) -> AsyncGenerator[Piece]:
        """Yield the pieces of one stream up to its end, within the limits of each phase.

        A piece ends with an event: half of one, where the stream breaks off, is nothing that a client could read.
        """
        assert self._source is not None
        loop = asyncio.get_running_loop()
        limits = self._trials.limits
        whole_by = loop.time() + limits.whole
        self._end = None
        half = b""
        is_marked = False
        while True:
            if self._end is not None:
                phase, by = "tail", loop.time() + (MARK_SECONDS if is_marked else TAIL_SECONDS)
            elif self.begun:
                phase, by = "between_events", loop.time() + limits.between_events
            else:
                phase, by = "first_content", self._first_by
            try:
                data, events = await self._watchdog.wait(self._source.read(), min(by, whole_by))
            except (TimeoutError, TransportError) as error:
                if phase == "tail":
                    data, events = b"", []
                elif isinstance(error, TransportError):
                    raise
                else:
                    raise UpstreamTimeoutError("The backend went silent in its answer.", phase=phase) from error
            self._received += len(data)
            if self._received > MAX_STREAM:
                raise UpstreamProtocolError(f"The backend's stream is longer than {MAX_STREAM} bytes.")
            self._end = next((event for event in events if isinstance(event, End)), self._end)
            whole, half = split_half_event(half + data) if data else (half, b"")
            is_marked = is_marked or whole.rstrip().endswith(_DONE)
            if whole or events:
                yield Piece(whole, events)
            if not data:
                return

    def _check_failed(self, events: Sequence[Event], session: Session) -> None:
        """Raise a failure that the backend tells before any content; later ones the caller is told by the backend."""
        begun = self.begun
        for event in events:
            begun = begun or isinstance(event, _CONTENT)
            if isinstance(event, Failed):
                error = classify_failed(event, call=Call("conversation", session.credential, session.private))
                if not begun:
                    raise error
                self._failed = error

    async def _continue(self, session: Session, cut: Finished) -> bool:
        """Go on with the rest of a cut answer; False when the backend does not give it, which is no failure."""
        assert self._source is not None
        if cut.conversation_id is None or cut.message_id is None:
            return False
        turn = self._work.turn.going_on(cut.conversation_id, cut.message_id)
        try:
            rest = await self._work.client.send_turn(session, turn, sent_text=self._source.raw_text)
        except UpstreamError as error:
            log.info("the rest of a cut answer could not be had: %s", error)
            return False
        await self._replace(rest)
        return True

    async def _move(self, session: Session, handed: HandedOff) -> None:
        """Go on where the answer may be by now: the resume call, then the account's socket; or the one of 2024."""
        client = self._work.client
        ways: list[Callable[[], Awaitable[BackendTurn]]] = []
        if handed.websocket_url is not None:
            ways.append(lambda: client.socket_turn(session, handed))
        else:
            ways.append(lambda: client.resume_turn(session, handed))
            if handed.topic_id is not None:
                ways.append(lambda: client.topic_turn(session, handed))
        assert self._source is not None
        if (early := self._source.take_early()) is not None:
            await self._replace(early)
            return
        failure: UpstreamError | None = None
        for way in ways:
            try:
                await self._replace(await way())
            except UpstreamError as error:
                log.info("an answer that moved is not to be had there: %s", error)
                failure = error
            else:
                return
        raise StreamInterruptedError(
            "The backend moved its answer elsewhere, and it is not to be had there."
        ) from failure

    async def _replace(self, source: BackendTurn) -> None:
        old, self._source = self._source, source
        if old is not None:
            self._unknown += old.unknown
            await old.aclose()

    async def _remember(self, piece: Piece) -> None:
        """Keep who owns the conversation and its files before the caller learns their ids, and its last message at the end."""
        assert self._source is not None
        pointers = [event.pointer for event in piece.events if isinstance(event, FilePointer)]
        files = self._files | {file for file in map(file_of, pointers) if file is not None}
        identifier, self._files = self._source.conversation_id, files
        if identifier is None:
            return
        finished = next((event for event in piece.events if isinstance(event, Finished)), None)
        is_news = finished is not None or self._remembered != identifier
        if not is_news and not files:
            return
        self._remembered, self._files = identifier, set()
        message_id = finished.message_id if finished is not None else None
        trials = self._trials
        if self._work.turn.temporary:
            now = trials.clock.now()
            owner = ConversationOwner(identifier, self._lease.account.id, trials.caller.owner, message_id, now)
            self._work.passing.put(owner, files)
        elif trials.caller.kind not in ("own_token", "anonymous"):  # those need nobody to say what is theirs
            if is_news:
                await trials.remember(self._lease, identifier, message_id)
            if files:
                await trials.remember_files(identifier, files)


def split_half_event(data: bytes) -> tuple[bytes, bytes]:
    """Cut off the event at the end of some bytes of a stream that has not ended yet; one that is very long stays."""
    end = max((at + len(mark) for mark in _EVENT_ENDS if (at := data.rfind(mark)) >= 0), default=0)
    return (data, b"") if len(data) - end > HALF_LIMIT else (data[:end], data[end:])


def without_handoff(data: bytes) -> bytes:
    """Cut the event out that says where the answer goes on: who is given the rest as well has no use for it.

    `data` begins with an event; one that does not end here stays.
    """
    at = data.find(b'"stream_handoff"')
    start, end = data.rfind(b"\n\n", 0, max(at, 0)), data.find(b"\n\n", at)
    return data[: start + 2 if start >= 0 else 0] + data[end + 2 :] if at >= 0 and end >= 0 else data


def split_end_mark(data: bytes) -> tuple[bytes, bytes]:
    """Cut off the line that says `[DONE]`, or what may become it, from the end of some bytes of a stream."""
    line_start = data.rstrip(b"\r\n").rfind(b"\n") + 1
    line = data[line_start:].rstrip(b"\r\n")
    if line and (_DONE.startswith(line) if line_start + len(line) == len(data) else line == _DONE):
        return data[:line_start], data[line_start:]
    return data, b""
