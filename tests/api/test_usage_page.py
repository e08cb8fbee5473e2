"""What people see of their own use, and of nobody else's."""

import re

import pytest

from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from chat2api.storage.usage import UsageRow, day_of
from tests.api.pages_house import Person
from tests.e2e.harness import House, HouseClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTHING = KeyLimits(requests_per_minute=None, requests_at_once=None)


async def issue(house: House, name: str, **fields: object) -> tuple[str, str]:
    new = NewKey(name=name, expires_at=None, **{"limits": NOTHING} | fields)  # type: ignore[arg-type]  # by name
    issued = await house.runtime.keys.issue(new)
    return issued.secret, issued.key.id


async def book(house: House, key_id: str, model: str, requests: int, *, days_ago: int = 0) -> None:
    day = day_of(house.runtime.clock.now() - days_ago * 86400)
    row = UsageRow(
        day, key_id, "secretlabel", model, requests=requests, prompt_tokens=requests * 10, completion_tokens=5
    )
    await house.runtime.records.usage.add([row])


async def person_with(house: House, secret: str) -> Person:
    person = Person(house.base)
    assert (await person.sign_in(secret)).headers["location"] == "/usage"
    return person


async def test_S8_a_person_sees_their_own_use_alone(page_house: House) -> None:
    mine, my_id = await issue(page_house, "Mine")
    _, other_id = await issue(page_house, "Other")
    await book(page_house, my_id, "model-of-mine", 1234)
    await book(page_house, my_id, "model-of-mine", 1, days_ago=40)
    await book(page_house, other_id, "model-of-other", 777)
    async with await person_with(page_house, mine) as person:
        page = (await person.get("/usage")).text
    assert "model-of-mine" in page
    assert "1\u202f234" in page
    assert "1\u202f235" not in page, "older than the page looks back"
    for foreign in ("model-of-other", "Other", "777", "secretlabel"):
        assert foreign not in page


async def test_the_operator_sees_everybody(page_house: House) -> None:
    _, key_id = await issue(page_house, "Grandmother")
    await book(page_house, key_id, "model-x", 4321)
    async with Person(page_house.base) as person:
        await person.sign_in()
        page = (await person.get("/usage")).text
    assert "Grandmother" in page
    assert "4\u202f321" in page


async def test_what_is_left_is_told_of_each_limit(page_house: House) -> None:
    limits = KeyLimits(requests_per_minute=60, requests_per_day=400, tokens_total=9000, requests_at_once=None)
    secret, _ = await issue(page_house, "Limited", limits=limits, scope=KeyScope(models=("gpt-4o", "o*")))
    async with await person_with(page_house, secret) as person:
        page = (await person.get("/usage")).text
    assert page.count("<meter") == 3
    assert "Requests at once" not in page
    assert "<strong>400</strong> / 400" in page
    assert "<code>gpt-4o</code>" in page
    assert '"model": "gpt-4o"' in page.replace("&#34;", '"')


async def test_a_key_without_limits_says_so(page_house: House) -> None:
    secret, _ = await issue(page_house, "Free")
    async with await person_with(page_house, secret) as person:
        page = (await person.get("/usage")).text
    assert "no limit of number" in page
    assert "<meter" not in page


async def test_S10_no_page_shows_a_key(page_house: House) -> None:
    secret, _ = await issue(page_house, "Secret")
    async with await person_with(page_house, secret) as person:
        page = (await person.get("/usage")).text
    assert secret not in page
    assert secret[:11] in page


async def test_S13_the_page_closes_with_the_key(page_house: House) -> None:
    secret, key_id = await issue(page_house, "Short")
    async with await person_with(page_house, secret) as person:
        assert (await person.get("/usage")).status_code == 200
        await page_house.runtime.keys.revoke(key_id)
        assert (await person.get("/usage")).status_code == 401
        assert (await person.sign_in(secret)).status_code == 401


async def test_S13_a_sign_in_by_a_replaced_key_ends_when_that_key_does(page_house: House) -> None:
    secret, key_id = await issue(page_house, "Rotated")
    clock = page_house.runtime.clock
    assert isinstance(clock, HouseClock)
    async with await person_with(page_house, secret) as before:
        await page_house.runtime.keys.rotate(key_id, overlap=600)
        async with await person_with(page_house, secret) as after:
            for person in (before, after):
                assert (await person.get("/usage")).status_code == 200
            clock.advance(601)
            for person in (before, after):
                assert (await person.get("/usage")).status_code == 401


async def test_S24_names_are_shown_as_they_are(page_house: House) -> None:
    hostile = '<img src=x onerror="alert(1)">'
    secret, key_id = await issue(page_house, hostile)
    await book(page_house, key_id, "</td><script>alert(1)</script>", 1)
    async with await person_with(page_house, secret) as person:
        page = (await person.get("/usage")).text
    assert "<img src=x" not in page
    assert not re.search(r"<script(?! src)", page)


async def test_the_charts_are_read_out_as_tables(page_house: House) -> None:
    secret, key_id = await issue(page_house, "Charts")
    await book(page_house, key_id, "m", 17)
    async with await person_with(page_house, secret) as person:
        page = (await person.get("/usage")).text
    assert page.count("<svg") == 2
    assert page.count("aria-labelledby") > 5
    assert len(re.findall(r'<tr><th scope="row">\d\d-\d\d</th>', page)) == 60
    assert '<td class="number">17</td>' in page


