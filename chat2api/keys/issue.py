"""Issued keys: how one is made, and how a bearer is found among all of them without asking the database.

A key is `sk-c2a-`, 43 letters and digits that hold 256 random bits, and a checksum of six more. Nobody can guess one,
so its digest need not be slow; it is keyed all the same, so that who has the database alone cannot even try. The
checksum tells a mistyped key from a revoked one, and lets scanners for leaked secrets be sure of what they found.

`KeyRing` keeps all keys in memory by digest and follows the records, so a key that any process made works, and one
that was revoked stops working, within a second.
"""

import logging
import re
import secrets
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from chat2api.clock import Clock
from chat2api.errors import NotFoundError, StorageError
from chat2api.keys.digests import find_digest
from chat2api.storage.keys import IssuedKey, NewKey
from chat2api.storage.records import Records

log = logging.getLogger(__name__)

PREFIX = "sk-c2a-"
SHOWN_LENGTH = len(PREFIX) + 4
"""How many first characters of a key people see; four tell keys apart and give 24 of 256 bits away."""

POLL_SECONDS = 0.5
"""How soon a key that another process made or revoked is known (S13 allows a second)."""

DEFAULT_OVERLAP = 24 * 3600.0
"""How long the old key works after a rotation, in seconds."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BITS = 256
_RANDOM_LENGTH = 43
_CHECKSUM_LENGTH = 6
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECKSUM_LENGTH}}}")
_PURPOSE = "issued key"
_TRIES = 5


def make_key() -> str:
    """Give a new key; it is 56 characters long."""
    body = PREFIX + _in_letters(secrets.randbits(_RANDOM_BITS), _RANDOM_LENGTH)
    return body + _checksum(body)


def has_key_prefix(bearer: str) -> bool:
    """Whether a bearer means to be one of our keys, and must therefore never leave this server."""
    return bearer.startswith(PREFIX)


def is_well_formed(bearer: str) -> bool:
    """Whether a bearer has the form and the checksum of a key."""
    return _FORM.fullmatch(bearer) is not None and _checksum(bearer[:-_CHECKSUM_LENGTH]) == bearer[-_CHECKSUM_LENGTH:]


def _checksum(body: str) -> str:
    return _in_letters(zlib.crc32(body.encode("ascii")), _CHECKSUM_LENGTH)


def _in_letters(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


@dataclass(frozen=True, slots=True)
class Issued:
    """A key that was just made or rotated; `secret` is the key itself, which nobody can show again."""

    key: IssuedKey
    secret: str = field(repr=False)


async def follow(
    what: str,
    clock: Clock,
    revision: Callable[[], Awaitable[int]],
    known: Callable[[], int],
    reload: Callable[[], Awaitable[None]],
) -> None:
    """Reload for ever whenever the records' revision is not the one that is known; trouble is logged and outlived."""
    while True:
        await clock.sleep(POLL_SECONDS)
        try:
            if await revision() != known():
                await reload()
        except StorageError as error:
            log.warning("%s cannot be followed: %s", what, error)


