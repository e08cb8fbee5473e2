"""Issued keys as the records have them: the values, and the door to their rows.

A key itself is never stored: only its keyed digest, by which a bearer is found again, and its first characters, by
which people tell keys apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

DAY_SECONDS = 24 * 3600.0

DEFAULT_EXPIRY_DAYS = 90
"""Days until a key ends for which nobody said anything else."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much a key may use; None means without limit, which is never a default where a bound is promised (G4).

    Minutes slide, days are calendar days in UTC, and `total` is the key's whole life. Tokens are those of prompts and
    answers together.
    """

    requests_per_minute: int | None = 60
    tokens_per_minute: int | None = None
    requests_at_once: int | None = 5
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    requests_total: int | None = None
    tokens_total: int | None = None


@dataclass(frozen=True, slots=True)
class KeyScope:
    """What a key may use; None means all.

    `models` are patterns with `*`; `accounts` are labels and `groups` names of the pool's groups: an account may be used
    that is in either.
    """

    models: tuple[str, ...] | None = None
    accounts: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be issued. `expires_at` None means never, `tier` None none."""

    name: str
    expires_at: float | None
    note: str = ""
    scope: KeyScope = KeyScope()
    limits: KeyLimits = KeyLimits()
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """One key as it is now. Never holds the key.

    `shown` are its first characters. `previous_digest` is that of the key before the last rotation, which works until
    `previous_until_at`. `revision` grows with every change, across all keys. `tier` names the tier that the key is for,
    whether or not there is one of that name now; None for a key that is for no tier.
    """

    id: str
    name: str
    note: str
    shown: str
    digest: str = field(repr=False)
    previous_digest: str | None = field(repr=False)
    previous_until_at: float | None
    created_at: float
    rotated_at: float | None
    expires_at: float | None
    revoked_at: float | None
    scope: KeyScope
    limits: KeyLimits
    revision: int
    tier: str | None = None

    def ended(self, now: float) -> str | None:
        """Give the word for why the key does not work any more (revoked, expired), None while it does."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else None


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """Keys that changed after a revision, the revision up to which they are complete, and whether all are stopped."""

    revision: int
    keys: tuple[IssuedKey, ...]
    stopped: bool = False


class KeyRecords(Protocol):
    """The rows of issued keys; every method is one atomic intention and raises StorageError."""

    async def revision(self) -> int:
        """Give the number of the last change of any key, whoever made it; cheap enough to poll."""
        ...

    async def changes(self, since: int = 0) -> KeyChanges:
        """Give the keys that changed after that revision, in the order in which they were made; 0 gives all."""
        ...

    async def key(self, key_id: str) -> IssuedKey | None:
        """Give one key, also a revoked one."""
        ...

    async def add(self, new: NewKey, digest: str, shown: str, now: float) -> IssuedKey:
        """Store a new key by its digest."""
        ...

    async def change(self, key: IssuedKey, fields: Mapping[str, object]) -> IssuedKey | None:
        """Set name, note, expires_at, scope, limits or tier, if the row is still as `key` shows it; give the new row, or None."""
        ...

    async def rotate(
        self, key: IssuedKey, digest: str, shown: str, *, previous_until_at: float | None, now: float
    ) -> IssuedKey | None:
        """Put another digest in the key's place, if the row is still as `key` shows it; give the new row, or None.

        The old digest works until `previous_until_at`; None ends it at once. A still older one has ended with it.
        """
        ...

    async def stop(self, stopped: bool) -> None:
        """Stop all keys, or let them work again; none of them changes by that."""
        ...

    async def revoke(self, key_id: str, now: float) -> IssuedKey | None:
        """End a key for ever, whatever its row looks like by now; None for an unknown one."""
        ...
