"""A web socket client for the simulator's own tests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)


class SocketClient:
    """One open web socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = WSConnection(ConnectionType.CLIENT)
        self.sub_protocol: str | None = None
        self._events: list[Event] = []

    async def next_event(self) -> Event:
        async with asyncio.timeout(5):
            while not self._events:
                data = await self.reader.read(65_536)
                self.frames.receive_data(data or None)
                self._events += self.frames.events()
        return self._events.pop(0)

    async def open(self, host: str, target: str, sub_protocols: list[str]) -> None:
        request = Request(host=host, target=target, subprotocols=sub_protocols)
        self.writer.write(self.frames.send(request))
        event = await self.next_event()
        assert not isinstance(event, RejectConnection), event
        assert isinstance(event, AcceptConnection)
        self.sub_protocol = event.subprotocol

    def send(self, text: str, *, finished: bool = True) -> None:
        self.writer.write(self.frames.send(TextMessage(data=text, message_finished=finished)))

    async def ping(self, payload: bytes) -> None:
        self.writer.write(self.frames.send(Ping(payload=payload)))

    def close(self) -> None:
        self.writer.write(self.frames.send(CloseConnection(code=1000)))

    async def receive_pong(self) -> bytes:
        event = await self.next_event()
        assert isinstance(event, Pong)
        return bytes(event.payload)

    async def receive_close(self) -> int:
        event = await self.next_event()
        assert isinstance(event, CloseConnection)
        return int(event.code)

    async def receive_json(self) -> dict[str, Any]:
        text, finished = "", False
        while not finished:
            event = await self.next_event()
            assert isinstance(event, TextMessage), event
            text += event.data
            finished = event.message_finished
        return dict(json.loads(text))


@asynccontextmanager
async def open_socket(address: str, *sub_protocols: str) -> AsyncIterator[SocketClient]:
    """Open a web socket on a ws:// address."""
    parts = urlsplit(address)
    assert parts.scheme == "ws"
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    client = SocketClient(reader, writer)
    try:
        await client.open(parts.netloc, f"{parts.path}?{parts.query}", list(sub_protocols))
        yield client
    finally:
        writer.close()
