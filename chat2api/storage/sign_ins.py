"""Sign-ins of people as the records have them: the value, and the door to their rows.

What a browser holds is 256 random bits; the records hold their digest only, so that a stolen database signs nobody in.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

SignInKind = Literal["operator", "password", "key"]
"""What somebody signed in with: an operator key, ADMIN_PASSWORD, or an issued key."""

IDLE_SECONDS = 12 * 3600.0
"""A sign-in that nobody used for that long has ended."""

LONGEST_SECONDS = 7 * 24 * 3600.0
"""A sign-in ends that long after it began, however much it is used."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """One sign-in.

    `digest` is that of the cookie's value. `proof` is a digest of the secret that was shown: once that secret opens
    nothing any more, neither does the sign-in. `key_id` names the issued key, None for an operator.
    """

    digest: str
    kind: SignInKind
    proof: str
    key_id: str | None
    began_at: float
    used_at: float

    def ended(self, now: float) -> bool:
        """Whether it is over by time alone. A clock that was set back ends it too, for then nothing is known."""
        idle, age = now - self.used_at, now - self.began_at
        return not (-IDLE_SECONDS < idle < IDLE_SECONDS and -IDLE_SECONDS < age < LONGEST_SECONDS)


class SignInRecords(Protocol):
    """The rows of sign-ins; every method is one atomic intention and raises StorageError."""

    async def begin(self, sign_in: SignIn) -> None:
        """Store a new sign-in, and forget those that are over by then."""
        ...

    async def find(self, digest: str) -> SignIn | None:
        """Give a sign-in as it is now, also one that is over; None for one that was never there or has been ended."""
        ...

    async def touch(self, digest: str, now: float) -> None:
        """Note that it was used; one that was ended meanwhile stays ended."""
        ...

    async def end(self, digest: str) -> None:
        """End one; an unknown one is no error."""
        ...
