"""API keys on the overview page and in the metrics: state, until when, why, and what to do."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.gateway.key_views import KeyView, count_keys, key_views
from chat2api.simulator import openai_api
from chat2api.simulator.faults import Fault
from tests.api.openai.forwarding import CHAT, QUESTION, Forwarding, open_forwarding
from tests.api.pages_house import Person
from tests.e2e.harness import HouseClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOCK = HouseClock(20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("views"), clock=CLOCK) as one:
        yield one


async def see(one: Forwarding, fault: Fault | None = None, times: int | None = 1) -> KeyView:
    """Show the key after an hour's rest and one call."""
    one.fresh()
    CLOCK.advance(8 * 24 * 3600)
    if fault is not None:
        one.api.control.fail("chat", fault, times=times)
    await one.http.post(CHAT, json=QUESTION)
    (view,) = key_views(one.house.runtime.openai)
    return view


async def page(one: Forwarding, language: str = "en") -> str:
    async with Person(one.house.base) as person:
        await person.sign_in()
        answer = await person.get("/tokens/overview", **{"Accept-Language": language})
    assert answer.status_code == 200
    assert not [key for key in one.api.keys if key in answer.text]
    return answer.text


async def test_a_key_that_serves_needs_nothing(one: Forwarding) -> None:
    view = await see(one)
    assert (view.state, view.waits, view.advice) == ("ok", (), None)
    assert view.last_used_at is not None
    text = await page(one)
    assert f'<th scope="row" class="nowrap">{view.label}</th>' in text
    assert "Nothing needs you now." in text
    assert "There is no account. The API keys below serve what is asked." in text


async def test_a_stated_limit_is_shown_with_its_model_its_end_and_its_reason(one: Forwarding) -> None:
    view = await see(one, openai_api.limited(time="1h"))
    (wait,) = view.waits
    assert (view.state, view.last_error, wait.model, wait.reason) == (
        "ok",
        "rate_limit_exceeded",
        "gpt-4.1",
        "stated_limit",
    )
    assert 0 < wait.seconds <= 3600
    assert "Nothing needs to be done" in str(view.advice)
    text = await page(one)
    assert re.search(r"gpt-4\.1: limit of the backend, .*data-seconds=\"3\d\d\d\"", text)
    assert "gpt-4.1: 达到后端限额" in await page(one, "zh-CN")


@pytest.mark.parametrize(
    ("fault", "code", "advice"),
    [
        (openai_api.out_of_credit(), "rate_limit_exceeded", "credit"),
        (Fault("answer", status=500), "upstream_server_error", "Try again later"),
        (Fault("reset", at="before_headers"), "upstream_transport", "OPENAI_BASE_URL"),
        (openai_api.fault(openai_api.error(403, "x", code="model_not_found")), "permission_denied", "right"),
    ],
)
async def test_the_last_error_comes_with_what_to_do(one: Forwarding, fault: Fault, code: str, advice: str) -> None:
    view = await see(one, fault, times=None)
    assert view.last_error == code
    assert advice in str(view.advice)


async def test_a_refused_key_is_counted_and_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("refused"), keys=2, clock=HouseClock(20)) as two:
        gone = two.api.keys.pop(0)
        for _ in range(8):
            await two.http.post(CHAT, json=QUESTION)
        assert count_keys(two.house.runtime.openai) == {"ok": 1, "cooling": 0, "refused": 1}
        text = await page(two)
        assert gone not in text
        assert "API keys that the API refuses: 1." in text
        assert "No API key can serve now." not in text
        two.api.keys.clear()
        await two.http.post(CHAT, json=QUESTION)
        assert "No API key can serve now." in await page(two)
        metrics = (await two.http.get("/metrics")).text
        assert 'chat2api_api_keys{state="refused"} 2.0' in metrics
        assert "chat2api_api_keys_in_flight 0.0" in metrics
        assert not [line for line in metrics.splitlines() if gone in line or "key-" in line]
