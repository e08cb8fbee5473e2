"""Local users as the records have them: people who sign in with a name and a password; and the door to their rows."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LocalUser:
    """One user. Never holds the password, only a slow digest of it with its terms.

    `name` is folded, so that one user is not spelt in two ways; `shown_name` is as it was given. What the user may and
    uses is that of the issued key `key_id`, which nobody was shown.
    """

    name: str
    shown_name: str
    password: str = field(repr=False)
    key_id: str
    created_at: float
    changed_at: float


class UserRecords(Protocol):
    """The rows of local users; every method is one atomic intention and raises StorageError."""

    async def revision(self) -> int:
        """Give the number of the last change of any user, whoever made it; cheap enough to poll."""
        ...

    async def all(self) -> tuple[int, tuple[LocalUser, ...]]:
        """Give that number and all users, in the order in which they were made."""
        ...

    async def add(self, user: LocalUser) -> bool:
        """Store a new user; False when there is one of this name."""
        ...

    async def set_password(self, name: str, password: str, now: float) -> LocalUser | None:
        """Store another digest; give the row, None when there is no such user."""
        ...

    async def remove(self, name: str) -> LocalUser | None:
        """Forget a user; give the row as it was, None when there was none."""
        ...
