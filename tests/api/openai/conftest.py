"""A server with three API keys in front of the simulated API, one for each module of tests."""

from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from tests.api.openai.forwarding import Forwarding, open_forwarding


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("forwarding"), keys=3) as running:
        yield running


@pytest.fixture
def forwarding(running: Forwarding) -> Forwarding:
    running.fresh()
    return running


@pytest_asyncio.fixture(loop_scope="module")
async def client(forwarding: Forwarding) -> AsyncIterator[openai.AsyncOpenAI]:
    async with forwarding.house.client(max_retries=0) as client:
        yield client
