"""POST /v1/chat/completions: what its route alone decides; the answers are tests/api/test_streaming.py's."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.e2e.harness import ANSWER, OPERATOR_KEY, House, chat_body, open_house, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    tokens = [sim.control.accounts[0].access_token]
    async with open_house(tmp_path_factory.mktemp("chat"), sim, tokens=tokens) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.base, headers=OPERATOR, timeout=30, trust_env=False) as client:
        yield client


async def test_stream_chooses_the_form(http: httpx.AsyncClient) -> None:
    for stream, kind in ((True, "text/event-stream"), (False, "application/json")):
        answer = await http.post(CHAT, json=chat_body(stream))
        assert answer.headers["content-type"].startswith(kind)
    body = chat_body()
    del body["stream"]
    assert (await http.post(CHAT, json=body)).json()["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"n": 0}, "n"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"conversation_id": "../x"}, "conversation_id"),
    ],
)
async def test_a_wrong_field_is_named_and_reaches_nobody(
    http: httpx.AsyncClient, sim: Simulator, fields: dict[str, object], param: str
) -> None:
    sim.control.reset()
    answer = await http.post(CHAT, json=chat_body() | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert answer.headers["x-should-retry"] == "false"
    assert sim.control.requests == []


@pytest.mark.parametrize("body", ["[]", "null", '"text"', "5", "{}"])
async def test_a_body_of_another_shape_is_a_400(http: httpx.AsyncClient, body: str) -> None:
    answer = await http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_only_post_is_taken(http: httpx.AsyncClient, method: str) -> None:
    answer = await http.request(method, CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_an_answer_on_its_way_is_known_and_forgotten_when_it_ends(
    house: House, http: httpx.AsyncClient, sim: Simulator
) -> None:
    sim.control.fail("conversation", Fault("stall", at="mid_stream", after=1))
    asking = asyncio.ensure_future(http.post(CHAT, json=chat_body(True)))
    await until(lambda: len(house.runtime.answers) == 1, "the answer is not known")
    # Only then has the fault been met; one that is left over would stall an answer of the next test.
    await until(lambda: bool(sim.control.streams) and sim.control.streams[-1].outcome == "open", "nothing stalls")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: not house.runtime.answers, "the answer is still known")
    await until(lambda: house.in_flight == 0, "an account is still leased")


async def test_many_at_once_are_all_answered(house: House, http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(http.post(CHAT, json=chat_body(number % 2 == 0)) for number in range(30)))
    assert [answer.status_code for answer in answers] == [200] * 30
    assert all("Nile" in answer.text and "Danube" in answer.text for answer in answers)
    await until(lambda: not house.runtime.answers, "answers are still known")
