"""The server as a whole: addresses, the app's lifespan, stopping, and running out of descriptors."""

import asyncio
import errno
import json
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from chat2api.api.connection import Connection, ConnectionSettings
from chat2api.api.guards import refusal_bytes
from chat2api.api.server import Address, OverloadedError, ServerSettings, Shutdown, bind, serve
from chat2api.errors import ConfigError
from tests.api.raw_http import WAIT, Handler, answer, app_of, echo, error_of, send_chunk, serving, start_stream

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
    ("host", "told"), [("192.0.2.1", "does not have that address"), ("no such host", "no such address")]
)
def test_an_address_that_is_not_ours_is_told(host: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        bind([("127.0.0.1", 0), (host, 0)])


# ---------------------------------------------------------------------------------------------------------------------
# Lifespan


async def _run_lifespan(events: list[str], *answers: str, hang: bool = False) -> int:
    """Serve an app that answers its lifespan so, told to stop at once, and return the exit status."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "lifespan"
        for given in answers:
            events.append((await receive())["type"])
            await send({"type": given, "message": "the disk is full"})  # type: ignore[misc, arg-type]
        if hang:
            await asyncio.Event().wait()

    shutdown = Shutdown()
    settings = ServerSettings(startup_timeout=0.1, shutdown_timeout=0.1, drain_accept=0)
    return await serve(
        app,
        binds=[("127.0.0.1", 0)],
        settings=settings,
        shutdown=shutdown,
        on_ready=lambda _: shutdown.request(),
        handle_signals=False,
    )


async def test_the_app_is_started_before_and_stopped_after_all() -> None:
    events: list[str] = []

    assert await _run_lifespan(events, "lifespan.startup.complete", "lifespan.shutdown.complete") == 0
    assert events == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_app_that_does_not_start_is_told_with_its_reason() -> None:
    with pytest.raises(ConfigError, match="could not start: the disk is full"):
        await _run_lifespan([], "lifespan.startup.failed")


async def test_an_app_that_starts_too_slowly_is_given_up() -> None:
    with pytest.raises(ConfigError, match=r"not ready within 0\.1 s"):
        await _run_lifespan([], hang=True)


async def test_an_app_that_fails_while_it_starts_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        raise ValueError("broken")

    with pytest.raises(ConfigError, match="ValueError"):
        await serve(app, binds=[("127.0.0.1", 0)], handle_signals=False)
    assert "the app's lifespan failed" in caplog.text


@pytest.mark.parametrize("answers", [("lifespan.startup.complete", "lifespan.shutdown.failed")])
async def test_an_app_that_stops_badly_shows_in_the_exit_status(answers: tuple[str, ...]) -> None:
    assert await _run_lifespan([], *answers) == 1


async def test_an_app_that_does_not_stop_is_left() -> None:
    assert await _run_lifespan([], "lifespan.startup.complete", hang=True) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Stopping


def _streamer(shutdown_of: list[Shutdown], go_on: asyncio.Event) -> Handler:
    """Make an app whose stream lasts until go_on, or ends with an error event when there is no time left."""

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["path"] != "/stream":
            await answer(send)
            return
        await start_stream(send)
        await send_chunk(send, b"data: 1\n\n")
        waits = [asyncio.create_task(go_on.wait()), asyncio.create_task(shutdown_of[0].ending.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await send_chunk(send, b"data: 2\n\n" if go_on.is_set() else b'data: {"error": {}}\n\n', more=False)

    return app


STREAM = b"GET /stream" + H + b"\r\n"


async def test_R24_running_streams_finish_whole_after_the_listeners_are_closed() -> None:
    go_on = asyncio.Event()
    shutdowns: list[Shutdown] = []
    async with serving(_streamer(shutdowns, go_on), drain_timeout=10.0) as server:
        shutdowns.append(server.shutdown)
        clients = [await server.connect() for _ in range(20)]
        for client in clients:
            await client.send(STREAM)
            await client.until(b"data: 1\n\n\r\n")
        idle = await server.connect()
        await idle.send(GET)
        await idle.response()

        server.shutdown.request()
        assert await idle.rest() == b""  # idle connections are closed at once
        with pytest.raises(OSError):
            await server.connect()
        assert not server.task.done()
        go_on.set()
        for client in clients:
            assert await client.rest() == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
        assert await asyncio.wait_for(asyncio.shield(server.task), WAIT) == 0


async def test_R24_the_server_accepts_for_a_while_and_says_that_it_is_about_to_close() -> None:
    drained: list[float] = []
    shutdown = Shutdown()
    ready: asyncio.Future[Sequence[Address]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            app_of(echo),
            binds=[("127.0.0.1", 0)],
            settings=ServerSettings(drain_accept=0.3),
            shutdown=shutdown,
            on_ready=ready.set_result,
            on_draining=lambda: drained.append(time.monotonic()),
            handle_signals=False,
        )
    )
    (address,) = await asyncio.wait_for(ready, WAIT)
    start = time.monotonic()
    shutdown.request()
    await asyncio.sleep(0.05)
    assert drained and drained[0] - start < 0.1

    reader, writer = await asyncio.open_connection(*address)
    writer.write(GET)
    response = await asyncio.wait_for(reader.read(), WAIT)
    writer.close()

    assert response.startswith(b"HTTP/1.1 200")
    assert b"\r\nconnection: close\r\n" in response
    assert await asyncio.wait_for(task, WAIT) == 0
    assert 0.25 < time.monotonic() - start < 1.5


async def test_R24_a_second_signal_ends_streams_with_an_error_inside_and_the_server_soon() -> None:
    shutdowns: list[Shutdown] = []
    async with serving(_streamer(shutdowns, asyncio.Event()), drain_timeout=60.0) as server:
        shutdowns.append(server.shutdown)
        client = await server.connect()
        await client.send(STREAM)
        await client.until(b"data: 1\n\n\r\n")
        server.shutdown.request()
        await asyncio.sleep(0.05)
        start = time.monotonic()
        server.shutdown.request()

        assert b'data: {"error": {}}' in await client.rest()
        assert await asyncio.wait_for(asyncio.shield(server.task), WAIT) == 0
        assert time.monotonic() - start < 1.0


async def test_R24_what_does_not_end_by_itself_is_cut_within_two_seconds_and_shows_in_the_exit_status() -> None:
    cancelled = asyncio.Event()

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start_stream(send)
        await send_chunk(send, b"data: 1\n\n")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    defaults = ServerSettings()
    async with serving(app, drain_timeout=60.0, end_grace=defaults.end_grace, cut_grace=defaults.cut_grace) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"data: 1\n\n\r\n")
        server.shutdown.request()
        start = time.monotonic()
        server.shutdown.request()

        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        assert await asyncio.wait_for(asyncio.shield(server.task), WAIT) == 1
        assert time.monotonic() - start < 2.0
        assert cancelled.is_set()


async def test_R24_the_drain_has_an_end_of_its_own() -> None:
    shutdowns: list[Shutdown] = []
    async with serving(_streamer(shutdowns, asyncio.Event()), drain_timeout=0.2) as server:
        shutdowns.append(server.shutdown)
        client = await server.connect()
        await client.send(STREAM)
        await client.until(b"data: 1\n\n\r\n")
        server.shutdown.request()

        assert b'data: {"error": {}}' in await client.rest()


async def test_R24_signals_ask_to_stop() -> None:
    shutdown = Shutdown()
    ready: asyncio.Future[Sequence[Address]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            app_of(echo),
            binds=[("127.0.0.1", 0)],
            settings=ServerSettings(drain_accept=5.0),
            shutdown=shutdown,
            on_ready=ready.set_result,
        )
    )
    await asyncio.wait_for(ready, WAIT)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(shutdown.draining.wait(), WAIT)
    os.kill(os.getpid(), signal.SIGINT)

    assert await asyncio.wait_for(task, 2.0) == 0
    assert shutdown.ending.is_set()


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
    assert time.monotonic() - start < 2.0


async def test_a_connection_that_fails_does_not_harm_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)

    class Failing(Connection):
        async def run(self) -> None:
            raise ValueError("a bug")

    async with serving(echo) as server:
        client = await server.connect()
        await client.send(GET)
        await client.response()
        with monkeypatch.context() as patch:
            patch.setattr("chat2api.api.server.Connection", Failing)
            assert await server.exchange(GET) == b""
        await client.send(GET)
        assert (await client.response())[0] == 200

    assert "a connection failed" in caplog.text


def test_refusals_are_json() -> None:
    body = refusal_bytes(OverloadedError("full")).partition(b"\r\n\r\n")[2]

    assert json.loads(body)["error"] == {"message": "full", "type": "server_error", "param": None, "code": "overloaded"}
