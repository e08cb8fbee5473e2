"""Bodies that are sent while they come: in order, within their bounds, and again only while that is possible."""

import asyncio
import hashlib

import pytest

from chat2api.errors import TransportError, UpstreamError
from chat2api.upstream.exchange import Channel, Request
from chat2api.upstream.profiles import API_CLIENT
from chat2api.upstream.transport import CurlTransport
from chat2api.upstream.uploads import KEPT, LIMIT, PAUSE, Upload
from tests.origin import Exchange, Origin, ca_file

CHANNEL = Channel("api", None, API_CLIENT)


def drain(upload: Upload, size: int = 16384) -> bytes:
    pieces = []
    while isinstance(piece := upload.read(size), bytes) and piece:
        pieces.append(piece)
    return b"".join(pieces)


async def test_what_is_put_in_comes_out_in_order() -> None:
    upload = Upload()
    assert upload.read(10) == PAUSE
    await upload.put(b"abc")
    await upload.put(b"defgh")
    assert (upload.read(4), upload.read(10), upload.read(10)) == (b"abcd", b"efgh", PAUSE)
    upload.end()
    assert upload.read(10) == b""
    assert upload.drained


async def test_S37_who_puts_waits_while_too_much_is_unread() -> None:
    upload = Upload()
    put = 0

    async def bring() -> None:
        nonlocal put
        while await upload.put(b"a" * 65536):
            put += 65536

    bringing = asyncio.ensure_future(bring())
    for _ in range(50):
        await asyncio.sleep(0)
    assert KEPT <= put <= KEPT + LIMIT
    read = len(drain(upload))
    for _ in range(50):
        await asyncio.sleep(0)
    assert put - read <= KEPT + LIMIT
    upload.stop()
    await bringing


async def test_a_body_begins_again_until_more_of_it_has_gone_than_is_kept() -> None:
    upload = Upload()
    await upload.put(b"a" * KEPT)
    assert drain(upload) == b"a" * KEPT
    assert upload.restart()
    await upload.put(b"b")
    upload.end()
    assert drain(upload) == b"a" * KEPT + b"b"
    assert not upload.restart()


async def test_R10_what_has_been_sent_whole_is_never_sent_again_by_the_connection() -> None:
    upload = Upload()
    await upload.put(b"abc")
    upload.read(2)
    upload.seek(0, 0)
    assert upload.read(3) == b"abc"
    upload.end()
    with pytest.raises(OSError, match="again"):
        upload.seek(0, 0)
    for offset, origin in ((1, 0), (0, 1)):
        with pytest.raises(OSError, match="again"):
            Upload().seek(offset, origin)


async def test_who_sends_is_woken_when_there_is_something() -> None:
    upload = Upload()
    woken: list[int] = []
    upload.attach(lambda: woken.append(1))
    await upload.put(b"a")
    assert woken == [], "nobody has asked yet"
    assert (upload.read(5), upload.read(5)) == (b"a", PAUSE)
    await upload.put(b"")
    await upload.put(b"b")
    await upload.put(b"c")
    assert woken == [1], "once for all that came since"
    assert (upload.read(5), upload.read(5)) == (b"bc", PAUSE)
    upload.end()
    assert woken == [1, 1]
    upload.detach()


@pytest.mark.parametrize(("known", "http2"), [(True, False), (True, True), (False, True)])
async def test_a_long_body_arrives_as_it_was_whether_its_length_is_known_or_not(known: bool, http2: bool) -> None:
    size = 3_000_000
    digest = hashlib.sha256()

    async def answer(exchange: Exchange) -> None:
        seen = exchange.seen
        await exchange.respond(200)
        framing = seen.header("content-length") or seen.header("transfer-encoding") or ""
        await exchange.send(f"{framing} {hashlib.sha256(seen.body).hexdigest()}".encode())
        await exchange.finish()

    async with Origin(answer, http2=http2, tls=http2) as origin:
        transport = CurlTransport(ca_file=ca_file() if http2 else None)
        upload = Upload(size if known else None)

        async def bring() -> None:
            for number in range(size // 10_000):
                piece = number.to_bytes(2, "big") * 5_000
                digest.update(piece)
                await upload.put(piece)
                if number % 50 == 0:
                    await asyncio.sleep(0.001)  # curl runs dry and is paused
            upload.end()

        bringing = asyncio.ensure_future(bring())
        request = Request("POST", f"{origin.url}/upload", upload=upload)
        answered = await transport.fetch(CHANNEL, request, connect_timeout=5, timeout=20)
        await bringing
        await transport.aclose()
    framing, got = answered.body.decode().split(" ")
    assert got == digest.hexdigest()
    if known:
        assert framing == str(size)


async def test_R10_a_cancelled_upload_ends_its_connection() -> None:
    reached = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        reached.set()

    async with Origin(answer) as origin:
        transport = CurlTransport()
        upload = Upload(10_000)
        await upload.put(b"a" * 5_000)
        request = Request("POST", f"{origin.url}/upload", upload=upload)
        asking = asyncio.ensure_future(transport.fetch(CHANNEL, request, connect_timeout=5, timeout=20))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await upload.put(b"a"), "nobody reads it, but the next attempt may"
        await transport.aclose()
    assert not reached.is_set()


async def test_a_connection_that_breaks_in_the_body_is_an_error_of_sending() -> None:
    async def answer(exchange: Exchange) -> None:
        exchange.abort()

    async with Origin(answer) as origin:
        transport = CurlTransport()
        upload = Upload(4)
        await upload.put(b"abcd")
        upload.end()
        request = Request("POST", f"{origin.url}/upload", upload=upload)
        with pytest.raises(UpstreamError) as caught:
            await transport.fetch(CHANNEL, request, connect_timeout=5, timeout=5)
        assert isinstance(caught.value, TransportError)
        assert caught.value.request_sent
        assert upload.restart()
        await transport.aclose()


async def test_only_a_post_has_an_upload() -> None:
    transport = CurlTransport()
    for request in (
        Request("PUT", "http://127.0.0.1:9/x", upload=Upload()),
        Request("POST", "http://127.0.0.1:9/x", body=b"x", upload=Upload()),
    ):
        with pytest.raises(ValueError, match="upload"):
            await transport.fetch(CHANNEL, request, connect_timeout=5, timeout=5)
    await transport.aclose()
