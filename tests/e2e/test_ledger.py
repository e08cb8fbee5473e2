"""What a server that ends, orderly or not, remembers of what was used; the program as a process, the official client."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from chat2api.clock import SystemClock
from chat2api.keys.issue import KeyRing
from chat2api.simulator.app import Simulator
from chat2api.storage.keys import IssuedKey, KeyLimits, NewKey
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.usage import UsageRow
from tests.e2e.harness import OPERATOR_KEY, add_tokens
from tests.processes import Running, running

MESSAGES: Any = [{"role": "user", "content": "Name three rivers."}]


@dataclass
class Answered:
    """What a client was told, and when."""

    at: float
    prompt_tokens: int
    completion_tokens: int


@dataclass
class Place:
    """A data folder with an account and a key, and a simulator."""

    data: Path
    sim: Simulator
    key: IssuedKey
    secret: str

    @asynccontextmanager
    async def server(self) -> AsyncIterator[tuple[Running, openai.AsyncOpenAI]]:
        """Run a server as a process, with a client for it."""
        environ = {
            "PORT": "0",
            "DATA_DIR": str(self.data),
            "AUTHORIZATION": OPERATOR_KEY,
            "CHATGPT_BASE_URL": self.sim.url,
            "DRAIN_ACCEPT": "0",
        }
        async with running("serve", cwd=self.data.parent, environ=environ) as program:
            port = await program.find(r"listens on http://localhost:(\d+)")
            async with openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key=self.secret, max_retries=0
            ) as client:
                yield program, client

    async def rows(self) -> list[UsageRow]:
        """Read what is on disk."""
        records = await SqlRecords.open(self.data)
        try:
            return list(await records.usage.rows(key=self.key.id))
        finally:
            await records.aclose()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Simulator() as sim:
        await add_tokens(tmp_path / "data", [sim.control.accounts[0].access_token])
        records = await SqlRecords.open(tmp_path / "data")
        limits = KeyLimits(requests_per_minute=None, requests_total=60, tokens_total=1_000_000)
        issued = await KeyRing(records, SystemClock()).issue(NewKey("Ada", None, limits=limits))
        await records.aclose()
        yield Place(tmp_path / "data", sim, issued.key, issued.secret)


async def ask(client: openai.AsyncOpenAI, count: int = 1, pause: float = 0.0) -> list[Answered]:
    answers = []
    for number in range(count):
        reply = await client.chat.completions.create(model=("gpt-4o", "gpt-5")[number % 2], messages=MESSAGES)
        assert reply.usage is not None
        answers.append(Answered(time.monotonic(), reply.usage.prompt_tokens, reply.usage.completion_tokens))
        await asyncio.sleep(pause)
    return answers


@pytest.mark.alone
async def test_R8_kill_9_loses_a_second_of_usage_at_most_and_limits_go_on_from_there(place: Place) -> None:
    async with place.server() as (program, client):
        answers = await ask(client, 30, pause=0.08)
        program.process.kill()
        killed = time.monotonic()
        await program.wait()

    rows = await place.rows()
    booked = sum(row.requests for row in rows)
    settled = [answer for answer in answers if answer.at < killed - 1]
    assert len(settled) >= 5, "the run was long enough to tell"
    assert len(settled) <= booked <= len(answers)
    for name in ("prompt_tokens", "completion_tokens"):
        counted = [getattr(answer, name) for answer in answers[:booked]]
        assert sum(getattr(row, name) for row in rows) == sum(counted)

    async with place.server() as (_, client):
        left = 60 - booked
        await asyncio.gather(*(ask(client) for _ in range(5)))
        response = await client.models.with_raw_response.list()
        assert response.headers["x-ratelimit-remaining-tokens"] == str(
            1_000_000 - sum(row.prompt_tokens + row.completion_tokens for row in await _after(place))
        )
        for _ in range(left - 5):
            await ask(client)
        with pytest.raises(openai.RateLimitError, match="quota"):
            await ask(client)


async def _after(place: Place) -> list[UsageRow]:
    """Give the rows once the running server has written what was booked."""
    before = -1
    while True:
        rows = await place.rows()
        count = sum(row.requests for row in rows)
        if count == before:
            return rows
        before = count
        await asyncio.sleep(1.1)


async def test_R8_a_restart_loses_nothing(place: Place) -> None:
    answers: list[Answered] = []
    for _ in range(2):
        async with place.server() as (program, client):
            for ready in await asyncio.gather(*(ask(client, 2) for _ in range(5))):
                answers += ready
            assert (await program.stop()).status == 0  # at once, without waiting for the next write
    rows = await place.rows()
    assert sum(row.requests for row in rows) == len(answers) == 20
    assert sum(row.prompt_tokens for row in rows) == sum(answer.prompt_tokens for answer in answers)
    assert sum(row.completion_tokens for row in rows) == sum(answer.completion_tokens for answer in answers)
    assert {row.errors for row in rows} == {0}
