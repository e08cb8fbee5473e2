"""The caller's `stop` and `max_tokens`, which the web backend does not know: cut here, exactly.

Theory of operation. Both cuts depend on the text alone, never on how it was split into deltas.

A stop sequence is looked for in the text that is held back plus what arrives; held back is the longest end of it
that could be the start of a stop sequence. The sequence that is complete first wins, and the text ends before it.

Tokens are counted for segments: a segment ends before a blank that follows something else (where the tokenizer
always splits, so the counts add up exactly) or, without a blank, after MAX_SEGMENT characters. No text of n bytes has
more than n tokens, so nothing is counted as long as the bytes since the last count would fit into the budget that is
left: for a limit of thousands of tokens that is a few dozen counts in all. Near the limit the unfinished last
segment is held back until it is complete, because only then its tokens are known.
"""

import re
from collections.abc import Iterable, Sequence

from chat2api.protocol.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    HandedOff,
    ImagePending,
    ReasoningDelta,
    Started,
    TextDelta,
)
from chat2api.protocol.openai.usage import clean_text, count_each, cut_tokens

MAX_SEGMENT = 256
MAX_UNCOUNTED = 16 * 1024
"""Bytes; with a large budget text is counted by blocks of this size, so that no count holds up the event loop."""

_SEGMENT = re.compile(rf"(?s:.(?:(?!(?<=\S) ).){{0,{MAX_SEGMENT - 1}}})")


class TurnLimiter:
    """Cuts one turn at a stop sequence or at a number of tokens; a pure filter over its events.

    Visible reasoning counts towards the tokens, as in the OpenAI API; stop sequences are looked for in the answer's
    text only. Put it behind whatever follows HandedOff and ImagePending and continues a cut turn: these ends pass
    through without ending the turn.
    """

    def __init__(self, max_tokens: int | None, stop: Sequence[str] = ()) -> None:
        """Make a limiter; with None and no stop sequence every event passes as it is."""
        self._stop = _StopFilter(stop) if stop else None
        self._budget = _TokenBudget(max_tokens) if max_tokens is not None else None
        self._kind: type[TextDelta | ReasoningDelta] = TextDelta
        self._conversation_id: str | None = None
        self._message_id: str | None = None
        self._model: str | None = None
        self._out: list[Event] = []
        self._done = False

    @property
    def idle(self) -> bool:
        """Whether it has nothing to cut and lets every event pass as it is."""
        return self._stop is None and self._budget is None

    @property
    def done(self) -> bool:
        """Whether the turn has ended, by itself or by a cut; after a cut the backend's stream can be closed."""
        return self._done

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """Give the events that may go on to the caller; a cut is a Finished of its own. Nothing follows the end."""
        for event in events:
            if self._done:
                break
            if self.idle:
                self._out.append(event)
                self._done = isinstance(event, Finished | Failed)
                continue
            match event:
                case TextDelta(text=text):
                    self._take_text(text)
                case ReasoningDelta(text=text):
                    self._release_held()
                    self._spend(text, ReasoningDelta)
                case HandedOff() | ImagePending():
                    self._out.append(event)
                case Finished() | Failed():
                    self._release_held()
                    self._settle()
                    self._end(event)
                case _:
                    self._release_held()
                    self._settle()
                    self._pass(event)
        out, self._out = self._out, []
        return out

    def _take_text(self, text: str) -> None:
        if self._stop is None:
            self._spend(text, TextDelta)
            return
        before, hit = self._stop.take(text)
        self._spend(before, TextDelta)
        if hit:
            self._settle()
            self._finish("stop")

    def _release_held(self) -> None:
        """Let go of what a stop sequence might have begun with: something else follows."""
        if self._stop is not None:
            self._spend(self._stop.release(), TextDelta)

    def _spend(self, text: str, kind: type[TextDelta | ReasoningDelta]) -> None:
        if not text or self._done:
            return
        if self._budget is None:
            self._out.append(kind(text))
            return
        if kind is not self._kind:
            self._settle()
            self._kind = kind
        if not self._done:
            self._emit(*self._budget.take(clean_text(text)))

    def _settle(self) -> None:
        """Count the unfinished segment as it is, since nothing will be joined to it."""
        if self._budget is not None and not self._done:
            self._emit(*self._budget.settle())

    def _emit(self, text: str, cut: bool) -> None:
        if text:
            self._out.append(self._kind(text))
        if cut:
            self._finish("length")

    def _pass(self, event: Event) -> None:
        if self._done:
            return
        if isinstance(event, Started):
            self._conversation_id, self._message_id = event.conversation_id, event.message_id
            self._model = event.model
        self._out.append(event)

    def _finish(self, reason: FinishReason) -> None:
        self._end(Finished(reason, self._conversation_id, self._message_id, self._model))

    def _end(self, event: Event) -> None:
        if not self._done:
            self._out.append(event)
            self._done = True


