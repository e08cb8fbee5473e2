"""The simulated OpenAI API, asked with the official client and by hand."""

import io
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
import pytest_asyncio

from chat2api.simulator import openai_api
from chat2api.simulator.openai_api import ApiSimulator, Prepared
from chat2api.simulator.options import SimulatorOptions

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[ApiSimulator]:
    async with ApiSimulator(SimulatorOptions(accounts=2)) as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(api: ApiSimulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=api.keys[0], max_retries=0) as client:
        yield client


async def test_a_chat_is_answered_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Name three rivers."}], n=2
    )
    assert [choice.message.content for choice in whole.choices] == ["Nile, Amazon, Danube."] * 2
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6
    stream = await client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You said: hello"
    assert chunks[-1].usage is not None


async def test_a_response_is_kept_for_its_key(client: openai.AsyncOpenAI, api: ApiSimulator) -> None:
    made = await client.responses.create(model="gpt-4o", input="rivers")
    assert made.output_text == "Nile, Amazon, Danube."
    assert (await client.responses.retrieve(made.id)).id == made.id
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=api.keys[1]) as other:
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(made.id)
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)
    async with client.responses.stream(model="gpt-4o", input="rivers") as stream:
        kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


async def test_the_other_operations_have_their_shapes(client: openai.AsyncOpenAI) -> None:
    vectors = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert [len(item.embedding) for item in vectors.data] == [8, 8]
    assert not (await client.moderations.create(input="x")).results[0].flagged
    assert (await client.images.generate(prompt="a cat", model="gpt-image-1")).data
    with pytest.raises(openai.BadRequestError):
        await client.images.generate(prompt="a cat", model="gpt-image-1", n="many")  # type: ignore[call-overload]  # as asked
    sound = ("a.mp3", io.BytesIO(b"ID3" * 100))
    assert (await client.audio.transcriptions.create(model="whisper-1", file=sound)).text
    speech = await client.audio.speech.create(model="tts-1", voice="alloy", input="hello")
    assert speech.content.startswith(b"ID3")
    edited = await client.images.edit(image=("a.png", b"png"), prompt="x", model="gpt-image-1")
    assert edited.data


async def test_files_come_back_as_they_were(client: openai.AsyncOpenAI) -> None:
    made = await client.files.create(file=("a.bin", b"\0\r\n--\xff" * 50), purpose="user_data")
    assert (await client.files.content(made.id)).content == b"\0\r\n--\xff" * 50
    assert made.id in [one.id async for one in client.files.list()]
    assert (await client.files.delete(made.id)).deleted


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    assert [one.id async for one in client.models.list()] == list(openai_api.MODELS)
    assert (await client.models.retrieve("gpt-4o")).owned_by == "system"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "gpt-4o"}, 400),
        ({"model": "gpt-4o", "messages": []}, 400),
        ({"messages": [{}]}, 400),
        ({"model": "nobody", "messages": [{}]}, 404),
        ({"model": "gpt-4o", "messages": [{}], "stream": "yes"}, 400),
        ({"model": "gpt-4o", "messages": [{}], "stream_options": {}}, 400),
    ],
)
async def test_a_wrong_request_is_refused(api: ApiSimulator, body: dict[str, object], status: int) -> None:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as http:
        answer = await http.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {api.keys[0]}"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")


async def test_who_has_no_key_is_refused_and_shown_a_part_of_what_was_sent(api: ApiSimulator) -> None:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as http:
        answer = await http.get("/v1/models", headers={"Authorization": "Bearer sk-proj-something-wrong"})
        assert answer.status_code == 401
        assert "sk-proj-********rong" in answer.json()["error"]["message"]


async def test_faults_and_prepared_replies_come_as_they_are(api: ApiSimulator) -> None:
    api.control.fail("models", openai_api.limited("tokens", "1m5s"), account=api.keys[0][-4:])
    api.control.fail("models", openai_api.out_of_credit(), account=api.keys[1][-4:])
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as http:
        one, two = ({"Authorization": f"Bearer {key}"} for key in api.keys)
        limited = await http.get("/v1/models", headers=one)
        assert (limited.status_code, limited.headers.get_list("x-ratelimit-reset-tokens")[-1]) == (429, "1m5s")
        assert (await http.get("/v1/models", headers=two)).json()["error"]["code"] == "insufficient_quota"
        api.prepare(Prepared(b"data: 1\r\n\r\n", kind="text/event-stream", split=1), Prepared(b"x", status=418))
        assert (await http.get("/v1/models", headers=one)).content == b"data: 1\r\n\r\n"
        assert (await http.get("/v1/models", headers=one)).status_code == 418
        assert (await http.get("/v1/models", headers=one)).status_code == 200
