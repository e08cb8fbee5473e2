"""What a turn has said so far: text, reasoning and files in their order, as events that wait to be taken.

Different visible messages are set apart by a blank line, as are blocks of reasoning; code and its output stand in fences.
"""

from dataclasses import dataclass
from typing import Literal

from chat2api.protocol.chatgpt.citations import SandboxLink
from chat2api.protocol.chatgpt.message_view import View
from chat2api.protocol.chatgpt.visibility import Show
from chat2api.protocol.events import Event, FilePointer, ReasoningDelta, Started, TextDelta


@dataclass(slots=True)
class Facts:
    """What the backend has told of the turn as a whole: its conversation, the messages' model, the server's word for it."""

    conversation_id: str | None = None
    model: str | None = None
    server_model: str | None = None


class Transcript:
    """The events of one turn."""

    def __init__(self, facts: Facts) -> None:
        """Begin one; the first event tells what `facts` know by then."""
        self.current: View | None = None
        """The visible message that is being written."""
        self.said = 0
        """How many pieces a caller sees were added; only its changes mean something."""
        self.files = 0
        self.has_reasoned = False
        self._facts = facts
        self._reasoning_from: View | None = None
        self._out: list[Event] = []
        self._pending: list[str] = []
        self._is_reasoning = False
        self._has_started = False
        self._tail = ""

    @property
    def has_text(self) -> bool:
        """Whether there is text or a file."""
        return bool(self._tail) or (bool(self._pending) and not self._is_reasoning)

    def take(self) -> list[Event]:
        """Give the events since the last call; neighbouring deltas of one kind come as one."""
        self._flush_pending()
        out, self._out = self._out, []
        return out

    def end(self, event: Event, view: View | None) -> None:
        """Add the last event; `view` is the message that it is about."""
        self._start(view)
        self._flush_pending()
        self._out.append(event)

    def pass_on(self, view: View, pieces: list[str | SandboxLink]) -> None:
        """Add pieces of a message's text, links to files among them."""
        for piece in pieces:
            if isinstance(piece, str):
                self.say(view, piece)
            else:
                self.turn_to(view)
                kind: Literal["image", "file"] = "image" if piece.is_image else "file"
                self.point(view, FilePointer(piece.pointer, kind, piece.name, self._facts.conversation_id, view.id))

    def say(self, view: View, text: str) -> None:
        """Add text of a message; one that was not being written is turned to."""
        if not text:
            return
        if self.current is not view:
            self.turn_to(view)
        if self._is_reasoning or not self._has_started:
            self._switch(view, is_reasoning=False)
        self._pending.append(text)
        self.said += 1

    def turn_to(self, view: View) -> None:
        """Make this message the one that is being written; the one before is closed."""
        if self.current is view:
            return
        self.leave()
        self.separate()
        self.current = view
        view.has_written = True
        if view.show is Show.CODE or view.show is Show.OUTPUT:
            self._switch(view, is_reasoning=False)
            self._pending.append(f"```{view.language}\n")

    def leave(self) -> None:
        """Close what is being written: held text is given, a block of code gets its end."""
        self._leave_reasoning()
        view = self.current
        if view is None:
            return
        if view.show is Show.TEXT:
            self.pass_on(view, view.rewriter.flush())
        elif view.show is Show.CODE or view.show is Show.OUTPUT:
            self._switch(view, is_reasoning=False)
            self._pending.append("```" if self._text_tail().endswith("\n") else "\n```")
        self.current = None

    def separate(self) -> None:
        """Set what follows apart by a blank line, if anything stands before it."""
        tail = self._text_tail()
        if tail and tail != "\n\n":
            self._switch(None, is_reasoning=False)
            self._pending.append("\n" if tail.endswith("\n") else "\n\n")

    def _text_tail(self) -> str:
        """Give the last two characters of the visible text; two dots stand for a file."""
        if self._pending and not self._is_reasoning:
            return (self._tail + "".join(self._pending[-2:]))[-2:]
        return self._tail

    def reason(self, view: View, text: str) -> None:
        """Add text of a message that shows how the answer is thought out."""
        if self._reasoning_from is not view:
            self._leave_reasoning()
        self._think(view, view.rewriter.feed(text))

    def _think(self, view: View, pieces: list[str | SandboxLink]) -> None:
        text = "".join(piece if isinstance(piece, str) else piece.name for piece in pieces)
        if not text:
            return
        self._switch(view, is_reasoning=True)
        if self._reasoning_from is not view:
            if self._reasoning_from is not None:
                self._pending.append("\n\n")
            self._reasoning_from = view
        view.has_written = True
        self._pending.append(text)
        self.has_reasoned = True

    def _leave_reasoning(self) -> None:
        if self._reasoning_from is not None:
            self._think(self._reasoning_from, self._reasoning_from.rewriter.flush())

    def point(self, view: View, pointer: FilePointer) -> None:
        """Add a file."""
        self._start(view)
        self._flush_pending()
        self._out.append(pointer)
        self.files += 1
        self._tail = ".."
        self.said += 1

    def _switch(self, view: View | None, *, is_reasoning: bool) -> None:
        if not self._has_started:
            self._start(view)
        if self._is_reasoning is not is_reasoning:
            self._flush_pending()
            self._is_reasoning = is_reasoning

    def _flush_pending(self) -> None:
        if self._pending:
            text = "".join(self._pending)
            self._pending.clear()
            if self._is_reasoning:
                self._out.append(ReasoningDelta(text))
            else:
                self._out.append(TextDelta(text))
                self._tail = (self._tail + text[-2:])[-2:]

    def _start(self, view: View | None) -> None:
        if not self._has_started:
            self._has_started = True
            identifier = view.id if view else None
            self._out.append(
                Started(self._facts.conversation_id, identifier, self._facts.model or self._facts.server_model)
            )
