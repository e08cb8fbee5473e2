"""HTTP/1.1 by raw sockets: what is refused, what is answered, and responses that fail."""

import asyncio
import contextvars
import logging
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

from chat2api.api.connection import ConnectionSettings
from chat2api.api.hangup import ClientLeftError
from tests.api.raw_http import (
    WAIT,
    answer,
    echo,
    error_of,
    read_body,
    send_chunk,
    serving,
    start_stream,
)

H = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /" + H + b"\r\n"
CHUNKED = b"POST /" + H + b"Transfer-Encoding: chunked\r\n\r\n"

# ---------------------------------------------------------------------------------------------------------------------
# Requests that two programs could read differently


SMUGGLING: list[tuple[bytes, int]] = [
    # framing
    (b"POST /" + H + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
    (b"POST /" + H + b"Content-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    (b"POST /" + H + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    (b"POST /" + H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: 3,4\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: +3\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: -3\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: 0x3\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: 3 3\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: 1_0\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length:\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: 3\xa0\r\n\r\nabc", 400),
    (b"POST /" + H + b"Content-Length: \xb2\r\n\r\nab", 400),
    (b"POST /" + H + b"Content-Length: 99999999999999999999999\r\n\r\nabc", 400),
    (b"POST /" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    (b"POST /" + H + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST /" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST /" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST /" + H + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501),
    (b"POST /" + H + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 501),
    (b"POST /" + H + b"Transfer-Encoding:\r\n\r\n", 501),
    (b"POST /" + H + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    # names and values
    (b"POST /" + H + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /" + H + b"Content-Length : 3\r\n\r\nabc", 400),
    (b"GET /" + H + b" x: 1\r\n\r\n", 400),
    (b"GET /" + H + b"x: 1\r\n 2\r\n\r\n", 400),
    (b"GET /" + H + b"x: 1\r\n\t2\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    (b"GET /" + H + b"x\r\n\r\n", 400),
    (b"GET /" + H + b": 1\r\n\r\n", 400),
    (b"GET /" + H + b"x y: 1\r\n\r\n", 400),
    (b"GET /" + H + b"x\x00: 1\r\n\r\n", 400),
    (b"GET /" + H + b"x(): 1\r\n\r\n", 400),
    (b"GET /" + H + b"\xc3\xa9: 1\r\n\r\n", 400),
    (b"GET /" + H + b"x: a\x00b\r\n\r\n", 400),
    (b"GET /" + H + b"x: a\rb\r\n\r\n", 400),
    (b"GET /" + H + b"x: a\r\r\n\r\n", 400),
    (b"GET /" + H + b"x: a\x1b[0m\r\n\r\n", 400),
    (b"GET /" + H + b"x: a\x7fb\r\n\r\n", 400),
    # line ends
    (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n\n", 400),
    (b"GET / HTTP/1.1\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\rHost: localhost\r\r\n\r\n", 400),
    (b"GET /" + H + b"x: a\nContent-Length: 3\r\n\r\nabc", 400),
    # hosts
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET /" + H + b"Host: other\r\n\r\n", 400),
    (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    (b"GET http://other/" + H + b"\r\n", 400),
    (b"GET http://localhost@other/" + H + b"\r\n", 400),
    # request lines
    (b"GET /a b" + H + b"\r\n", 400),
    (b"GET  /" + H + b"\r\n", 400),
    (b"GET\t/" + H + b"\r\n", 400),
    (b"GET /\x00" + H + b"\r\n", 400),
    (b"GET /\xff" + H + b"\r\n", 400),
    (b"GET /#a" + H + b"\r\n", 400),
    (b"GET ?x" + H + b"\r\n", 400),
    (b"GET a" + H + b"\r\n", 400),
    (b"GET file:///etc/passwd" + H + b"\r\n", 400),
    (b"G@T /" + H + b"\r\n", 400),
    (b"GET /\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / http/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/11\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", 505),
    (b"GET / HTTP/0.9\r\nHost: localhost\r\n\r\n", 505),
    (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"CONNECT localhost:80" + H + b"\r\n", 405),
    (b"TRACE /" + H + b"\r\n", 405),
    (b"POST /" + H + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417),
    # chunks
    (CHUNKED + b"3\nabc\n0\n\n", 400),
    (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    (CHUNKED + b"3\r\nabc\n0\r\n\r\n", 400),
    (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b"3_0\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b"\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b"3;" + b"a" * 2000 + b"\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b"ffffffffffffffffffff\r\nabc\r\n0\r\n\r\n", 400),
    (CHUNKED + b"0\r\nx: 1\n\r\n", 400),
    (CHUNKED + b"0\r\n folded: 1\r\n\r\n", 400),
    (CHUNKED + b"0\r\nx : 1\r\n\r\n", 400),
]


async def test_F8_S39_smuggling_requests_are_refused_and_what_follows_is_never_read() -> None:
    reached: list[str] = []

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        reached.append(scope["path"])
        if await read_body(receive) is not None:
            await answer(send)

    assert len(SMUGGLING) >= 40
    async with serving(app, connection=ConnectionSettings(linger_timeout=0.05)) as server:
        for request, status in SMUGGLING:
            response = await server.exchange(request + b"GET /smuggled" + H + b"\r\n")

            assert (error_of(response)[0], request) == (status, request)
            assert response.count(b"\r\nx-request-id") == 1

    assert "/smuggled" not in reached


# ---------------------------------------------------------------------------------------------------------------------
# HTTP/1.1 as it should be


async def test_a_connection_is_used_again() -> None:
    async with serving(echo) as server:
        client = await server.connect()
        for number in range(5):
            await client.send(b"POST /%d" % number + H + b"Content-Length: 3\r\n\r\nab%d" % number)

            assert (await client.response())[2] == b"POST /%d ab%d" % (number, number)


async def test_pipelined_requests_with_bodies_of_any_bytes_are_answered_in_order() -> None:
    hostile = b"\n\r\n\r\nGET /x HTTP/1.1\r\n\x00\xff"
    requests = [
        GET,
        b"POST /l" + H + b"Content-Length: %d\r\n\r\n" % len(hostile) + hostile,
        b"POST /c" + H + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(hostile) + hostile + b"\r\n0\r\n\r\n",
        b"HEAD /h" + H + b"\r\n",
        b"GET /last" + H + b"\r\n",
    ]
    async with serving(echo) as server:
        client = await server.connect()
        await client.send(b"".join(requests))

        assert (await client.response())[2] == b"GET / "
        assert (await client.response())[2] == b"POST /l " + hostile
        assert (await client.response())[2] == b"POST /c " + hostile
        assert b"content-length: 8" in await client.until(b"\r\n\r\n")
        assert (await client.response())[2] == b"GET /last "


async def test_a_stream_is_chunked_ends_cleanly_and_leaves_the_connection_open() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start_stream(send)
        for number in range(40):
            await send_chunk(send, b"data: %d\n\n" % number)
        await send_chunk(send, b"")
        await send_chunk(send, b"x" * 200_000)
        await send_chunk(send, b"end", more=False)

    async with serving(app) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(GET)
            status, headers, body = await client.response()

            assert (status, headers["transfer-encoding"]) == (200, "chunked")
            assert body == b"".join(b"data: %d\n\n" % number for number in range(40)) + b"x" * 200_000 + b"end"


async def test_each_chunk_arrives_when_it_is_sent() -> None:
    go_on = asyncio.Semaphore(0)

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start_stream(send)
        await go_on.acquire()
        for _ in range(3):
            await send_chunk(send, b"tick")
            await go_on.acquire()
        await send_chunk(send, b"", more=False)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        for _ in range(3):
            go_on.release()
            assert await client.until(b"tick\r\n") == b"4\r\ntick\r\n"
        go_on.release()
        assert await client.until(b"\r\n\r\n") == b"0\r\n\r\n"


async def test_http_1_0_gets_its_body_unframed_and_the_end_of_the_connection() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start_stream(send)
        await send_chunk(send, b"one")
        await send_chunk(send, b"two", more=False)

    async with serving(app) as server:
        response = await server.exchange(b"GET / HTTP/1.0\r\n\r\n")

    assert response.endswith(b"\r\n\r\nonetwo")
    assert b"chunked" not in response


@pytest.mark.parametrize("status", [204, 304])
async def test_responses_without_a_body_have_none(status: int) -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send_chunk(send, b"never", more=True)
        await send_chunk(send, b"never", more=False)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET + GET)

        for _ in range(2):
            head = await client.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d" % status)


async def test_head_of_a_stream_has_no_body() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start_stream(send)
        await send_chunk(send, b"body" if scope["method"] == "GET" else b"never")
        await send_chunk(send, b"", more=False)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(b"HEAD /" + H + b"\r\n" + GET)

        await client.until(b"\r\n\r\n")
        assert (await client.response())[2] == b"body"


async def test_F12_h2c_is_not_spoken_an_upgrade_is_ignored() -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    async with serving(echo) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(b"GET /up" + H + upgrade)

            status, _, body = await client.response()
            assert (status, body) == (200, b"GET /up ")


async def test_expect_continue_is_answered_when_the_app_wants_the_body() -> None:
    wanted = asyncio.Event()

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await wanted.wait()
        await echo(scope, receive, send)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(b"POST /" + H + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        wanted.set()
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        assert (await client.response())[2] == b"POST / abc"


async def test_an_app_that_refuses_before_reading_sends_no_continue() -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await answer(send, b"no", 401)

    async with serving(app, connection=ConnectionSettings(linger_timeout=0.05)) as server:
        response = await server.exchange(b"POST /" + H + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")

    assert response.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in response.lower()


async def test_S8_a_pipelined_request_runs_in_a_context_that_knows_nothing_of_the_one_before_it() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        seen.append(who.get())
        who.set(scope["path"])
        await answer(send)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET * 3)
        for _ in range(3):
            await client.response()

    assert seen == ["nobody"] * 3


async def test_more_pipelined_requests_than_are_held_are_all_answered() -> None:
    async with serving(echo, connection=ConnectionSettings(pipelined_held=500)) as server:
        client = await server.connect()
        sending = asyncio.create_task(client.send(b"".join(b"GET /%d" % n + H + b"\r\n" for n in range(800))))
        for number in range(800):
            assert (await client.response())[2] == b"GET /%d " % number
        await sending


# ---------------------------------------------------------------------------------------------------------------------
# Responses that fail


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_stream_that_fails_does_not_look_finished(version: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start_stream(send)
        await send_chunk(send, b"half")
        await asyncio.sleep(0.01)
        raise ValueError("app failed")

    caplog.set_level(logging.CRITICAL, "chat2api.api.http1")
    async with serving(app) as server:
        client = await server.connect()
        await client.send(b"GET / HTTP/" + version + b"\r\nHost: localhost\r\n\r\n")
        received = await client.until(b"half")
        if version == b"1.0":
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
        else:
            received += await client.rest()
            assert received.endswith(b"4\r\nhalf\r\n")


async def test_a_response_shorter_than_it_says_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send_chunk(send, b"half", more=False)

    caplog.set_level(logging.CRITICAL, "chat2api.api.http1")
    async with serving(app) as server:
        assert (await server.exchange(GET + GET)).count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("header", [(b"x-bad", b"a\r\nset-cookie: b"), (b"x\r\ny", b"1"), (b"x", b"\x00")])
async def test_a_header_that_would_split_the_response_becomes_a_500(
    header: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [header]})

    caplog.set_level(logging.CRITICAL, "chat2api.api.http1")
    async with serving(app) as server:
        assert error_of(await server.exchange(GET)) == (500, "internal_error")


@pytest.mark.parametrize("fails", [True, False])
async def test_an_app_that_says_nothing_becomes_a_500(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if fails:
            raise ValueError("app failed")

    caplog.set_level(logging.CRITICAL, "chat2api.api.http1")
    async with serving(app) as server:
        response = await server.exchange(GET)

    assert error_of(response) == (500, "internal_error")
    assert b"app failed" not in response


# ---------------------------------------------------------------------------------------------------------------------
# Clients that have left


async def test_an_app_that_ignores_a_disconnect_is_cancelled_after_a_while() -> None:
    reached, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(app, connection=ConnectionSettings(disconnect_grace=0.05)) as server:
        client = await server.connect()
        await client.send(GET)
        await asyncio.wait_for(reached.wait(), WAIT)
        client.leave()
        await asyncio.wait_for(cancelled.wait(), WAIT)


async def test_sending_to_a_client_that_left_raises() -> None:
    raised: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start_stream(send)
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await send_chunk(send, b"late")
        except OSError as error:
            raised.set_result(error)
            raise

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        client.leave()
        assert isinstance(await asyncio.wait_for(raised, WAIT), ClientLeftError)
