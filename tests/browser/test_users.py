"""People who sign in by name, as the operator makes and removes them in a browser."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visits
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="package")

PASSWORD = "four quiet words together"


async def test_somebody_is_added_after_a_slip_and_removed_once_that_is_sure(house: House, visits: Visits) -> None:
    users = house.runtime.users
    page = await visits.open("/login", width=390)
    await visits.sign_in(page, OPERATOR_KEY)
    await expect(page).not_to_have_url(re.compile("/login"))
    await page.goto("/local-users")
    await page.get_by_label("Name").fill("Ada")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_label("The same again").fill(PASSWORD[:-1])
    await page.get_by_role("button", name="Add the user").click()
    await expect(page.get_by_label("The same again")).to_be_focused()
    await expect(page.get_by_text("The two passwords differ.")).to_be_in_viewport()
    assert users.all() == []

    await expect(page.get_by_label("Name")).to_have_value("Ada")
    await expect(page.get_by_label("Password")).to_have_value("")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_label("The same again").fill(PASSWORD)
    await page.get_by_role("button", name="Add the user").click()
    await expect(page.get_by_role("status")).to_have_text("The user was added and can sign in now.")
    assert await users.sign_in("Ada", PASSWORD) is not None

    await page.get_by_role("link", name="Ada").click()
    await page.get_by_role("button", name="Remove the user").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Remove Ada and revoke their key for ever?")
    assert users.all()
    await page.get_by_role("dialog").get_by_role("button", name="Yes, do it").click()
    await expect(page.get_by_role("status")).to_have_text("The user was removed.")
    assert users.all() == []
