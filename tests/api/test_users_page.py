"""The operator's pages for local users, as a browser without script meets them."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LocalUsers
from chat2api.storage.keys import DEFAULT_EXPIRY_DAYS, KeyLimits
from tests.api.pages_house import Person
from tests.e2e.harness import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

BASE = "/local-users"
PASSWORD = "four quiet words together"
ANOTHER = "another four quiet words"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def users(page_house: House) -> AsyncIterator[LocalUsers]:
    """The server's users, whose passwords are quick to compare."""
    runtime = page_house.runtime
    digests = SlowDigests(cost=2**4)
    before = runtime.users
    runtime.users = LocalUsers(runtime.records, runtime.keys, digests, runtime.clock)
    yield runtime.users
    runtime.users = before
    digests.close()


@pytest_asyncio.fixture(loop_scope="module")
async def operator(page_house: House, users: LocalUsers) -> AsyncIterator[Person]:
    async with Person(page_house.base) as person:
        await person.sign_in()
        await person.get(BASE)
        yield person
    for user in users.all():
        await users.remove(user.name)


async def add(operator: Person, name: str = "Ada", password: str = PASSWORD, repeated: str | None = None) -> int:
    fields = {"username": name, "password": password, "repeated": password if repeated is None else repeated}
    return (await operator.post(BASE, fields)).status_code


async def test_a_user_is_added_with_a_key_of_the_usual_limits(
    page_house: House, operator: Person, users: LocalUsers
) -> None:
    assert "no local user" in (await operator.get(BASE)).text
    assert await add(operator) == 303
    (user,) = users.all()
    key = page_house.runtime.keys.require(user.key_id)
    assert key.limits == KeyLimits()
    assert key.expires_at == pytest.approx(page_house.runtime.clock.now() + DEFAULT_EXPIRY_DAYS * 86400, abs=600)
    assert await users.sign_in("ada", PASSWORD) is not None
    page = (await operator.get(f"{BASE}?done=added")).text
    assert ">Ada</a>" in page
    assert key.expires_at is not None
    assert f"{datetime.fromtimestamp(key.expires_at, UTC):%Y-%m-%d}" in page
    assert f"/issued-keys/{user.key_id}" in page
    assert PASSWORD not in page
    (last, *_) = await page_house.runtime.records.actions.latest(1)
    assert (last.what, last.target) == ("users.add", "Ada")


async def test_a_user_is_added_to_a_tier_that_there_is(page_house: House, operator: Person, users: LocalUsers) -> None:
    fields = {"username": "Ada", "password": PASSWORD, "repeated": PASSWORD}
    refused = await operator.post(BASE, fields | {"tier": "gold"})
    assert refused.status_code == 400
    assert "There is no such tier (any more)." in refused.text
    assert users.all() == []
    assert (await operator.post(BASE, fields | {"tier": "free"})).status_code == 303
    (user,) = users.all()
    assert page_house.runtime.keys.require(user.key_id).tier == "free"
    assert "Tier: free" in (await operator.get(BASE)).text


@pytest.mark.parametrize(
    ("name", "password", "repeated", "told"),
    [
        ("", PASSWORD, PASSWORD, "printable characters"),
        ("x" * 65, PASSWORD, PASSWORD, "printable characters"),
        ("ADA", PASSWORD, PASSWORD, "already"),
        ("Bob", "short", "short", "10 to 1024"),
        ("Bob", PASSWORD, ANOTHER, "differ"),
        ("Bob", "", "", "10 to 1024"),
    ],
)
async def test_what_cannot_be_is_marked_and_makes_nobody(
    operator: Person, users: LocalUsers, name: str, password: str, repeated: str, told: str
) -> None:
    assert await add(operator) == 303
    answer = await operator.post(BASE, {"username": name, "password": password, "repeated": repeated})
    assert answer.status_code == 400
    assert told in answer.text
    assert re.findall(r'aria-invalid="true"( autofocus)?', answer.text) == [" autofocus"], "the page opens there"
    assert not password or password not in answer.text, "a password is not written back"
    assert len(users.all()) == 1


async def test_another_password_ends_the_old_one(operator: Person, users: LocalUsers) -> None:
    await add(operator)
    (user,) = users.all()
    path = f"{BASE}/{user.key_id}"
    assert "<h1" in (await operator.get(path)).text
    wrong = await operator.post(f"{path}/password", {"password": ANOTHER, "repeated": PASSWORD})
    assert wrong.status_code == 400
    assert "differ" in wrong.text
    changed = await operator.post(f"{path}/password", {"password": ANOTHER, "repeated": ANOTHER})
    assert changed.status_code == 303
    assert "was changed" in (await operator.get(changed.headers["location"])).text
    assert await users.sign_in("Ada", PASSWORD) is None
    assert await users.sign_in("Ada", ANOTHER) is not None


async def test_removal_is_asked_about_first(page_house: House, operator: Person, users: LocalUsers) -> None:
    await add(operator)
    (user,) = users.all()
    asked = await operator.post(f"{BASE}/{user.key_id}/remove")
    assert asked.status_code == 200
    assert "Remove Ada" in asked.text
    assert users.all()
    removed = await operator.post(f"{BASE}/{user.key_id}/remove", {"sure": "yes"})
    assert removed.status_code == 303
    assert not users.all()
    assert page_house.runtime.keys.require(user.key_id).revoked_at is not None
    assert (await operator.get(f"{BASE}/{user.key_id}")).status_code == 404


async def test_a_name_is_shown_as_text_whatever_it_holds(operator: Person, users: LocalUsers) -> None:
    markup = '<img src=x onerror="alert(1)">'
    await add(operator, markup)
    (user,) = users.all()
    for path in (BASE, f"{BASE}/{user.key_id}", "/tokens/journal"):
        page = (await operator.get(path)).text
        assert markup not in page
        assert "&lt;img" in page


async def test_S22_a_form_of_another_site_adds_nobody(operator: Person, users: LocalUsers) -> None:
    fields = {"username": "Mallory", "password": PASSWORD, "repeated": PASSWORD}
    for origin, csrf in (("http://evil.example.test", operator.csrf), ("own", "wrong")):
        answer = await operator.post(BASE, {**fields, "csrf": csrf}, origin=origin)
        assert answer.status_code == 403
    assert not users.all()
