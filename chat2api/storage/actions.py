"""The journal of what operators did: who, what, when; never a secret, never a word of anybody's chat."""

from dataclasses import dataclass
from typing import Protocol

KEPT_SECONDS = 90 * 24 * 3600.0
"""How long an entry is kept (G7)."""

LONGEST_TEXT = 200
"""Characters of `what` and `target` that are kept."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that was done. `who` is how it was allowed, `target` the label or id of what it was done to, or ""."""

    at: float
    who: str
    what: str
    target: str = ""


class ActionRecords(Protocol):
    """The rows of the journal; every method raises StorageError."""

    async def add(self, action: Action) -> None:
        """Append an entry, and forget those older than 90 days by then."""
        ...

    async def latest(self, limit: int = 100, offset: int = 0) -> tuple[Action, ...]:
        """Give entries, the newest first."""
        ...
