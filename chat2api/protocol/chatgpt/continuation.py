"""A message that a `continue` call goes on with: what of its text was told before.

The backend may begin the message again or send just the rest. Which of the two it is shows once the text is longer than
what was told before, or differs from it; until then it is held.
"""

from chat2api.protocol.chatgpt.citations import CitationText
from chat2api.protocol.chatgpt.message_view import View


class Continuation:
    """The text that a turn continues, "" for a turn of its own, and how much of it was repeated so far."""

    def __init__(self, told: str) -> None:
        """Begin with the raw text that was told before."""
        self.is_open = bool(told)
        """Whether what comes may still be a repetition."""
        self._told = told
        self._repeated = 0

    def whole(self, seen: str) -> str:
        """Give the raw text of the message from its beginning, of which the turn's own part is `seen`."""
        return seen if seen.startswith(self._told) else self._told + seen

    def read(self, view: View, text: str) -> str:
        """Give what of the next text is new; with the first such text the view's positions count from the right place."""
        position = self._repeated
        left = len(self._told) - position
        if len(text) <= left and self._told.startswith(text, position):
            self._repeated = position + len(text)
            return ""
        self.is_open = False
        view.rewriter = CitationText(view.sources, len(self._told))
        if len(text) > left and text.startswith(self._told[position:]):
            return text[left:]
        return self._told[:position] + text

    def close(self) -> str:
        """Give what was held as a repetition but is shorter than what it would repeat, and hence was none."""
        is_rest = self.is_open and self._repeated < len(self._told)
        self.is_open = False
        return self._told[: self._repeated] if is_rest else ""
