"""A connection by raw sockets: clients that are slow, that leave, and that do not read."""

import asyncio
import socket
import time
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

from chat2api.api.connection import ConnectionSettings
from chat2api.api.request_bytes import HeadLimits
from tests.api.raw_http import (
    WAIT,
    Client,
    RunningServer,
    answer,
    echo,
    error_of,
    send_chunk,
    serving,
    start_stream,
)

H = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /" + H + b"\r\n"
CHUNKED = b"POST /" + H + b"Transfer-Encoding: chunked\r\n\r\n"

# ---------------------------------------------------------------------------------------------------------------------
# Slow and idle clients


async def _time_to_close(client: Client) -> float:
    start = time.monotonic()
    await client.rest()
    return time.monotonic() - start


async def test_R13_dripped_headers_end_in_time_however_steadily_they_come() -> None:
    async with serving(echo, connection=ConnectionSettings(header_timeout=0.3, linger_timeout=0.05)) as server:
        client = await server.connect()

        async def drip() -> None:
            for byte in GET[:-2] + b"x: " + b"y" * 1000:
                await client.send(bytes([byte]))
                await asyncio.sleep(0.02)

        task = asyncio.create_task(drip())
        start = time.monotonic()
        response = await client.rest()
        task.cancel()

    assert error_of(response) == (408, "request_timeout")
    assert 0.25 < time.monotonic() - start < 3.0


async def test_R13_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with serving(echo, connection=ConnectionSettings(header_timeout=0.1)) as server:
        client = await server.connect()

        assert await client.rest() == b""


async def test_R13_an_idle_connection_is_closed_and_a_second_head_has_its_own_time() -> None:
    settings = ConnectionSettings(header_timeout=0.15, keep_alive_timeout=0.3, linger_timeout=0.05)
    async with serving(echo, connection=settings) as server:
        idle, dripping = await server.connect(), await server.connect()
        for client in (idle, dripping):
            await client.send(GET)
            await client.response()
        await dripping.send(b"GET")

        (idle_time, dripping_time) = await asyncio.gather(_time_to_close(idle), _time_to_close(dripping))

    assert 0.25 < idle_time < 1.5
    assert 0.1 < dripping_time < idle_time + 0.1


async def test_S37_heads_that_are_too_large_are_refused() -> None:
    settings = ConnectionSettings(linger_timeout=0.05)
    limits = HeadLimits()
    async with serving(echo, connection=settings) as server:
        assert error_of(await server.exchange(b"GET /" + b"a" * limits.target + H + b"\r\n"))[0] == 414
        assert error_of(await server.exchange(b"GET /" + H + b"x: " + b"a" * limits.head + b"\r\n\r\n"))[0] == 431
        assert error_of(await server.exchange(b"GET /" + H + b"x: " + b"a" * 10 * limits.head))[0] == 431
        assert error_of(await server.exchange(b"GET /" + H + b"x: 1\r\n" * 101 + b"\r\n"))[0] == 431
        large = b"GET /" + b"a" * (limits.target - 1) + H + b"x: " + b"a" * 8000 + b"\r\n\r\n"
        client = await server.connect()
        await client.send(large)
        assert (await client.response())[0] == 200


# ---------------------------------------------------------------------------------------------------------------------
# Clients that leave


PHASES = ["body", "before_start", "after_start", "mid_stream", "endless_stream", "pipelined", "pipelined_much"]


