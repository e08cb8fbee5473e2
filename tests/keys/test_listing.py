"""`chat2api/keys/listing.py`."""

import pytest

from chat2api.keys.issue import KeyRing
from chat2api.keys.listing import KEYS, USERS, UserLine, key_lines, state_of
from chat2api.storage.keys import IssuedKey, NewKey
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.usage import KeyTotals
from chat2api.storage.users import LocalUser
from tests.clocks import FakeClock


@pytest.fixture
async def keys(store: SqlRecords, clock: FakeClock) -> list[IssuedKey]:
    ring = KeyRing(store, clock)
    for name, days, note, tier in (("Ada", 9, "laptop", None), ("bruno", None, "", "club"), ("Clara", 1, "", None)):
        await ring.issue(NewKey(name, None if days is None else clock.now() + days * 86400, note=note, tier=tier))
        clock.advance(1)
    return ring.all()


def test_a_keys_state_is_that_of_now(keys: list[IssuedKey], clock: FakeClock) -> None:
    assert [line.state for line in key_lines(keys, {}, clock.now() + 2 * 86400)] == ["active", "active", "expired"]
    assert state_of(None, clock.now()) == "revoked"


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (None, ["Ada", "bruno", "Clara"]),
        ("-name", ["Clara", "bruno", "Ada"]),
        ("expires", ["Clara", "Ada", "bruno"]),
        ("today", ["Clara", "Ada", "bruno"]),
        ("-total", ["Ada", "bruno", "Clara"]),
        ("-last", ["Ada", "bruno", "Clara"]),
    ],
)
def test_keys_are_sorted(keys: list[IssuedKey], clock: FakeClock, sort: str | None, order: list[str]) -> None:
    ada, bruno, _ = keys
    used = {ada.id: KeyTotals(1, 5, 9, 90, clock.now()), bruno.id: KeyTotals(2, 0, 3, 0, clock.now() - 60)}
    assert [line.key.name for line in KEYS.page(key_lines(keys, used, clock.now()), sort=sort).rows] == order


def test_keys_and_users_are_found_by_name_note_tier_and_id(keys: list[IssuedKey], clock: FakeClock) -> None:
    ada, bruno, clara = keys
    lines = key_lines(keys, {}, clock.now())
    users = [
        UserLine(LocalUser(f"u {key.name}".casefold(), f"U {key.name}", "", key.id, n, n), known, "active")
        for n, (key, known) in enumerate(((ada, ada), (bruno, bruno), (clara, None)))
    ]
    for search, key in (("ADA", ada), ("laptop", ada), ("club", bruno), (clara.id, clara)):
        assert [line.key for line in KEYS.page(lines, search=search).rows] == [key]
        assert [line.user.key_id for line in USERS.page(users, search=search).rows] == [key.id]
    assert [line.key for line in KEYS.page(lines, search=bruno.shown).rows] == [bruno]
    assert [line.user.shown_name for line in USERS.page(users, sort="expires").rows] == ["U Ada", "U bruno", "U Clara"]
