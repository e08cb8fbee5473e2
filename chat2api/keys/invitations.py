"""Invitations: links that give whoever opens one first an issued key of a tier, once.

A link ends with 192 random bits, so nobody can guess one; the records hold their keyed digest only. There are none unless
the operator makes some.
"""

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from chat2api.clock import Clock
from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.keys.issue import SHOWN_LENGTH, Issued, KeyRing, make_key
from chat2api.keys.terms import MAX_DAYS, MAX_NAME, NEVER, Json, read_text
from chat2api.protocol.openai.fields import missing, wrong_type, wrong_value
from chat2api.storage.invitations import Invitation, NewInvitation
from chat2api.storage.keys import DAY_SECONDS, DEFAULT_EXPIRY_DAYS, NewKey
from chat2api.storage.records import Records

DEFAULT_DAYS = 7
MAX_INVITATION_DAYS = 90.0
DEFAULT_NAME = "invited"
FIELD_NAMES = ("tier", "name", "expires_in_days", "key_expires_in_days")
TOKEN_LENGTH = 32
"""Characters of the secret at the end of a link."""

_PURPOSE = "invitation"


@dataclass(frozen=True, slots=True)
class Made:
    """An invitation that was just made; `token` is the secret at the end of its link, which nobody can show again."""

    invitation: Invitation
    token: str = field(repr=False)


class Invitations:
    """Makes invitations and gives keys for them. All methods raise StorageError."""

    def __init__(self, store: Records, ring: KeyRing, clock: Clock) -> None:
        """Work on these records; `ring` hears of the keys that are taken."""
        self._store = store
        self._ring = ring
        self._clock = clock

    async def make(self, new: NewInvitation) -> Made:
        """Make an invitation."""
        token = secrets.token_urlsafe(TOKEN_LENGTH * 3 // 4)
        digest = self._store.digest(_PURPOSE, token)
        return Made(await self._store.invitations.add(new, digest, self._clock.now()), token)

    async def all(self) -> tuple[Invitation, ...]:
        """Give all, the newest first."""
        return await self._store.invitations.all()

    async def look_up(self, token: str) -> Invitation:
        """Give the invitation of a link while it is open. Raises NotFoundError, the same for whatever reason."""
        found = await self._store.invitations.find(self._store.digest(_PURPOSE, token))
        if found is None or found.ended(self._clock.now()) is not None:
            raise _not_open()
        return found

    async def redeem(self, token: str) -> tuple[Invitation, Issued]:
        """Use an invitation up and give the key. Raises NotFoundError."""
        invitation = await self.look_up(token)
        now = self._clock.now()
        expires_at = None if invitation.key_seconds is None else now + invitation.key_seconds
        secret = make_key()
        key = await self._store.invitations.redeem(
            self._store.digest(_PURPOSE, token),
            NewKey(invitation.name, expires_at, note=f"by invitation {invitation.id}", tier=invitation.tier),
            self._ring.fingerprint(secret),
            secret[:SHOWN_LENGTH],
            now,
        )
        if key is None:
            raise _not_open()
        await self._ring.reload()
        return invitation, Issued(key, secret)

    async def revoke(self, invitation_id: str) -> Invitation:
        """End an invitation; a key that was taken with it stays. Raises NotFoundError."""
        revoked = await self._store.invitations.revoke(invitation_id, self._clock.now())
        if revoked is None:
            raise NotFoundError("There is no invitation of this id.", param="id", code="invitation_not_found")
        return revoked


def _not_open() -> NotFoundError:
    return NotFoundError(
        "This invitation opens nothing: it was used, it has ended, or there never was one.", code="invitation_not_found"
    )


def read_invitation(said: Mapping[str, object], now: float) -> NewInvitation:
    """Give the invitation that is asked for. Raises InvalidRequestError with `param`."""
    for name in said:
        if name not in FIELD_NAMES:
            raise InvalidRequestError(f"Unknown field: '{name[:64]}'.", param=name[:64], code="unknown_parameter")
    if "tier" not in said:
        raise missing("tier")
    name = read_text("name", said.get("name", DEFAULT_NAME), MAX_NAME, lines=False)
    if not name:
        raise wrong_value("name", "it must not be empty.")
    days = _read_days("expires_in_days", said.get("expires_in_days", DEFAULT_DAYS), MAX_INVITATION_DAYS)
    key_days = said.get("key_expires_in_days", DEFAULT_EXPIRY_DAYS)
    return NewInvitation(
        tier=read_text("tier", said["tier"], 32, lines=False),
        name=name,
        expires_at=now + days * DAY_SECONDS,
        key_seconds=None if key_days == NEVER else _read_days("key_expires_in_days", key_days, MAX_DAYS) * DAY_SECONDS,
    )


def show_invitation(invitation: Invitation, now: float) -> Json:
    """Give an invitation as it is shown: never its link."""
    return {
        "id": invitation.id,
        "object": "invitation",
        "tier": invitation.tier,
        "name": invitation.name,
        "state": invitation.ended(now) or "open",
        "created_at": invitation.created_at,
        "expires_at": invitation.expires_at,
        "key_expires_in_days": NEVER if invitation.key_seconds is None else invitation.key_seconds / DAY_SECONDS,
        "used_at": invitation.used_at,
        "key": invitation.key_id,
    }


def _read_days(name: str, value: object, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong_type(name, "a number of days", value)
    if not 0 < value <= most:
        raise wrong_value(name, f"expected more than 0 and at most {most:g} days.")
    return float(value)
