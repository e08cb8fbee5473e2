"""Local users: names, passwords, tokens, and all that ends them."""

from collections.abc import AsyncIterator

import pytest

from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.keys.issue import KeyRing
from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LIFETIME, PREFIX, LocalUsers, fold_name, has_user_prefix, read_terms
from chat2api.storage.keys import DAY_SECONDS, DEFAULT_EXPIRY_DAYS, KeyLimits, NewKey
from chat2api.storage.sql_records import SqlRecords
from tests.clocks import FakeClock

PASSWORD = "four quiet words together"
TERMS = NewKey("to be replaced", None, limits=KeyLimits(requests_per_day=7))


@pytest.fixture
async def digests() -> AsyncIterator[SlowDigests]:
    made = SlowDigests(cost=2**4)
    yield made
    made.close()


@pytest.fixture
def ring(store: SqlRecords, clock: FakeClock) -> KeyRing:
    return KeyRing(store, clock)


@pytest.fixture
async def users(store: SqlRecords, ring: KeyRing, digests: SlowDigests, clock: FakeClock) -> LocalUsers:
    made = LocalUsers(store, ring, digests, clock)
    await made.start()
    return made


async def token_of(users: LocalUsers, name: str = "Anna", password: str = PASSWORD) -> str:
    token = await users.sign_in(name, password)
    assert token is not None
    return token.text


async def test_a_user_has_a_key_of_their_own_on_the_terms_that_were_said(users: LocalUsers, ring: KeyRing) -> None:
    anna = await users.add("  Anna ", PASSWORD, TERMS)
    assert (anna.name, anna.shown_name) == ("anna", "Anna")
    key = ring.require(anna.key_id)
    assert (key.name, key.limits.requests_per_day) == ("Anna", 7)
    assert users.all() == [anna]
    assert PASSWORD not in repr(anna)


async def test_what_is_said_of_a_new_users_key_is_read_as_for_any_key() -> None:
    usual = read_terms("  Anna ", {}, 1000.0)
    assert (usual.name, usual.limits) == ("Anna", KeyLimits())
    assert usual.expires_at == 1000.0 + DEFAULT_EXPIRY_DAYS * DAY_SECONDS
    said = read_terms("Anna", {"requests_per_day": 7, "name": "of somebody else"}, 1000.0)
    assert (said.name, said.limits.requests_per_day) == ("Anna", 7)
    for name, terms, param in (("", {}, "username"), ("Anna", {"requests_per_day": 0}, "requests_per_day")):
        with pytest.raises(InvalidRequestError) as told:
            read_terms(name, terms, 1000.0)
        assert told.value.param == param


async def test_a_user_is_shown_with_the_state_and_the_end_of_the_key(
    users: LocalUsers, ring: KeyRing, clock: FakeClock
) -> None:
    ends = clock.now() + 60
    anna = await users.add("Anna", PASSWORD, NewKey("", ends))
    bruno = await users.add("Bruno", PASSWORD, NewKey("", None))
    assert users.require_by_key(anna.key_id) == anna
    shown = users.show(anna)
    assert (shown["username"], shown["key_id"], shown["state"]) == ("Anna", anna.key_id, "active")
    assert (shown["expires_at"], users.show(bruno)["expires_at"]) == (ends, "never")
    assert anna.password not in repr(shown)
    clock.advance(61)
    await ring.revoke(bruno.key_id)
    assert [(line.user, line.state) for line in users.lines()] == [(anna, "expired"), (bruno, "revoked")]
    assert [users.show(user)["state"] for user in (anna, bruno)] == ["expired", "revoked"]
    await users.remove("Anna")
    with pytest.raises(NotFoundError):
        users.require_by_key(anna.key_id)


async def test_a_token_names_its_user_until_its_time_is_over(users: LocalUsers, clock: FakeClock) -> None:
    anna = await users.add("Anna", PASSWORD, TERMS)
    token = await users.sign_in("ANNA", PASSWORD)
    assert token is not None
    assert has_user_prefix(token.text)
    assert len(token.text) != 45, "it is never taken for a RefreshToken of the website"
    assert users.find(token.text) == anna
    assert token.expires_at == pytest.approx(clock.now() + LIFETIME, abs=1.0)
    clock.advance(LIFETIME - 2.0)
    assert users.find(token.text) == anna
    clock.advance(2.0)
    assert users.find(token.text) is None


