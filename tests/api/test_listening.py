"""Addresses, and too many connections for the descriptors there are."""

import asyncio
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Sequence

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from chat2api.api.connection import ConnectionSettings
from chat2api.api.listening import Address, bind
from chat2api.api.server import ServerSettings, Shutdown, serve
from chat2api.errors import ConfigError
from tests.api.raw_http import WAIT, app_of, echo, error_of, serving

H = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /" + H + b"\r\n"

# ---------------------------------------------------------------------------------------------------------------------
# Addresses


async def test_every_address_is_served_and_told() -> None:
    ready: asyncio.Future[Sequence[Address]] = asyncio.get_running_loop().create_future()
    shutdown = Shutdown()
    task = asyncio.create_task(
        serve(
            app_of(echo),
            binds=[("127.0.0.1", 0), ("127.0.0.1", 0)],
            settings=ServerSettings(drain_accept=0),
            shutdown=shutdown,
            on_ready=ready.set_result,
            handle_signals=False,
        )
    )
    addresses = await asyncio.wait_for(ready, WAIT)

    assert len({port for _, port in addresses}) == 2
    for host, port in addresses:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    shutdown.request()
    assert await asyncio.wait_for(task, WAIT) == 0


async def test_sockets_that_are_handed_over_are_served() -> None:
    ready: asyncio.Future[Sequence[Address]] = asyncio.get_running_loop().create_future()
    shutdown = Shutdown()
    sockets = bind([("127.0.0.1", 0)])
    address = sockets[0].getsockname()
    settings = ServerSettings(drain_accept=0)
    task = asyncio.create_task(
        serve(
            app_of(echo),
            sockets=sockets,
            settings=settings,
            shutdown=shutdown,
            on_ready=ready.set_result,
            handle_signals=False,
        )
    )
    assert list(await asyncio.wait_for(ready, WAIT)) == [address]
    shutdown.request()
    await asyncio.wait_for(task, WAIT)
    assert sockets[0].fileno() == -1


async def test_a_port_that_is_taken_is_told_by_host_and_port() -> None:
    started = []

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        started.append(scope["type"])

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ConfigError) as error:
            await serve(app, binds=[("127.0.0.1", port)], handle_signals=False)

    assert f"HOST=127.0.0.1 PORT={port}" in error.value.message
    assert not started


async def test_a_port_that_is_taken_while_the_app_starts_is_told_too() -> None:
    sockets = bind([("127.0.0.1", 0)])
    port = sockets[0].getsockname()[1]
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("127.0.0.1", port))
        rival.listen()

        with pytest.raises(ConfigError) as error:
            await serve(app_of(echo), sockets=sockets, handle_signals=False)

    assert f"PORT={port}" in error.value.message


@pytest.mark.parametrize(
    ("host", "told"), [("192.0.2.1", "does not have that address"), ("no-such-host.invalid", "no such address")]
)
def test_an_address_that_is_not_ours_is_told(host: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        bind([("127.0.0.1", 0), (host, 0)])


# ---------------------------------------------------------------------------------------------------------------------
# Too many connections


async def test_R13_connections_over_the_cap_get_a_503_and_room_returns() -> None:
    async with serving(echo, max_connections=3) as server:
        held = [await server.connect() for _ in range(3)]
        for client in held:
            await client.send(GET)
            await client.response()

        refused = await (await server.connect()).rest()
        assert error_of(refused) == (503, "overloaded")
        assert b"\r\nretry-after: 1\r\n" in refused

        held[0].leave()
        statuses: list[int] = []
        async with asyncio.timeout(WAIT):
            while 200 not in statuses:
                client = await server.connect()
                await client.send(b"GET / HTTP/1.0\r\n\r\n")
                statuses.append((await client.response())[0])
                client.leave()


async def test_R13_without_descriptors_clients_get_a_503_the_loop_rests_and_the_server_recovers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(echo, max_connections=10_000) as server:
        # Connect with the last free descriptors, so that accepting on the other side finds none.
        sockets = [socket.socket() for _ in range(3)]
        for sock in sockets:
            sock.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(sock.fileno() for sock in sockets) + 1, hard))
        held: list[int] = []
        try:
            with pytest.raises(OSError) as full:
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            assert full.value.errno == errno.EMFILE
            loop = asyncio.get_running_loop()
            busy = time.process_time()
            answers = []
            for sock in sockets[:2]:
                await loop.sock_connect(sock, server.addresses[0])
                answers.append(await asyncio.wait_for(loop.sock_recv(sock, 65536), WAIT))
            await asyncio.sleep(0.3)
            busy = time.process_time() - busy
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        start = time.monotonic()
        assert (await server.exchange(b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for sock in sockets:
            sock.close()

    assert [error_of(given) for given in answers] == [(503, "overloaded")] * 2
    assert time.monotonic() - start < 5.0
    assert busy < 0.2
    assert caplog.text.count("out of file descriptors") == 1


async def test_R13_many_idle_connections_are_closed_on_time() -> None:
    async with serving(echo, connection=ConnectionSettings(header_timeout=0.5)) as server:
        clients = [await server.connect() for _ in range(200)]
        start = time.monotonic()

        ends = await asyncio.gather(*(client.rest() for client in clients))

    assert set(ends) == {b""}
    assert time.monotonic() - start < 5.0
