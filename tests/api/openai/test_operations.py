"""The API's other operations through the server, with the official client, and whose the objects are that they make."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import orjson
import pytest
import pytest_asyncio

from chat2api.simulator.openai_api import Prepared
from chat2api.storage.keys import KeyLimits
from tests.api.openai.forwarding import Forwarding, open_forwarding
from tests.e2e.harness import SECOND_KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


@pytest_asyncio.fixture(loop_scope="module")
async def other(forwarding: Forwarding) -> AsyncIterator[openai.AsyncOpenAI]:
    """Another caller, with an issued key."""
    async with forwarding.house.client((await forwarding.issue())["Authorization"][7:], max_retries=0) as client:
        yield client


async def test_embeddings_moderations_pictures_and_speech_are_what_the_api_gives(
    client: openai.AsyncOpenAI, forwarding: Forwarding
) -> None:
    vectors = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert [len(item.embedding) for item in vectors.data] == [8, 8]
    assert not (await client.moderations.create(input="x")).results[0].flagged
    pictures = await client.images.generate(prompt="a cat", model="gpt-image-1", n=2)
    assert pictures.data is not None
    assert len(pictures.data) == 2
    sound = (await client.audio.speech.create(model="tts-1", voice="alloy", input="hello")).content
    assert sound.startswith(b"ID3")
    assert len(sound) == 4 + 32 * 600
    usage = (await forwarding.http.get("/v1/usage")).json()
    assert {row["model"] for row in usage["models"]} >= {"text-embedding-3-small", "gpt-image-1", "tts-1"}
    assert usage["total"]["images"] == 2


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        ("embeddings", {"model": "text-embedding-3-small", "input": [5] * 1000}, 1000),
        ("embeddings", {"model": "text-embedding-3-small", "input": [[5] * 500, [6] * 500]}, 1000),
        ("images/generations", {"model": "gpt-image-1", "prompt": "x", "n": 2, "quality": "low"}, 2 * 272),
        ("responses", {"model": "gpt-4.1", "input": [{"role": "user", "content": [PICTURE] * 2}]}, 2 * 765),
        ("responses", {"model": "gpt-4.1", "input": "x", "max_output_tokens": 700}, 700),
    ],
)
async def test_R8_what_a_call_will_be_billed_is_reserved(
    forwarding: Forwarding, path: str, body: object, tokens: int
) -> None:
    async def ask(limit: int) -> int:
        headers = await forwarding.issue(limits=KeyLimits(tokens_per_minute=limit))
        return (await forwarding.http.post(f"/v1/{path}", json=body, headers=headers)).status_code

    assert await ask(tokens - 1) == 429
    assert forwarding.api.control.requests == []
    assert await ask(tokens + 300) == 200


async def test_pictures_are_streamed_and_their_usage_is_read_from_a_long_event(client: openai.AsyncOpenAI) -> None:
    stream = await client.images.generate(prompt="a cat", model="gpt-image-1", stream=True)
    kinds = [event.type async for event in stream]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]


async def test_responses_come_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.responses.create(model="gpt-4.1", input="Name three rivers.")
    assert whole.output_text == "Nile, Amazon, Danube."
    async with client.responses.stream(model="gpt-4.1", input="Name three rivers.") as stream:
        kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


async def test_a_conversation_is_shortened_and_its_tokens_are_counted(
    client: openai.AsyncOpenAI, forwarding: Forwarding
) -> None:
    shortened = await client.responses.compact(model="openai/gpt-4.1", input="Name three rivers.")
    assert [item.type for item in shortened.output] == ["compaction"]
    assert (await client.responses.input_tokens.count(model="gpt-4.1", input="Name three rivers.")).input_tokens > 3
    headers = await forwarding.issue(models=["gpt-4o"], limits=KeyLimits(tokens_per_minute=1))
    counted = {"model": "gpt-4o", "input": "x" * 500}
    for _ in range(2):
        assert (
            await forwarding.http.post("/v1/responses/input_tokens", json=counted, headers=headers)
        ).status_code == 200
    other = counted | {"model": "gpt-4.1"}
    assert (await forwarding.http.post("/v1/responses/input_tokens", json=other, headers=headers)).status_code == 404
    refused = await forwarding.http.post(
        "/v1/responses/compact", json={"model": "gpt-4.1", "previous_response_id": "resp_others"}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")


async def test_a_stored_response_stays_with_its_key_and_its_caller(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI, forwarding: Forwarding
) -> None:
    made = [await client.responses.create(model="gpt-4.1", input="x") for _ in range(6)]
    async with client.responses.stream(model="gpt-4.1", input="streamed") as stream:
        made.append(await stream.get_final_response())
    keys = {record.account for record in forwarding.api.control.requests_to("responses")}
    assert len(keys) > 1, "several keys have made them"
    for one in made:
        assert (await client.responses.retrieve(one.id)).id == one.id
        await client.responses.create(model="gpt-4.1", input="y", previous_response_id=one.id)
        await client.responses.input_items.list(one.id)
        for attempt in (
            other.responses.retrieve(one.id),
            other.responses.delete(one.id),
            other.responses.cancel(one.id),
            other.responses.create(model="gpt-4.1", input="y", previous_response_id=one.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await attempt
    await client.responses.delete(made[0].id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made[0].id)


async def test_a_stored_response_is_told_as_a_stream_too(client: openai.AsyncOpenAI, forwarding: Forwarding) -> None:
    made = await client.responses.create(model="gpt-4.1", input="x")
    completed = {"type": "response.completed", "response": {"id": made.id, "output": [], "usage": None}}
    body = b"data: " + orjson.dumps(completed) + b"\n\n"
    for told, ending in (
        (body, "response.completed"),
        (body.replace(b"completed", b"output_item.added"), "stream_interrupted"),
    ):
        forwarding.api.prepare(Prepared(told, kind="text/event-stream"))
        answer = await forwarding.http.get(f"/v1/responses/{made.id}?stream=true&starting_after=5")
        sent = forwarding.api.control.requests[-1].request
        assert (sent.header("accept"), sent.query) == ("text/event-stream", {"stream": "true", "starting_after": "5"})
        assert ending in answer.text


async def test_R8_what_is_made_in_the_background_is_booked_as_its_longest(forwarding: Forwarding) -> None:
    headers = await forwarding.issue(limits=KeyLimits(tokens_per_minute=1500))
    queued = Prepared(b'{"id":"resp_queued","object":"response","status":"queued","output":[],"usage":null}')
    body = {"model": "gpt-4.1", "input": "x", "background": True, "max_output_tokens": 800}
    forwarding.api.prepare(queued)
    assert (await forwarding.http.post("/v1/responses", json=body, headers=headers)).status_code == 200
    assert (await forwarding.http.post("/v1/responses", json=body, headers=headers)).status_code == 429


async def test_a_response_that_is_not_stored_is_nobodys(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model="gpt-4.1", input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "identifier", ["file-unknown", "resp_1%2F..%2Fmodels", "..", "%2e%2e", "a" * 300, "x;y", "%00", "@evil"]
)
async def test_S8_an_id_that_is_not_ones_own_reaches_nobody(
    forwarding: Forwarding, method: str, identifier: str
) -> None:
    for path in ("files", "responses"):
        answer = await forwarding.http.request(method, f"/v1/{path}/{identifier}")
        assert answer.status_code in (404, 405)
    assert forwarding.api.control.requests == []


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": "resp_others"},
        {"conversation": "conv_others"},
        {"conversation": {"id": "conv_others"}},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-others"}]}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-others"]}}]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_others"]}]},
        {"tools": [{"type": "code_interpreter", "container": "cntr_others"}]},
        {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_others"}}]},
    ],
)
async def test_S8_what_others_made_cannot_be_referred_to(forwarding: Forwarding, body: dict[str, object]) -> None:
    answer = await forwarding.http.post("/v1/responses", json={"model": "gpt-4.1", "input": "x"} | body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert forwarding.api.control.requests == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"data": 5}', b""])
async def test_a_list_of_files_that_cannot_be_read_is_the_apis_failure(forwarding: Forwarding, body: bytes) -> None:
    headers = await forwarding.issue()
    file = {"file": ("a.txt", b"text")}
    made = await forwarding.http.post("/v1/files", files=file, data={"purpose": "user_data"}, headers=headers)
    forwarding.api.prepare(Prepared(body))
    answer = await forwarding.http.get("/v1/files", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_protocol")
    await forwarding.http.delete(f"/v1/files/{made.json()['id']}", headers=headers)


async def test_who_brings_a_key_asks_the_api_itself(forwarding: Forwarding) -> None:
    async with openai.AsyncOpenAI(base_url=f"{forwarding.house.base}/v1", api_key=forwarding.api.keys[0]) as own:
        made = await own.responses.create(model="gpt-4.1", input="x")
        assert (await own.responses.retrieve(made.id)).id == made.id
        assert [one async for one in own.files.list(purpose="user_data", limit=5)] == []
        assert forwarding.api.control.requests[-1].request.query == {"purpose": "user_data", "limit": "5"}
        await own.responses.delete(made.id)


async def test_a_model_may_be_named_with_its_provider_here_too(forwarding: Forwarding) -> None:
    body = {"model": "openai/text-embedding-3-small", "input": "x"}
    assert (await forwarding.http.post("/v1/embeddings", json=body)).status_code == 200
    sent = orjson.loads(forwarding.api.control.requests[-1].request.body)
    assert sent["model"] == "text-embedding-3-small"
    wrong = await forwarding.http.post("/v1/embeddings", json=body | {"model": "chatgpt/gpt-4o"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("responses", {"model": "gpt-4.1", "input": "x", "stream": "yes"}, 400),
        ("responses", {"input": "x"}, 400),
        ("embeddings", {"model": 5, "input": "x"}, 400),
        ("moderations", [], 400),
    ],
)
async def test_a_wrong_body_reaches_nobody(forwarding: Forwarding, path: str, body: object, status: int) -> None:
    answer = await forwarding.http.post(f"/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")
    assert forwarding.api.control.requests == []


async def test_a_keys_list_of_models_holds_here_too(forwarding: Forwarding) -> None:
    headers = await forwarding.issue(models=["gpt-4.1"])
    answer = await forwarding.http.post(
        "/v1/embeddings", json={"model": "text-embedding-3-small", "input": "x"}, headers=headers
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    default = await forwarding.http.post("/v1/moderations", json={"input": "x"}, headers=headers)
    assert default.status_code == 404
    assert forwarding.api.control.requests == []


async def test_without_api_keys_such_a_call_says_what_is_missing(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("none"), keys=0) as none:
        answer = await none.http.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "x"})
        assert answer.status_code == 404
        assert "OPENAI_API_KEYS" in answer.text


async def test_many_operations_at_once_leave_nothing_behind(client: openai.AsyncOpenAI, forwarding: Forwarding) -> None:
    await asyncio.gather(*(client.embeddings.create(model="text-embedding-3-small", input="x") for _ in range(20)))
    assert forwarding.house.runtime.openai.pool.statistics().in_flight == 0
    assert not forwarding.house.runtime.answers


async def test_another_operators_objects_are_not_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with (
        open_forwarding(
            tmp_path_factory.mktemp("two"), AUTHORIZATION=f"operator-key-one-0123456789,{SECOND_KEY}"
        ) as two,
        httpx.AsyncClient(
            base_url=two.house.base, headers={"Authorization": "Bearer operator-key-one-0123456789"}
        ) as one,
        httpx.AsyncClient(base_url=two.house.base, headers={"Authorization": f"Bearer {SECOND_KEY}"}) as second,
    ):
        made = (await one.post("/v1/responses", json={"model": "gpt-4.1", "input": "x"})).json()["id"]
        assert (await one.get(f"/v1/responses/{made}")).status_code == 200
        assert (await second.get(f"/v1/responses/{made}")).status_code == 404
