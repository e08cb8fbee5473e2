"""Bytes on a socket: what arrives and how the connection ends."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from chat2api.simulator.app import Simulator
from tests.simulator.web_client import DEVICE, USER_AGENT, WebClient


class RawConnection:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.local_port: int = writer.get_extra_info("sockname")[1]

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        fields = {"host": "127.0.0.1", "user-agent": USER_AGENT, "oai-device-id": DEVICE, **headers}
        if body:
            fields |= {"content-length": str(len(body)), "content-type": "application/json"}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)

    async def read_to_end(self) -> tuple[bytes, bool]:
        """All bytes, and whether the connection ended by reset."""
        received = b""
        try:
            while chunk := await asyncio.wait_for(self.reader.read(65_536), 5):
                received += chunk
        except ConnectionResetError:
            return received, True
        return received, False

    async def read_head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def connect(sim: Simulator, *, receive_buffer: int | None = None) -> AsyncIterator[RawConnection]:
    """A plain connection to the simulator; a small receive buffer makes a slow reader noticed sooner."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", urlsplit(sim.url).port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=65_536)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()


async def send_turn(connection: RawConnection, web: WebClient, **body: Any) -> None:
    """Open a conversation on a raw connection, with requirements got by the web client."""
    tokens = await web.sentinel()
    assert web.account is not None
    headers = {"authorization": f"Bearer {web.account.access_token}", "accept": "text/event-stream", **tokens}
    payload = json.dumps(web.body(**body)).encode()
    connection.send("POST", "/backend-api/conversation", payload, **headers)
