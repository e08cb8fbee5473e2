"""GET /v1/models and GET /v1/models/{id}."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from chat2api.simulator.app import Simulator
from tests.e2e.harness import OPERATOR_KEY, House, add_tokens, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    tokens = [sim.control.accounts[0].access_token]
    async with open_house(tmp_path_factory.mktemp("models"), sim, tokens=tokens) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as client:
        yield client


async def ids(http: httpx.AsyncClient, headers: dict[str, str]) -> list[str]:
    answer = await http.get("/v1/models", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "list"
    return [model["id"] for model in answer.json()["data"]]


async def test_the_list_is_what_the_accounts_offer(http: httpx.AsyncClient) -> None:
    listed = await ids(http, OPERATOR)
    assert "gpt-4o" in listed
    assert len(listed) == len(set(listed))


async def test_each_caller_sees_their_own(http: httpx.AsyncClient, sim: Simulator) -> None:
    free = {"Authorization": f"Bearer {sim.control.accounts[1].access_token}"}
    mine, operators, nobodys = await ids(http, free), await ids(http, OPERATOR), await ids(http, {})
    assert "gpt-4o" in operators
    assert "gpt-4o" not in mine
    assert set(nobodys) == set(mine)


async def test_every_model_listed_can_be_looked_up_and_asked(http: httpx.AsyncClient) -> None:
    for model in await ids(http, OPERATOR):
        answer = await http.get(f"/v1/models/{model}", headers=OPERATOR)
        assert (answer.status_code, answer.json()["id"], answer.json()["object"]) == (200, model, "model")
        body = {"model": model, "messages": [{"role": "user", "content": "Say: yes"}]}
        said = await http.post("/v1/chat/completions", json=body, headers=OPERATOR)
        assert said.status_code == 200
        assert "x-chat2api-model-fallback" not in said.headers


@pytest.mark.parametrize("model", ["nobody-knows-this", "a/b/c", "%2e%2e", "gpt-4o%20", "GPT-4O%00"])
async def test_another_name_is_not_found(http: httpx.AsyncClient, model: str) -> None:
    answer = await http.get(f"/v1/models/{model}", headers=OPERATOR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_when_the_backend_fails_that_is_told(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("failing")
    async with (
        open_house(folder, sim) as house,
        httpx.AsyncClient(base_url=house.base, headers=OPERATOR, trust_env=False) as http,
    ):
        assert (await http.get("/v1/models")).json()["error"]["code"] == "no_account"
        await add_tokens(folder, [sim.control.add_account().access_token])
        await house.runtime.pool.reload()
        sim.control.refuse("models", "server_error")
        failed = await http.get("/v1/models")
        assert (failed.status_code, failed.json()["error"]["code"]) == (502, "upstream_server_error")
        assert (await http.get("/v1/models/auto")).status_code == 200, "and the failure is not kept"
