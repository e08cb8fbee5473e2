"""Invitations: kept by digest, used up once with the key that they give."""

import asyncio

from chat2api.storage.invitations import KEPT_SECONDS, NewInvitation
from chat2api.storage.keys import NewKey
from chat2api.storage.records import Records

NOW = 1_700_000_000.0
NEW = NewInvitation("free", "Ada", NOW + 100, 3600.0)
KEY = NewKey("Ada", NOW + 3600, tier="free")


async def test_what_is_stored_is_found_by_its_digest_and_in_the_list(records: Records) -> None:
    first = await records.invitations.add(NEW, "1" * 64, NOW)
    second = await records.invitations.add(NEW, "2" * 64, NOW + 1)
    assert (first.tier, first.name, first.created_at, first.key_seconds) == ("free", "Ada", NOW, 3600.0)
    assert first.ended(NOW) is None
    assert await records.invitations.find("1" * 64) == first
    assert await records.invitations.find("3" * 64) is None
    assert await records.invitations.all() == (second, first)


async def test_it_is_used_up_with_the_key_that_it_gives(records: Records) -> None:
    await records.invitations.add(NEW, "1" * 64, NOW)
    key = await records.invitations.redeem("1" * 64, KEY, "a" * 64, "sk-c2a-AAAA", NOW + 5)
    assert key is not None
    assert (key.name, key.tier, key.expires_at) == ("Ada", "free", NOW + 3600)
    found = await records.invitations.find("1" * 64)
    assert found is not None
    assert (found.used_at, found.key_id, found.ended(NOW + 5)) == (NOW + 5, key.id, "used")
    assert (await records.keys.changes()).keys == (key,)


async def test_of_many_who_open_it_at_once_one_gets_the_key(records: Records) -> None:
    await records.invitations.add(NEW, "1" * 64, NOW)
    taken = await asyncio.gather(
        *(records.invitations.redeem("1" * 64, KEY, f"{number:064}", "sk-c2a-AAAA", NOW + 5) for number in range(20))
    )
    assert sum(key is not None for key in taken) == 1
    assert len((await records.keys.changes()).keys) == 1


async def test_one_that_is_over_gives_nothing_and_changes_nothing(records: Records) -> None:
    revoked = await records.invitations.add(NEW, "1" * 64, NOW)
    await records.invitations.add(NEW, "2" * 64, NOW)
    again = await records.invitations.revoke(revoked.id, NOW + 1)
    assert again is not None
    assert again.ended(NOW + 1) == "revoked"
    for digest, at in (("1" * 64, NOW + 2), ("2" * 64, NOW + 100), ("3" * 64, NOW)):
        assert await records.invitations.redeem(digest, KEY, "a" * 64, "sk-c2a-AAAA", at) is None
    assert (await records.keys.changes()).keys == ()
    expired = await records.invitations.find("2" * 64)
    assert expired is not None
    assert (expired.used_at, expired.ended(NOW + 100)) == (None, "expired")


async def test_what_is_used_is_not_revoked_and_what_is_unknown_is_none(records: Records) -> None:
    used = await records.invitations.add(NEW, "1" * 64, NOW)
    await records.invitations.redeem("1" * 64, KEY, "a" * 64, "sk-c2a-AAAA", NOW + 5)
    after = await records.invitations.revoke(used.id, NOW + 6)
    assert after is not None
    assert (after.revoked_at, after.ended(NOW + 6)) == (None, "used")
    assert await records.invitations.revoke("inv_unknown", NOW) is None


async def test_what_has_long_been_over_is_forgotten_when_another_is_made(records: Records) -> None:
    await records.invitations.add(NEW, "1" * 64, NOW)
    later = NOW + 100 + KEPT_SECONDS
    await records.invitations.add(NewInvitation("free", "Bob", later + 100, None), "2" * 64, later)
    assert [one.name for one in await records.invitations.all()] == ["Bob"]