@pytest.mark.parametrize(
    ("name", "password"),
    [("Anna", "wrong"), ("Anna", ""), ("Anna", PASSWORD.upper()), ("Bruno", PASSWORD), ("", PASSWORD), ("a\0", "x")],
)
async def test_a_wrong_pair_gives_nothing(users: LocalUsers, name: str, password: str) -> None:
    await users.add("Anna", PASSWORD, TERMS)
    assert await users.sign_in(name, password) is None


async def test_S11_no_other_token_opens_anything(users: LocalUsers) -> None:
    await users.add("Anna", PASSWORD, TERMS)
    await users.add("Bruno", PASSWORD, TERMS)
    anna, bruno = await token_of(users), await token_of(users, "Bruno")
    head, expires, signature = anna.removeprefix(PREFIX).split("-")
    for wrong in (
        "",
        PREFIX,
        anna[:-1],
        anna + "0",
        anna.upper(),
        f"{PREFIX}{head}-{int(expires) + 1}-{signature}",
        f"{PREFIX}{head}-{expires}-{bruno.rpartition('-')[2]}",
        f"{PREFIX}{'0' * 16}-{expires}-{signature}",
        f"{PREFIX}{head}-{'9' * 5000}-{signature}",
        f"{PREFIX}{head}-{expires}-{'é' * 64}",
    ):
        assert users.find(wrong) is None, wrong


async def test_S13_another_password_ends_what_was_signed_in(users: LocalUsers) -> None:
    await users.add("Anna", PASSWORD, TERMS)
    old = await token_of(users)
    changed = await users.set_password("anna", "another four quiet words")
    assert users.find(old) is None
    assert await users.sign_in("Anna", PASSWORD) is None
    assert users.find(await token_of(users, password="another four quiet words")) == changed
    with pytest.raises(NotFoundError):
        await users.set_password("Bruno", PASSWORD)


async def test_S13_removal_ends_the_user_the_tokens_and_the_key(users: LocalUsers, ring: KeyRing) -> None:
    anna = await users.add("Anna", PASSWORD, TERMS)
    token = await token_of(users)
    assert await users.remove("ANNA") == anna
    assert users.find(token) is None
    assert ring.require(anna.key_id).revoked_at is not None
    again = await users.add("Anna", PASSWORD, TERMS)
    assert again.key_id != anna.key_id, "a namesake inherits nothing"
    assert users.find(token) is None
    with pytest.raises(NotFoundError):
        await users.remove("Bruno")


async def test_one_user_is_not_spelt_in_two_ways(users: LocalUsers, ring: KeyRing) -> None:
    await users.add("Anna", PASSWORD, TERMS)
    for same in ("anna", "ANNA", " Anna ", "Ａｎｎａ"):
        with pytest.raises(InvalidRequestError) as caught:
            await users.add(same, PASSWORD, TERMS)
        assert caught.value.param == "username"
    assert len([key for key in ring.all() if key.revoked_at is None]) == 1
    assert fold_name("Straße") == fold_name("STRASSE")


@pytest.mark.parametrize("name", ["", "   ", "a" * 65, "a\nb", "a\x00b", "ß" * 40])
async def test_a_name_that_cannot_be_is_refused(users: LocalUsers, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        await users.add(name, PASSWORD, TERMS)


@pytest.mark.parametrize("password", ["", "short", "x" * 9, "x" * 1025])
async def test_a_password_that_is_too_short_or_too_long_is_refused(users: LocalUsers, password: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await users.add("Anna", password, TERMS)
    assert caught.value.param == "password"
    await users.add("Anna", PASSWORD, TERMS)
    with pytest.raises(InvalidRequestError):
        await users.set_password("Anna", password)


async def test_what_another_process_changes_is_followed(
    store: SqlRecords, users: LocalUsers, ring: KeyRing, digests: SlowDigests, clock: FakeClock
) -> None:
    elsewhere = LocalUsers(store, ring, digests, clock)
    await elsewhere.start()
    anna = await elsewhere.add("Anna", PASSWORD, TERMS)
    with pytest.raises(InvalidRequestError):
        await users.add("Anna", PASSWORD, TERMS)
    assert [key.id for key in ring.all() if key.revoked_at is None] == [anna.key_id], "the key made in vain is ended"
    await users.reload()
    token = await token_of(users)
    await elsewhere.remove("Anna")
    await users.reload()
    assert users.find(token) is None
