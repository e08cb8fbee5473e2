"""API keys on the overview and the doctor's page, in both languages, wide and narrow."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from chat2api.simulator import openai_api
from tests.api.openai.forwarding import CHAT, QUESTION, Forwarding, open_forwarding
from tests.browser.conftest import Visits
from tests.e2e.harness import OPERATOR_KEY, HouseClock

pytestmark = pytest.mark.asyncio(loop_scope="package")

PICTURES = os.environ.get("CHAT2API_PICTURES")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    """Three keys: one is refused, one is limited, one serves."""
    async with open_forwarding(tmp_path_factory.mktemp("keys"), keys=3, clock=HouseClock(20)) as three:
        refused, limited = three.api.keys.pop(0), three.api.keys[0]
        three.api.control.fail("chat", openai_api.limited(time="1h"), account=limited[-4:], times=None)
        for _ in range(10):
            assert (await three.http.post(CHAT, json=QUESTION)).status_code == 200
        for check in three.house.runtime.doctor.checks():
            if check.name.startswith(("api-", "key-")):
                await three.house.runtime.doctor.run(check.name)
        assert refused not in three.api.keys
        yield three


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("path", ["/tokens/overview", "/tokens/checkup"])
async def test_the_keys_are_shown_whole(
    browser: Browser, three: Forwarding, path: str, language: str, width: int
) -> None:
    async with AsyncExitStack() as stack:
        visits = Visits(browser, three.house, stack)
        page = await visits.open("/login", width=width, language=language)
        await visits.sign_in(page, OPERATOR_KEY)
        await page.wait_for_url("**/tokens**")
        await page.goto(path)
        card = page.locator("section.card", has=page.locator("#api-keys, #api-title"))
        for key in three.house.runtime.openai.keys.values():
            await expect(card.get_by_text(key.label, exact=True)).to_be_visible()
        text = await card.inner_text()
        assert ("OPENAI_API_KEYS" in text) and ("gpt-4.1" in text)
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        if PICTURES:
            await page.screenshot(path=Path(PICTURES) / f"keys-{path[8:]}-{language}-{width}.png", full_page=True)
        assert visits.problems == []
