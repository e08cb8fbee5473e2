"""Tests of web socket framing: handshake, fragments, pings, closing."""

import asyncio

import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.websocket import accept_value
from tests.simulator.raw_client import connect
from tests.simulator.socket_client import SocketClient, open_socket
from tests.simulator.web_client import WebClient


async def _address(web: WebClient) -> str:
    return str((await web.get("/backend-api/celsius/ws/user")).json()["websocket_url"])


def test_the_example_of_the_standard_holds() -> None:
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def test_pings_are_answered_and_fragments_joined(web: WebClient) -> None:
    async with open_socket(await _address(web)) as socket:
        await socket.ping(b"still there?")
        assert await socket.receive_pong() == b"still there?"
        text = '{"id":1,"command":{"type":"connect"}}'
        socket.send(text[:9], finished=False)
        socket.send(text[9:])
        assert (await socket.receive_json())["id"] == 1


async def test_both_sides_can_close(web: WebClient, sim: Simulator) -> None:
    async with open_socket(await _address(web)) as socket:
        socket.close()
        assert await socket.receive_close() == 1000
    async with open_socket(await _address(web)) as socket:
        socket.send("this is no command")
        assert await socket.receive_close() == 1000
    await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)


@pytest.mark.parametrize(("token", "status"), [("good", b"400"), ("bad", b"401")])
async def test_what_is_no_handshake_is_refused(web: WebClient, sim: Simulator, token: str, status: bytes) -> None:
    address = await _address(web)
    path = address[address.index("/celsius") :] if token == "good" else "/celsius/connect?token=x"
    async with connect(sim) as connection:
        connection.send("GET", path)
        assert (await connection.read_head()).split()[1] == status


async def test_broken_frames_end_the_socket(web: WebClient) -> None:
    client: SocketClient
    async with open_socket(await _address(web)) as client:
        client.writer.write(b"\xff\xff\xff\xff")
        async with asyncio.timeout(5):
            assert (await client.reader.read())[:1] in (b"", b"\x88")
