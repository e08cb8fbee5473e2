"""Whose the objects are that calls by the operator's API keys have made: the value, and the door to their rows.

The API knows the operator's keys alone, so all who call by them would see one another's files and responses.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

ObjectKind = Literal["file", "response"]

RESPONSE_SECONDS = 31 * 24 * 3600.0
"""How long a response is remembered: the API itself forgets one after 30 days."""


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

    async def put(self, made: ApiObject) -> None:
        """Store whose an object is, and forget responses that are past their time by then."""
        ...

    async def find(self, identifier: str) -> ApiObject | None:
        """Give whose an object is; None for an unknown one."""
        ...

    async def of(self, owner: str, kind: ObjectKind) -> list[ApiObject]:
        """Give all objects of an owner, the newest first."""
        ...

    async def forget(self, identifier: str) -> None:
        """Forget an object; an unknown one is no error."""
        ...
