"""The guards around the app: sizes and slowness of bodies, and bodies that wait to be read."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Quart, Response, request
from werkzeug.datastructures import Headers

from chat2api.api.connection import ConnectionSettings
from chat2api.api.errors import WriteError, site_error
from chat2api.api.guards import BodyFlow, BodyGuard, BodySettings, PacedRequest, refusal_bytes
from chat2api.errors import PayloadTooLargeError
from chat2api.protocol.openai.errors import error_object
from tests.api.raw_http import WAIT, Handler, app_of, echo, error_of, read_body, send_chunk, serving, start_stream

H = b" HTTP/1.1\r\nHost: localhost\r\n"
FAST = ConnectionSettings(linger_timeout=0.1)


def _limit(path: str) -> int:
    return 100 if path == "/small" else 1000


def _guarded(handler: Handler, settings: BodySettings | None = None) -> BodyGuard:
    return BodyGuard(app_of(handler), limit_for=_limit, settings=settings)


async def _count(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    raise AssertionError("the app was called")


def _post(path: bytes, length: int) -> bytes:
    return b"POST " + path + H + b"Content-Length: %d\r\n\r\n" % length


def _chunked(path: bytes, *chunks: bytes) -> bytes:
    framed = b"".join(b"%x\r\n" % len(chunk) + chunk + b"\r\n" for chunk in chunks)
    return b"POST " + path + H + b"Transfer-Encoding: chunked\r\n\r\n" + framed


async def test_S37_a_length_over_the_routes_limit_is_refused_before_the_body_is_read() -> None:
    async with serving(_guarded(_count), asgi=True, connection=FAST) as server:
        assert error_of(await server.exchange(_post(b"/small", 101))) == (413, "payload_too_large")
        assert error_of(await server.exchange(_post(b"/large", 1001))) == (413, "payload_too_large")


async def test_S37_no_continue_invites_a_body_that_is_too_large() -> None:
    request_ = b"POST /small" + H + b"Expect: 100-continue\r\nContent-Length: 101\r\n\r\n"
    async with serving(_guarded(_count), asgi=True, connection=FAST) as server:
        assert error_of(await server.exchange(request_))[0] == 413


async def test_S37_bodies_up_to_the_limit_pass() -> None:
    async with serving(_guarded(echo), asgi=True) as server:
        client = await server.connect()
        for data in (
            _post(b"/small", 100) + b"x" * 100,
            _chunked(b"/small", b"x" * 60, b"x" * 40, b""),
            _post(b"/large", 1000) + b"x" * 1000,
        ):
            await client.send(data)
            status, _, body = await client.response()
            assert (status, body.count(b"x")) == (200, 100 if b"small" in data else 1000)


async def test_S37_a_chunked_body_is_counted_as_it_comes() -> None:
    async with serving(_guarded(echo), asgi=True, connection=FAST) as server:
        assert error_of(await server.exchange(_chunked(b"/small", b"x" * 60, b"x" * 41)))[0] == 413


async def test_S37_a_client_in_the_middle_of_a_huge_body_still_reads_the_refusal() -> None:
    async with serving(_guarded(echo), asgi=True, connection=ConnectionSettings()) as server:
        client = await server.connect()
        sending = asyncio.create_task(client.send(_post(b"/large", 3_000_000) + b"x" * 3_000_000))

        status, headers, _ = await client.response()
        await sending
        client.leave()

    assert (status, headers["connection"]) == (413, "close")


async def test_R1_a_body_that_stops_coming_is_given_up() -> None:
    settings = BodySettings(timeout=0.15)
    async with serving(_guarded(echo, settings), asgi=True, connection=FAST) as server:
        start = time.monotonic()
        response = await server.exchange(_post(b"/large", 100) + b"x" * 50)

    assert error_of(response) == (408, "request_timeout")
    assert 0.1 < time.monotonic() - start < 1.5


async def test_R1_a_body_that_only_drips_is_given_up() -> None:
    settings = BodySettings(timeout=0.2, min_rate=10_000)
    async with serving(_guarded(echo, settings), asgi=True, connection=FAST) as server:
        client = await server.connect()
        await client.send(_post(b"/large", 1000))

        async def drip() -> None:
            for _ in range(200):
                await client.send(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        status, _, _ = await client.response()
        dripping.cancel()

    assert status == 408


async def test_R1_a_body_that_comes_steadily_may_take_longer_than_the_timeout() -> None:
    settings = BodySettings(timeout=0.4, min_rate=500)
    async with serving(_guarded(echo, settings), asgi=True) as server:
        client = await server.connect()
        await client.send(_post(b"/large", 1000))
        for _ in range(10):
            await client.send(b"x" * 100)
            await asyncio.sleep(0.05)
        status, _, body = await client.response()

    assert (status, body.count(b"x")) == (200, 1000)


async def test_R1_a_quart_handler_that_waits_for_the_body_is_cancelled_and_the_client_told() -> None:
    app = Quart(__name__)
    ended = asyncio.Event()

    @app.post("/large")
    async def large() -> str:
        try:
            return str(len(await request.get_data()))
        finally:
            ended.set()

    guard = BodyGuard(app, limit_for=_limit, settings=BodySettings(timeout=0.15))
    async with serving(guard, asgi=True, connection=FAST) as server:
        assert error_of(await server.exchange(_post(b"/large", 100) + b"x"))[0] == 408
        await asyncio.wait_for(ended.wait(), WAIT)


async def test_a_refusal_has_the_form_of_its_path() -> None:
    def write_for(path: str) -> WriteError:
        return site_error if path == "/small" else error_object

    guard = BodyGuard(app_of(echo), limit_for=_limit, write_for=write_for, settings=BodySettings(timeout=0.15))
    async with serving(guard, asgi=True, connection=FAST) as server:
        for sent, status in (
            (_post(b"/small", 101), 413),
            (_chunked(b"/small", b"x" * 101), 413),
            (_post(b"/small", 100) + b"x", 408),
        ):
            client = await server.connect()
            await client.send(sent)
            told, _, body = await client.response()
            assert (told, list(json.loads(body))) == (status, ["errorMessage"])
        assert error_of(await server.exchange(_post(b"/large", 100) + b"x")) == (408, "request_timeout")


async def test_a_limit_broken_after_the_response_began_cuts_it() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start_stream(send)
        await send_chunk(send, b"early")
        if await read_body(receive) is not None:
            await send_chunk(send, b"", more=False)

    async with serving(_guarded(app), asgi=True, connection=FAST) as server:
        response = await server.exchange(_chunked(b"/small", b"x" * 101))

    assert response.startswith(b"HTTP/1.1 200")
    assert response.endswith(b"5\r\nearly\r\n")


async def test_a_flow_is_full_only_for_readers_that_report() -> None:
    freed: list[bool] = []

    class Noting(BodyFlow):
        def made_room(self) -> None:
            freed.append(self.full)

    flow = Noting(10)

    states: list[bool] = []
    steps: list[Callable[[], None]] = [
        lambda: flow.give(11),
        flow.begin,
        lambda: flow.release(1),
        lambda: flow.give(5),
        flow.end,
    ]
    for step in steps:
        step()
        states.append(flow.full)

    assert states == [False, True, False, True, False]
    assert freed == [False, False]


async def _upload(connection: ConnectionSettings, size: int, *, paced: bool) -> int:
    """Upload to a handler that reads the first part and then waits; return how much of it the client could send."""
    app = Quart(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None
    if paced:
        app.request_class = PacedRequest
    go_on = asyncio.Event()
    sent = 0

    @app.post("/upload")
    async def upload() -> Response:
        total = 0
        async for data in request.body:
            total += len(data)
            await go_on.wait()
        return Response(str(total))

    async with serving(app, asgi=True, connection=connection) as server:
        client = await server.connect()

        async def push() -> None:
            nonlocal sent
            await client.send(_post(b"/upload", size))
            for _ in range(size // 10_000):
                await client.send(b"x" * 10_000)
                sent += 10_000

        pushing = asyncio.create_task(push())
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.15)
        waiting = sent
        go_on.set()
        status, _, body = await client.response()
        await pushing
        assert (status, int(body)) == (200, size)
    return waiting


async def test_S37_an_upload_waits_at_the_client_until_it_is_read() -> None:
    size = 20_000_000

    # the sockets' own buffers, at most about 10 MB on loopback, hold a part of it as well
    assert await _upload(ConnectionSettings(), size, paced=True) < 0.75 * size


async def test_a_paced_body_is_whole_when_it_is_awaited_whole() -> None:
    app = Quart(__name__)
    app.request_class = PacedRequest

    @app.post("/upload")
    async def upload() -> Response:
        return Response(str(len(await request.get_data())))

    async with serving(app, asgi=True, connection=ConnectionSettings(body_held=1000)) as server:
        client = await server.connect()
        await client.send(_post(b"/upload", 1_000_000) + b"x" * 1_000_000)

        assert (await client.response())[2] == b"1000000"


@pytest.mark.parametrize("leave", ["fin", "rst"])
async def test_R10_a_client_that_leaves_an_upload_nobody_reads_ends_the_handler(leave: str) -> None:
    app = Quart(__name__)
    app.request_class = PacedRequest
    app.config["MAX_CONTENT_LENGTH"] = None
    reading, ended = asyncio.Event(), asyncio.Event()

    @app.post("/upload")
    async def upload() -> Response:
        try:
            async for _ in request.body:
                reading.set()
                await asyncio.Event().wait()
            return Response("never")
        finally:
            ended.set()

    async with serving(app, asgi=True, connection=ConnectionSettings(body_held=10_000)) as server:
        client = await server.connect()
        await client.send(_post(b"/upload", 10_000_000) + b"x" * 200_000)
        await asyncio.wait_for(reading.wait(), WAIT)
        await asyncio.sleep(0.1)  # until the server has stopped reading
        start = time.monotonic()
        if leave == "fin":
            client.leave()
        else:
            client.reset()
        await asyncio.wait_for(ended.wait(), WAIT)

    assert time.monotonic() - start < 1.0


async def test_a_request_whose_body_is_here_has_all_that_quarts_own_has() -> None:
    scope: Any = {
        "type": "http", "method": "post", "scheme": "http", "path": "//path", "query_string": b"a=1", "http_version": "1.1",
        "server": ("127.0.0.1", 80), "root_path": "/root/", "headers": [], "extensions": {},
    }  # fmt: skip
    headers = Headers({"Remote-Addr": "192.0.2.1", "Content-Length": "4"})

    async def push(path: str, headers: Headers) -> None: ...

    whole = PacedRequest.whole(scope, headers, b"body", None, push)
    quarts = PacedRequest(
        "post", "http", "//path", b"a=1", headers, "/root/", "1.1", scope, body_timeout=None, send_push_promise=push
    )
    assert vars(whole).keys() | {"content_length"} == vars(quarts).keys()
    assert (whole.path, whole.content_length) == ("/path", 4)
    for name in vars(quarts).keys() - {"body", "_parsing_lock"}:
        assert getattr(whole, name) == getattr(quarts, name), name
    assert await whole.get_data() == await whole.get_data(cache=False) == b"body"
    assert await whole.get_data() == b""
    again = PacedRequest.whole(scope, headers, b"body", None, push)
    assert [data async for data in again.body] == [b"body"]
    assert [data async for data in again.body] == []


def test_refusals_are_error_objects_with_what_clients_need() -> None:
    head, _, body = refusal_bytes(PayloadTooLargeError("too much")).partition(b"\r\n\r\n")

    assert json.loads(body)["error"] == {
        "message": "too much",
        "type": "invalid_request_error",
        "param": None,
        "code": "payload_too_large",
    }
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nx-should-retry: false" in head
    assert refusal_bytes(PayloadTooLargeError("too much"), with_body=False).endswith(b"\r\n\r\n")


def test_refusals_tell_nothing_of_what_is_not_meant_for_callers() -> None:
    assert b"secret" not in refusal_bytes(ValueError("secret"))
