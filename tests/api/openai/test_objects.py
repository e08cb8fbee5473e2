"""Whose the objects are that calls name, in chats as in all other operations."""

import orjson
import pytest

from chat2api.simulator.openai_api import Prepared
from tests.api.openai.forwarding import CHAT, QUESTION, Forwarding

pytestmark = pytest.mark.asyncio(loop_scope="module")


def chat_about(identifier: str) -> dict[str, object]:
    part = {"type": "file", "file": {"file_id": identifier}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]
    return {"model": "gpt-4.1", "messages": messages}


async def test_S8_a_chat_uses_the_files_of_its_caller_and_no_others(running: Forwarding) -> None:
    running.fresh()
    other = await running.issue()
    uploads = []
    for number in range(4):
        file = {"file": (f"{number}.txt", b"text")}
        uploads.append((await running.http.post("/v1/files", files=file, data={"purpose": "user_data"})).json()["id"])
    made = len(running.api.control.requests)
    for identifier in uploads:
        refused = await running.http.post(CHAT, json=chat_about(identifier), headers=other)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert len(running.api.control.requests) == made
    for identifier in uploads:
        assert (await running.http.post(CHAT, json=chat_about(identifier))).status_code == 200
        sent = [one.request for one in running.api.control.requests if identifier.encode() in one.request.body][-1]
        stored = (await running.house.runtime.api_objects.find([identifier]))[identifier]
        label = {key.secret: key.label for key in running.house.runtime.openai.keys.values()}
        assert label[(sent.header("authorization") or "").removeprefix("Bearer ")] == stored.key


