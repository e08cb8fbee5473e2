"""The operator's page for tiers: what it shows, and reading the file anew while requests run."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from chat2api.simulator.app import Simulator
from tests.api.pages_house import Person
from tests.api.tiers_house import TIERS, ask, bearer, chat, issue, open_tiers_house
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/tokens/tiers"
OPERATOR = bearer(OPERATOR_KEY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with Simulator() as sim, open_tiers_house(tmp_path_factory.mktemp("tiers"), sim) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def person(house: House) -> AsyncIterator[Person]:
    write(house, TIERS)
    await house.runtime.tiers.load()
    async with Person(house.base) as person:
        await person.sign_in()
        await person.get(PATH)
        yield person


def write(house: House, text: str) -> None:
    path = house.runtime.tiers.path
    assert isinstance(path, Path)
    path.write_text(text, encoding="utf-8")


async def test_the_page_shows_each_tier_with_its_paths_and_who_may_enter(house: House, person: Person) -> None:
    await issue(house, "members")
    page = (await person.get(PATH)).text
    for word in ('href="/api/blog/shared"', "everybody, without a key", "its keys, and the shared key", "its keys<"):
        assert word in page
    assert "sk-free-api" not in page


async def test_a_changed_file_holds_once_it_is_read_anew_and_that_is_in_the_journal(
    house: House, person: Person
) -> None:
    write(house, TIERS.replace('"/members"', '"/club"'))
    async with httpx.AsyncClient(base_url=house.base, trust_env=False) as http:
        assert (await http.get("/club/v1/models")).status_code == 404
        answer = await person.post(PATH)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{PATH}?done=reloaded")
        assert "The file was read anew" in (await person.get(f"{PATH}?done=reloaded")).text
        assert (await http.get("/club/v1/models")).status_code == 200
        assert (await http.get("/members/v1/models")).status_code == 404
    (action, *_) = await house.runtime.records.actions.latest(1)
    assert (action.what, action.target) == ("tiers.reload", "free, shared, members")


async def test_a_bad_file_changes_nothing_and_its_mistakes_are_told_with_line_and_field(
    house: House, person: Person
) -> None:
    before = house.runtime.tiers.tiers
    write(house, TIERS.replace('system = "drop"', 'system = "<b>keep"'))
    answer = await person.post(PATH)
    assert answer.headers["location"] == PATH
    page = (await person.get(f"{PATH}?done=reloaded")).text
    assert "line 4 <code>free.system</code> expected one of" in page
    assert "The file was read anew" not in page
    assert house.runtime.tiers.tiers is before
    write(house, TIERS)
    await person.post(PATH)
    assert "free.system" not in (await person.get(PATH)).text


async def test_mistakes_are_told_in_the_readers_language(house: House, person: Person) -> None:
    for text, told in (
        (TIERS.replace('system = "drop"', 'system = "keep"'), "第 4 行 <code>free.system</code> 应为下列之一："),
        (TIERS.replace("[free]", "[free"), "第 2 行 这不是有效的 TOML："),
        (
            TIERS.replace("[free", "[open"),
            "PUBLIC_MODE 指定了层级 free，但没有这个层级。现有层级：open, shared, members。",
        ),
    ):
        write(house, text)
        await person.post(PATH)
        page = (await person.get(PATH, **{"Accept-Language": "zh"})).text
        mistakes = page.partition("文件有错误")[2].partition("</section>")[0]
        assert told in mistakes
        assert 'lang="en"' not in mistakes


async def test_what_the_built_in_tier_tells_is_told_in_the_readers_language(house: House, person: Person) -> None:
    tiers = house.runtime.tiers
    before, tiers.path = tiers.path, None
    try:
        await tiers.load()
        chinese = (await person.get("/free", **{"Accept-Language": "zh"})).text
        english = (await person.get("/free", **{"Accept-Language": "en"})).text
    finally:
        tiers.path = before
    assert "仅供试用：只支持文本" in chinese
    assert "For trying things out" not in chinese
    assert "For trying things out" in english


async def test_keys_of_a_tier_that_is_gone_are_told_of(house: House, person: Person) -> None:
    await issue(house, "members")
    await issue(house, "members")
    write(house, TIERS.replace("[members", "[club"))
    await person.post(PATH)
    assert (
        "Keys are issued for tiers that there are not now, so they open nothing: members."
        in (await person.get(PATH)).text
    )


async def test_reading_anew_under_load_loses_no_request(house: House, person: Person) -> None:
    texts = (TIERS, TIERS.replace("gpt-4o-mini", "o4-mini"), "no tiers at all", TIERS.replace('"/members"', '"/m"'))
    done = asyncio.Event()

    async def keep_reading() -> int:
        times = 0
        while not done.is_set():
            write(house, texts[times % len(texts)])
            await house.runtime.tiers.reload()
            times += 1
            await asyncio.sleep(0)
        return times

    reading = asyncio.get_running_loop().create_task(keep_reading())
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as http:
        asked = [ask(http, "/free", chat("gpt-3.5-turbo", stream=number % 2 == 0)) for number in range(60)]
        answers = await asyncio.gather(*asked)
    done.set()
    assert await reading > 3
    assert [answer.status_code for answer in answers] == [200] * 60
    assert all(answer.text.endswith(("data: [DONE]\n\n", "}")) for answer in answers)


async def test_an_invitation_is_made_shown_once_and_ended(house: House, person: Person) -> None:
    made = await person.post(f"{PATH}/invite", {"tier": "members", "name": "Ada <b>", "days": "3"})
    link = re.search(r"http://localhost:\d+(/invite/[\w-]+)", made.text)
    assert link is not None
    assert "Ada &lt;b&gt;" in made.text
    page = (await person.get(PATH)).text
    assert "Ada &lt;b&gt;" in page
    assert link[1] not in page
    assert (await person.get(link[1])).status_code == 200
    invitation = re.search(r'name="invitation" value="(inv_\w+)"', page)
    assert invitation is not None
    ended = await person.post(f"{PATH}/revoke", {"invitation": invitation[1]})
    assert ended.headers["location"] == f"{PATH}?done=revoked#invitations"
    after = (await person.get(f"{PATH}?done=revoked")).text
    assert "The invitation was ended." in after
    assert invitation[1] not in after
    assert (await person.get(link[1])).status_code == 404


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tier": "members", "days": "91"}, "from 1 to 90"),
        ({"tier": "members", "days": ""}, "from 1 to 90"),
        ({"tier": "members", "days": "3", "name": "x" * 101}, "1 to 100 printable characters"),
    ],
)
async def test_what_cannot_be_is_told_beside_its_box(person: Person, fields: dict[str, str], told: str) -> None:
    answer = await person.post(f"{PATH}/invite", fields)
    assert answer.status_code == 400
    assert told in answer.text
    assert "/invite/" not in answer.text.replace("tiers/invite", "")


async def test_it_is_the_operators_alone(house: House) -> None:
    async with Person(house.base) as person:
        answer = await person.get(PATH)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={PATH}")
        await person.sign_in(await issue(house, "members"))
        assert (await person.get(PATH)).status_code == 403


async def test_a_key_is_given_to_a_tier_on_its_page(house: House, person: Person) -> None:
    form = {"name": "For the club", "expires_in_days": "30"}
    page = (await person.get("/issued-keys/new")).text
    assert [name for name in ("free", "shared", "members") if f'<option value="{name}">' in page] == [
        "free", "shared", "members"
    ]  # fmt: skip
    await person.post("/issued-keys/new", form | {"tier": "members"})
    key = next(key for key in house.runtime.keys.all() if key.name == "For the club")
    assert key.tier == "members"
    assert '<option value="members" selected>' in (await person.get(f"/issued-keys/{key.id}")).text
    await person.post(f"/issued-keys/{key.id}", form | {"tier": "none"})
    assert house.runtime.keys.require(key.id).tier is None


async def test_a_form_that_names_a_tier_that_is_gone_is_shown_again_and_makes_nothing(
    house: House, person: Person
) -> None:
    secret = await issue(house, "members")
    key = house.runtime.keys.find(secret)
    assert key is not None
    write(house, TIERS.replace("[members", "[club"))
    await person.post(PATH)
    before = house.runtime.keys.all()
    form = {"name": "For the club", "expires_in_days": "30", "tier": "members"}
    for path, fields in (
        ("/issued-keys/new", form),
        (f"/issued-keys/{key.id}", form | {"tier": "shared2"}),
        (f"{PATH}/invite", {"tier": "members", "days": "3"}),
    ):
        answer = await person.post(path, fields)
        assert answer.status_code == 400, path
        assert "There is no such tier (any more)." in answer.text
        assert answer.text.count('aria-invalid="true" autofocus') == 1
    assert house.runtime.keys.all() == before
    kept = await person.post(f"/issued-keys/{key.id}", form)
    assert kept.status_code == 303, "what is changed beside a tier that is gone is changed"
    assert house.runtime.keys.require(key.id).tier == "members"


async def test_S9_a_key_is_made_for_a_tier_that_there_is(house: House) -> None:
    async with httpx.AsyncClient(base_url=house.base, headers=OPERATOR, trust_env=False) as http:
        refused = await http.post("/keys", json={"name": "a", "tier": "nowhere"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tier")
        made = await http.post("/keys", json={"name": "a", "tier": "shared"})
        assert made.json()["tier"] == "shared"
        changed = await http.patch(f"/keys/{made.json()['id']}", json={"tier": "none"})
        assert changed.json()["tier"] == "none"
