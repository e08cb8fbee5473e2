"""Tests of HTTP/1.1: keep-alive, pipelining, bad requests, large bodies."""

import json

from chat2api.simulator.app import Simulator
from tests.simulator.raw_client import connect
from tests.simulator.web_client import WebClient


async def test_a_connection_serves_many_requests(sim: Simulator, web: WebClient) -> None:
    for _ in range(3):
        assert (await web.ask()).status_code == 200
    assert {record.request.connection for record in sim.control.requests} == {1}
    assert sim.control.counters.connections == 1


async def test_pipelined_requests_are_answered_in_order(sim: Simulator) -> None:
    async with connect(sim) as connection:
        for path in ("/", "/nowhere", "/api/auth/session"):
            connection.send("GET", path)
        statuses = []
        for _ in range(3):
            head = await connection.read_head()
            statuses.append(head.split()[1])
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await connection.reader.readexactly(length)
    assert statuses == [b"200", b"404", b"200"]


async def test_connection_close_is_honoured(sim: Simulator) -> None:
    async with connect(sim) as connection:
        connection.send("GET", "/", connection="close")
        received, was_reset = await connection.read_to_end()
    assert received.endswith(b"</html>")
    assert not was_reset


async def test_head_has_no_body(sim: Simulator) -> None:
    async with connect(sim) as connection:
        connection.send("HEAD", "/", connection="close")
        received, _ = await connection.read_to_end()
    assert received.endswith(b"\r\n\r\n")


async def test_nonsense_is_answered_400_and_closed(sim: Simulator) -> None:
    async with connect(sim) as connection:
        connection.writer.write(b"this is not http\r\n\r\n")
        received, _ = await connection.read_to_end()
    assert received.startswith(b"HTTP/1.1 400 ")


async def test_who_asks_to_go_on_is_told_to(sim: Simulator) -> None:
    body = json.dumps({"p": None}).encode()
    async with connect(sim) as connection:
        connection.writer.write(
            b"POST /backend-anon/sentinel/chat-requirements HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        assert (await connection.read_head()).startswith(b"HTTP/1.1 100")
        connection.writer.write(body)
        assert (await connection.read_head()).startswith(b"HTTP/1.1 200")


async def test_a_large_body_arrives_whole(sim: Simulator, web: WebClient) -> None:
    await web.post("/backend-api/files", {"file_name": "x" * 3_000_000})
    assert len(sim.control.requests[-1].request.body) > 3_000_000


async def test_a_peer_that_leaves_while_it_asks_is_no_request(sim: Simulator) -> None:
    async with connect(sim) as connection:
        connection.writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
        await connection.writer.drain()
        await sim.control.wait_until(lambda: sim.control.counters.open_connections == 1)
    await sim.control.wait_until(lambda: sim.control.counters.open_connections == 0)
    assert sim.control.requests == []
