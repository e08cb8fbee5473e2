"""The pages of accounts in a real browser: adding, looking, changing, removing and taking that back."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.accounts.jwt import access_token
from tests.browser.conftest import Visits
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="package")

FAR = 4_000_000_000.0


@pytest_asyncio.fixture(loop_scope="package")
async def ids(house: House) -> AsyncIterator[list[str]]:
    """Three accounts, for one test."""
    text = "\n".join(access_token(f"browser-{number}", expires_at=FAR, serial=number) for number in range(3))
    yield [one.account.id for one in (await house.runtime.care.save(text)).added]
    await house.runtime.editor.delete(None)


async def operator(visits: Visits, *, width: int = 1200, script: bool = True) -> Page:
    page = await visits.open("/login", width=width, script=script)
    await visits.sign_in(page, OPERATOR_KEY)
    return page


@pytest.mark.parametrize("script", [True, False])
async def test_S17_tokens_are_pasted_looked_at_and_saved(house: House, visits: Visits, script: bool) -> None:
    token = access_token(f"pasted-{script}", expires_at=FAR)
    page = await operator(visits, script=script)
    await page.goto("/tokens/add")
    await page.get_by_label("Paste here").fill(f"{token}\nnonsense")
    await page.get_by_role("button", name="Look at it first").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Before it is saved")
    assert token not in await page.content()
    await page.get_by_role("button", name="Save 1").click()
    await expect(page.get_by_role("heading", name="Done")).to_be_visible()
    await expect(page.get_by_text("line 2")).to_be_visible()
    assert token not in await page.content()
    await house.runtime.editor.delete(None)


async def test_an_account_is_removed_after_a_question_and_brought_back(
    house: House, visits: Visits, ids: list[str]
) -> None:
    page = await operator(visits)
    await page.goto(f"/tokens/account/{ids[0]}")
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert house.runtime.pool.view(ids[0]) is not None
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Yes, do it").click()
    await expect(page.get_by_role("status")).to_contain_text("Removed: 1")
    assert house.runtime.pool.view(ids[0]) is None
    await page.get_by_role("button", name="Undo").click()
    await expect(page.get_by_role("status")).to_contain_text("Brought back: 1")
    assert house.runtime.pool.view(ids[0]) is not None


async def test_without_script_many_are_set_aside_and_removed(house: House, visits: Visits, ids: list[str]) -> None:
    page = await operator(visits, script=False)
    await page.goto("/tokens")
    for box in (await page.get_by_role("checkbox", name=re.compile("^Choose ")).all())[:2]:
        await box.check()
    await page.get_by_role("button", name="Disable").click()
    await expect(page.get_by_role("heading", name="Done")).to_be_visible()
    assert sum(house.runtime.care.view(one).account.state == "disabled" for one in ids) == 2
    await page.goto("/tokens?state=disabled")
    await page.get_by_label("all 2 that were found").check()
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Yes, do it").click()
    await expect(page.get_by_role("heading", name="Done")).to_be_visible()
    assert house.runtime.pool.statistics().total == 1


@pytest.mark.parametrize("width", [320, 768])
async def test_nothing_has_to_be_scrolled_sideways(visits: Visits, ids: list[str], width: int) -> None:
    page = await operator(visits, width=width)
    for path in ("", f"/account/{ids[0]}", "/add", "/failed", "/removed"):
        await page.goto(f"/tokens{path}")
        inner, wide = await page.evaluate("[window.innerWidth, document.documentElement.scrollWidth]")
        assert wide <= inner, path
