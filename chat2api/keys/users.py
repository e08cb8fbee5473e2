"""Local users: people who sign in with a name and a password, and get a token of this server for it.

Each has an issued key that nobody was shown; what they may, use and own is that key's. The token holds no secret of its
own: it names the key, says when it ends, and is signed with a keyed digest into which the password's digest goes, so that
another password ends all tokens, as do the user's removal and the key's end. Nothing is stored for it.

`LocalUsers` keeps all users in memory and follows the records, as `KeyRing` does with keys.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from chat2api.clock import Clock
from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.keys.digests import find_digest
from chat2api.keys.issue import KeyRing, follow
from chat2api.keys.listing import UserLine, state_of
from chat2api.keys.password import SlowDigests
from chat2api.keys.terms import FIELD_NAMES, NEVER, Json, read_new_key
from chat2api.protocol.openai.fields import wrong_value
from chat2api.storage.keys import NewKey
from chat2api.storage.records import Records
from chat2api.storage.users import LocalUser

PREFIX = "c2a-user-"
LIFETIME = 7 * 24 * 3600.0
"""How long a sign-in lasts, in seconds."""
MAX_NAME = 64
LEAST_PASSWORD = 10
MAX_PASSWORD = 1024
TERM_NAMES = tuple(name for name in FIELD_NAMES if name != "name")
"""What can be said of a new user's key, which is called as the user is."""

_PURPOSE = "user token"
_FORM = re.compile(rf"{PREFIX}([0-9a-f]{{16}})-([0-9]{{1,12}})-([0-9a-f]{{64}})")
_KEY_PREFIX = "key_"


def has_user_prefix(bearer: str) -> bool:
    """Whether a bearer means to be a token of a local user, and must therefore never leave this server."""
    return bearer.startswith(PREFIX)


@dataclass(frozen=True, slots=True)
class UserToken:
    """What a sign-in gives: the token itself, and when it ends."""

    text: str = field(repr=False)
    expires_at: float


