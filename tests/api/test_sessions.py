"""Cookies of sign-ins, and how they end."""

import re

import pytest

from chat2api.api.sessions import csrf_matches, csrf_token
from chat2api.storage.sign_ins import IDLE_SECONDS, LONGEST_SECONDS
from tests.api.pages_house import FakeKeys, Person, SettingsChange
from tests.e2e.harness import OPERATOR_KEY, House, HouseClock

pytestmark = pytest.mark.asyncio(loop_scope="module")


def clock_of(house: House) -> HouseClock:
    clock = house.runtime.clock
    assert isinstance(clock, HouseClock)
    return clock


async def test_S21_the_cookie_over_plain_http_on_this_machine(person: Person) -> None:
    answer = await person.sign_in()
    (header,) = answer.headers.get_list("set-cookie")
    assert re.fullmatch(r"chat2api=[0-9a-f]{64}; .*", header)
    assert set(header.partition("; ")[2].split("; ")) >= {"HttpOnly", "Path=/", "SameSite=Strict", "Max-Age=604800"}
    assert "Secure" not in header
    assert "Domain" not in header


async def test_S21_the_cookie_under_an_https_origin(page_house: House, settings: SettingsChange) -> None:
    settings(public_origins=("https://chat.example.test",))
    async with Person(page_house.base, "chat.example.test", "https") as person:
        answer = await person.sign_in()
        (header,) = answer.headers.get_list("set-cookie")
        assert header.startswith("__Host-chat2api=")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"} <= set(header.split("; "))
        assert "Domain" not in header
        assert (await person.get("/probe/page")).status_code == 200
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        person.cookies = {"chat2api": person.cookies["__Host-chat2api"]}
        assert (await person.get("/probe/page")).status_code == 303, "the plain cookie means nothing there"


async def test_S21_plain_http_from_elsewhere_needs_a_word_of_the_operator(
    page_house: House, settings: SettingsChange
) -> None:
    async with Person(page_house.base, "192.0.2.7:5005") as person:
        refused = await person.sign_in()
        assert refused.status_code == 403
        assert "ALLOW_HTTP=true" in refused.text
        assert "PUBLIC_ORIGINS=" in refused.text
        assert not person.cookies
        settings(allow_http=True)
        assert (await person.sign_in()).status_code == 303
        assert (await person.get("/probe/page")).status_code == 200
        settings(allow_http=False)
        assert (await person.get("/probe/page")).status_code == 403


async def test_S21_each_sign_in_has_an_id_of_its_own_and_ends_the_one_before(page_house: House, person: Person) -> None:
    await person.sign_in()
    first = person.cookies["chat2api"]
    await person.sign_in()
    second = person.cookies["chat2api"]
    assert first != second
    async with Person(page_house.base) as thief:
        thief.cookies["chat2api"] = first
        assert (await thief.get("/probe/page")).status_code == 303
        thief.cookies["chat2api"] = second
        assert (await thief.get("/probe/page")).status_code == 200


async def test_S21_a_cookie_chosen_by_somebody_else_is_never_taken_up(person: Person) -> None:
    person.cookies["chat2api"] = "f" * 64
    await person.sign_in()
    assert person.cookies["chat2api"] != "f" * 64


async def test_S21_only_a_digest_is_stored(page_house: House, person: Person) -> None:
    await person.sign_in()
    folder = page_house.runtime.config.data_dir
    stored = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert person.cookies["chat2api"].encode() not in stored
    assert OPERATOR_KEY.encode() not in stored


async def test_S21_a_sign_in_ends_after_twelve_idle_hours(page_house: House, person: Person) -> None:
    await person.sign_in()
    for _ in range(3):
        clock_of(page_house).advance(IDLE_SECONDS - 400)
        assert (await person.get("/probe/page")).status_code == 200
    clock_of(page_house).advance(IDLE_SECONDS + 1)
    assert (await person.get("/probe/page")).status_code == 303


async def test_S21_a_sign_in_ends_after_seven_days_however_busy(page_house: House, person: Person) -> None:
    await person.sign_in()
    steps = int(LONGEST_SECONDS / (IDLE_SECONDS / 2))
    for step in range(steps):
        assert (await person.get("/probe/page")).status_code == 200, step
        clock_of(page_house).advance(IDLE_SECONDS / 2)
    assert (await person.get("/probe/page")).status_code == 303


async def test_S13_a_sign_in_ends_when_its_operator_key_is_replaced(page_house: House, person: Person) -> None:
    from chat2api.keys.operator import OperatorKeys

    await person.sign_in()
    before = page_house.runtime.operator_keys
    page_house.runtime.operator_keys = OperatorKeys.configured(["another-key-0123456789"])
    try:
        assert (await person.get("/probe/page")).status_code == 303
    finally:
        page_house.runtime.operator_keys = before
    assert (await person.get("/probe/page")).status_code == 303, "ended for good"


async def test_a_person_whose_key_was_replaced_signs_in_again(person: Person, keys: FakeKeys) -> None:
    await person.sign_in(FakeKeys.SECRET)
    assert (await person.get("/probe/person")).json() == {"role": "person", "who": "key key_1"}
    keys.key.digest = "b" * 64
    assert (await person.get("/probe/person")).status_code == 401


async def test_S22_the_token_follows_from_the_cookie_and_does_not_give_it_away() -> None:
    token = csrf_token("a" * 64)
    assert csrf_matches("a" * 64, token)
    assert not csrf_matches("b" * 64, token)
    assert not csrf_matches("a" * 64, "")
    assert not csrf_matches("a" * 64, "\udcff")
    assert "a" * 8 not in token
