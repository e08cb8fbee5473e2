"""What is known of the operator's API keys and outlives the process: the value, and the door to its rows.

A key is named by its digest; the key itself stands in the settings alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyRest:
    """Why a key is not asked: for one model or all (ANY_MODEL) until an instant, or refused, with model "" and no end.

    `stated`, `reason` and `strikes` are those of a Cooldown.
    """

    key: str
    model: str
    until_at: float | None
    stated: bool
    reason: str
    strikes: int = 0


class ApiKeyRecords(Protocol):
    """The rows of API keys; every method is one atomic intention and raises StorageError."""

    async def put(self, rests: Sequence[KeyRest]) -> None:
        """Store these, each in place of the one of its key and model."""
        ...

    async def of(self, keys: Collection[str]) -> list[KeyRest]:
        """Give all that is stored of these keys, what has ended as well."""
        ...

    async def accept(self, key: str) -> None:
        """Forget that a key was refused."""
        ...

    async def sweep(self, now: float) -> None:
        """Forget what ended more than a day ago."""
        ...