class LocalUsers:
    """All local users, in memory. Make one, `await start()`, keep `run()` running."""

    def __init__(self, store: Records, ring: KeyRing, digests: SlowDigests, clock: Clock) -> None:
        """Keep the users of these records, whose keys are on that ring."""
        self._store = store
        self._ring = ring
        self._digests = digests
        self._clock = clock
        self._users: dict[str, LocalUser] = {}
        self._by_key: dict[str, LocalUser] = {}
        self._revision = 0

    async def start(self) -> None:
        """Load all users. Raises StorageError."""
        await self.reload()

    async def run(self) -> None:
        """Follow the records for ever; trouble with them is logged and outlived."""
        await follow("the local users", self._clock, self._store.users.revision, lambda: self._revision, self.reload)

    async def reload(self) -> None:
        """Take over the users as the records have them."""
        self._revision, users = await self._store.users.all()
        self._users = {user.name: user for user in users}
        self._by_key = {user.key_id: user for user in users}

    def all(self) -> Sequence[LocalUser]:
        """Give all users, in the order in which they were made."""
        return list(self._users.values())

    def line(self, user: LocalUser) -> UserLine:
        """Give a user with their key and its state."""
        key = self._ring.get(user.key_id)
        return UserLine(user, key, state_of(key, self._clock.now()))

    def lines(self) -> list[UserLine]:
        """Give all users so."""
        return [self.line(user) for user in self._users.values()]

    def show(self, user: LocalUser) -> Json:
        """Give a user as an operator is told of them: never the password or its digest, nor a key."""
        line = self.line(user)
        key = line.key
        return {
            "object": "user",
            "username": user.shown_name,
            "key_id": user.key_id,
            "state": line.state,
            "expires_at": None if key is None else NEVER if key.expires_at is None else key.expires_at,
            "created_at": user.created_at,
            "changed_at": user.changed_at,
        }

    # Signing in

    async def sign_in(self, name: str, password: str) -> UserToken | None:
        """Give a token for a name and its password, None for a wrong pair; which of the two is wrong takes no other time.

        Raises RateLimitedError when too many wait to know.
        """
        user = self._users.get(fold_name(name))
        stored = user.password if user is not None else None
        if not await self._digests.matches(password[: MAX_PASSWORD + 1], stored) or user is None:
            return None
        expires_at = int(self._clock.now() + LIFETIME)
        key = user.key_id.removeprefix(_KEY_PREFIX)
        return UserToken(f"{PREFIX}{key}-{expires_at}-{self._sign(user, expires_at)}", float(expires_at))

    def find(self, bearer: str) -> LocalUser | None:
        """Give the user whose token a bearer is, None when it is none or has ended."""
        parts = _FORM.fullmatch(bearer)
        if parts is None:
            return None
        user = self._by_key.get(_KEY_PREFIX + parts[1])
        if user is None or int(parts[2]) <= self._clock.now():
            return None
        right = bytes.fromhex(self._sign(user, int(parts[2])))
        return user if find_digest(bytes.fromhex(parts[3]), [right]) is not None else None

    def _sign(self, user: LocalUser, expires_at: int) -> str:
        return self._store.digest(_PURPOSE, f"{user.key_id}\0{expires_at}\0{user.password}")

    # What an operator does; all raise StorageError when it cannot be kept.

    async def add(self, name: str, password: str, terms: NewKey) -> LocalUser:
        """Make a user with a key of their own, on these terms. Raises InvalidRequestError with `param`."""
        shown = check_name(name)
        check_password(password)
        folded = fold_name(shown)
        if folded in self._users:
            raise _taken()
        digest = await self._digests.make(password)
        now = self._clock.now()
        issued = await self._ring.issue(replace(terms, name=shown))
        user = LocalUser(folded, shown, digest, issued.key.id, now, now)
        if not await self._store.users.add(user):
            await self._ring.revoke(issued.key.id)
            raise _taken()
        await self.reload()
        return user

    async def set_password(self, name: str, password: str) -> LocalUser:
        """Give a user another password; what is signed in with the old one is signed out. Raises NotFoundError."""
        check_password(password)
        user = self.require(name)
        changed = await self._store.users.set_password(user.name, await self._digests.make(password), self._clock.now())
        await self.reload()
        return changed or self.require(name)

    async def remove(self, name: str) -> LocalUser:
        """Remove a user and end their key for ever. Raises NotFoundError."""
        user = self.require(name)
        await self._store.users.remove(user.name)
        await self._ring.revoke(user.key_id)
        await self.reload()
        return user

    def require(self, name: str) -> LocalUser:
        """Give a user by name. Raises NotFoundError."""
        user = self._users.get(fold_name(name))
        if user is None:
            raise NotFoundError("There is no user of this name.", param="username", code="user_not_found")
        return user

    def require_by_key(self, key_id: str) -> LocalUser:
        """Give the user whose key this is. Raises NotFoundError."""
        user = self._by_key.get(key_id)
        if user is None:
            raise NotFoundError("There is no such user.", code="user_not_found")
        return user


def fold_name(name: str) -> str:
    """Give a name as users are told apart: without regard to case, width and surrounding blanks."""
    return unicodedata.normalize("NFKC", name.strip()).casefold()


def check_name(name: str) -> str:
    """Give a name as it will be shown. Raises InvalidRequestError for one that cannot be."""
    shown = unicodedata.normalize("NFKC", name.strip())
    if not 0 < len(shown) <= MAX_NAME or len(shown.casefold()) > MAX_NAME or not shown.isprintable():
        raise wrong_value("username", f"a name has 1 to {MAX_NAME} printable characters.")
    return shown


def read_terms(username: str, said: Mapping[str, object], now: float) -> NewKey:
    """Give the key that a new user of this name gets, on what is said of `TERM_NAMES`. Raises InvalidRequestError."""
    return read_new_key({**said, "name": check_name(username)}, now)


def check_password(password: str) -> None:
    """Raise InvalidRequestError for a password that is too short or too long."""
    if not LEAST_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise wrong_value("password", f"a password has {LEAST_PASSWORD} to {MAX_PASSWORD} characters.")


def _taken() -> InvalidRequestError:
    return InvalidRequestError("There is a user of this name already.", param="username", code="name_taken")