class _StopFilter:
    """Finds the first stop sequence in a text that comes in pieces."""

    def __init__(self, stop: Sequence[str]) -> None:
        # The longer first: of two that end at the same place it begins earlier.
        self._stop = sorted(stop, key=len, reverse=True)
        self._longest = len(self._stop[0])
        self._firsts = frozenset(sequence[0] for sequence in stop)
        self._held = ""

    def take(self, text: str) -> tuple[str, bool]:
        """Give the text that may be sent, and whether a stop sequence follows it."""
        text = self._held + text
        end = start = len(text) + 1
        for stop in self._stop:
            found = text.find(stop, 0, end)
            if found >= 0 and found + len(stop) < end:
                start, end = found, found + len(stop)
        if start <= len(text):
            self._held = ""
            return text[:start], True
        keep = self._possible_start(text)
        self._held = text[keep:]
        return text[:keep], False

    def release(self) -> str:
        """Give what is held back and hold nothing."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """Give the first place from which text could grow into a stop sequence; its length when there is none."""
        for place in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[place] in self._firsts:
                tail = text[place:]
                if any(stop.startswith(tail) for stop in self._stop):
                    return place
        return len(text)


class _TokenBudget:
    """Lets text pass up to a number of tokens."""

    def __init__(self, max_tokens: int) -> None:
        self._left = max_tokens
        """Tokens left after all counted segments."""
        self._pieces: list[str] = []
        """Text since the last counted segment, and its size in bytes."""
        self._bytes = 0
        self._sent = 0
        """Characters of that text which have been let through."""

    def take(self, text: str) -> tuple[str, bool]:
        """Give the text that may be sent, and whether the budget ends there."""
        size = _byte_length(text)
        if self._bytes < MAX_UNCOUNTED and self._bytes + size <= self._left:
            self._pieces.append(text)
            self._bytes += size
            self._sent += len(text)
            return text, False
        return self._count("".join((*self._pieces, text)), whole=False)

    def settle(self) -> tuple[str, bool]:
        """Count what is unfinished as a segment of its own; give what take gives."""
        return self._count("".join(self._pieces), whole=True)

    def _count(self, text: str, *, whole: bool) -> tuple[str, bool]:
        segments = _SEGMENT.findall(text)
        if not whole and len(segments[-1]) < MAX_SEGMENT:
            segments.pop()
        counted = 0
        for segment, tokens in zip(segments, count_each(segments) if segments else (), strict=True):
            if tokens > self._left:
                end = counted + len(cut_tokens(segment, self._left))
                return text[self._sent : end], True
            self._left -= tokens
            counted += len(segment)
        rest = text[counted:]
        if rest and not self._left:
            return text[self._sent : counted], True
        return self._keep(text, counted, rest)

    def _keep(self, text: str, counted: int, rest: str) -> tuple[str, bool]:
        """Go on after the counted part; hold the rest back when it could be more than is left."""
        size = _byte_length(rest)
        end = len(text) if size <= self._left else max(counted, self._sent)
        out = text[self._sent : end]
        self._pieces, self._bytes, self._sent = [rest], size, end - counted
        return out, False


def _byte_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
