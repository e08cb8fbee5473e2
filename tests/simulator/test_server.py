"""Tests of what can happen to a connection before a request, and of closing down."""

import asyncio
import errno
import socket

import httpx
import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.simulator.raw_client import connect
from tests.simulator.web_client import WebClient


@pytest.mark.parametrize("do", ["reset", "close"])
async def test_a_connection_is_refused_at_accept(sim: Simulator, web: WebClient, do: str) -> None:
    sim.control.fail(None, Fault(do, at="accept"))  # type: ignore[arg-type]
    async with connect(sim) as connection:
        received, was_reset = await connection.read_to_end()
    assert received == b""
    assert was_reset is (do == "reset")
    assert (await web.ask()).status_code == 200
    assert sim.control.counters.connections == 2


async def test_a_connection_that_cannot_be_accepted_ends_nothing_but_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept
    failures = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ECONNABORTED, "gone")]

    async def fail_first(listening: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", fail_first)
    async with Simulator() as sim, WebClient(sim, sim.control.accounts[0]) as web:
        assert (await web.ask()).status_code == 200
    assert not failures


async def test_a_stall_at_accept_holds_even_the_tls_greeting() -> None:
    async with Simulator(tls=True) as sim:
        sim.control.fail(None, Fault("stall", at="accept", seconds=0.2))
        sim.control.fail(None, Fault("stall", at="accept"))
        async with WebClient(sim, None, http2=True) as web:
            loop = asyncio.get_running_loop()
            started = loop.time()
            assert (await web.get("/")).status_code == 200
            assert loop.time() - started >= 0.2
        async with connect(sim) as connection:
            connection.send("GET", "/")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.reader.read(1), 0.1)


async def test_a_peer_that_does_not_speak_tls_harms_nobody() -> None:
    async with Simulator(tls=True) as sim:
        port = int(sim.tls_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert not (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()
        async with WebClient(sim, None, http2=True) as web:
            assert (await web.get("/")).status_code == 200


async def test_closing_ends_what_runs_at_once() -> None:
    sim = Simulator()
    async with sim, WebClient(sim, sim.control.accounts[0]) as web:
        sim.control.fail("conversation", Fault("stall", at="mid_stream"))
        asking = asyncio.create_task(web.ask())
        await sim.control.wait_until(lambda: sim.control.counters.open_streams == 1)
        await asyncio.wait_for(sim.aclose(), 5)
        with pytest.raises(httpx.TransportError):
            await asking
        assert sim.control.counters.open_streams == 0