@pytest.mark.parametrize(
    "body",
    [
        r'{"role": "assistant", "audio": {"id": "audio_others"}}',
        r'{"role": "user", "content": [{"type": "file", "file": {"file\u005fid": "file-others"}}]}',
        r'{"role": "user", "content": [{"type": "file", "file": {"file_id": "\ud800"}}]}',
    ],
)
async def test_S8_a_chat_cannot_refer_to_what_others_made(running: Forwarding, body: str) -> None:
    running.fresh()
    said = f'{{"model": "gpt-4.1", "messages": [{body}, {{"role": "user", "content": "x"}}]}}'
    answer = await running.http.post(CHAT, content=said, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert running.api.control.requests == []


async def test_what_a_caller_describes_is_no_reference(running: Forwarding) -> None:
    schema = {"type": "object", "properties": {"file_id": {"type": "string"}}, "default": {"file_id": "any"}}
    tool = {"type": "function", "function": {"name": "read", "parameters": schema}}
    body = QUESTION | {"tools": [tool], "metadata": {"conversation": "of my own", "file_id": "mine"}}
    assert (await running.http.post(CHAT, json=body)).status_code == 200


async def test_half_of_a_pair_may_stand_in_a_body_that_is_passed_on(running: Forwarding) -> None:
    said = r'{"model": "gpt-4.1", "user": "\ud800", "messages": [{"role": "user", "content": "x"}]}'
    answer = await running.http.post(CHAT, content=said, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


TOOLS = [{"type": "image_generation"}, {"type": "code_interpreter", "container": {"type": "auto"}}]
MAKE = {"model": "gpt-4.1", "input": "x", "tools": TOOLS}


async def make_response(running: Forwarding, stream: bool, **more: object) -> tuple[str, list[dict[str, str]]]:
    """Give the id of a response with a picture, a container and a message, and its items."""
    answer = await running.http.post("/v1/responses", json=MAKE | {"stream": stream} | more)
    assert answer.status_code == 200
    if stream:
        *_, last = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        told = orjson.loads(last[6:])["response"]
    else:
        told = answer.json()
    return told["id"], told["output"]


def referring_to(items: list[dict[str, str]]) -> list[dict[str, object]]:
    """Inputs that name these items by their ids."""
    picture, code, message = items
    return [
        {"input": [{"type": "item_reference", "id": message["id"]}]},
        {"input": [{"id": message["id"]}]},
        {"input": [{"type": "image_generation_call", "id": picture["id"]}, {"role": "user", "content": "again"}]},
        {"input": [{"type": "item_reference", "id": one["id"]} for one in items]},
        {"input": "x", "tools": [{"type": "code_interpreter", "container": code["container_id"]}]},
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_S8_items_of_an_answer_are_their_callers_and_nobody_elses(running: Forwarding, stream: bool) -> None:
    running.fresh()
    other = await running.issue()
    _, items = await make_response(running, stream)
    assert len(items[0]["result"]) > 300_000, "longer than what is held of an answer"
    made_by = running.api.control.requests[-1].account
    for body in referring_to(items):
        asked = len(running.api.control.requests)
        refused = await running.http.post("/v1/responses", json={"model": "gpt-4.1"} | body, headers=other)
        unknown = body | {"input": [{"type": "item_reference", "id": "msg_nobodys"}]}
        as_unknown = await running.http.post("/v1/responses", json={"model": "gpt-4.1"} | unknown, headers=other)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        assert (as_unknown.status_code, as_unknown.json()["error"]["code"]) == (404, "not_found")
        assert len(running.api.control.requests) == asked
        own = await running.http.post("/v1/responses", json={"model": "gpt-4.1"} | body)
        assert own.status_code == 200, own.text
        assert running.api.control.requests[-1].account == made_by
    whole_items = [items[0], items[1], items[2], {"role": "user", "content": "and now?"}]
    assert (
        await running.http.post("/v1/responses", json={"model": "gpt-4.1", "input": whole_items})
    ).status_code == 200


async def test_items_are_known_as_soon_as_they_are_told_and_from_a_look_at_the_response(running: Forwarding) -> None:
    running.fresh()
    identifier, items = await make_response(running, stream=False)
    objects = running.house.runtime.api_objects
    await objects.aclose()
    for item in items:
        await objects.forget(item["id"])
    assert await objects.find([item["id"] for item in items]) == {}
    assert (await running.http.get(f"/v1/responses/{identifier}")).status_code == 200
    assert len(await objects.find([item["id"] for item in items])) == 3
    await objects.aclose()
    stored = await running.house.runtime.records.api_objects.find([item["id"] for item in items])
    assert {(one.kind, one.id) for one in stored} == {("item", item["id"]) for item in items}
    async with running.http.stream("POST", "/v1/responses", json=MAKE | {"stream": True}) as answer:
        async for line in answer.aiter_lines():
            if '"response.output_item.added"' in line and '"msg_' in line:
                named = orjson.loads(line[6:])["item"]["id"]
                break
        assert named in await objects.find([named])


@pytest.mark.parametrize("stream", [False, True])
async def test_S8_the_sound_of_a_chat_is_its_callers(running: Forwarding, stream: bool) -> None:
    running.fresh()
    identifier = f"audio_{stream}"
    audio = {"id": identifier, "data": "A" * 400_000, "transcript": "x"}
    if stream:
        parts: list[dict[str, object]] = [{"audio": audio}, {"audio": {"data": "AAAA"}}, {}]
        chunks = [{"choices": [{"index": 0, "delta": part, "finish_reason": None}]} for part in parts]
        body = b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
        running.api.prepare(Prepared(body.replace(b"A" * 400_000, b"A" * 40_000), kind="text/event-stream", split=5))
    else:
        whole = {"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "audio": audio}}], "usage": None}
        running.api.prepare(Prepared(orjson.dumps(whole), split=5))
    spoken = QUESTION | {
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "mp3"},
        "stream": stream,
    }
    assert (await running.http.post(CHAT, json=spoken)).status_code == 200
    said = {"role": "assistant", "audio": {"id": identifier}}
    again = QUESTION | {"messages": [said, {"role": "user", "content": "x"}]}
    refused = await running.http.post(CHAT, json=again, headers=await running.issue())
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert (await running.http.post(CHAT, json=again)).status_code == 200


async def test_items_are_not_kept_of_who_brings_a_key(running: Forwarding) -> None:
    running.fresh()
    own = {"Authorization": f"Bearer {running.api.keys[0]}"}
    made = (await running.http.post("/v1/responses", json=MAKE, headers=own)).json()["output"]
    assert await running.house.runtime.api_objects.find([item["id"] for item in made]) == {}
    for body in referring_to(made):
        assert (
            await running.http.post("/v1/responses", json={"model": "gpt-4.1"} | body, headers=own)
        ).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_of_what_is_not_stored_only_that_is_kept_which_may_be_named(running: Forwarding, stream: bool) -> None:
    running.fresh()
    _, (picture, code, message) = await make_response(running, stream, store=False)
    named = [picture["id"], code["id"], code["container_id"], message["id"]]
    assert set(await running.house.runtime.api_objects.find(named)) == set(named[:3])
    fed_back = {"model": "gpt-4.1", "input": [picture, code, message, {"role": "user", "content": "go on"}]}
    assert (await running.http.post("/v1/responses", json=fed_back)).status_code == 200
