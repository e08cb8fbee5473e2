"""Tiers in a browser: a page of another origin calls a public one; a person takes a key by invitation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from chat2api.keys.invitations import read_invitation
from chat2api.simulator.app import Simulator
from tests.api.tiers_house import open_tiers_house
from tests.browser.conftest import Visits, open_visits
from tests.e2e.harness import House

pytestmark = pytest.mark.asyncio(loop_scope="package")

SCRIPT = """
async (base) => {
  const headers = {"content-type": "application/json", "x-stainless-lang": "js", "x-stainless-os": "Unknown"};
  const body = {model: "gpt-3.5-turbo", messages: [{role: "user", content: "Name three rivers."}]};
  const post = (more) => fetch(`${base}/chat/completions`, {
    method: "POST", headers, body: JSON.stringify({...body, ...more})});
  const whole = await post({});
  const streamed = await post({stream: true});
  const models = await fetch(`${base}/models`);
  let refused = "";
  try { await fetch(base.replace("/free", "/members") + "/chat/completions", {method: "POST", headers, body: "{}"}); }
  catch (error) { refused = error.name; }
  return {
    status: whole.status,
    id: whole.headers.get("x-request-id"),
    left: whole.headers.get("x-ratelimit-limit-tokens"),
    text: (await whole.json()).choices[0].message.content,
    stream: await streamed.text(),
    models: (await models.json()).data.map((model) => model.id),
    refused,
  };
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def tiers_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with Simulator() as sim, open_tiers_house(tmp_path_factory.mktemp("tiers"), sim) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="package")
async def tier_visits(browser: Browser, tiers_house: House) -> AsyncIterator[Visits]:
    async with open_visits(browser, tiers_house) as visits:
        yield visits


@asynccontextmanager
async def another_origin() -> AsyncIterator[str]:
    """Serve an empty page from a port of its own, which makes it another origin."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = b"<!doctype html><title>Another site</title><link rel=icon href=data:,>"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        writer.write(head % len(page) + page)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_S25_a_page_of_another_origin_calls_a_public_tier_and_no_other(
    browser: Browser, tiers_house: House
) -> None:
    async with another_origin() as origin:
        page = await browser.new_page()
        try:
            await page.goto(origin)
            told = await page.evaluate(SCRIPT, f"{tiers_house.base}/free/v1")
        finally:
            await page.close()
    assert told["status"] == 200
    assert told["text"]
    assert told["id"].startswith("req_")
    assert told["stream"].endswith("data: [DONE]\n\n")
    assert told["models"] == ["gpt-3.5-turbo", "gpt-4o-mini"]
    assert told["refused"] == "TypeError", "the browser lets nothing through to a tier that needs a key"


@pytest.mark.parametrize("width", [360, 1200])
async def test_a_tiers_page_and_an_invitation_fit_and_work_with_and_without_script(
    tier_visits: Visits, tiers_house: House, width: int
) -> None:
    runtime = tiers_house.runtime
    for script in (True, False):
        page = await tier_visits.open("/free", width=width, script=script)
        await expect(page.get_by_role("heading", level=1)).to_contain_text("free")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width if script else True
        said = read_invitation({"tier": "members", "name": "Ada"}, runtime.clock.now())
        made = await runtime.invitations.make(said)
        await page.goto(f"/invite/{made.token}")
        await page.get_by_role("button", name="Get my key").click()
        await expect(page.locator("#secret")).to_contain_text("sk-c2a-")
        key = (await page.locator("#secret").inner_text()).strip()
        assert runtime.keys.find(key) is not None
        if script:
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
