"""Websockets: the handshake, the messages that wait, and how a websocket ends."""

import asyncio
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    RejectConnection,
    Request,
    TextMessage,
)

from chat2api.api.connection import ConnectionSettings
from chat2api.api.websocket import Inbox
from tests.api.raw_http import WAIT, Client, RunningServer, serving

DISCONNECT: ASGIReceiveEvent = {"type": "websocket.disconnect", "code": 1006}
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def _message(payload: bytes) -> ASGIReceiveEvent:
    return {"type": "websocket.receive", "bytes": payload, "text": None}


async def _shout(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Accept, and answer each text in capitals until the client goes."""
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": None, "text": (message.get("text") or "").upper()})


class _Peer:
    """The client's side of one websocket."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._seen: list[Event] = []

    @classmethod
    async def open(cls, server: RunningServer) -> "_Peer":
        peer = cls(await server.connect())
        await peer.send(Request(host="localhost", target="/ws?q=1"))
        assert isinstance(await peer.next(), AcceptConnection)
        return peer

    async def send(self, event: Event) -> None:
        await self.client.send(self._protocol.send(event))

    async def next(self) -> Event:
        async with asyncio.timeout(WAIT):
            while not self._seen:
                data = await self.client.reader.read(4096)
                self._protocol.receive_data(data or None)
                self._seen += self._protocol.events()
        return self._seen.pop(0)


async def test_messages_go_both_ways_and_a_close_is_answered() -> None:
    async with serving(_shout) as server:
        peer = await _Peer.open(server)
        for text in ("hello\n\x00", "again"):
            await peer.send(TextMessage(data=text))
            answer = await peer.next()
            assert isinstance(answer, TextMessage) and answer.data == text.upper()
        await peer.send(CloseConnection(code=1000))
        assert isinstance(await peer.next(), CloseConnection)
        assert await peer.client.rest() == b""


async def test_frames_before_the_handshakes_end_are_refused() -> None:
    async with serving(_shout, connection=ConnectionSettings(linger_timeout=0.05)) as server:
        response = await server.exchange(HANDSHAKE + b"\x81\x82\x00\x00\x00\x00hi")

    assert response.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("leave", ["leave", "reset"])
async def test_R10_an_app_is_told_that_its_client_left(leave: str) -> None:
    left = asyncio.Event()

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await _shout(scope, receive, send)
        left.set()

    async with serving(app) as server:
        peer = await _Peer.open(server)
        getattr(peer.client, leave)()
        await asyncio.wait_for(left.wait(), WAIT)


async def test_an_app_that_returns_ends_its_websocket() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})

    async with serving(app) as server:
        peer = await _Peer.open(server)
        assert isinstance(await peer.next(), CloseConnection)
        assert await peer.client.rest() == b""


async def test_an_app_that_refuses_answers_with_its_own_response() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"key")]})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": False})

    async with serving(app) as server:
        peer = _Peer(await server.connect())
        await peer.send(Request(host="localhost", target="/ws"))

        rejection = await peer.next()
        assert isinstance(rejection, RejectConnection)
        assert rejection.status_code == 401
        assert (b"x-why", b"key") in list(rejection.headers)


@pytest.mark.parametrize(
    "broken", [b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"Sec-WebSocket-Version: 13\r\n"]
)
async def test_a_handshake_that_is_none_is_refused_and_the_connection_ends(broken: bytes) -> None:
    settings = ConnectionSettings(linger_timeout=0.05)
    async with serving(_shout, connection=settings) as server:
        response = await server.exchange(HANDSHAKE.replace(broken, b""))

    assert response.startswith(b"HTTP/1.1 400 ")
    assert response.lower().count(b"connection: close") == 1


async def test_R12_reading_stops_while_the_app_reads_nothing_and_goes_on_with_it() -> None:
    go_on = asyncio.Event()
    received = 0

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        nonlocal received
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        await go_on.wait()
        while (message := await receive())["type"] == "websocket.receive":
            received += len(message.get("bytes") or b"")
            if received == size:
                return

    size, piece, sent = 20_000_000, 100_000, 0
    async with serving(app, connection=ConnectionSettings(body_held=10_000)) as server:
        peer = await _Peer.open(server)

        async def push() -> None:
            nonlocal sent
            for _ in range(size // piece):
                await peer.send(BytesMessage(data=b"x" * piece))
                sent += piece

        pushing = asyncio.create_task(push())
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.15)
        assert sent < 0.75 * size  # the sockets' own buffers hold the rest
        go_on.set()
        assert isinstance(await peer.next(), CloseConnection)
        await pushing

    assert received == size


async def test_messages_come_out_in_order() -> None:
    inbox = Inbox(10)
    await inbox.put(_message(b"1"))
    await inbox.put(_message(b"2"))

    assert [await inbox.get(), await inbox.get()] == [_message(b"1"), _message(b"2")]


async def test_a_full_inbox_makes_the_reading_side_wait_until_something_is_taken() -> None:
    inbox = Inbox(10)
    await inbox.put(_message(b"x" * 100))  # a single message always fits
    second = asyncio.create_task(inbox.put(_message(b"y")))
    await asyncio.sleep(0)
    assert not second.done()

    await inbox.get()
    await asyncio.wait_for(second, WAIT)


async def test_a_disconnect_overtakes_is_told_for_ever_and_frees_the_reading_side() -> None:
    inbox = Inbox(10)
    await inbox.put(_message(b"x" * 100))
    second = asyncio.create_task(inbox.put(_message(b"y")))
    await asyncio.sleep(0)
    await inbox.put(DISCONNECT)

    assert [await inbox.get() for _ in range(3)] == [DISCONNECT] * 3
    await asyncio.wait_for(second, WAIT)


async def test_a_disconnect_wakes_an_app_that_waits() -> None:
    inbox = Inbox(10)
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    await inbox.put(DISCONNECT)

    assert await asyncio.wait_for(waiting, WAIT) == DISCONNECT
