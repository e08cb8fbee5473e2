"""Invitations: one link, one key; and what an operator may say of one."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.keys.invitations import TOKEN_LENGTH, Invitations, read_invitation, show_invitation
from chat2api.keys.issue import KeyRing
from chat2api.storage.keys import DAY_SECONDS
from chat2api.storage.sql_records import SqlRecords
from tests.clocks import FakeClock


@pytest_asyncio.fixture
async def records() -> AsyncIterator[SqlRecords]:
    records = await SqlRecords.in_memory()
    yield records
    await records.aclose()


@pytest.fixture
def ring(records: SqlRecords, clock: FakeClock) -> KeyRing:
    return KeyRing(records, clock)


@pytest.fixture
def invitations(records: SqlRecords, ring: KeyRing, clock: FakeClock) -> Invitations:
    return Invitations(records, ring, clock)


async def test_an_invitation_gives_one_key_of_its_tier_that_works_at_once(
    invitations: Invitations, ring: KeyRing, clock: FakeClock
) -> None:
    made = await invitations.make(read_invitation({"tier": "free", "name": "Ada"}, clock.now()))
    assert (await invitations.look_up(made.token)) == made.invitation
    used, issued = await invitations.redeem(made.token)
    assert used.id == made.invitation.id
    key = ring.find(issued.secret)
    assert key is not None
    assert (key.tier, key.name, key.expires_at) == ("free", "Ada", clock.now() + 90 * DAY_SECONDS)
    assert (key.limits.requests_per_minute, key.limits.requests_at_once) == (60, 5), "bounded by default (G4)"
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await invitations.redeem(made.token)
    assert len(ring.all()) == 1


async def test_a_key_may_last_for_ever_where_that_is_said(
    invitations: Invitations, ring: KeyRing, clock: FakeClock
) -> None:
    made = await invitations.make(read_invitation({"tier": "t", "key_expires_in_days": "never"}, clock.now()))
    _, issued = await invitations.redeem(made.token)
    assert issued.key.expires_at is None


async def test_whatever_the_reason_a_link_that_opens_nothing_says_the_same(
    invitations: Invitations, clock: FakeClock
) -> None:
    made = [await invitations.make(read_invitation({"tier": "t"}, clock.now())) for _ in range(3)]
    await invitations.redeem(made[0].token)
    await invitations.revoke(made[1].invitation.id)
    clock.advance(8 * DAY_SECONDS)
    told = set()
    for token in ("", "x", "a" * TOKEN_LENGTH, *(one.token for one in made)):
        with pytest.raises(NotFoundError) as raised:
            await invitations.look_up(token)
        told.add(raised.value.message)
    assert len(told) == 1


async def test_S10_the_secret_of_a_link_is_long_and_stored_nowhere(invitations: Invitations, clock: FakeClock) -> None:
    made = await invitations.make(read_invitation({"tier": "t"}, clock.now()))
    assert len(made.token) == TOKEN_LENGTH
    assert made.token not in repr(made)
    (kept,) = await invitations.all()
    assert made.token not in repr(kept)
    assert made.token not in str(show_invitation(kept, clock.now()))


async def test_an_unknown_one_cannot_be_ended(invitations: Invitations) -> None:
    with pytest.raises(NotFoundError):
        await invitations.revoke("inv_unknown")


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({}, "tier"),
        ({"tier": 3}, "tier"),
        ({"tier": None}, "tier"),
        ({"tier": "t", "name": ""}, "name"),
        ({"tier": "t", "name": "x" * 101}, "name"),
        ({"tier": "t", "name": "a\nb"}, "name"),
        ({"tier": "t", "expires_in_days": 0}, "expires_in_days"),
        ({"tier": "t", "expires_in_days": 91}, "expires_in_days"),
        ({"tier": "t", "expires_in_days": "never"}, "expires_in_days"),
        ({"tier": "t", "expires_in_days": True}, "expires_in_days"),
        ({"tier": "t", "key_expires_in_days": -1}, "key_expires_in_days"),
        ({"tier": "t", "key_expires_in_days": float("nan")}, "key_expires_in_days"),
        ({"tier": "t", "role": "operator"}, "role"),
        ({"tier": "t", "limits": {}}, "limits"),
    ],
)
async def test_S9_what_cannot_be_said_is_refused_by_its_name(said: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        read_invitation(said, 0.0)
    assert raised.value.param == param


async def test_an_invitation_is_shown_with_its_state(invitations: Invitations, clock: FakeClock) -> None:
    made = await invitations.make(read_invitation({"tier": "t", "key_expires_in_days": 2}, clock.now()))
    shown = show_invitation(made.invitation, clock.now())
    assert (shown["state"], shown["key_expires_in_days"], shown["key"]) == ("open", 2.0, None)
