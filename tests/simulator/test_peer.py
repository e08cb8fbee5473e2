"""What a connection does whatever is spoken on it: it holds senders, and lets them fail when it is gone."""

import asyncio

import pytest

from chat2api.clock import SystemClock
from chat2api.simulator.app import Simulator
from chat2api.simulator.backend import Backend
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.peer import PeerConnection, WriteGate
from chat2api.simulator.tasks import Tasks
from chat2api.simulator.wire import PeerGone
from tests.simulator.raw_client import connect


class CountingTransport(asyncio.Transport):
    """Counts how often it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    def is_closing(self) -> bool:
        return self.closed > 0


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


def test_a_connection_is_closed_once() -> None:
    peer, transport = (
        PeerConnection(Backend(SimulatorOptions(), SystemClock()), Tasks(), "https", 1, b""),
        CountingTransport(),
    )
    peer.transport = transport

    peer.close()
    peer.close()

    assert transport.closed == 1
