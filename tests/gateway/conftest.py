"""A server with three API keys in front of the simulated API, with a clock that goes fast and can be set."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.api.openai.forwarding import Forwarding, open_forwarding
from tests.e2e.harness import HouseClock


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house_clock() -> HouseClock:
    return HouseClock(speed=20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three_running(tmp_path_factory: pytest.TempPathFactory, house_clock: HouseClock) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("keys"), keys=3, clock=house_clock) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def three(three_running: Forwarding, house_clock: HouseClock) -> Forwarding:
    await three_running.recover(house_clock)
    return three_running
