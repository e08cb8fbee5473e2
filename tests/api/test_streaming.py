"""Answers streamed and whole, from the same events: when they begin, how they stay alive, how they end."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.e2e.harness import ANSWER, OPERATOR_KEY, House, Told, chat_body, open_house, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}
KEEP_ALIVE = b": keep-alive\n\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    tokens = [sim.control.accounts[0].access_token]
    folder = tmp_path_factory.mktemp("streaming")
    async with open_house(folder, sim, tokens=tokens, KEEP_ALIVE_INTERVAL="0.1", RETRY_TIMES="0") as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.base, headers=OPERATOR, timeout=30, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_is_left(house: House, sim: Simulator) -> AsyncIterator[None]:
    sim.control.reset()
    yield
    await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)
    await until(lambda: house.in_flight == 0 and not house.runtime.answers, "an answer is still kept")


async def ask(http: httpx.AsyncClient, stream: bool = True, **fields: object) -> Told:
    answer = await http.post(CHAT, json=chat_body(stream, **fields))  # type: ignore[arg-type]  # fields of the body
    return Told(answer.status_code, answer.headers, answer.content)


async def test_a_stream_is_chunks_with_one_finish_reason_and_done(http: httpx.AsyncClient) -> None:
    told = await ask(http)
    assert told.status == 200
    assert told.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert told.headers["cache-control"] == "no-cache"
    assert told.headers["x-accel-buffering"] == "no"
    assert told.text() == ANSWER
    assert told.finish_reasons() == ["stop"]
    assert told.data[-1] == "[DONE]"
    assert len({chunk["id"] for chunk in told.chunks}) == 1
    assert told.chunks[0]["choices"][0]["delta"]["role"] == "assistant"


async def test_whole_and_streamed_say_the_same(http: httpx.AsyncClient, sim: Simulator) -> None:
    for kind in ("text", "thoughts", "code", "citations"):
        sim.control.set_options(answer=kind)
        whole, streamed = await ask(http, False), await ask(http)
        for part in ("content", "reasoning_content"):
            assert whole.text(kind=part) == streamed.text(kind=part), kind
        assert whole.finish_reasons() == streamed.finish_reasons() == ["stop"]
        assert whole.json["model"] == streamed.chunks[-1]["model"]


async def test_usage_is_the_same_either_way_and_only_where_asked_for(http: httpx.AsyncClient) -> None:
    whole = (await ask(http, False)).json["usage"]
    streamed = await ask(http, stream_options={"include_usage": True})
    assert streamed.chunks[-1]["usage"] == whole
    assert streamed.chunks[-1]["choices"] == []
    assert whole["total_tokens"] == whole["prompt_tokens"] + whole["completion_tokens"] > 5
    assert all(chunk.get("usage") is None for chunk in (await ask(http)).chunks)


async def test_choices_are_told_apart(http: httpx.AsyncClient, sim: Simulator) -> None:
    for stream in (True, False):
        told = await ask(http, stream, n=3)
        assert [told.text(index) for index in range(3)] == [ANSWER] * 3
        assert [told.finish_reasons(index) for index in range(3)] == [["stop"]] * 3
    assert len(sim.control.requests_to("conversation")) == 6


async def test_each_answer_has_an_id_of_its_own(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(ask(http, False) for _ in range(5)))
    assert len({answer.json["id"] for answer in answers}) == 5


# Headers


async def test_headers_tell_what_the_body_cannot(http: httpx.AsyncClient) -> None:
    for stream in (True, False):
        told = await ask(http, stream, model="nobody-knows-this", logit_bias={"5": 1}, seed=7)
        assert told.headers["x-chat2api-model-fallback"] == "nobody-knows-this"
        assert {"logit_bias", "seed"} <= set(told.headers["x-chat2api-ignored"].split(", "))
        assert "x-chat2api-upstream" not in told.headers
    plain = await ask(http)
    assert not [name for name in plain.headers if name.startswith("x-chat2api")]


async def test_a_conversation_is_told_only_where_it_can_go_on(http: httpx.AsyncClient) -> None:
    for stream in (True, False):
        temporary = await ask(http, stream)
        assert b"conversation_id" not in temporary.body
        kept = await ask(http, stream, history_disabled=False)
        last = kept.chunks[-1] if stream else kept.json
        assert last["conversation_id"]
        assert last["message_id"]
        again = await ask(http, stream, conversation_id=last["conversation_id"], content="What did I say?")
        assert "Name three rivers." in again.text()


# Before the first content


async def test_R2_a_failure_before_content_has_its_real_status(http: httpx.AsyncClient, sim: Simulator) -> None:
    for stream in (True, False):
        sim.control.refuse("conversation", "bad_field")
        told = await ask(http, stream)
        assert (told.status, told.error["code"]) == (400, "upstream_invalid_request")
        assert told.headers["content-type"] == "application/json"


async def test_R2_a_stream_that_thinks_is_kept_alive(http: httpx.AsyncClient, sim: Simulator) -> None:
    sim.control.choose(first_delay=0.45)
    told = await ask(http)
    assert told.body.startswith(KEEP_ALIVE)
    assert 2 <= told.comments <= 5
    assert told.text() == ANSWER
    assert told.data[-1] == "[DONE]"


async def test_R2_once_it_is_kept_alive_a_failure_is_told_inside(http: httpx.AsyncClient, sim: Simulator) -> None:
    sim.control.fail("requirements", Fault("stall", seconds=0.25))
    sim.control.refuse("conversation", "bad_field")
    told = await ask(http)
    assert told.status == 200
    assert told.comments >= 1
    (error,) = told.stream_errors
    assert error["code"] == "upstream_invalid_request"
    assert told.chunks == []
    assert "[DONE]" not in told.data


async def test_R2_a_whole_answer_waits_in_silence(http: httpx.AsyncClient, sim: Simulator) -> None:
    sim.control.choose(first_delay=0.3)
    told = await ask(http, False)
    assert told.text() == ANSWER
    assert KEEP_ALIVE not in told.body


async def test_a_pause_in_the_middle_is_kept_alive_too(http: httpx.AsyncClient, sim: Simulator) -> None:
    sim.control.fail("conversation", Fault("stall", at="mid_stream", after=1, seconds=0.35))
    told = await ask(http)
    assert not told.body.startswith(b":")
    assert told.comments >= 1
    assert told.text() == ANSWER


# After it


async def test_R14_a_cut_stream_is_one_error_and_the_end(http: httpx.AsyncClient, sim: Simulator) -> None:
    sim.control.fail("conversation", Fault("reset", at="mid_stream", after=1))
    told = await ask(http)
    assert told.status == 200
    assert ANSWER.startswith(told.text())
    assert told.text()
    assert told.finish_reasons() == []
    assert "error" in json.loads(told.data[-1])
    assert told.stream_errors[0]["code"] == "stream_interrupted"


async def test_R14_a_cut_whole_answer_is_an_error_and_no_half_answer(http: httpx.AsyncClient, sim: Simulator) -> None:
    sim.control.fail("conversation", Fault("reset", at="mid_stream", after=1))
    told = await ask(http, False)
    assert (told.status, told.error["code"]) == (502, "stream_interrupted")
    assert told.headers["x-should-retry"] == "false"


async def test_one_failing_choice_ends_the_answer_for_all(http: httpx.AsyncClient, sim: Simulator) -> None:
    sim.control.choose(delay=0.02, times=2)
    sim.control.fail("conversation", Fault("reset", at="mid_stream", after=1), skip=1)
    told = await ask(http, n=2)
    assert len(told.stream_errors) == 1
    assert "[DONE]" not in told.data


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", [Fault("stall"), Fault("stall", at="mid_stream", after=1)])
async def test_R10_a_client_who_leaves_ends_everything(
    http: httpx.AsyncClient, sim: Simulator, fault: Fault, stream: bool
) -> None:
    sim.control.fail("conversation", fault)
    asking = asyncio.ensure_future(ask(http, stream))
    await sim.control.wait_until(lambda: bool(sim.control.requests_to("conversation")))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await sim.control.wait_until(lambda: sim.control.counters.aborted == 1)
