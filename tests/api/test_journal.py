"""What operators do is written down."""

import logging

import pytest

from tests.api.pages_house import Person
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_G7_the_journal_tells_who_did_what_and_when_but_no_secret(
    page_house: House, person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chat2api.api.context")
    before = page_house.runtime.clock.now()
    await person.sign_in()
    cookie = person.cookies["chat2api"]
    await person.post("/logout", {"csrf": person.token()})
    left, came = await page_house.runtime.records.actions.latest(2)
    assert (came.what, left.what) == ("sign in", "sign out")
    assert came.who == left.who
    assert came.who.startswith("operator key ")
    assert before <= came.at <= left.at <= page_house.runtime.clock.now()
    for secret in (OPERATOR_KEY, cookie):
        assert secret not in repr((came, left))
        assert secret not in caplog.text
