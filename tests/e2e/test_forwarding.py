"""The official client against a server that forwards: every answer of its own kind, every error of its own class."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk

from chat2api.simulator import openai_api
from chat2api.simulator.faults import Fault
from chat2api.simulator.openai_api import Prepared
from chat2api.storage.keys import KeyLimits, NewKey
from tests.api.openai.forwarding import CHAT, Forwarding, open_forwarding
from tests.e2e.harness import HouseClock, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [{"role": "user", "content": "Name three rivers."}]


CLOCK = HouseClock(20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("clients"), keys=2, clock=CLOCK) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def forwarding(running: Forwarding) -> Forwarding:
    await running.recover(CLOCK)
    return running


@pytest_asyncio.fixture(loop_scope="module")
async def client(forwarding: Forwarding) -> AsyncIterator[openai.AsyncOpenAI]:
    async with forwarding.house.client() as client:
        yield client


async def chat(client: openai.AsyncOpenAI, **more: object) -> object:
    return await client.chat.completions.create(model="gpt-4.1", messages=MESSAGES, **more)  # type: ignore[call-overload]  # for brevity


async def stream_chat(client: openai.AsyncOpenAI) -> openai.AsyncStream[ChatCompletionChunk]:
    return cast("openai.AsyncStream[ChatCompletionChunk]", await chat(client, stream=True))


CLASSES = [
    (openai_api.error(400, "No."), openai.BadRequestError),
    (openai_api.error(403, "Not in this country."), openai.PermissionDeniedError),
    (openai_api.error(404, "No such model.", code="model_not_found"), openai.NotFoundError),
    (openai_api.error(422, "No."), openai.UnprocessableEntityError),
]


@pytest.mark.parametrize(("refusal", "kind"), CLASSES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("stream", [False, True])
async def test_T1_refusals_are_raised_as_their_class_after_one_call(
    forwarding: Forwarding, client: openai.AsyncOpenAI, refusal: object, kind: type[Exception], stream: bool
) -> None:
    forwarding.api.control.fail("chat", openai_api.fault(refusal), times=None)  # type: ignore[arg-type]  # from the list
    with pytest.raises(kind):
        await chat(client, stream=stream)
    assert len(forwarding.api.control.requests_to("chat")) == 1


async def test_T1_a_conflict_is_for_the_client_to_repeat(forwarding: Forwarding, client: openai.AsyncOpenAI) -> None:
    forwarding.api.control.fail("chat", openai_api.fault(openai_api.error(409, "Busy.")), times=1)
    await chat(client)
    assert len(forwarding.api.control.requests_to("chat")) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_T1_R3a_the_operators_own_troubles_are_told_as_the_servers(
    forwarding: Forwarding, client: openai.AsyncOpenAI, stream: bool
) -> None:
    forwarding.api.control.fail("chat", Fault("answer", status=503), times=None)
    with pytest.raises(openai.InternalServerError) as failed:
        await chat(client, stream=stream)
    assert failed.value.code == "upstream_server_error"
    assert len(forwarding.api.control.requests_to("chat")) <= 4


async def test_T1_limits_of_all_keys_are_a_rate_limit_with_its_time(
    forwarding: Forwarding, client: openai.AsyncOpenAI
) -> None:
    forwarding.api.control.fail("chat", openai_api.limited(time="1h"), times=None)
    with pytest.raises(
        openai.RateLimitedError if hasattr(openai, "RateLimitedError") else openai.RateLimitError
    ) as limited:
        await chat(client)
    assert 3500 < int(limited.value.response.headers["retry-after"]) <= 3600
    assert len(forwarding.api.control.requests_to("chat")) == 2
    assert "org-" not in str(limited.value)


async def test_T1_a_wrong_key_of_ones_own_is_an_authentication_error(forwarding: Forwarding) -> None:
    async with forwarding.house.client("sk-somebody-elses-key") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await chat(client)
    assert refused.value.code == "invalid_api_key"
    assert len(forwarding.api.control.requests) == 1


async def test_T1_an_error_inside_a_stream_is_raised_there(forwarding: Forwarding, client: openai.AsyncOpenAI) -> None:
    forwarding.api.control.choose("chat", events=50, delay=0.01)
    forwarding.api.control.fail("chat", Fault("reset", at="mid_stream", after=5))
    stream = await stream_chat(client)
    got: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIError) as broken:
        async for piece in stream:
            got.append(piece)
    assert broken.value.code == "stream_interrupted"
    assert len(got) == 6
    assert len(forwarding.api.control.requests_to("chat")) == 1


async def test_an_error_of_the_api_inside_a_stream_is_passed_on_masked(
    forwarding: Forwarding, client: openai.AsyncOpenAI
) -> None:
    first = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'
    error = b'data: {"error":{"message":"Overloaded for org-AbCdEf123456","type":"server_error","code":null}}\n\n'
    forwarding.api.prepare(Prepared(first + error, kind="text/event-stream", split=1))
    stream = await stream_chat(client)
    with pytest.raises(openai.APIError, match=r"Overloaded for \(masked\)"):
        async for _ in stream:
            pass


async def test_R10_a_stream_that_the_client_closes_ends_upstream_and_is_charged_as_far_as_it_came(
    forwarding: Forwarding, client: openai.AsyncOpenAI
) -> None:
    forwarding.api.control.choose("chat", events=2000, delay=0.01)
    before = (await forwarding.http.get("/v1/usage")).json()["total"]["completion_tokens"]
    stream = await stream_chat(client)
    taken = 0
    async for _ in stream:
        taken += 1
        if taken == 10:
            break
    await stream.close()
    await until(lambda: forwarding.api.control.replies[-1].outcome == "aborted", "the call still runs")
    await until(lambda: not forwarding.house.runtime.answers, "the answer is still known")
    after = (await forwarding.http.get("/v1/usage")).json()["total"]["completion_tokens"]
    assert 10 <= after - before <= 200


@pytest.mark.parametrize("stream", [False, True])
async def test_an_issued_key_is_charged_what_the_api_counted(forwarding: Forwarding, stream: bool) -> None:
    limits = KeyLimits(tokens_per_minute=10_000)
    issued = await forwarding.house.runtime.keys.issue(NewKey("somebody", None, limits=limits))
    headers = {"Authorization": f"Bearer {issued.secret}"}
    body = {"model": "gpt-4.1", "messages": MESSAGES, "stream": stream, "max_tokens": 50}
    answer = await forwarding.http.post(CHAT, json=body, headers=headers)
    await until(lambda: not forwarding.house.runtime.answers, "the answer is still known")
    told = (await forwarding.http.get("/v1/usage", headers=headers)).json()
    total = told["total"]
    counted = len(["Nile,", "Amazon,", "Danube."])
    assert (total["requests"], total["completion_tokens"]) == (1, counted)
    assert total["prompt_tokens"] > 0
    room = answer.headers["x-ratelimit-limit-tokens"]
    assert room == "10000"
    left = await forwarding.http.get("/v1/models", headers=headers)
    assert int(left.headers["x-ratelimit-remaining-tokens"]) == 10_000 - total["total_tokens"]


async def test_a_request_that_failed_costs_nothing(forwarding: Forwarding) -> None:
    issued = await forwarding.house.runtime.keys.issue(
        NewKey("nobody", None, limits=KeyLimits(tokens_per_minute=10_000))
    )
    forwarding.api.control.fail("chat", openai_api.fault(openai_api.error(400, "No.")), times=None)
    async with forwarding.house.client(issued.secret, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError):
            await chat(client)
    left = await forwarding.http.get("/v1/models", headers={"Authorization": f"Bearer {issued.secret}"})
    assert left.headers["x-ratelimit-remaining-tokens"] == "10000"


async def test_S13_a_revoked_keys_answer_ends_at_once(forwarding: Forwarding) -> None:
    issued = await forwarding.house.runtime.keys.issue(NewKey("gone", None))
    forwarding.api.control.choose("chat", events=5000, delay=0.01)
    async with forwarding.house.client(issued.secret) as client:
        stream = await stream_chat(client)
        await anext(stream.__aiter__())
        await forwarding.house.runtime.keys.revoke(issued.key.id)
        with pytest.raises(openai.APIError) as ended:
            async for _ in stream:
                pass
    assert ended.value.code == "invalid_api_key"
    await until(lambda: forwarding.api.control.replies[-1].outcome == "aborted", "the call still runs")


async def test_many_streams_at_once_are_whole(forwarding: Forwarding, client: openai.AsyncOpenAI) -> None:
    forwarding.api.control.choose("chat", events=40, delay=0.001, times=None)

    async def one() -> int:
        stream = await stream_chat(client)
        return len([1 async for piece in stream if piece.choices and piece.choices[0].delta.content])

    assert await asyncio.gather(*(one() for _ in range(12))) == [40] * 12
