"""Whose the objects are that calls name, in chats as in all other operations."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.storage.keys import NewKey
from tests.api.openai.forwarding import CHAT, QUESTION, Forwarding, open_forwarding

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("objects"), keys=3) as running:
        yield running


def chat_about(identifier: str) -> dict[str, object]:
    part = {"type": "file", "file": {"file_id": identifier}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]
    return {"model": "gpt-4.1", "messages": messages}


async def test_S8_a_chat_uses_the_files_of_its_caller_and_no_others(running: Forwarding) -> None:
    running.fresh()
    issued = await running.house.runtime.keys.issue(NewKey("somebody", None))
    other = {"Authorization": f"Bearer {issued.secret}"}
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
        stored = await running.house.runtime.records.api_objects.find(identifier)
        assert stored is not None
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
