"""The neutral events of a turn: the one meeting point of the dialects.

A decoder yields them in this order:

    Started  (TextDelta | ReasoningDelta | FilePointer | FileLink)*  end

where `end` is exactly one of Finished, Failed, HandedOff, ImagePending or OnlyStored. Started comes once, before the
first content or the end. Translation asks for I/O by emitting a value: the gateway replaces each FilePointer with the
FileLink that it fetched, and follows HandedOff, ImagePending and OnlyStored to where the answer really is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Started:
    """The backend began to answer. Ids are the backend's own; None when it told none."""

    conversation_id: str | None
    message_id: str | None
    model: str | None
    """Slug that serves the turn, as far as it is known by now."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the visible answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's visible reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class FilePointer:
    """A file that the backend made, to be asked for with one more call.

    `pointer` is `file-service://…`, `sediment://…` or `sandbox:/mnt/data/…`; `name` is the alternative text, the
    prompt it was drawn from or the file name, "" when none is known. Its place in the text is where it stands among the
    deltas, which hold the blank lines around it: it is rendered as `![name](url)` or `[name](url)` and nothing else.
    """

    pointer: str
    kind: Literal["image", "file"]
    name: str
    conversation_id: str | None
    message_id: str | None


@dataclass(frozen=True, slots=True)
class FileLink:
    """A file that the caller can fetch; url None says that it could not be had."""

    url: str | None
    kind: Literal["image", "file"]
    name: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The good end of the turn (or its cut by a limit, for reason length).

    `message_id` is the last assistant message, the parent of the caller's next one. `model` is the slug that
    served. `continuable` is True when the backend cut at its own max_tokens and a `continue` call may go on.
    """

    reason: FinishReason
    conversation_id: str | None
    message_id: str | None
    model: str | None
    continuable: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The backend reported an error inside a 200 answer.

    `message` is the backend's own text (it may be localised); `code` its code when it sent one.
    """

    message: str
    code: str | None
    conversation_id: str | None


@dataclass(frozen=True, slots=True)
class HandedOff:
    """The answer goes on elsewhere: by the resume call, or on a topic of the web socket.

    `websocket_url` is set for the 2024 JSON form (`wss_url`), else None. `received` is how many events of the stream came
    until then, as far as that is known: the website's own client asks for what follows them.
    """

    conversation_id: str | None
    topic_id: str | None
    resume_token: str | None
    websocket_url: str | None = None
    received: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ImagePending:
    """The stream ended while an image is still being made; it appears in the stored conversation later."""

    conversation_id: str | None
    message_id: str | None


@dataclass(frozen=True, slots=True)
class OnlyStored:
    """What is left of the answer can only be read from the stored conversation, once it is whole there."""

    conversation_id: str | None


Event = (
    Started
    | TextDelta
    | ReasoningDelta
    | FilePointer
    | FileLink
    | Finished
    | Failed
    | HandedOff
    | ImagePending
    | OnlyStored
)

TakeEvents = Callable[[Sequence[Event]], bool]
"""Takes a batch of deltas where it stands, or answers False to have it go the usual way."""

End = (Finished, Failed, HandedOff, ImagePending, OnlyStored)
"""The classes that end a turn; for isinstance."""
