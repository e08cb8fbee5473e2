"""The contract of `KeyRecords`."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from chat2api.storage.keys import IssuedKey, KeyLimits, KeyScope, NewKey
from chat2api.storage.records import Records
from chat2api.storage.sql_records import SqlRecords

NOW = 1_790_000_000.0
DIGESTS = ["a" * 64, "b" * 64, "c" * 64]


async def add(records: Records, number: int = 0, **fields: object) -> IssuedKey:
    new = dataclasses.replace(NewKey(f"key {number}", NOW + 100), **fields)  # type: ignore[arg-type]
    return await records.keys.add(new, DIGESTS[number], "sk-c2a-AbCd", NOW)


async def test_a_key_is_told_as_it_was_made(records: Records) -> None:
    scope = KeyScope(models=("gpt-4o*",), accounts=("0123456789",), groups=("team", "home"))
    limits = KeyLimits(7, 8, 9, 10, 11, 12, 13_000_000_000)

    key = await add(records, scope=scope, limits=limits, note="for tests")

    assert (key.name, key.note, key.shown, key.digest) == ("key 0", "for tests", "sk-c2a-AbCd", DIGESTS[0])
    assert (key.scope, key.limits, key.created_at, key.expires_at) == (scope, limits, NOW, NOW + 100)
    assert (key.revoked_at, key.rotated_at, key.previous_digest) == (None, None, None)
    assert await records.keys.key(key.id) == key
    assert await records.keys.key("key_unknown") is None


async def test_changes_tells_each_change_once_and_in_order(records: Records) -> None:
    first, second = await add(records, 0), await add(records, 1)
    everything = await records.keys.changes()
    assert everything.keys == (first, second)
    assert everything.revision == await records.keys.revision() == 2

    changed = await records.keys.change(first, {"note": "new"})

    assert (await records.keys.changes(everything.revision)).keys == (changed,)
    assert await records.keys.revision() == 3
    assert (await records.keys.changes(3)).keys == ()


async def test_R17_a_late_writer_is_refused_and_changes_nothing(records: Records) -> None:
    seen = await add(records)
    changed = await records.keys.change(seen, {"name": "first", "limits": KeyLimits(1), "scope": KeyScope(("x",))})
    assert changed is not None and changed.limits == KeyLimits(1) and changed.scope == KeyScope(("x",))

    assert await records.keys.change(seen, {"name": "second"}) is None
    assert await records.keys.rotate(seen, DIGESTS[1], "sk-c2a-Zzzz", previous_until_at=None, now=NOW) is None
    assert await records.keys.key(seen.id) == changed


async def test_what_a_key_is_cannot_be_changed_like_its_name(records: Records) -> None:
    key = await add(records)
    for name in ("id", "digest", "revoked_at", "revision"):
        with pytest.raises(ValueError, match=name):
            await records.keys.change(key, {name: "x"})


async def test_a_rotated_key_keeps_its_last_digest_only_for_the_overlap(records: Records) -> None:
    key = await add(records)

    once = await records.keys.rotate(key, DIGESTS[1], "sk-c2a-Efgh", previous_until_at=NOW + 60, now=NOW + 1)
    assert once is not None
    assert (once.digest, once.previous_digest, once.previous_until_at) == (DIGESTS[1], DIGESTS[0], NOW + 60)
    assert (once.id, once.shown, once.rotated_at) == (key.id, "sk-c2a-Efgh", NOW + 1)

    twice = await records.keys.rotate(once, DIGESTS[2], "sk-c2a-Ijkl", previous_until_at=None, now=NOW + 2)
    assert twice is not None and (twice.previous_digest, twice.previous_until_at) == (None, None)


async def test_S13_a_key_is_revoked_whatever_was_changed_meanwhile(records: Records) -> None:
    key = await add(records)
    await records.keys.rotate(key, DIGESTS[1], "sk-c2a-Efgh", previous_until_at=NOW + 60, now=NOW)

    revoked = await records.keys.revoke(key.id, NOW + 5)

    assert revoked is not None and (revoked.revoked_at, revoked.previous_digest) == (NOW + 5, None)
    assert await records.keys.revoke(key.id, NOW + 9) == revoked, "once is enough"
    assert await records.keys.revoke("key_unknown", NOW) is None


async def test_S13_another_process_sees_a_change_by_the_revision(tmp_path: Path, empty_store: Path) -> None:
    folder = shutil.copytree(empty_store, tmp_path / "data")
    here, there = await SqlRecords.open(folder), await SqlRecords.open(folder)
    assert await here.keys.revision() == 0
    key = await add(there)
    assert await here.keys.revision() == 1
    assert (await here.keys.changes()).keys == (key,)
    await here.aclose()
    await there.aclose()


def test_S17_a_key_as_text_shows_no_digest() -> None:
    key = IssuedKey(
        "key_1", "n", "", "sk-c2a-AbCd", "d" * 64, "e" * 64, None, 0, None, None, None, KeyScope(), KeyLimits(), 1
    )
    assert "dddd" not in repr(key) and "eeee" not in repr(key)
