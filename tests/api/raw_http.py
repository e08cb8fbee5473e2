"""A server on a loopback port and raw sockets towards it: what the listener's tests share."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from chat2api.api.connection import ConnectionSettings
from chat2api.api.listening import Address
from chat2api.api.server import ServerSettings, Shutdown, serve

WAIT = 5.0

Handler = Callable[[dict[str, Any], ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]


def app_of(handler: Handler) -> ASGIFramework:
    """Make an ASGI app whose requests go to handler and whose lifespan always succeeds."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan":
            await handler(cast(dict[str, Any], scope), receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def answer(send: ASGISendCallable, body: bytes = b"ok", status: int = 200) -> None:
    """Send a whole response with a Content-Length."""
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def start_stream(send: ASGISendCallable) -> None:
    """Send the head of a stream."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_chunk(send: ASGISendCallable, data: bytes, *, more: bool = True) -> None:
    """Send a piece of a body."""
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def read_body(receive: ASGIReceiveCallable) -> bytes | None:
    """Return the request's body, None when the client left before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


async def echo(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer with method, path and body."""
    body = await read_body(receive)
    if body is not None:
        await answer(send, b"%s %s %s" % (scope["method"].encode(), scope["raw_path"], body))


@dataclass
class RunningServer:
    """A server under test; `status` is set once it has ended."""

    addresses: Sequence[Address]
    shutdown: Shutdown
    task: "asyncio.Task[int]"
    connections: list["Client"] = field(default_factory=list)

    async def connect(self, **options: Any) -> "Client":
        """Open a connection that the server's end closes."""
        host, port = self.addresses[0]
        reader, writer = await asyncio.open_connection(host, port, **options)
        client = Client(reader, writer)
        self.connections.append(client)
        return client

    async def exchange(self, request: bytes) -> bytes:
        """Send bytes on a new connection and return everything until the server closes it."""
        client = await self.connect()
        await client.send(request)
        return await client.rest()


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes; a server that has closed already is for the reading side to notice."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def rest(self) -> bytes:
        """Return what comes until the end, whether regular or a reset."""
        received = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(WAIT):
                while data := await self.reader.read(65536):
                    received += data
        return received

    async def until(self, mark: bytes) -> bytes:
        """Return what comes up to and with mark."""
        async with asyncio.timeout(WAIT):
            return await self.reader.readuntil(mark)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the next response."""
        lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = b""
        if "content-length" in headers:
            async with asyncio.timeout(WAIT):
                body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await self.until(b"\r\n"), 16):
                async with asyncio.timeout(WAIT):
                    body += (await self.reader.readexactly(size + 2))[:-2]
            await self.until(b"\r\n")
        return status, headers, body

    def leave(self) -> None:
        """Close in the ordinary way (FIN)."""
        self.writer.close()

    def reset(self) -> None:
        """Close with a reset (RST)."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def error_of(response: bytes) -> tuple[int, str]:
    """Return status and code of a refusal, after checking that it is a whole, OpenAI-shaped error object."""
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert int(headers["content-length"]) == len(body)
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(lines[0].split(" ")[1]), error["code"]


@contextlib.asynccontextmanager
async def serving(
    app: ASGIFramework | Handler,
    *,
    connection: ConnectionSettings | None = None,
    asgi: bool = False,
    **settings: Any,
) -> AsyncIterator[RunningServer]:
    """Run a server around the block, with short times for stopping."""
    settings = {"drain_accept": 0.0, "drain_timeout": 0.2, "end_grace": 0.2, "cut_grace": 0.2} | settings
    made = ServerSettings(connection=connection if connection is not None else ConnectionSettings(), **settings)
    shutdown = Shutdown()
    ready: asyncio.Future[Sequence[Address]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            cast(ASGIFramework, app) if asgi else app_of(cast(Handler, app)),
            binds=[("127.0.0.1", 0)],
            settings=made,
            shutdown=shutdown,
            on_ready=ready.set_result,
            handle_signals=False,
        )
    )
    first: list[asyncio.Future[Any]] = [task, ready]
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    server = RunningServer(ready.result(), shutdown, task)
    try:
        yield server
    finally:
        for client in server.connections:
            client.writer.transport.abort()
        shutdown.request()
        await asyncio.wait_for(asyncio.shield(task), 10)
