"""What an operator says of a key, read and shown: the same words on the command line and over REST.

A field that is not given takes its default; "no limit" must be said in so many words (G4): `unlimited` for a number,
`never` for the end, `all` for models, accounts and groups, `none` for the tier. null says nothing and is refused.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace

from chat2api.errors import InvalidRequestError
from chat2api.keys.scope import MAX_PATTERNS
from chat2api.protocol.openai.fields import wrong_type, wrong_value
from chat2api.storage.keys import DAY_SECONDS, DEFAULT_EXPIRY_DAYS, IssuedKey, KeyLimits, KeyScope, NewKey
from chat2api.storage.quotas import Room

UNLIMITED, NEVER, ALL, NONE = "unlimited", "never", "all", "none"

LIMIT_NAMES = tuple(field.name for field in fields(KeyLimits))
SCOPE_NAMES = tuple(field.name for field in fields(KeyScope))
EXPIRY = "expires_in_days"
TIER = "tier"
FIELD_NAMES = ("name", "note", EXPIRY, TIER, *SCOPE_NAMES, *LIMIT_NAMES)
"""All that can be said of a key, when it is made and later."""

MAX_NAME, MAX_NOTE, MAX_ITEM, MAX_TIER = 100, 1000, 100, 32
MAX_LIMIT = 10**15
MAX_DAYS = 36_500.0
MAX_OVERLAP_HOURS = 24 * 90.0

Json = dict[str, object]


def read_new_key(said: Mapping[str, object], now: float) -> NewKey:
    """Give the key that is asked for. Raises InvalidRequestError with `param`."""
    if "name" not in said:
        raise InvalidRequestError("A key needs a name.", param="name", code="missing_required_parameter")
    given = {"name": "", "note": "", EXPIRY: DEFAULT_EXPIRY_DAYS} | dict(said)
    changes = read_changes(given, now)(KeyScope(), KeyLimits())
    return NewKey(**changes)  # type: ignore[arg-type]  # read_changes gives each field its type


def read_changes(said: Mapping[str, object], now: float) -> Callable[[KeyScope, KeyLimits], Json]:
    """Give what makes the changes that are asked for out of a key's present scope and limits.

    Raises InvalidRequestError with `param` for a field that cannot be, or is none.
    """
    plain: Json = {}
    scope: dict[str, tuple[str, ...] | None] = {}
    limits: dict[str, int | None] = {}
    for name, value in said.items():
        if name == "name":
            plain[name] = read_text(name, value, MAX_NAME, lines=False)
            if not plain[name]:
                raise wrong_value(name, "it must not be empty.")
        elif name == "note":
            plain[name] = read_text(name, value, MAX_NOTE, lines=True)
        elif name == EXPIRY:
            plain["expires_at"] = _read_expiry(value, now)
        elif name == TIER:
            plain[name] = None if value == NONE else read_text(name, value, MAX_TIER, lines=False) or None
        elif name in SCOPE_NAMES:
            scope[name] = _read_items(name, value)
        elif name in LIMIT_NAMES:
            limits[name] = _read_limit(name, value)
        else:
            raise InvalidRequestError(f"Unknown field: '{name[:64]}'.", param=name[:64], code="unknown_parameter")

    def make(present_scope: KeyScope, present_limits: KeyLimits) -> Json:
        return plain | {"scope": replace(present_scope, **scope), "limits": replace(present_limits, **limits)}

    return make


def read_overlap(value: object) -> float:
    """Give for how many seconds an old key goes on working that is said in hours. Raises InvalidRequestError."""
    hours = _read_number("overlap_hours", value, "a number of hours")
    if not 0 <= hours <= MAX_OVERLAP_HOURS:
        raise wrong_value("overlap_hours", f"expected 0 to {MAX_OVERLAP_HOURS:g}.")
    return hours * 3600


def show_key(key: IssuedKey, now: float) -> Json:
    """Give a key as it is shown: never the key itself, nor its digest."""
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "note": key.note,
        "shown": f"{key.shown}…",
        "state": key.ended(now) or "active",
        "created_at": key.created_at,
        "expires_at": NEVER if key.expires_at is None else key.expires_at,
        "revoked_at": key.revoked_at,
        "rotated_at": key.rotated_at,
        "old_key_until_at": key.previous_until_at if (key.previous_until_at or 0) > now else None,
        TIER: NONE if key.tier is None else key.tier,
        **{name: ALL if items is None else list(items) for name, items in asdict(key.scope).items()},
        "limits": {name: UNLIMITED if limit is None else limit for name, limit in asdict(key.limits).items()},
    }


def show_rooms(rooms: tuple[Room, ...]) -> list[Json]:
    """Give what is left of each limit that a key has; `resets_in` are seconds, null where it never comes back."""
    return [
        {
            "name": room.name,
            "limit": room.limit,
            "used": room.used,
            "remaining": room.remaining,
            "resets_in": room.reset,
        }
        for room in rooms
    ]


def read_text(name: str, value: object, longest: int, *, lines: bool) -> str:
    """Give a text of printable characters, and line breaks where `lines` allows them. Raises InvalidRequestError."""
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    text = value.strip()
    if len(text) > longest:
        raise wrong_value(name, f"at most {longest} characters are kept.")
    if not all(character.isprintable() or (lines and character == "\n") for character in text):
        raise wrong_value(name, "expected printable characters.")
    return text


def _read_expiry(value: object, now: float) -> float | None:
    if value == NEVER:
        return None
    days = _read_number(EXPIRY, value, f'a number of days or "{NEVER}"')
    if not 0 < days <= MAX_DAYS:
        raise wrong_value(EXPIRY, f'expected more than 0 and at most {MAX_DAYS:g} days, or "{NEVER}".')
    return now + days * DAY_SECONDS


def _read_items(name: str, value: object) -> tuple[str, ...] | None:
    if value == ALL:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise wrong_type(name, f'an array of strings or "{ALL}"', value)
    items = tuple(dict.fromkeys(item.strip() for item in value))
    if not 0 < len(items) <= MAX_PATTERNS or not all(
        0 < len(item) <= MAX_ITEM and item.isprintable() for item in items
    ):
        raise wrong_value(name, f"expected 1 to {MAX_PATTERNS} names of at most {MAX_ITEM} printable characters.")
    return items


def _read_limit(name: str, value: object) -> int | None:
    if value == UNLIMITED:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, f'a whole number or "{UNLIMITED}"', value)
    if not 0 < value <= MAX_LIMIT:
        raise wrong_value(name, f'expected a number from 1 to {MAX_LIMIT}, or "{UNLIMITED}".')
    return value


def _read_number(name: str, value: object, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong_type(name, expected, value)
    return float(value)
