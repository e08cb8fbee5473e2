"""Issued keys and local users as lists: what is searched in them, what they are sorted by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chat2api.listing import Listing
from chat2api.storage.keys import IssuedKey
from chat2api.storage.usage import KeyTotals
from chat2api.storage.users import LocalUser

STATES = ("active", "expired", "revoked")
"""The states of keys, and so of users, in the words of REST."""


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key of a list, with its state and what it used."""

    key: IssuedKey
    state: str
    used: KeyTotals


@dataclass(frozen=True, slots=True)
class UserLine:
    """One user of a list, with their key and its state; the key is None where it is not known (any more)."""

    user: LocalUser
    key: IssuedKey | None
    state: str


def state_of(key: IssuedKey | None, now: float) -> str:
    """Give the state of a key; one that is not there counts as revoked."""
    return "revoked" if key is None else key.ended(now) or "active"


def key_lines(keys: Sequence[IssuedKey], used: Mapping[str, KeyTotals], now: float) -> list[KeyLine]:
    """Give keys as lines; `used` has the totals of those that used something."""
    return [KeyLine(key, state_of(key, now), used.get(key.id, KeyTotals())) for key in keys]


def _ends(key: IssuedKey | None) -> float | None:
    if key is None:
        return None
    return float("inf") if key.expires_at is None else key.expires_at


KEYS: Listing[KeyLine] = Listing(
    texts=lambda line: (line.key.name, line.key.note, line.key.id, line.key.shown, line.key.tier),
    state=lambda line: line.state,
    states=STATES,
    sorts={
        "created": lambda line: line.key.created_at,
        "name": lambda line: line.key.name.casefold(),
        "expires": lambda line: _ends(line.key),
        "today": lambda line: line.used.requests_today,
        "total": lambda line: line.used.requests,
        "last": lambda line: line.used.last_at,
    },
)

USERS: Listing[UserLine] = Listing(
    texts=lambda line: (
        line.user.shown_name,
        line.user.key_id,
        *((line.key.note, line.key.tier) if line.key is not None else ()),
    ),
    state=lambda line: line.state,
    states=STATES,
    sorts={
        "created": lambda line: line.user.created_at,
        "name": lambda line: line.user.name,
        "expires": lambda line: _ends(line.key),
    },
)
