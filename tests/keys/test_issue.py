"""`chat2api/keys/issue.py`: keys that nobody can guess, found in memory, ended within a second."""

import random
import re
import string
from typing import cast

import pytest

from chat2api.accounts.tokens import tell_kind
from chat2api.errors import NotFoundError, StorageError
from chat2api.keys.issue import (
    DEFAULT_OVERLAP,
    POLL_SECONDS,
    PREFIX,
    KeyRing,
    has_key_prefix,
    is_well_formed,
    make_key,
)
from chat2api.storage.keys import IssuedKey, NewKey
from chat2api.storage.sql_records import SqlRecords
from tests.clocks import FakeClock


@pytest.fixture
def ended() -> list[str]:
    """The ids of the keys that the ring said were revoked."""
    return []


@pytest.fixture
def ring(store: SqlRecords, clock: FakeClock, ended: list[str]) -> KeyRing:
    return KeyRing(store, clock, on_end=lambda key: ended.append(key.id))


def new(name: str = "Ada", expires_at: float | None = None) -> NewKey:
    return NewKey(name, expires_at)


def test_S10_a_key_has_a_prefix_256_random_bits_and_a_checksum() -> None:
    keys = {make_key() for _ in range(2000)}
    assert len(keys) == 2000
    for key in keys:
        assert re.fullmatch(r"sk-c2a-[0-9A-Za-z]{49}", key)
        assert len(key) != 45
        assert is_well_formed(key)
        assert tell_kind(key) == "issued_key"
    # 62 ** 43 is more than 2 ** 256, and all letters are used in all places but the first.
    assert {key[len(PREFIX) + 20] for key in keys} == set(string.ascii_letters + string.digits)


def test_S10_a_mistyped_key_is_told_by_its_checksum() -> None:
    key = make_key()
    for place in range(len(PREFIX), len(key)):
        other = "x" if key[place] != "x" else "y"
        assert not is_well_formed(key[:place] + other + key[place + 1 :])
    assert not is_well_formed(key + "0") and not is_well_formed(key[:-1]) and not is_well_formed(key + "\n")
    assert has_key_prefix(key[:20])


async def test_S10_a_key_is_found_by_its_digest_which_is_all_that_is_kept(ring: KeyRing, store: SqlRecords) -> None:
    issued = await ring.issue(new())

    assert ring.find(issued.secret) == issued.key == await store.keys.key(issued.key.id)
    assert ring.find(make_key()) is None
    assert issued.key.shown == issued.secret[:11]
    assert issued.secret not in repr(issued)
    assert issued.key.digest == store.digest("issued key", issued.secret)


async def test_S10_hostile_bearers_find_nothing_and_break_nothing(ring: KeyRing) -> None:
    issued = await ring.issue(new())
    rng = random.Random(7)
    words = ["'", '"', ";--", " OR 1=1", "\x00", "é", "\ud800", "%", "\n", "../", "{{7*7}}", "\U0001f511"]
    for number in range(10_000):
        body = list(issued.secret if number % 2 else PREFIX + "A" * 49)
        for _ in range(rng.randint(1, 3)):
            body.insert(rng.randrange(len(body)), rng.choice(words))
        assert ring.look_up("".join(body)) is None


async def test_an_expired_key_is_known_but_does_not_work(ring: KeyRing, clock: FakeClock) -> None:
    issued = await ring.issue(new(expires_at=clock.now() + 10))
    assert ring.find(issued.secret) is not None

    clock.advance(10)

    assert ring.find(issued.secret) is None
    known = ring.look_up(issued.secret)
    assert known is not None and known.ended(clock.now()) == "expired"


async def test_S13_a_revoked_key_stops_at_once_and_is_told_once(
    ring: KeyRing, clock: FakeClock, ended: list[str]
) -> None:
    issued = await ring.issue(new())

    revoked = await ring.revoke(issued.key.id)
    await ring.revoke(issued.key.id)
    await ring.reload()

    assert revoked.ended(clock.now()) == "revoked"
    assert ring.find(issued.secret) is None
    assert ended == [issued.key.id]


async def test_S13_what_another_process_does_is_known_by_the_next_poll(
    ring: KeyRing, store: SqlRecords, clock: FakeClock, ended: list[str]
) -> None:
    elsewhere = KeyRing(store, clock)
    issued = await elsewhere.issue(new())
    assert ring.find(issued.secret) is None
    await ring.reload()
    assert ring.find(issued.secret) is not None

    await elsewhere.revoke(issued.key.id)
    await ring.reload()
    assert ring.find(issued.secret) is None
    assert ended == [issued.key.id]
    assert POLL_SECONDS <= 1


async def test_the_old_key_works_until_the_overlap_ends(ring: KeyRing, clock: FakeClock) -> None:
    first = await ring.issue(new())

    second = await ring.rotate(first.key.id)

    assert second.key.id == first.key.id and second.secret != first.secret
    assert ring.find(first.secret) == ring.find(second.secret) == second.key
    clock.advance(DEFAULT_OVERLAP - 1)
    assert ring.find(first.secret) is not None
    clock.advance(1)
    assert ring.find(first.secret) is None
    assert ring.find(second.secret) is not None


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(ring: KeyRing) -> None:
    first = await ring.issue(new())
    second = await ring.rotate(first.key.id, 3600)
    third = await ring.rotate(first.key.id, 0)
    assert [ring.find(one.secret) is not None for one in (first, second, third)] == [False, False, True]


async def test_an_ended_key_is_not_rotated(ring: KeyRing) -> None:
    issued = await ring.issue(new())
    await ring.revoke(issued.key.id)
    with pytest.raises(NotFoundError, match="revoked"):
        await ring.rotate(issued.key.id)
    with pytest.raises(NotFoundError):
        await ring.rotate("key_unknown")


async def test_R17_a_change_is_made_again_on_what_another_process_wrote_meanwhile(
    ring: KeyRing, store: SqlRecords, clock: FakeClock
) -> None:
    elsewhere = KeyRing(store, clock)
    issued = await ring.issue(new())
    await elsewhere.start()
    await elsewhere.change(issued.key.id, lambda key: {"note": "theirs"})
    seen: list[str] = []

    def make(key: IssuedKey) -> dict[str, object]:
        seen.append(key.note)
        return {"name": "Grace"}

    changed = await ring.change(issued.key.id, make)

    assert seen == ["", "theirs"]
    assert (changed.name, changed.note) == ("Grace", "theirs")


async def test_a_change_that_is_always_too_late_gives_up(ring: KeyRing, store: SqlRecords, clock: FakeClock) -> None:
    issued = await ring.issue(new())

    class Busy:
        keys = store.keys
        digest = store.digest

    busy = KeyRing(cast(SqlRecords, Busy()), clock)
    await busy.start()
    original = store.keys.change

    async def late(key: IssuedKey, fields: dict[str, object]) -> None:
        assert await original(key, {"note": key.note + "."}) is not None

    store.keys.change = late  # type: ignore[method-assign,assignment]  # another writer is always first
    with pytest.raises(StorageError, match="others"):
        await busy.change(issued.key.id, lambda key: {"name": "x"})