async def test_the_operator_sees_accounts_and_can_look_at_one_key(page_house: House) -> None:
    _, one = await issue(page_house, "One key")
    _, other = await issue(page_house, "Another key")
    await book(page_house, one, "model-of-one", 3)
    await book(page_house, other, "model-of-another", 4)
    async with Person(page_house.base) as operator:
        await operator.sign_in()
        assert "secretlabel" in (await operator.get("/usage")).text
        page = (await operator.get(f"/usage?key={one}")).text
        assert (await operator.get("/usage?key=key_nobody")).status_code == 404
    assert "model-of-one" in page
    assert "model-of-another" not in page


async def test_the_page_looks_back_as_far_as_it_is_asked_to(page_house: House) -> None:
    secret, key_id = await issue(page_house, "Far back")
    for days_ago in (0, 6, 7, 29, 30, 89, 90):
        await book(page_house, key_id, "m", 10**days_ago if days_ago < 9 else days_ago, days_ago=days_ago)
    async with await person_with(page_house, secret) as person:
        for days, requests in ((7, 1_000_001), (30, 11_000_030), (90, 11_000_149)):
            page = (await person.get(f"/usage?days={days}")).text
            assert f"<dt>Requests</dt><dd>{requests:,}</dd>".replace(",", "\u202f") in page
            assert len(re.findall(r'<tr><th scope="row">\d\d-\d\d</th>', page)) == 2 * days
            assert f"The last {days} days" in page
            since = re.search(r"/usage/data\?since=(\S+?)&amp;until=(\S+?)&amp;", page)
            assert since is not None
        assert "11\u202f000\u202f030" in (await person.get("/usage")).text
        assert (await person.get("/usage?days=31")).status_code == 400


async def test_a_month_of_which_only_the_sum_is_kept_is_told_as_that(page_house: House) -> None:
    secret, key_id = await issue(page_house, "Months")
    now = page_house.runtime.clock.now()
    whole, cut = (day_of(now - back * 86400)[:7] for back in (55, 89))
    rows = [UsageRow(month, key_id, "", "m", requests=requests) for month, requests in ((whole, 4000), (cut, 70_000))]
    await page_house.runtime.records.usage.add(rows)
    await book(page_house, key_id, "m", 3)
    async with await person_with(page_house, secret) as person:
        page = (await person.get("/usage?days=90")).text
        assert "4\u202f000" not in (await person.get("/usage?days=30")).text
    assert f"Of {whole} only the sum is kept" in page
    began = f"{cut}-01" >= day_of(now - 89 * 86400)
    assert f"<dt>Requests</dt><dd>{4003 + began * 70_000:,}</dd>".replace(",", "\u202f") in page


async def test_S8_the_data_of_the_page_is_ones_own(page_house: House) -> None:
    mine, my_id = await issue(page_house, "Data of mine")
    _, other_id = await issue(page_house, "Data of others")
    await book(page_house, my_id, "data-mine", 5)
    await book(page_house, other_id, "data-others", 6)
    async with await person_with(page_house, mine) as person:
        for form in ("csv", "json"):
            told = (await person.get(f"/usage/data?format={form}")).text
            assert "data-mine" in told
            assert "data-others" not in told
            assert "secretlabel" not in told
        assert (await person.get(f"/usage/data?key={other_id}")).status_code == 400
        assert "data-others" not in (await person.get(f"/usage?key={other_id}")).text
    async with Person(page_house.base) as operator:
        assert (await operator.get("/usage/data")).status_code == 401
        await operator.sign_in()
        told = (await operator.get("/usage/data?format=csv")).text
    assert "data-mine" in told
    assert "data-others" in told


async def test_a_person_replaces_their_key_which_is_shown_once(page_house: House) -> None:
    secret, key_id = await issue(page_house, "Renewed")
    async with await person_with(page_house, secret) as person:
        await person.get("/usage")
        asked = await person.post("/usage/renew")
        assert "The old one works for another 24 hours." in asked.text
        assert page_house.runtime.keys.require(key_id).rotated_at is None
        done = await person.post("/usage/renew", {"sure": "yes"})
        assert done.status_code == 303
        shown = await person.get(done.headers["location"])
        new = re.search(r"sk-c2a-\w{49}", shown.text)
        assert new is not None
        again = await person.get(done.headers["location"])
        assert (again.status_code, again.headers["location"]) == (303, "/usage")
        assert (await person.get("/usage")).status_code == 200, "the sign-in goes on while the old key works"
    for working in (secret, new[0]):
        found = page_house.runtime.keys.find(working)
        assert found is not None
        assert found.id == key_id
    (action, *_) = await page_house.runtime.records.actions.latest(1)
    assert (action.what, action.target) == ("keys.rotate", key_id)


async def test_S9_nobody_else_replaces_it(page_house: House) -> None:
    secret, key_id = await issue(page_house, "Kept")
    other, _ = await issue(page_house, "Somebody else")
    async with Person(page_house.base) as nobody:
        assert (await nobody.post("/usage/renew", {"sure": "yes"})).status_code == 401
    async with await person_with(page_house, other) as person:
        await person.get("/usage")
        await person.post("/usage/renew", {"sure": "yes", "key": key_id})
        await person.post(f"/usage/renew?key={key_id}", {"sure": "yes"})
    async with Person(page_house.base) as operator:
        await operator.sign_in()
        await operator.get("/usage")
        assert (await operator.post("/usage/renew", {"sure": "yes"})).status_code == 403
    assert page_house.runtime.keys.require(key_id).rotated_at is None
    async with await person_with(page_house, secret) as person:
        await person.get("/usage")
        forged = await person.post("/usage/renew", {"sure": "yes"}, origin="https://other.example.test")
        assert forged.status_code == 403
    assert page_house.runtime.keys.require(key_id).rotated_at is None
