"""Invitations over REST and by their pages."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from chat2api.keys.guesses import Guesses
from chat2api.keys.issue import is_well_formed
from chat2api.simulator.app import Simulator
from tests.api.pages_house import Person, SettingsChange
from tests.api.tiers_house import TIERS, ask, bearer, chat, issue, open_tiers_house
from tests.described import check_answer
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR = bearer(OPERATOR_KEY)
INVITES = "/keys/invites"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with Simulator() as sim, open_tiers_house(tmp_path_factory.mktemp("invites"), sim) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    house.runtime.guesses = Guesses(house.runtime.clock)
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def person(house: House, http: httpx.AsyncClient) -> AsyncIterator[Person]:
    async with Person(house.base) as person:
        yield person


async def invite(http: httpx.AsyncClient, **fields: object) -> str:
    """Make an invitation and give its path."""
    answer = await http.post(INVITES, json={"tier": "members", **fields}, headers=OPERATOR)
    assert answer.status_code == 201, answer.text
    path = re.search(r"/invite/[\w-]+$", answer.json()["url"])
    assert path is not None
    return path[0]


async def test_who_opens_a_link_takes_one_key_once(http: httpx.AsyncClient, person: Person, house: House) -> None:
    path = await invite(http, name="Ada")
    page = await person.get(path)
    assert page.status_code == 200
    assert "members" in page.text
    assert (await person.get(path)).status_code == 200, "looking uses nothing up"
    given = await person.post(path)
    assert given.status_code == 200
    key = re.search(r"sk-c2a-\w+", given.text)
    assert key is not None
    assert is_well_formed(key[0])
    assert "/members/v1" in given.text
    assert given.headers["cache-control"] == "no-store"
    assert (await ask(http, "/members", chat(), key[0])).status_code == 200
    for again in (await person.get(path), await person.post(path)):
        assert again.status_code == 404
        assert "sk-c2a" not in again.text
    (listed, *_) = (await http.get(INVITES, headers=OPERATOR)).json()["data"]
    assert (listed["state"], listed["name"], listed["tier"]) == ("used", "Ada", "members")
    issued = house.runtime.keys.require(listed["key"])
    assert issued.tier == "members"
    (action, *_) = await house.runtime.records.actions.latest(1)
    assert (action.what, action.target, action.who) == ("invites.take", issued.id, f"invitation {listed['id']}")


async def test_the_holder_signs_in_and_sees_their_own_prefix_limits_and_use(
    http: httpx.AsyncClient, person: Person
) -> None:
    path = await invite(http, name="Grace")
    await person.get(path)
    key = re.search(r"sk-c2a-\w+", (await person.post(path)).text)
    assert key is not None
    assert (await person.sign_in(key[0])).status_code == 303
    page = (await person.get("/usage")).text
    for word in ("Grace", key[0][:11], "members", "/members/v1", "gpt-4o"):
        assert word in page
    assert key[0] not in page


async def test_a_revoked_invitation_opens_nothing(http: httpx.AsyncClient, person: Person) -> None:
    path = await invite(http)
    (listed, *_) = (await http.get(INVITES, headers=OPERATOR)).json()["data"]
    revoked = await http.delete(f"{INVITES}/{listed['id']}", headers=OPERATOR)
    assert revoked.json()["state"] == "revoked"
    assert (await person.get(path)).status_code == 404
    assert (await http.delete(f"{INVITES}/inv_unknown", headers=OPERATOR)).status_code == 404


async def test_the_answers_are_as_the_document_describes_them(http: httpx.AsyncClient) -> None:
    made = await http.post(INVITES, json={"tier": "free", "key_expires_in_days": "never"}, headers=OPERATOR)
    listed = await http.get(INVITES, headers=OPERATOR)
    ended = await http.delete(f"{INVITES}/{made.json()['id']}", headers=OPERATOR)
    unknown = await http.delete(f"{INVITES}/inv_unknown", headers=OPERATOR)
    models = await http.get("/v1/models")
    for answer in (made, listed, ended, unknown, models):
        asked = answer.request
        check_answer(asked.method, asked.url.path, answer.status_code, answer.json())


async def test_no_answer_but_the_first_holds_the_link(http: httpx.AsyncClient) -> None:
    token = (await invite(http)).rpartition("/")[2]
    assert token not in (await http.get(INVITES, headers=OPERATOR)).text


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "tier"), ({"tier": "unknown"}, "tier"), ({"tier": "members", "owner": "me"}, "owner")],
)
async def test_S9_what_cannot_be_is_refused(http: httpx.AsyncClient, body: object, param: str) -> None:
    answer = await http.post(INVITES, json=body, headers=OPERATOR)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_invitations_are_the_operators_to_make(house: House, http: httpx.AsyncClient) -> None:
    member = bearer(await issue(house, "members"))
    for headers, status in (({}, 401), (member, 403)):
        assert (await http.get(INVITES, headers=headers)).status_code == status
        assert (await http.post(INVITES, json={"tier": "members"}, headers=headers)).status_code == status


async def test_S22_another_page_cannot_take_the_key(http: httpx.AsyncClient, person: Person) -> None:
    path = await invite(http)
    assert (await person.post(path, origin="https://other.example.test")).status_code == 403
    assert (await person.post(path, origin=None)).status_code == 403
    assert (await person.post(path)).status_code == 200


async def test_a_key_is_not_shown_over_plain_http_from_elsewhere(house: House, http: httpx.AsyncClient) -> None:
    path = await invite(http)
    settings = SettingsChange(house)
    try:
        settings(public_origins=("http://plain.example.test",))
        async with Person(house.base, host="plain.example.test") as afar:
            refused = await afar.post(path)
            assert refused.status_code == 403
            assert "sk-c2a" not in refused.text
    finally:
        settings.undo()
    async with Person(house.base) as near:
        assert (await near.post(path)).status_code == 200


async def test_S14_who_guesses_at_links_must_wait(http: httpx.AsyncClient, person: Person) -> None:
    statuses = [(await http.get(f"/invite/guess{number}")).status_code for number in range(12)]
    assert statuses == [404] * 10 + [429] * 2


async def test_an_invitation_to_a_tier_that_is_gone_says_so(
    house: House, http: httpx.AsyncClient, person: Person
) -> None:
    path = await invite(http)
    file = house.runtime.tiers.path
    assert file is not None
    file.write_text(TIERS.replace("[members", "[club"), encoding="utf-8")
    await house.runtime.tiers.load()
    try:
        assert (await person.get(path)).status_code == 404
        assert (await person.post(path)).status_code == 404
    finally:
        file.write_text(TIERS, encoding="utf-8")
        await house.runtime.tiers.load()
    assert (await person.post(path)).status_code == 200, "it was not used up"


async def test_the_pages_speak_every_language(http: httpx.AsyncClient) -> None:
    path = await invite(http)
    page = await http.get(path, headers={"Accept": "text/html", "Accept-Language": "zh-CN"})
    assert 'lang="zh-CN"' in page.text
    assert "邀请" in page.text
