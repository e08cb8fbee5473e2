"""Whose the objects are that calls by the operator's API keys have made: the value, and the door to their rows.

The API knows the operator's keys alone, so all who call by them would see one another's files and responses.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

ObjectKind = Literal["file", "response", "item"]
"""An item is what an answer consists of and may be named by itself: a message, a picture, a container, a sound."""

RESPONSE_SECONDS = 31 * 24 * 3600.0
"""How long responses and items are remembered: the API itself forgets them after 30 days."""


@dataclass(frozen=True, slots=True)
class ApiObject:
    """One object. `key` is the label of the API key that made it, which alone can use it; `owner` its caller's digest."""

    id: str
    kind: ObjectKind
    key: str
    owner: str
    created_at: float


class ApiObjectRecords(Protocol):
    """The rows of objects; every method is one atomic intention and raises StorageError."""

    async def put(self, made: Sequence[ApiObject]) -> None:
        """Store whose these are: of a file or response who made it last, of an item who made it first."""
        ...

    async def find(self, identifiers: Collection[str]) -> list[ApiObject]:
        """Give whose these are, as far as they are known, in no order."""
        ...

    async def of(self, owner: str, kind: ObjectKind) -> list[ApiObject]:
        """Give all objects of an owner, the newest first."""
        ...

    async def forget(self, identifier: str) -> None:
        """Forget an object; an unknown one is no error."""
        ...

    async def sweep(self, now: float) -> None:
        """Forget the responses and items that are past their time."""
        ...
