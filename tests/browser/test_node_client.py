"""The official client's build for browsers, in a page of another origin."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from chat2api.simulator import openai_api
from tests.api.openai.forwarding import Forwarding, open_forwarding
from tests.api.tiers_house import TIERS, issue
from tests.browser.conftest import find_chromium
from tests.e2e.harness import ANSWER, OPERATOR_KEY, QUESTION, until
from tests.node.clients import FOLDER, require_clients
from tests.origin import Exchange, Origin

pytestmark = pytest.mark.asyncio(loop_scope="package")

PAGE = """<!doctype html><title>Another site</title><link rel=icon href=data:,>
<script type=module>
  import OpenAI from "/node_modules/openai/index.mjs";
  import { call } from "/calls.mjs";
  const fixed = { dangerouslyAllowBrowser: true, maxRetries: 0 };
  window.ask = async (base, key, asked) =>
    JSON.parse(JSON.stringify(await call(new OpenAI({ baseURL: base, apiKey: key, ...fixed }), asked)));
</script>"""

MESSAGES = [{"role": "user", "content": QUESTION}]


async def serve(exchange: Exchange) -> None:
    """Give the page, the client, and nothing else."""
    path = exchange.seen.target
    file = (FOLDER / path.removeprefix("/")).resolve()
    status, kind, body = 404, "text/plain", b""
    if path == "/":
        status, kind, body = 200, "text/html", PAGE.encode()
    elif file.suffix == ".mjs" and file.is_relative_to(FOLDER) and file.is_file():
        status, kind, body = 200, "text/javascript", file.read_bytes()
    await exchange.respond(status, [("content-type", kind), ("content-length", str(len(body)))])
    await exchange.send(body)
    await exchange.finish()


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    """A server in front of API keys, with tiers."""
    find_chromium()
    require_clients()
    file: Path = tmp_path_factory.mktemp("page") / "tiers.toml"
    file.write_text(TIERS, encoding="utf-8")  # noqa: ASYNC240 - before the start
    data = file.parent / "data"
    async with open_forwarding(data, TIERS_FILE=str(file), PUBLIC_MODE="free") as running:
        yield running


@pytest.fixture
def forwarding(running: Forwarding) -> Forwarding:
    running.fresh()
    return running


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def page(browser: Browser, running: Forwarding) -> AsyncIterator[Page]:
    """A page of another origin that has loaded the client."""
    async with Origin(serve) as origin:
        page = await browser.new_page()
        await page.goto(origin.url)
        await page.wait_for_function("window.ask !== undefined")
        yield page
        await page.close()


async def ask(page: Page, base: str, key: str, method: str, *args: object, **more: object) -> Any:
    """Make a call in the page."""
    return await page.evaluate(
        "([base, key, asked]) => ask(base, key, asked)", [base, key, {"method": method, "args": args, **more}]
    )


def text_of(told: Any) -> str:
    if "items" in told:
        return "".join(choice["delta"].get("content") or "" for item in told["items"] for choice in item["choices"])
    return str(told["value"]["choices"][0]["message"]["content"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("way", ["operator key", "issued key in its tier", "public tier without a key"])
async def test_S25_the_official_client_in_a_page_of_another_origin_is_answered(
    forwarding: Forwarding, page: Page, way: str, stream: bool
) -> None:
    base, key, model = {
        "operator key": ("/v1", OPERATOR_KEY, "gpt-4.1"),
        "issued key in its tier": ("/members/v1", await issue(forwarding.house, "members"), "gpt-4o"),
        "public tier without a key": ("/free/v1", "none", "gpt-4o-mini"),
    }[way]
    body = {"model": model, "messages": MESSAGES, "stream": stream}
    told = await ask(page, forwarding.house.base + base, key, "chat.completions.create", body)
    assert "error" not in told, told["error"]
    assert text_of(told) == ANSWER
    models = await ask(page, forwarding.house.base + base, key, "models.list")
    assert model in {one["id"] for one in models["items"]}


async def test_T1_S25_the_page_is_told_the_class_the_field_and_the_time(forwarding: Forwarding, page: Page) -> None:
    base, create = f"{forwarding.house.base}/v1", "chat.completions.create"
    body = {"model": "gpt-4.1", "messages": MESSAGES}
    error = (await ask(page, base, "not-a-key", create, body))["error"]
    assert (error["kind"], error["code"]) == ("AuthenticationError", "invalid_api_key")
    error = (await ask(page, base, OPERATOR_KEY, create, body | {"stream": "yes"}))["error"]
    assert (error["kind"], error["param"]) == ("BadRequestError", "stream")
    error = (await ask(page, base, OPERATOR_KEY, "models.retrieve", "no-such-model"))["error"]
    assert error["kind"] == "NotFoundError"
    assert error["requestID"].startswith("req_")
    forwarding.api.control.fail("chat", openai_api.limited(time="1h"), times=1)
    error = (await ask(page, base, OPERATOR_KEY, create, body | {"model": "gpt-4o-mini"}))["error"]
    assert error["kind"] == "RateLimitError"
    assert 3500 < int(error["headers"]["retry-after"]) <= 3600


async def test_R10_a_stream_that_the_page_leaves_ends_upstream(forwarding: Forwarding, page: Page) -> None:
    forwarding.api.control.choose("chat", events=100_000, delay=0.01)
    body = {"model": "gpt-4.1", "messages": MESSAGES, "stream": True}
    told = await ask(page, f"{forwarding.house.base}/v1", OPERATOR_KEY, "chat.completions.create", body, take=5)
    assert len(told["items"]) == 5, json.dumps(told.get("error"))
    await until(lambda: forwarding.api.control.replies[-1].outcome == "aborted", "the call still runs")
