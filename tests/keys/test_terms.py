"""`chat2api/keys/terms.py`: what an operator says of a key, and what is shown of it."""

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.keys.terms import FIELD_NAMES, read_changes, read_new_key, read_overlap, show_key, show_rooms
from chat2api.storage.keys import IssuedKey, KeyLimits, KeyScope, NewKey
from chat2api.storage.quotas import Room

NOW = 1_790_000_000.0
DAY = 86_400.0


def test_G4_a_key_is_bounded_where_nothing_is_said() -> None:
    key = read_new_key({"name": "Ada"}, NOW)
    assert (key.limits.requests_per_minute, key.limits.requests_at_once) == (60, 5)
    assert key.expires_at == NOW + 90 * DAY


@pytest.mark.parametrize("name", FIELD_NAMES)
def test_G4_no_limit_must_be_typed(name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_new_key({"name": "Ada", name: None}, NOW)
    assert caught.value.param == name


def test_G4_what_is_typed_is_no_limit() -> None:
    said = {
        "name": "Ada",
        "requests_per_minute": "unlimited",
        "requests_at_once": "unlimited",
        "expires_in_days": "never",
    }
    key = read_new_key(said | {"models": "all", "accounts": "all", "groups": "all"}, NOW)
    assert key == NewKey("Ada", None, limits=KeyLimits(requests_per_minute=None, requests_at_once=None))


def test_everything_can_be_said() -> None:
    key = read_new_key(
        {
            "name": " Ada ",
            "note": "line one\nline two",
            "expires_in_days": 0.5,
            "models": ["gpt-4o*", "o3", "o3 "],
            "accounts": ["0123456789"],
            "groups": ["team"],
            "requests_per_minute": 1,
            "tokens_per_minute": 2,
            "requests_at_once": 3,
            "requests_per_day": 4,
            "tokens_per_day": 5,
            "requests_total": 6,
            "tokens_total": 7,
        },
        NOW,
    )
    assert (key.name, key.note, key.expires_at) == ("Ada", "line one\nline two", NOW + DAY / 2)
    assert key.scope == KeyScope(("gpt-4o*", "o3"), ("0123456789",), ("team",))
    assert key.limits == KeyLimits(1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "x", "note": "y" * 1001}, "note"),
        ({"name": "x", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "x", "expires_in_days": -1}, "expires_in_days"),
        ({"name": "x", "expires_in_days": True}, "expires_in_days"),
        ({"name": "x", "expires_in_days": "unlimited"}, "expires_in_days"),
        ({"name": "x", "expires_in_days": float("nan")}, "expires_in_days"),
        ({"name": "x", "expires_in_days": 1e9}, "expires_in_days"),
        ({"name": "x", "models": "gpt-4o"}, "models"),
        ({"name": "x", "models": []}, "models"),
        ({"name": "x", "models": [1]}, "models"),
        ({"name": "x", "models": [""]}, "models"),
        ({"name": "x", "models": ["m"] + [str(number) for number in range(100)]}, "models"),
        ({"name": "x", "groups": ["g" * 101]}, "groups"),
        ({"name": "x", "requests_total": 0}, "requests_total"),
        ({"name": "x", "requests_total": 1.5}, "requests_total"),
        ({"name": "x", "requests_total": True}, "requests_total"),
        ({"name": "x", "requests_total": "many"}, "requests_total"),
        ({"name": "x", "requests_total": 10**16}, "requests_total"),
        ({"name": "x", "owner": "me"}, "owner"),
        ({"name": "x", "digest": "d"}, "digest"),
    ],
)
def test_S9_what_cannot_be_is_refused_by_name(said: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_new_key(said, NOW)
    assert caught.value.param == param


def test_a_change_touches_what_is_said_and_nothing_else() -> None:
    scope, limits = KeyScope(models=("a",), groups=("g",)), KeyLimits(1, 2, 3)
    make = read_changes({"models": "all", "tokens_per_minute": "unlimited", "note": "n"}, NOW)
    assert make(scope, limits) == {
        "note": "n",
        "scope": KeyScope(models=None, groups=("g",)),
        "limits": KeyLimits(1, None, 3),
    }


def test_an_overlap_is_said_in_hours() -> None:
    assert (read_overlap(0), read_overlap(1.5)) == (0, 5400)
    for wrong in (-1, "1", None, True, 24 * 90 + 1, float("inf")):
        with pytest.raises(InvalidRequestError):
            read_overlap(wrong)


def test_S17_what_is_shown_of_a_key_is_neither_the_key_nor_its_digest() -> None:
    digests = ("d" * 64, "e" * 64)
    key = IssuedKey(
        "key_1", "Ada", "", "sk-c2a-AbCd", *digests, NOW + 5, NOW, NOW, None, None, KeyScope(), KeyLimits(), 7
    )
    shown = show_key(key, NOW)
    assert shown["shown"] == "sk-c2a-AbCd…"
    assert (shown["state"], shown["expires_at"], shown["models"], shown["old_key_until_at"]) == (
        "active", "never", "all", NOW + 5,
    )  # fmt: skip
    assert "dddd" not in str(shown) and "eeee" not in str(shown)
    assert show_key(key, NOW + 5)["old_key_until_at"] is None


def test_rooms_are_shown_with_what_is_left() -> None:
    assert show_rooms((Room("tokens_total", 10, 15, None),)) == [
        {"name": "tokens_total", "limit": 10, "used": 15, "remaining": 0, "resets_in": None}
    ]