@pytest.mark.parametrize("leave", ["fin", "rst"])
@pytest.mark.parametrize("phase", PHASES)
async def test_R10_a_client_that_leaves_ends_the_app_at_once(phase: str, leave: str) -> None:
    reached, ended = asyncio.Event(), asyncio.Event()
    left_at = 0.0

    async def work(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if phase == "body":
            reached.set()
            await asyncio.Event().wait()
        if phase in ("before_start", "pipelined", "pipelined_much"):
            reached.set()
            await asyncio.Event().wait()
        await start_stream(send)
        if phase == "after_start":
            reached.set()
            await asyncio.Event().wait()
        while True:
            await send_chunk(send, b"data: x\n\n")
            reached.set()
            if phase == "mid_stream":
                await asyncio.sleep(0.005)

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        worker = asyncio.create_task(work(receive, send))
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            ended.set()

    async with serving(app, connection=ConnectionSettings(pipelined_held=10_000)) as server:
        client = await server.connect()
        if phase == "body":
            await client.send(b"POST /" + H + b"Content-Length: 100\r\n\r\nabc")
        else:
            await client.send(GET * {"pipelined": 3, "pipelined_much": 5000}.get(phase, 1))
        await asyncio.wait_for(reached.wait(), WAIT)
        left_at = time.monotonic()
        if leave == "fin":
            client.leave()
        else:
            client.reset()
        await asyncio.wait_for(ended.wait(), WAIT)

    assert time.monotonic() - left_at < 1.0


async def test_R10_quart_cancels_the_handler_and_its_generator() -> None:
    from quart import Quart, Response

    ended: asyncio.Queue[str] = asyncio.Queue()
    running: asyncio.Queue[str] = asyncio.Queue()
    quart = Quart(__name__)

    @quart.get("/wait")
    async def wait() -> str:
        try:
            running.put_nowait("wait")
            await asyncio.Event().wait()
        finally:
            ended.put_nowait("wait")
        return ""

    @quart.get("/stream")
    async def stream() -> Response:
        async def generate() -> Any:
            try:
                yield b"data: 1\n\n"
                running.put_nowait("stream")
                await asyncio.Event().wait()
            finally:
                ended.put_nowait("stream")

        response = Response(generate(), content_type="text/event-stream")
        response.timeout = None
        return response

    async with serving(quart, asgi=True) as server:
        for path in ("wait", "stream"):
            for leave in (Client.leave, Client.reset):
                client = await server.connect()
                await client.send(b"GET /" + path.encode() + H + b"\r\n")
                assert await asyncio.wait_for(running.get(), WAIT) == path
                start = time.monotonic()
                leave(client)
                assert await asyncio.wait_for(ended.get(), WAIT) == path
                assert time.monotonic() - start < 1.0


# ---------------------------------------------------------------------------------------------------------------------
# Clients that do not read


async def _connect_small(server: RunningServer) -> Client:
    """Connect with a receive buffer so small that what is sent soon waits at the server."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, server.addresses[0])
    reader, writer = await asyncio.open_connection(sock=sock, limit=2048)
    client = Client(reader, writer)
    server.connections.append(client)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the stream's transport is a full one
    return client


@pytest.mark.parametrize("size", [100, 30_000, 5_000_000])
async def test_R12_a_client_that_does_not_read_stops_the_app_and_is_closed(size: int) -> None:
    sent = 0
    ended = asyncio.Event()

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        nonlocal sent
        try:
            await start_stream(send)
            while True:
                await send_chunk(send, b"x" * size)
                sent += size
        finally:
            ended.set()

    async with serving(app, connection=ConnectionSettings(send_timeout=0.3)) as server:
        client = await _connect_small(server)
        await client.send(GET)
        start = time.monotonic()
        await asyncio.wait_for(ended.wait(), WAIT)

    assert 0.25 < time.monotonic() - start < 3.0
    assert sent <= 512 * 1024


async def test_R12_a_client_that_reads_slowly_but_reads_is_kept() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await answer(send, b"x" * 1_000_000)

    async with serving(app, connection=ConnectionSettings(send_timeout=0.5)) as server:
        client = await _connect_small(server)
        await client.send(GET)
        transport: Any = client.writer.transport
        received = 0
        start = time.monotonic()
        while time.monotonic() - start < 1.5:
            transport.resume_reading()
            received += len(await client.reader.read(2048))
            transport.pause_reading()
            await asyncio.sleep(0.01)
        transport.resume_reading()
        while received < 1_000_000:
            data = await asyncio.wait_for(client.reader.read(65536), WAIT)
            assert data, "the connection was closed"
            received += len(data)


async def test_a_client_that_never_takes_the_end_of_a_response_does_not_stay() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send_chunk(send, b"x" * 200_000)
        await send_chunk(send, b"", more=False)

    async with serving(app, connection=ConnectionSettings(send_timeout=0.2, kernel_unsent=4096)) as server:
        client = await _connect_small(server)
        await client.send(GET)
        await asyncio.sleep(0.6)
        server.shutdown.request()
        assert await asyncio.wait_for(asyncio.shield(server.task), WAIT) == 0


async def test_small_writes_do_not_wait_for_acknowledgements(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Spied(socket.socket):
        def setsockopt(self, level: int, option: int, *value: Any) -> None:
            if level == socket.IPPROTO_TCP:
                asked.append(option)
            super().setsockopt(level, option, *value)

    monkeypatch.setattr(socket, "socket", Spied)
    async with serving(echo) as server:
        client = await server.connect()
        await client.send(GET)
        await client.response()
    assert socket.TCP_NODELAY in asked
