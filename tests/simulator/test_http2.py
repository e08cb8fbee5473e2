"""Tests of HTTP/2 over TLS: ALPN, streams side by side, flow control, RST_STREAM, GOAWAY."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.simulator.web_client import WebClient, read_classic, visible_text


@pytest.fixture
async def secure() -> AsyncIterator[Simulator]:
    async with Simulator(tls=True) as simulator:
        yield simulator


@pytest.mark.parametrize(("http2", "version"), [(True, "2"), (False, "1.1")])
async def test_alpn_chooses_the_protocol(secure: Simulator, http2: bool, version: str) -> None:
    async with WebClient(secure, secure.control.accounts[0], http2=http2) as web:
        answer = await web.ask()
    assert visible_text(read_classic(answer.text)) == "Nile, Amazon, Danube."
    assert {record.request.http_version for record in secure.control.requests} == {version}


async def test_streams_share_a_connection(secure: Simulator) -> None:
    secure.control.set_options(delay=0.01)
    async with WebClient(secure, secure.control.accounts[0], http2=True) as web:
        answers = await asyncio.gather(*(web.ask(f"Say: {number}") for number in range(20)))
    assert [visible_text(read_classic(answer.text)) for answer in answers] == [str(number) for number in range(20)]
    assert secure.control.counters.connections == 1


@pytest.mark.parametrize("at", ["before_headers", "before_content", "mid_stream"])
async def test_a_reset_stream_leaves_the_connection(secure: Simulator, at: str) -> None:
    secure.control.fail("conversation", Fault("reset_stream", at=at, after=1))  # type: ignore[arg-type]
    async with WebClient(secure, secure.control.accounts[0], http2=True) as web:
        with pytest.raises(httpx.RemoteProtocolError, match="StreamReset"):
            await web.ask()
        assert (await web.ask()).status_code == 200
    assert secure.control.counters.connections == 1


@pytest.mark.parametrize("do", ["go_away", "reset", "close"])
async def test_the_whole_connection_can_go(secure: Simulator, do: str) -> None:
    secure.control.fail("conversation", Fault(do, at="mid_stream", after=1))  # type: ignore[arg-type]
    async with WebClient(secure, secure.control.accounts[0], http2=True) as web:
        with pytest.raises(httpx.TransportError):
            await web.ask()
        assert (await web.ask()).status_code == 200
    assert secure.control.counters.connections == 2


async def test_half_a_headers_frame_never_becomes_an_answer(secure: Simulator) -> None:
    secure.control.fail("conversation", Fault("close", at="mid_headers"))
    async with WebClient(secure, secure.control.accounts[0], http2=True) as web:
        with pytest.raises(httpx.TransportError):
            await web.ask()


class _Peer:
    """HTTP/2 with prior knowledge over plain TCP, by hand: httpx neither cancels streams nor withholds windows."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = 0
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    async def ask(self, web: WebClient) -> None:
        headers = web.headers(accept="text/event-stream", **await web.sentinel())
        path = f"{web.base}/conversation"
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)]
        self.connection.send_headers(1, [*pseudo, *headers.items(), ("content-type", "application/json")])
        self.connection.send_data(1, json.dumps(web.body()).encode(), end_stream=True)
        self.flush()

    async def receive(self, count: int) -> None:
        """Read until that many body bytes came in all; give no window back."""
        async with asyncio.timeout(5):
            while self.received < count:
                for event in self.connection.receive_data(await self.reader.read(65_536)):
                    if isinstance(event, h2.events.DataReceived):
                        self.received += len(event.data)


@pytest.fixture
async def peer(sim: Simulator) -> AsyncIterator[_Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(sim.url).port)
    yield _Peer(reader, writer)
    writer.close()


async def test_a_peer_that_cancels_a_stream_is_noticed_at_once(sim: Simulator, web: WebClient, peer: _Peer) -> None:
    sim.control.choose(events=50, delay=0.02)
    sim.control.fail("conversation", Fault("stall", at="mid_stream", after=3))
    await peer.ask(web)
    await peer.receive(100)
    cancelled_at = time.monotonic()
    peer.connection.reset_stream(1)
    peer.flush()
    await sim.control.wait_until(lambda: sim.control.counters.aborted == 1)
    ended_at = sim.control.streams[-1].ended_at
    assert ended_at is not None
    assert ended_at - cancelled_at < 1.0
    assert (sim.control.counters.open_streams, sim.control.counters.open_connections) == (0, 2)


async def test_windows_hold_the_stream_back(sim: Simulator, web: WebClient, peer: _Peer) -> None:
    sim.control.choose(events=1_000_000, encoding="v1")
    await peer.ask(web)
    await peer.receive(65_535)
    assert sim.control.streams[-1].bytes_written < 65_535 + 2 * 16_384
    peer.connection.increment_flow_control_window(10_000, 1)
    peer.connection.increment_flow_control_window(10_000)
    peer.flush()
    await peer.receive(75_535)
    assert peer.received == 75_535
    peer.writer.close()
    await sim.control.wait_until(lambda: sim.control.counters.aborted == 1)


async def test_a_client_that_does_not_trust_the_ca_gets_no_connection(secure: Simulator) -> None:
    async with httpx.AsyncClient(verify=ssl.create_default_context()) as http:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await http.get(secure.tls_url)
