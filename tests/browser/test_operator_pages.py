"""The operator's overview, doctor and journal in a real browser."""

import re

import pytest
from playwright.async_api import Page, expect

from chat2api.storage.actions import Action
from tests.browser.conftest import Visits, add_person
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATHS = ("/tokens/overview", "/tokens/overview?period=month", "/tokens/checkup", "/tokens/journal")


async def sign_in(visits: Visits, page: Page) -> None:
    await visits.sign_in(page, OPERATOR_KEY)
    await page.wait_for_url(lambda url: "/login" not in url)


async def test_from_the_sign_in_through_the_overview_to_a_check_and_the_journal(visits: Visits) -> None:
    page = await visits.open("/tokens/overview")
    await page.fill("#key", OPERATOR_KEY)
    await page.click("main button.primary")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await page.get_by_role("link", name="30 days").click()
    await expect(page.get_by_role("link", name="30 days")).to_have_attribute("aria-current", "true")
    await page.get_by_role("link", name="Doctor").click()
    disk = page.locator("#disk")
    await expect(disk).to_contain_text("Not checked yet.")
    await disk.get_by_role("button", name="Check now").click()
    await expect(disk).to_contain_text("MiB are free")
    await page.get_by_role("link", name="Journal").click()
    await expect(page.get_by_role("row").nth(1)).to_contain_text("signed in")


async def test_all_checks_run_and_the_page_tells_when_they_are_through(house: House, visits: Visits) -> None:
    page = await visits.open("/login")
    await sign_in(visits, page)
    await page.goto("/tokens/checkup")
    await page.get_by_role("button", name="Run all checks").click()
    await expect(page.locator(".notice").first).to_contain_text(re.compile(r"\d of \d checked, \d with a finding"))
    await expect(page.get_by_text("Not checked yet.")).to_have_count(0, timeout=60_000)
    await expect(page.locator("#accounts")).to_contain_text("there are none")
    await expect(page.locator("#accounts")).to_contain_text("What to do")


async def test_without_script_a_check_is_run_and_read(house: House, visits: Visits) -> None:
    house.runtime.doctor.latest.clear()
    page = await visits.open("/login", script=False)
    await sign_in(visits, page)
    await page.goto("/tokens/checkup")
    await page.locator("#store").get_by_role("button", name="Check now").click()
    await expect(page.locator("#store")).to_contain_text("whole, and they can be written")
    await expect(page.locator("#disk")).to_contain_text("Not checked yet.")


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
async def test_no_page_has_to_be_scrolled_sideways(house: House, visits: Visits, width: int, language: str) -> None:
    await add_person(house, "Reader")
    now = house.runtime.clock.now()
    await house.runtime.records.actions.add(Action(now, "operator key c83a9266", "keys.change", "key_" + "x" * 90))
    page = await visits.open("/login", width=width, height=700, language=language)
    await sign_in(visits, page)
    for path in PATHS:
        await page.goto(path)
        inner, wide = await page.evaluate("[window.innerWidth, document.documentElement.scrollWidth]")
        assert wide <= inner, path


async def test_everything_has_a_name_and_every_id_is_there_once(house: House, visits: Visits) -> None:
    await add_person(house, "Listener")
    page = await visits.open("/login")
    await sign_in(visits, page)
    for path in PATHS:
        await page.goto(path)
        nameless, ids, pointed = await page.evaluate(
            """() => [
              [...document.querySelectorAll("a, button, nav, [role=region], section, progress")]
                .filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length))
                .map((e) => e.outerHTML),
              [...document.querySelectorAll("[id]")].map((e) => e.id),
              [...document.querySelectorAll("[aria-labelledby], [aria-describedby]")]
                .flatMap((e) => `${e.getAttribute("aria-labelledby") ?? ""} ${e.getAttribute("aria-describedby") ?? ""}`
                  .trim().split(/ +/)),
            ]"""
        )
        assert nameless == [], path
        assert len(ids) == len(set(ids)), path
        assert set(pointed) <= set(ids), path
