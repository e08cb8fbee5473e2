"""Chat completions through the real server with the official client."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat2api.simulator.app import Simulator
from tests.e2e.harness import House, open_house


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def house(sim: Simulator, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "data", sim, tokens=[sim.control.accounts[0].access_token]) as house:
        yield house


async def test_a_whole_answer_and_a_streamed_one_say_the_same(house: House) -> None:
    async with house.client() as client:
        whole = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Name three rivers."}]
        )
        parts = []
        stream = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Name three rivers."}], stream=True
        )
        async for chunk in stream:
            parts.append(chunk.choices[0].delta.content or "")
    assert whole.choices[0].message.content == "".join(parts) == "Nile, Amazon, Danube."
    assert whole.choices[0].finish_reason == "stop"