class KeyRing:
    """All issued keys, in memory. Make one, `await start()`, keep `run()` running."""

    def __init__(self, store: Records, clock: Clock, *, on_end: Callable[[IssuedKey], None] | None = None) -> None:
        """Make a ring on these records; `on_end` is told of a key that was just revoked, and of all that were stopped."""
        self._store = store
        self._clock = clock
        self._on_end = on_end
        self._keys: dict[str, IssuedKey] = {}
        self._ids: dict[str, str] = {}
        self._revision = 0
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether the operator has stopped all keys."""
        return self._stopped

    async def start(self) -> None:
        """Load all keys. Raises StorageError."""
        await self.reload()

    async def run(self) -> None:
        """Follow the records for ever; trouble with them is logged and outlived."""
        await follow("the issued keys", self._clock, self._store.keys.revision, lambda: self._revision, self.reload)

    async def reload(self) -> None:
        """Take over what changed in the records since the last time."""
        changes = await self._store.keys.changes(self._revision)
        for key in changes.keys:
            self._put(key)
        self._revision = max(self._revision, changes.revision)
        if changes.stopped and not self._stopped and self._on_end is not None:
            for key in self._keys.values():
                self._on_end(key)
        self._stopped = changes.stopped

    # Look-ups

    def look_up(self, bearer: str) -> IssuedKey | None:
        """Give the key that a bearer is, also an ended one; None for one that was never issued or has been replaced."""
        if not is_well_formed(bearer):
            return None
        digest = self._store.digest(_PURPOSE, bearer)
        key_id = self._ids.get(digest)
        if key_id is None:
            return None
        key = self._keys[key_id]
        if key.digest != digest and (key.previous_until_at is None or key.previous_until_at <= self._clock.now()):
            return None
        return key

    def find(self, bearer: str) -> IssuedKey | None:
        """Give the key that a bearer is, if it works now."""
        key = self.look_up(bearer)
        return key if key is not None and not self._stopped and key.ended(self._clock.now()) is None else None

    def fingerprint(self, bearer: str) -> str:
        """Give the digest by which a key is stored."""
        return self._store.digest(_PURPOSE, bearer)

    def opens(self, key_id: str, fingerprint: str) -> bool:
        """Whether the secret with this digest works now as the key of that id."""
        key, now = self._keys.get(key_id), self._clock.now()
        if key is None or key.ended(now) is not None:
            return False
        working = [key.digest]
        if key.previous_digest is not None and key.previous_until_at is not None and key.previous_until_at > now:
            working.append(key.previous_digest)
        return find_digest(bytes.fromhex(fingerprint), [bytes.fromhex(digest) for digest in working]) is not None

    def get(self, key_id: str) -> IssuedKey | None:
        """Give a key by its id."""
        return self._keys.get(key_id)

    def require(self, key_id: str) -> IssuedKey:
        """Give a key by its id. Raises NotFoundError."""
        key = self._keys.get(key_id)
        if key is None:
            raise NotFoundError("There is no key of this id.", param="id", code="key_not_found")
        return key

    def all(self) -> list[IssuedKey]:
        """Give all keys, ended ones too, in the order in which they were made."""
        return list(self._keys.values())

    # What an operator does; all raise StorageError when it cannot be kept.

    async def issue(self, new: NewKey) -> Issued:
        """Make a key."""
        secret = make_key()
        digest = self._store.digest(_PURPOSE, secret)
        key = await self._store.keys.add(new, digest, secret[:SHOWN_LENGTH], self._clock.now())
        self._put(key)
        return Issued(key, secret)

    async def change(self, key_id: str, make: Callable[[IssuedKey], Mapping[str, object]]) -> IssuedKey:
        """Set fields of a key: those that `make` gives for the key as it is. Raises NotFoundError."""
        for _ in range(_TRIES):
            key = self.require(key_id)
            changed = await self._store.keys.change(key, make(key))
            if changed is not None:
                self._put(changed)
                return changed
            await self.reload()
        raise StorageError("The key is being changed by others all the time. Try again.", retry_after=1)

    async def rotate(self, key_id: str, overlap: float = DEFAULT_OVERLAP) -> Issued:
        """Replace a key; the old one works for `overlap` seconds more. Raises NotFoundError, also for an ended key."""
        for _ in range(_TRIES):
            key = self.require(key_id)
            now = self._clock.now()
            if (ended := key.ended(now)) is not None:
                raise NotFoundError(f"This key is {ended}. Make a new one.", param="id", code="key_not_found")
            secret = make_key()
            changed = await self._store.keys.rotate(
                key,
                self._store.digest(_PURPOSE, secret),
                secret[:SHOWN_LENGTH],
                previous_until_at=now + overlap if overlap > 0 else None,
                now=now,
            )
            if changed is not None:
                self._put(changed)
                return Issued(changed, secret)
            await self.reload()
        raise StorageError("The key is being changed by others all the time. Try again.", retry_after=1)

    async def revoke(self, key_id: str) -> IssuedKey:
        """End a key for ever; what runs under it ends too. Raises NotFoundError."""
        revoked = await self._store.keys.revoke(key_id, self._clock.now())
        if revoked is None:
            raise NotFoundError("There is no key of this id.", param="id", code="key_not_found")
        self._put(revoked)
        return revoked

    async def stop(self, stopped: bool) -> None:
        """Stop all keys and what runs under them at once, or let them work again."""
        await self._store.keys.stop(stopped)
        await self.reload()

    def _put(self, key: IssuedKey) -> None:
        known = self._keys.get(key.id)
        if known is not None:
            if known.revision >= key.revision:
                return
            for digest in (known.digest, known.previous_digest):
                if digest is not None:
                    self._ids.pop(digest, None)
        self._keys[key.id] = key
        for digest in (key.digest, key.previous_digest):
            if digest is not None:
                self._ids[digest] = key.id
        newly_ended = key.revoked_at is not None and known is not None and known.revoked_at is None
        if newly_ended and self._on_end is not None:
            self._on_end(key)
