"""Quart's requests in the listener's own task: how they are answered, and how they end when the client leaves."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart import Quart, Response, request

from chat2api.api.dispatch import LastPiece, RequestRun
from chat2api.api.guards import PacedRequest
from tests.api.raw_http import WAIT, Handler, app_of, serving

CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def quart_app() -> Quart:
    app = Quart(__name__)
    app.asgi_http_class = RequestRun
    app.request_class = PacedRequest
    app.config["RESPONSE_TIMEOUT"] = app.config["BODY_TIMEOUT"] = None
    return app


def through(app: Quart, sent: list[ASGISendEvent] | None = None, tasks: list[object] | None = None) -> Handler:
    """Serve Quart's app, noting the messages that it sends and the task that it is called in."""

    async def handler(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def noting(message: ASGISendEvent) -> None:
            if sent is not None:
                sent.append(message)
            await send(message)

        if tasks is not None:
            tasks.append(asyncio.current_task())
        await app(scope, receive, noting)  # type: ignore[arg-type]

    return handler


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_whole_request_is_handled_in_its_own_task_and_others_go_quarts_way(in_pieces: bool) -> None:
    app = quart_app()
    called: list[object] = []
    handled: list[object] = []
    begun = asyncio.Event()

    @app.post("/")
    async def echo() -> str:
        handled.append(asyncio.current_task())
        begun.set()
        return str(await request.get_data(as_text=True))

    async with serving(app_of(through(app, tasks=called))) as server:
        client = await server.connect()
        if in_pieces:
            await client.send(CHUNKED + b"3\r\none\r\n")
            await asyncio.wait_for(begun.wait(), WAIT)
            await client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        else:
            await client.send(post(b"onetwo"))
        assert (await client.response())[2] == b"onetwo"

    assert (called == handled) is not in_pieces


async def test_a_plain_answer_takes_two_messages_and_a_last_piece_leaves_with_the_end() -> None:
    app = quart_app()
    sent: list[ASGISendEvent] = []
    closed = asyncio.Event()

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.get("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"one"
                yield LastPiece(b"two")
                yield b"never"
            finally:
                closed.set()

        return Response(pieces())

    async with serving(app_of(through(app, sent))) as server:
        client = await server.connect()
        bodies = []
        for path in (b"plain", b"stream"):
            await client.send(b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            bodies.append((await client.response())[2])

    assert bodies == [b"plain", b"onetwo"]
    assert [(message.get("body"), message.get("more_body")) for message in sent] == [
        (None, None), (b"plain", False), (None, None), (b"one", True), (b"two", False),
    ]  # fmt: skip
    assert closed.is_set()


@pytest.mark.parametrize("leave", ["leave", "reset"])
@pytest.mark.parametrize("phase", ["handler", "stream"])
async def test_R10_a_client_that_leaves_ends_the_handler_and_nothing_else(phase: str, leave: str) -> None:
    app = quart_app()
    running, ended, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @app.post("/")
    async def handle() -> Response:
        if phase == "handler":
            await wait_for_ever()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"piece"
            await wait_for_ever()

        return Response(pieces())

    async def handler(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await app(scope, receive, send)  # type: ignore[arg-type]
        await asyncio.sleep(0)  # clean-up that waits is not cancelled with the handler
        cleaned.set()

    async with serving(app_of(handler)) as server:
        client = await server.connect()
        await client.send(post(b"whole"))
        async with asyncio.timeout(WAIT):
            await running.wait()
            getattr(client, leave)()
            await ended.wait()
            await cleaned.wait()


async def test_a_handler_that_does_not_heed_its_clients_leaving_leaves_no_trace() -> None:
    app = quart_app()
    running, ended = asyncio.Event(), asyncio.Event()
    cancelling: list[int] = []

    @app.post("/")
    async def stubborn() -> str:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "too late"
        return "never"

    async def handler(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await app(scope, receive, send)  # type: ignore[arg-type]
        finally:
            cancelling.append(task.cancelling())
            ended.set()

    async with serving(app_of(handler)) as server:
        client = await server.connect()
        await client.send(post(b"whole"))
        async with asyncio.timeout(WAIT):
            await running.wait()
            client.leave()
            await ended.wait()

    assert cancelling == [0]
