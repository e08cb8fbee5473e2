"""What was seen and shown of one of the backend's messages, and what of its next picture is new.

What was passed on cannot be taken back. When the backend rewrites text that was sent: a text that was cut back goes on
from the cut, and what only grows again as it was is not told twice; one whose end is found again goes on after that
end; else the text is told again on a new line, from the beginning of the line in which it changed.
"""

import re

from chat2api.protocol.chatgpt.citations import CitationText, Sources
from chat2api.protocol.chatgpt.patches import Json, Rope
from chat2api.protocol.chatgpt.visibility import Show

_SURROGATE = re.compile("[\ud800-\udfff]")
_TAIL = 24
"""Characters of a text's end that are looked for in its rewritten form."""
_MAX_CUT = 32 * 1024
"""Characters of a text up to which it is looked for when it grows again, since that means reading it whole each time."""


class View:
    """One message: its last picture, what was passed on of it, and what it says of itself."""

    __slots__ = (
        "carry",
        "cut",
        "end_turn",
        "finish",
        "has_written",
        "id",
        "is_alternative",
        "is_done",
        "language",
        "message",
        "parent_id",
        "path",
        "rewriter",
        "role",
        "seen",
        "show",
        "sources",
        "status",
    )

    def __init__(self, identifier: str | None, sources: Sources) -> None:
        """Begin with nothing seen; `sources` are those that the message's citations name."""
        self.id = identifier
        self.message: dict[str, Json] = {}
        self.role = ""
        self.parent_id = ""
        self.show = Show.NOTHING
        self.language = ""
        self.seen = Rope("")
        self.path: str | None = None
        self.sources = sources
        self.rewriter = CitationText(self.sources)
        self.carry = ""
        self.cut: tuple[str, int] | None = None
        """Text that was shown before it was cut back, and to how many characters."""
        self.has_written = False
        self.is_alternative = False
        """Whether another message is being shown in the place of this one."""
        self.is_done = False
        self.status: str | None = None
        self.end_turn: bool | None = None
        self.finish = ""

    @property
    def is_reasoning(self) -> bool:
        """Whether the message shows how the answer is thought out."""
        return self.show is Show.REASONING or self.show is Show.THOUGHTS

    @property
    def ends_turn(self) -> bool:
        """Whether the message says that nothing follows; of reasoning that is not so even when it says it."""
        return self.end_turn is True and not self.is_reasoning

    @property
    def was_cut(self) -> bool:
        """Whether the message was ended by a limit or by the user, whatever it is; nothing follows then."""
        return self.finish == "max_tokens" or self.finish == "interrupted"

    @property
    def is_answered(self) -> bool:
        """Whether the message says of itself that it ends the turn, or was ended by a limit or by the user."""
        if self.was_cut or self.end_turn is True:
            return True
        is_finished = self.status is not None and self.status.startswith("finished")
        return self.end_turn is None and (bool(self.finish) or is_finished)

    def find_news(self, text: str) -> str | None:
        """Give what is to be passed on now that the message's text is this one; None when it was only cut back."""
        seen = str(self.seen)
        if text.startswith(seen):
            return self._beyond_cut(text, len(seen))
        if not seen.startswith(text):
            self.cut = None
            return _rewritten(seen, text)
        if len(seen) <= _MAX_CUT and (self.cut is None or len(text) < self.cut[1]):
            self.cut = (self.cut[0] if self.cut else seen, len(text))
        return None

    def _beyond_cut(self, text: str, start: int) -> str:
        """Give the text from `start` on, without what was shown already before it was cut back."""
        if self.cut is None:
            return text[start:]
        shown, kept = self.cut
        if shown.startswith(text):
            return ""
        self.cut = None
        return text[len(shown) :] if text.startswith(shown) else text[kept:]

    def join_halves(self, text: str) -> str:
        """Join the halves of a surrogate pair that two deltas carried; a lone half becomes U+FFFD."""
        text, self.carry = self.carry + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self.carry = text[:-1], text[-1]
        return join_surrogates(text)


def join_surrogates(text: str) -> str:
    """Give text with the halves of surrogate pairs joined; a lone half becomes U+FFFD."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _rewritten(seen: str, text: str) -> str:
    """Give what to add after `seen`, which was sent, now that the text is another (see above)."""
    tail = seen[-_TAIL:]
    found = text.rfind(tail) if len(tail) == _TAIL else -1
    if found >= 0:
        return text[found + len(tail) :]
    same = _common_length(seen, text)
    return "\n" + text[text.rfind("\n", 0, same) + 1 :]


def _common_length(first: str, second: str) -> int:
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first.startswith(second[:middle]):
            low = middle
        else:
            high = middle - 1
    return low
