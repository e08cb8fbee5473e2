"""The server as a whole: the app's lifespan, and stopping."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from chat2api.api.connection import Connection
from chat2api.api.listening import Address
from chat2api.api.server import ServerSettings, Shutdown, serve
from chat2api.errors import ConfigError
from tests.api.raw_http import WAIT, Handler, answer, app_of, echo, send_chunk, serving, start_stream

H = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /" + H + b"\r\n"

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


async def test_what_the_caller_raises_when_ready_comes_out_as_it_is() -> None:
    def fail(_: Sequence[Address]) -> None:
        raise KeyError("caller")

    with pytest.raises(KeyError, match="caller"):
        await serve(app_of(echo), binds=[("127.0.0.1", 0)], on_ready=fail, handle_signals=False)


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
    assert drained and drained[0] - start < 1.0

    reader, writer = await asyncio.open_connection(*address)
    writer.write(GET)
    response = await asyncio.wait_for(reader.read(), WAIT)
    writer.close()

    assert response.startswith(b"HTTP/1.1 200")
    assert b"\r\nconnection: close\r\n" in response
    assert await asyncio.wait_for(task, WAIT) == 0
    assert 0.25 < time.monotonic() - start < 3.0


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
        server.shutdown.request()

        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        assert await asyncio.wait_for(asyncio.shield(server.task), WAIT) == 1
        assert defaults.end_grace + 2 * defaults.cut_grace < 2.0 <= WAIT
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
            settings=ServerSettings(drain_accept=60.0),
            shutdown=shutdown,
            on_ready=ready.set_result,
        )
    )
    await asyncio.wait_for(ready, WAIT)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(shutdown.draining.wait(), WAIT)
    os.kill(os.getpid(), signal.SIGINT)

    assert await asyncio.wait_for(task, WAIT) == 0
    assert shutdown.ending.is_set()


async def test_a_connection_that_fails_does_not_harm_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)

    class Failing(Connection):
        def data_received(self, data: bytes) -> None:
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

    assert "a bug" in caplog.text
