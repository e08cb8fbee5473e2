"""A real Chromium in front of a real server.

The browser is the system's: the driver never fetches one. Where there is none the tests are skipped, unless
CHAT2API_NEEDS_BROWSER is set, as continuous integration does.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

from chat2api.storage.keys import KeyLimits, NewKey
from chat2api.storage.usage import UsageRow, day_of
from tests.e2e.harness import House, HouseClock, open_house

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str:
    """Give the path of the system's Chromium; skip or fail without one."""
    for name in NAMES:
        if (path := shutil.which(name)) is not None:
            return path
    message = "There is no Chromium here. Install it with: sudo apt-get install -y chromium"
    if os.environ.get("CHAT2API_NEEDS_BROWSER"):
        pytest.fail(message)
    pytest.skip(message)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium for all tests of this folder."""
    path = find_chromium()
    async with async_playwright() as driver:
        # Containers seldom allow the sandbox, and what is opened here is our own.
        browser = await driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A server without accounts."""
    folder: Path = tmp_path_factory.mktemp("browser") / "data"
    async with open_house(folder, clock=HouseClock()) as house:
        yield house


class Visits:
    """Opens pages as different people; what goes wrong in any of them is remembered."""

    def __init__(self, browser: Browser, house: House, stack: AsyncExitStack) -> None:
        """Open them in this browser."""
        self._browser, self._house, self._stack = browser, house, stack
        self.problems: list[str] = []

    async def open(
        self, path: str = "/", *, width: int = 1200, height: int = 900, language: str = "en-US", dark: bool = False,
        script: bool = True,
    ) -> Page:  # fmt: skip
        """Open a page as somebody new."""
        size: ViewportSize = {"width": width, "height": height}
        context: BrowserContext = await self._browser.new_context(
            base_url=self._house.base,
            viewport=size,
            locale=language,
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        context.set_default_timeout(20_000)
        self._stack.push_async_callback(context.close)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on(
            "console",
            lambda message: (
                self.problems.append(f"console: {message.text}")
                if message.type == "error" and "status of 4" not in message.text
                else None
            ),
        )
        await page.goto(path)
        return page

    async def sign_in(self, page: Page, secret: str) -> None:
        """Fill in the box and send it."""
        await page.goto("/login")
        await page.fill("#key", secret)
        await page.click("main button.primary")


@asynccontextmanager
async def open_visits(browser: Browser, house: House) -> AsyncIterator[Visits]:
    """Give a way to open pages; all are closed at the end, and none may have had a problem."""
    async with AsyncExitStack() as stack:
        visits = Visits(browser, house, stack)
        yield visits
        assert visits.problems == [], visits.problems


@pytest_asyncio.fixture(loop_scope="package")
async def visits(browser: Browser, house: House) -> AsyncIterator[Visits]:
    """Pages of one test."""
    from chat2api.keys.guesses import Guesses

    house.runtime.guesses = Guesses(house.runtime.clock)
    async with open_visits(browser, house) as visits:
        yield visits


async def add_person(house: House, name: str = "Laptop", models: tuple[str, ...] | None = None) -> str:
    """Issue a key with limits and some use in the past; give the key."""
    from chat2api.storage.keys import KeyScope

    now = house.runtime.clock.now()
    limits = KeyLimits(requests_per_minute=60, requests_per_day=400, tokens_per_day=200_000, requests_at_once=5)
    issued = await house.runtime.keys.issue(
        NewKey(name=name, expires_at=now + 90 * 86400, limits=limits, scope=KeyScope(models=models))
    )
    rows = [
        UsageRow(day_of(now - back * 86400), issued.key.id, "", "gpt-4o" if back % 3 else "o4-mini",
                 requests=(back * 37) % 90, prompt_tokens=(back * 911) % 5000, completion_tokens=(back * 613) % 4000,
                 errors=back % 4)
        for back in range(0, 30, 1) if back % 5
    ]  # fmt: skip
    await house.runtime.records.usage.add(rows)
    return issued.secret
