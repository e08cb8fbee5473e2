"""Tiers by the official client, in front of API keys and in front of sign-in-free chat."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from chat2api.simulator.app import Simulator
from tests.api.openai.forwarding import Forwarding, open_forwarding
from tests.api.tiers_house import SHARED_KEY, TIERS, issue, open_tiers_house
from tests.e2e.harness import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES: Any = [{"role": "system", "content": "Answer in Latin."}, {"role": "user", "content": "Name three rivers."}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    """A server whose tiers are served by API keys."""
    file: Path = tmp_path_factory.mktemp("keyed") / "tiers.toml"
    file.write_text(TIERS, encoding="utf-8")  # noqa: ASYNC240 - before the start
    async with open_forwarding(file.parent / "data", TIERS_FILE=str(file), PUBLIC_MODE="free") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def free(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A server whose public tier is served by sign-in-free chat."""
    async with Simulator() as sim, open_tiers_house(tmp_path_factory.mktemp("free"), sim) as house:
        yield house


def client(house: House, base: str, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.base}{base}/v1", api_key=key, max_retries=0)


async def ask(house: House, base: str, stream: bool, model: str = "gpt-3.5-turbo", key: str = "none") -> str:
    async with client(house, base, key) as official:
        if not stream:
            answer = await official.chat.completions.create(model=model, messages=MESSAGES)
            assert answer.usage is not None
            return answer.choices[0].message.content or ""
        chunks = await official.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])


@pytest.mark.parametrize("stream", [False, True])
async def test_the_official_client_talks_to_a_public_tier_without_a_key_of_ours(free: House, stream: bool) -> None:
    assert await ask(free, "/free", stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("base", "model", "key"), [("/free", "gpt-4o-mini", "none"), ("/api/blog/shared", "gpt-4o", SHARED_KEY)]
)
async def test_the_operators_api_keys_serve_a_tier_that_anybody_may_enter(
    keyed: Forwarding, stream: bool, base: str, model: str, key: str
) -> None:
    keyed.fresh()
    assert await ask(keyed.house, base, stream, model, key)
    (sent,) = keyed.api.control.requests
    headers = {name.lower(): value for name, value in sent.request.headers}
    assert headers["authorization"] == f"Bearer {keyed.api.keys[0]}"
    assert key not in str(sent.request.headers), "S5"
    body = json.loads(sent.request.body)
    assert body["model"] == model
    if base == "/free":
        assert body["messages"] == MESSAGES[1:]
        assert body["max_completion_tokens"] == 3
    else:
        assert body["messages"] == MESSAGES
        assert "max_completion_tokens" not in body


async def test_an_issued_key_uses_the_api_keys_within_its_tier(keyed: Forwarding) -> None:
    keyed.fresh()
    key = await issue(keyed.house, "members")
    async with client(keyed.house, "/members", key) as official:
        listed = [model.id async for model in official.models.list()]
        assert listed == ["gpt-4o"]
        answer = await official.chat.completions.create(model="gpt-4o", messages=MESSAGES[1:])
        assert answer.choices[0].message.content
        with pytest.raises(openai.BadRequestError) as refused:
            await official.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert refused.value.code == "system_not_allowed"
        with pytest.raises(openai.NotFoundError):
            await official.chat.completions.create(model="gpt-4.1", messages=MESSAGES[1:])
        with pytest.raises(openai.PermissionDeniedError):
            await official.embeddings.create(model="gpt-4o", input="x")
    assert len(keyed.api.control.requests) == 1


async def test_a_key_of_another_tier_and_no_key_are_told_apart(keyed: Forwarding) -> None:
    async with client(keyed.house, "/members") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="gpt-4o", messages=MESSAGES[1:])
    async with client(keyed.house, "/api/blog/shared", await issue(keyed.house, "members")) as member:
        with pytest.raises(openai.PermissionDeniedError, match="use it at /members"):
            await member.chat.completions.create(model="gpt-4o", messages=MESSAGES[1:])
