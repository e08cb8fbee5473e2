"""Invitations as the records have them: the values, and the door to their rows.

An invitation is a link that gives whoever opens it first one issued key of a tier. The link's secret is never stored, only
its keyed digest.
"""

from dataclasses import dataclass
from typing import Protocol

from chat2api.storage.keys import IssuedKey, NewKey

KEPT_SECONDS = 90 * 24 * 3600.0
"""How long an invitation that is over stays in the list."""


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation to be made: to a tier, until when, for a key called `name` that lasts `key_seconds`; None: for ever."""

    tier: str
    name: str
    expires_at: float
    key_seconds: float | None


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation as it is now. `key_id` is that of the key that was taken with it, None while nobody did."""

    id: str
    tier: str
    name: str
    created_at: float
    expires_at: float
    key_seconds: float | None
    used_at: float | None
    revoked_at: float | None
    key_id: str | None

    def ended(self, now: float) -> str | None:
        """Give the word for why it opens nothing any more (used, revoked, expired), None while it does."""
        if self.used_at is not None:
            return "used"
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else None


class InvitationRecords(Protocol):
    """The rows of invitations; every method is one atomic intention and raises StorageError."""

    async def add(self, new: NewInvitation, digest: str, now: float) -> Invitation:
        """Store a new one by its digest, and forget those that have long been over."""
        ...

    async def all(self) -> tuple[Invitation, ...]:
        """Give all, the newest first."""
        ...

    async def find(self, digest: str) -> Invitation | None:
        """Give the one with this digest, also one that is over."""
        ...

    async def redeem(self, digest: str, key: NewKey, key_digest: str, shown: str, now: float) -> IssuedKey | None:
        """Use it up and store the key in the same step; None, and nothing changes, where it opens nothing now."""
        ...

    async def revoke(self, invitation_id: str, now: float) -> Invitation | None:
        """End it; one that is over stays as it is. None for an unknown one."""
        ...
