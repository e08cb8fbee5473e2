"""The neutral request of a turn: what a dialect's parser gives and the ChatGPT request builder takes."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
ThinkingEffort = Literal["standard", "extended", "max"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str


Part = TextPart
"""What a message holds. Image and file parts will join here."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made earlier in the conversation; `arguments` is its text, JSON or not."""

    id: str | None
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation, oldest first in a Prompt."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    """Author's name, or the name of the tool, as the caller gave it."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls made in this message; only with role assistant."""
    tool_call_id: str | None = None
    """The call that this message answers; only with role tool."""

    @property
    def text(self) -> str:
        """All text of the message, parts joined by a line break."""
        parts = self.parts
        return parts[0].text if len(parts) == 1 else "\n".join([part.text for part in parts])


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What to ask the backend for.

    `slug` is the backend's own name of the model; `gizmo_id` (`g-…`) names a custom GPT; `hints` are
    system_hints such as `reason`. `fallback_from` is the public name that no table knows and for which `slug` is
    only the default; None when the name was understood.
    """

    slug: str
    gizmo_id: str | None = None
    hints: tuple[str, ...] = ()
    fallback_from: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """One turn to send.

    `conversation_id` and `parent_message_id` continue a stored conversation, and `messages` are then the new ones
    only; without them the whole of `messages` starts a new one. `temporary` is True for a chat that upstream shall
    not list or keep.
    """

    messages: tuple[Message, ...]
    model: ModelChoice
    conversation_id: str | None = None
    parent_message_id: str | None = None
    temporary: bool = True
    thinking_effort: ThinkingEffort | None = None
