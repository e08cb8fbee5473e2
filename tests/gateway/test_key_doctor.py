"""The doctor's checks of API keys: what is wrong with the way or the key, and what to do."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.gateway.doctor import Finding
from chat2api.simulator import openai_api
from chat2api.simulator.faults import Fault
from chat2api.simulator.openai_api import Prepared
from tests.api.openai.forwarding import CHAT, QUESTION, Forwarding, open_forwarding
from tests.api.pages_house import Person
from tests.e2e.harness import HouseClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOCK = HouseClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("keys"), keys=2, clock=CLOCK) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def two(running: Forwarding) -> Forwarding:
    await running.recover(CLOCK)
    return running


def labels(two: Forwarding) -> list[str]:
    return [key.label for key in two.house.runtime.openai.keys.values()]


async def look(two: Forwarding, name: str) -> Finding:
    finding = await two.house.runtime.doctor.run(name)
    assert bool(finding.advice) != finding.ok
    assert not [key for key in two.api.keys if key in repr(finding)]
    return finding


async def test_the_way_and_each_key_are_examined_by_name(two: Forwarding) -> None:
    names = [check.name for check in two.house.runtime.doctor.checks()]
    assert names[names.index("api-1") :] == ["api-1", *labels(two)], "that there are no accounts is no finding"
    way = await look(two, "api-1")
    assert (way.ok, way.subject, way.text) == (True, f"{two.api.url}/v1 directly", "reachable")
    (asked,) = two.api.control.requests
    assert "authorization" not in repr(asked.request.headers).lower(), "no key is spent on the way"
    for label in labels(two):
        finding = await look(two, label)
        assert (finding.ok, finding.subject) == (True, f"API {label}")
        assert finding.text.startswith("the API accepts it and lists ")
    assert {record.account for record in two.api.control.requests_to("models")} >= {key[-4:] for key in two.api.keys}
    assert two.house.runtime.openai.pool.statistics().in_flight == 0


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fault("answer", status=503), "Try again later"),
        (Fault("reset", at="before_headers"), "OPENAI_BASE_URL"),
        (openai_api.fault(openai_api.error(404, "Not here.")), "/v1"),
    ],
)
async def test_a_way_that_does_not_lead_to_an_api_is_told(two: Forwarding, fault: Fault, advice: str) -> None:
    two.api.control.fail("models", fault, times=None)
    finding = await look(two, "api-1")
    assert not finding.ok
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("fault", "text", "advice"),
    [
        (openai_api.out_of_credit(), "limit", "credit"),
        (openai_api.fault(openai_api.error(403, "Country not supported.")), "does not list", "Try again later"),
        (openai_api.fault(openai_api.error(404, "Invalid URL")), "no list of models", "/v1"),
        (Fault("answer", status=500), "failed", "Try again later"),
        (Fault("reset", at="before_headers"), "", "OPENAI_BASE_URL"),
    ],
)
async def test_a_key_that_does_not_work_is_told_with_what_to_do(
    two: Forwarding, fault: Fault, text: str, advice: str
) -> None:
    two.api.control.fail("models", fault, times=None)
    finding = await look(two, labels(two)[0])
    assert not finding.ok
    assert text in finding.text
    assert advice in finding.advice
    asked = len(two.api.control.requests_to("models"))
    assert asked == (2 if fault.do == "reset" else 1), "a connection that was kept and breaks is made again"


async def test_a_page_is_no_api(two: Forwarding) -> None:
    page = Fault("answer", status=200, body="<html>Welcome</html>", headers=(("content-type", "text/html"),))
    two.api.control.fail("models", page, times=2)
    assert "/v1" in (await look(two, "api-1")).advice
    assert "/v1" in (await look(two, labels(two)[0])).advice


async def test_what_cannot_be_read_is_about_the_base_url(two: Forwarding) -> None:
    two.api.prepare(Prepared(b'{"data": 1}', kind="application/json"))
    assert "OPENAI_BASE_URL" in (await look(two, labels(two)[0])).advice


async def test_a_key_that_may_not_list_models_is_well(two: Forwarding) -> None:
    refusal = openai_api.error(403, "Missing scopes: api.model.read", code="missing_scope")
    two.api.control.fail("models", openai_api.fault(refusal))
    assert (await look(two, labels(two)[0])).text == "the API accepts it, but it may not list models"


async def test_R7_a_limited_key_is_left_alone(two: Forwarding) -> None:
    two.api.control.fail("chat", openai_api.limited(time="1h"), times=2)
    assert (await two.http.post(CHAT, json=QUESTION)).status_code == 429
    for label in labels(two):
        finding = await look(two, label)
        assert (finding.ok, finding.text) == (False, "waits for gpt-4.1")
        assert 0 < int(finding.advice.split(" in ")[1].split(" s")[0]) <= 3600
    assert two.api.control.requests_to("models") == []


async def test_the_page_shows_the_checks_in_the_readers_language(two: Forwarding) -> None:
    two.api.control.fail("models", openai_api.out_of_credit(), times=None)
    label = labels(two)[0]
    async with Person(two.house.base) as person:
        await person.sign_in()
        await person.get("/tokens/checkup")
        for name in ("api-1", label):
            answer = await person.post("/tokens/checkup", {"check": name})
            assert answer.headers["location"] == f"/tokens/checkup#{name}"
        page = (await person.get("/tokens/checkup")).text
        chinese = (await person.get("/tokens/checkup", **{"Accept-Language": "zh-CN"})).text
    assert 'id="api-checks"' in page
    assert f">{label}</h3>" in page
    assert "See the key&#39;s credit and limits" in page
    assert "到创建此 Key 的地方查看余额和限额" in chinese
    assert not [key for key in two.api.keys if key in page]


async def test_a_refused_key_is_told_once_it_is_known(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("refused")) as one:
        one.api.keys.clear()
        (label,) = labels(one)
        for _ in range(2):
            finding = await look(one, label)
            assert not finding.ok
            assert "OPENAI_API_KEYS" in finding.advice
        assert finding.text == "the API refuses it"
        assert (await one.http.post(CHAT, json=QUESTION)).status_code == 503


async def test_a_refused_key_serves_again_once_the_doctor_finds_it_accepted(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("again")) as one:
        (label,), (key,) = labels(one), one.api.keys
        one.api.keys.clear()
        assert not (await look(one, label)).ok
        one.api.control.fail("models", Fault("answer", status=500))
        one.api.keys.append(key)
        assert "Try again later" in (await look(one, label)).advice, "a failing API says nothing of the key"
        assert (await one.http.post(CHAT, json=QUESTION)).status_code == 503
        assert (await look(one, label)).ok
        assert (await one.http.post(CHAT, json=QUESTION)).status_code == 200


async def test_without_keys_there_is_nothing_to_examine(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("none"), keys=0, OPENAI_API_KEYS="") as none:
        names = [check.name for check in none.house.runtime.doctor.checks()]
        assert "accounts" in names
        assert not [name for name in names if name.startswith(("api", "key"))]
