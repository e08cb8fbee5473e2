"""The website's calls as REST: what its routes alone decide; turns and ownership are the gateway's tests."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chat2api.protocol.chatgpt.stream import ConversationDecoder
from chat2api.protocol.events import Finished, TextDelta
from chat2api.simulator.app import Simulator
from tests.e2e.harness import ANSWER, OPERATOR_KEY, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}
PLACES = ("", "/backend-api", "/chatgpt/backend-api")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    tokens = [sim.control.accounts[0].access_token]
    async with open_house(tmp_path_factory.mktemp("site"), sim, tokens=tokens, ANONYMOUS="off") as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def own(sim: Simulator) -> dict[str, str]:
    """The headers of somebody with a token of their own."""
    return {"Authorization": f"Bearer {sim.control.add_account().access_token}"}


def turn_body(content: str = "Name three rivers.", **fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"content": {"parts": [content]}}], **fields}


def heard(answer: httpx.Response) -> tuple[str, Finished]:
    """Give the text and the end of a passed-on answer, as a client of the website reads them."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    decoder = ConversationDecoder()
    events = decoder.feed(answer.content) + decoder.close()
    (end,) = [event for event in events if isinstance(event, Finished)]
    return "".join(event.text for event in events if isinstance(event, TextDelta)), end


@pytest.mark.parametrize("place", PLACES)
async def test_a_turn_with_a_token_of_ones_own(
    http: httpx.AsyncClient, sim: Simulator, own: dict[str, str], place: str
) -> None:
    text, end = heard(await http.post(f"{place}/conversation", json=turn_body(), headers=own))
    assert text == ANSWER
    sent = sim.control.requests_to("conversation")[-1].request
    assert sent.header("authorization") == own["Authorization"]
    assert sent.header("openai-sentinel-chat-requirements-token")
    follow = turn_body("And lakes?", conversation_id=end.conversation_id, parent_message_id=end.message_id)
    _, next_end = heard(await http.post(f"{place}/conversation", json=follow, headers=own))
    assert next_end.conversation_id == end.conversation_id


async def test_who_speaks_and_in_which_conversation_may_be_left_out(
    http: httpx.AsyncClient, sim: Simulator, own: dict[str, str]
) -> None:
    body = turn_body(conversation_id="", parent_message_id="", action="")
    body["messages"][0] |= {"author": {"role": ""}, "id": ""}
    heard(await http.post("/conversation", json=body, headers=own))
    sent: Any = sim.control.requests_to("conversation")[-1].request.json()
    assert sent["action"] == "next"
    assert sent["messages"][0]["author"] == {"role": "user"}
    assert "conversation_id" not in sent
    assert len(sent["messages"][0]["id"]) == len(sent["parent_message_id"]) == 36


async def test_a_token_is_taken_without_the_word_bearer(http: httpx.AsyncClient, own: dict[str, str]) -> None:
    bare = {"Authorization": own["Authorization"].removeprefix("Bearer ")}
    for headers in (own, bare):
        assert (await http.get("/conversations", headers=headers)).status_code == 200
    assert (await http.get("/v1/models", headers=bare)).status_code == 401, "only the website's calls take that"
    assert (await http.get("/conversations", headers={"Authorization": "Bearer"})).status_code == 401
