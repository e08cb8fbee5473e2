"""Issued keys in a real browser: from the form to the key, and to its end."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visits, add_person
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("script", [True, False])
async def test_an_operator_makes_a_key_replaces_it_and_revokes_it(house: House, visits: Visits, script: bool) -> None:
    name = f"Made with script {script}"
    page = await visits.open("/login", script=script)
    await visits.sign_in(page, OPERATOR_KEY)
    await page.get_by_role("link", name="Keys", exact=True).click()
    await page.get_by_role("link", name="New key").click()
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Requests a day").fill("100")
    await page.get_by_role("button", name="Make the key").click()
    first = await page.locator("#secret").inner_text()
    key = house.runtime.keys.find(first.strip())
    assert key is not None
    assert (key.name, key.limits.requests_per_day) == (name, 100)
    await page.get_by_role("link", name="To this key").click()
    await page.get_by_label("The old key works for").select_option("1")
    await page.get_by_role("button", name="Replace the key").click()
    second = await page.locator("#secret").inner_text()
    assert second != first
    await page.get_by_role("link", name="To this key").click()
    await page.get_by_role("button", name="Revoke").click()
    await page.get_by_role("button", name="Yes, do it").click()
    await expect(page.get_by_role("status")).to_have_text("The key is revoked.")
    assert house.runtime.keys.find(second.strip()) is None


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
async def test_the_key_pages_fit_a_phone(house: House, visits: Visits, language: str) -> None:
    await add_person(house, "A name that is rather long " + "and-has-no-place-to-break" * 2)
    key = house.runtime.keys.all()[-1].id
    page = await visits.open("/login", width=320, height=700, language=language)
    await visits.sign_in(page, OPERATOR_KEY)
    await expect(page).not_to_have_url(re.compile("/login"))
    for path in ("/issued-keys", "/issued-keys/new", f"/issued-keys/{key}", "/usage"):
        await page.goto(path)
        inner, wide = await page.evaluate("[window.innerWidth, document.documentElement.scrollWidth]")
        assert wide <= inner, path
