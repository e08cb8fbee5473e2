"""The journal as operators read it."""

import pytest

from chat2api.api.journal_page import PER_PAGE
from chat2api.storage.actions import Action
from tests.api.pages_house import OPERATOR, Person
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/tokens/journal"


async def test_G7_what_operators_do_is_shown_with_time_and_doer(page_house: House) -> None:
    async with Person(page_house.base) as person:
        await person.sign_in()
        await person.http.post("/tokens/clear", headers=OPERATOR)
        page = await person.get(PATH)
    assert page.status_code == 200
    assert "removed all accounts" in page.text
    assert "0 account(s)" in page.text
    assert "signed in" in page.text
    assert "operator key " in page.text
    assert OPERATOR_KEY not in page.text


async def test_the_newest_come_first_and_the_rest_on_pages(page_house: House) -> None:
    actions, now = page_house.runtime.records.actions, page_house.runtime.clock.now()
    for number in range(PER_PAGE + 1):
        await actions.add(Action(now + number, "tester", "account.test", f"mark-{number:03}-end"))
    async with Person(page_house.base) as person:
        await person.sign_in()
        first, second = (await person.get(PATH)).text, (await person.get(f"{PATH}?page=2")).text
    assert first.index("mark-050-end") < first.index("mark-049-end")
    assert "mark-000-end" not in first
    assert "mark-000-end" in second
    assert "mark-050-end" not in second
    assert 'rel="next"' in first and 'rel="prev"' not in first
    assert 'rel="prev"' in second


@pytest.mark.parametrize("page", ["0", "-1", "x", "10001", "1" * 5000, "²"])
async def test_pages_that_cannot_be_are_refused(page_house: House, page: str) -> None:
    async with Person(page_house.base) as person:
        await person.sign_in()
        assert (await person.get(f"{PATH}?page={page}")).status_code == 400


async def test_S24_what_is_written_there_is_shown_as_it_is(page_house: House) -> None:
    now = page_house.runtime.clock.now()
    await page_house.runtime.records.actions.add(Action(now + 999, "<i>who", "<b>unknown", "<script>alert(1)</script>"))
    async with Person(page_house.base) as person:
        await person.sign_in()
        page = (await person.get(PATH)).text
    assert "<script>alert" not in page
    assert "&lt;b&gt;unknown" in page


async def test_it_is_the_operators_alone(page_house: House) -> None:
    async with Person(page_house.base) as person:
        answer = await person.get(PATH)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={PATH}")
