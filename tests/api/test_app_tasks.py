"""Runs of the app and their messages."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable

from chat2api.api.app_tasks import ClientLeftError, Inbox
from chat2api.api.connection import ConnectionSettings
from chat2api.api.guards import BodyFlow
from tests.api.raw_http import (
    WAIT,
    send_chunk,
    serving,
    start_stream,
)

H = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /" + H + b"\r\n"
CHUNKED = b"POST /" + H + b"Transfer-Encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def _unwatched() -> Iterator[None]:
    yield


def _inbox(limit: int = 10, flow: BodyFlow | None = None) -> Inbox:
    return Inbox(limit, flow if flow is not None else BodyFlow(limit), lambda: None, _unwatched)


def _part(body: bytes) -> ASGIReceiveEvent:
    return {"type": "http.request", "body": body, "more_body": True}


DISCONNECT: ASGIReceiveEvent = {"type": "http.disconnect"}


async def test_messages_come_out_in_order() -> None:
    inbox = _inbox()
    await inbox.put(_part(b"1"))
    await inbox.put(_part(b"2"))

    assert [await inbox.get(), await inbox.get()] == [_part(b"1"), _part(b"2")]


async def test_a_full_inbox_makes_the_reading_side_wait_until_something_is_taken() -> None:
    inbox = _inbox(limit=10)
    await inbox.put(_part(b"x" * 100))  # a single message always fits
    second = asyncio.create_task(inbox.put(_part(b"y")))
    await asyncio.sleep(0)
    assert not second.done()

    await inbox.get()
    await asyncio.wait_for(second, WAIT)


async def test_a_disconnect_overtakes_is_told_for_ever_and_frees_the_reading_side() -> None:
    inbox = _inbox(limit=10)
    await inbox.put(_part(b"x" * 100))
    second = asyncio.create_task(inbox.put(_part(b"y")))
    await asyncio.sleep(0)
    await inbox.put(DISCONNECT)

    assert [await inbox.get() for _ in range(3)] == [DISCONNECT] * 3
    await asyncio.wait_for(second, WAIT)


async def test_a_disconnect_wakes_an_app_that_waits() -> None:
    inbox = _inbox()
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    await inbox.put(DISCONNECT)

    assert await asyncio.wait_for(waiting, WAIT) == DISCONNECT


async def test_a_reader_of_the_body_that_reports_is_given_no_more_than_it_reads() -> None:
    flow = BodyFlow(10)
    flow.begin()
    inbox = _inbox(limit=1000, flow=flow)
    await inbox.put(_part(b"x" * 11))
    await inbox.put(_part(b"y"))
    assert await inbox.get() == _part(b"x" * 11)
    second = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    assert not second.done()

    flow.release(11)
    assert await asyncio.wait_for(second, WAIT) == _part(b"y")


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
