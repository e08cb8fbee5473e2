"""What a connection does whatever is spoken on it: it holds senders, and lets them fail when it is gone."""

import asyncio

import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.peer import WriteGate
from chat2api.simulator.wire import PeerGone
from tests.simulator.raw_client import connect


async def test_a_gate_holds_senders_until_it_is_released() -> None:
    gate = WriteGate()
    await gate.wait()
    gate.shut()
    sender = asyncio.create_task(gate.wait())
    await asyncio.sleep(0)
    assert not sender.done()
    gate.release()
    await sender


async def test_whoever_waits_at_a_gate_that_breaks_hears_of_it() -> None:
    gate = WriteGate()
    gate.shut()
    sender = asyncio.create_task(gate.wait())
    await asyncio.sleep(0)
    gate.break_off()
    with pytest.raises(PeerGone):
        await sender
    assert gate.broken
    with pytest.raises(PeerGone):
        await gate.wait()


async def test_a_peer_that_leaves_ends_its_connection(sim: Simulator) -> None:
    async with connect(sim) as connection:
        connection.send("GET", "/")
        await connection.read_head()
        assert sim.control.counters.open_connections == 1
    await sim.control.wait_until(lambda: sim.control.counters.open_connections == 0)
