"""A listening simulator and clients for it."""

from collections.abc import AsyncIterator

import pytest

from chat2api.simulator.app import Simulator
from tests.simulator.web_client import WebClient


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def web(sim: Simulator) -> AsyncIterator[WebClient]:
    async with WebClient(sim, sim.control.accounts[0]) as client:
        yield client


@pytest.fixture
async def anonymous(sim: Simulator) -> AsyncIterator[WebClient]:
    async with WebClient(sim, None) as client:
        yield client
