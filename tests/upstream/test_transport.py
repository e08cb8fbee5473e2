import asyncio
import gc
import hashlib
import random
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest

from chat2api.errors import (
    DrainingError,
    TransportError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from chat2api.upstream import readiness
from chat2api.upstream import transport as transport_module
from chat2api.upstream.profiles import profile_for
from chat2api.upstream.readiness import BEAT
from chat2api.upstream.transport import (
    HEADER_LIMIT,
    HELD_LIMIT,
    IDLE_CHANNELS,
    Channel,
    CurlTransport,
    Request,
    Response,
    ResponseStream,
)
from tests.clocks import FakeClock
from tests.origin import Exchange, Handler, Origin, ca_file
from tests.proxies import HttpProxy, Socks5Proxy

SOON = 5.0


class StillClock(FakeClock):
    """A clock whose sleepers sleep for ever: what the housekeeping does is called by hand."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Wire:
    """What the origin speaks."""

    tls: bool
    http2: bool

    def origin(self, handler: Handler) -> Origin:
        return Origin(handler, tls=self.tls, http2=self.http2)


WIRES = {"http1": Wire(False, False), "http1-tls": Wire(True, False), "http2": Wire(True, True)}


@pytest.fixture(params=list(WIRES))
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


@pytest.fixture
async def transport() -> AsyncIterator[CurlTransport]:
    """A transport at whose end no task of ours and no complaint of the loop may be left."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    made = CurlTransport(ca_file=ca_file())
    yield made
    await made.aclose()
    gc.collect(1)
    await asyncio.sleep(0)
    assert complaints == []


def channel(key: str = "account", proxy: str | None = None) -> Channel:
    return Channel(key, proxy, profile_for("account"))


async def fetch(
    transport: CurlTransport, url: str, *, on: Channel | None = None, body: bytes | None = None
) -> Response:
    request = Request("GET" if body is None else "POST", url, (), body)
    return await transport.fetch(on or channel(), request, connect_timeout=SOON, timeout=2 * SOON)


async def open_stream(transport: CurlTransport, url: str, on: Channel | None = None) -> ResponseStream:
    return await transport.open(on or channel(), Request("GET", url), connect_timeout=SOON, headers_timeout=SOON)


async def read_all(stream: ResponseStream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for something that the other side of a socket does; at most SOON seconds."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, f"not so within {SOON} s: {what}"
        await asyncio.sleep(0.001)


async def answer(exchange: Exchange) -> None:
    await exchange.respond(200, [("content-type", "text/plain")])
    await exchange.send(b"echo:" + exchange.seen.body)
    await exchange.finish()


async def hold(exchange: Exchange) -> None:
    """Send headers and a first byte, then nothing more."""
    await exchange.respond(200)
    await exchange.send(b"1")
    await exchange.gone.wait()


async def silence(exchange: Exchange) -> None:
    await exchange.gone.wait()


# Answers


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"{}"), ("POST", b""), ("PUT", b"x" * 300_000)])
async def test_a_request_arrives_whole_and_its_answer_comes_back(
    transport: CurlTransport, wire: Wire, method: str, body: bytes | None
) -> None:
    async with wire.origin(answer) as origin:
        request = Request(method, f"{origin.url}/a?b=c", (("X-Empty", ""), ("X-Full", "1")), body)
        response = await transport.fetch(channel(), request, connect_timeout=SOON, timeout=SOON)
    seen = origin.requests[0]
    assert (response.status, response.body, response.url) == (200, b"echo:" + (body or b""), request.url)
    assert response.headers["content-type"] == "text/plain"
    assert (seen.http, seen.method, seen.target, seen.body) == (
        "HTTP/2" if wire.http2 else "HTTP/1.1",
        method,
        "/a?b=c",
        body or b"",
    )
    assert (seen.header("x-empty"), seen.header("x-full")) == ("", "1")
    assert [value for name, value in seen.headers if name.lower() == "content-length"] == (
        [] if body is None else [str(len(body))]
    )


async def test_an_answer_to_head_has_no_body(transport: CurlTransport) -> None:
    async def head(exchange: Exchange) -> None:
        await exchange.respond(200, [("content-length", "5")])

    async with Origin(head) as origin:
        request = Request("HEAD", origin.url)
        response = await transport.fetch(channel(), request, connect_timeout=SOON, timeout=SOON)
    assert (response.status, response.body) == (200, b"")


async def test_interim_answers_and_trailers_do_not_show(transport: CurlTransport, wire: Wire) -> None:
    async def interim(exchange: Exchange) -> None:
        await exchange.respond(103, [("link", "x")])
        await exchange.respond(429, [("x-real", "1")])
        await exchange.send(b"body")
        await exchange.finish([("x-trailer", "1")])

    async with wire.origin(interim) as origin:
        response = await fetch(transport, origin.url)
    assert (response.status, response.body, response.headers["x-real"]) == (429, b"body", "1")
    assert not {"link", "x-trailer"} & set(response.headers)


async def test_redirects_are_not_followed(transport: CurlTransport) -> None:
    async def redirect(exchange: Exchange) -> None:
        await exchange.respond(302, [("location", "/elsewhere"), ("content-length", "0")])

    async with Origin(redirect) as origin:
        response = await fetch(transport, origin.url)
    assert (response.status, response.headers["location"], len(origin.requests)) == (302, "/elsewhere", 1)


async def test_a_compressed_answer_is_given_plain(transport: CurlTransport) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"plain text " * 1000) + packer.flush()

    async def compressed(exchange: Exchange) -> None:
        await exchange.respond(200, [("content-encoding", "gzip"), ("content-length", str(len(packed)))])
        await exchange.send(packed)

    async with Origin(compressed) as origin:
        response = await fetch(transport, origin.url)
    assert response.body == b"plain text " * 1000
    assert not {"content-encoding", "content-length"} & set(response.headers)


async def test_S37_an_answer_over_its_limit_is_refused_and_its_transfer_stopped(
    transport: CurlTransport, wire: Wire
) -> None:
    exchanges: list[Exchange] = []

    async def endless(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await exchange.respond(200)
        while True:
            await exchange.send(b"x" * 65536)

    async with wire.origin(endless) as origin:
        request = Request("GET", origin.url)
        with pytest.raises(UpstreamProtocolError, match="longer than 1000000 bytes"):
            await transport.fetch(channel(), request, connect_timeout=SOON, timeout=SOON, max_bytes=1_000_000)
        async with asyncio.timeout(SOON):
            await exchanges[0].gone.wait()


async def test_a_head_without_end_is_refused(transport: CurlTransport) -> None:
    async def long_head(exchange: Exchange) -> None:
        fields = [(f"x-{number}", "y" * 1000) for number in range(HEADER_LIMIT // 1000)]
        await exchange.respond(200, fields)

    async with Origin(long_head) as origin:
        with pytest.raises(UpstreamProtocolError, match="headers are too long"):
            await fetch(transport, origin.url)


async def test_events_come_as_they_are_sent_and_in_order(transport: CurlTransport, wire: Wire) -> None:
    step = asyncio.Event()

    async def stepped(exchange: Exchange) -> None:
        await exchange.respond(200)
        for number in range(50):
            await exchange.send(b"data: %d\n\n" % number)
            await step.wait()
            step.clear()
        await exchange.finish()

    async with wire.origin(stepped) as origin:
        stream = await open_stream(transport, origin.url)
        for number in range(50):
            async with asyncio.timeout(SOON):
                assert await stream.read() == b"data: %d\n\n" % number
            step.set()
        assert await stream.read() == b""
        assert await stream.read() == b""
        await stream.aclose()


async def test_read_gives_all_that_has_arrived_at_once(transport: CurlTransport) -> None:
    async def burst(exchange: Exchange) -> None:
        await exchange.respond(200)
        for number in range(200):
            await exchange.send(b"%06d" % number)
        await exchange.finish()

    async with Origin(burst) as origin:
        stream = await open_stream(transport, origin.url)
        await asyncio.sleep(0.05)
        reads = [await stream.read(), await stream.read()]
        await stream.aclose()
    assert reads == [b"".join(b"%06d" % number for number in range(200)), b""]


async def test_bytes_are_handed_over_as_they_come_until_the_taker_has_enough(
    transport: CurlTransport, wire: Wire
) -> None:
    doors = [asyncio.Event() for _ in range(3)]

    async def stepped(exchange: Exchange) -> None:
        await exchange.respond(200)
        for door in doors:
            await door.wait()
            await exchange.send(b"piece")
        await exchange.finish()

    async with wire.origin(stepped) as origin:
        stream = await open_stream(transport, origin.url)
        taken: list[bytes] = []

        def take(data: bytes) -> bool:
            taken.append(data)
            return len(taken) < 2

        passing = asyncio.ensure_future(stream.pass_on(take))
        for number, door in enumerate(doors[:2], 1):
            door.set()
            await until(lambda number=number: len(taken) == number, f"piece {number} is taken")  # type: ignore[misc]
        assert await passing is True
        doors[2].set()
        assert await stream.read() == b"piece"
        assert await stream.pass_on(take) is False
        await stream.aclose()
    assert taken == [b"piece", b"piece"]


async def test_what_a_taker_raises_is_raised_where_the_bytes_are_awaited(transport: CurlTransport) -> None:
    door = asyncio.Event()

    async def two_pieces(exchange: Exchange) -> None:
        await exchange.respond(200)
        await door.wait()
        await exchange.send(b"piece")
        await asyncio.Event().wait()

    def refuse(data: bytes) -> bool:
        raise UpstreamProtocolError("not to be read")

    async with Origin(two_pieces) as origin:
        stream = await open_stream(transport, origin.url)
        passing = asyncio.ensure_future(stream.pass_on(refuse))
        await asyncio.sleep(0)
        door.set()
        with pytest.raises(UpstreamProtocolError):
            await passing
        await stream.aclose()


async def test_F4_every_read_lets_other_tasks_run(transport: CurlTransport) -> None:
    async def chunk(exchange: Exchange) -> None:
        await exchange.respond(200)
        await exchange.send(b"x")
        await exchange.finish()

    async with Origin(chunk) as origin:
        stream = await open_stream(transport, origin.url)
        await asyncio.sleep(0.05)
        turns: list[int] = []
        for _ in range(3):
            asyncio.get_running_loop().call_soon(turns.append, 1)
            before = len(turns)
            await stream.read()
            assert len(turns) == before + 1
        await stream.aclose()


# Cancelling


@asynccontextmanager
async def reading(transport: CurlTransport, url: str) -> AsyncIterator[asyncio.Task[None]]:
    """Run a reader that reads for ever and always closes its stream, as the program does."""

    async def read() -> None:
        stream = await open_stream(transport, url)
        try:
            while await stream.read():
                pass
        finally:
            await stream.aclose()

    task = asyncio.get_running_loop().create_task(read())
    yield task
    task.cancel()
    await asyncio.wait([task])


async def test_F2_R10_cancelling_before_the_headers_stops_upstream(transport: CurlTransport, wire: Wire) -> None:
    exchanges: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await exchange.gone.wait()

    async with wire.origin(handler) as origin, reading(transport, origin.url) as task:
        await until(lambda: bool(exchanges), "the request arrived")
        task.cancel()
        async with asyncio.timeout(SOON):
            await exchanges[0].gone.wait()


async def test_F1_R10_cancelling_a_stalled_stream_stops_upstream(transport: CurlTransport, wire: Wire) -> None:
    exchanges: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await hold(exchange)

    async with wire.origin(handler) as origin, reading(transport, origin.url) as task:
        await until(lambda: bool(exchanges), "the request arrived")
        await asyncio.sleep(0.02)
        task.cancel()
        async with asyncio.timeout(SOON):
            await exchanges[0].gone.wait()


async def test_R10_cancelling_in_the_middle_of_a_push_stops_upstream(transport: CurlTransport, wire: Wire) -> None:
    exchanges: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await exchange.respond(200)
        while True:
            await exchange.send(b"x" * 16384)
            await asyncio.sleep(0)

    async with wire.origin(handler) as origin, reading(transport, origin.url) as task:
        await until(lambda: bool(exchanges), "the request arrived")
        await asyncio.sleep(0.02)
        task.cancel()
        async with asyncio.timeout(SOON):
            await exchanges[0].gone.wait()


async def test_R10_closing_a_paused_stream_stops_upstream(transport: CurlTransport, wire: Wire) -> None:
    exchanges: list[Exchange] = []
    sent = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal sent
        exchanges.append(exchange)
        await exchange.respond(200)
        while True:
            await exchange.send(b"x" * 65536)
            sent += 65536

    async with wire.origin(handler) as origin:
        stream = await open_stream(transport, origin.url)
        await until(lambda: sent > HELD_LIMIT, "more was sent than may be held")
        await stream.aclose()
        await stream.aclose()
        async with asyncio.timeout(SOON):
            await exchanges[0].gone.wait()


async def test_R10_cancelling_while_connecting_leaves_no_connection(transport: CurlTransport) -> None:
    """A listener whose queue of connections is full never completes the next handshake."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        async with reading(transport, f"https://127.0.0.1:{port}/") as task:
            await asyncio.sleep(0.05)  # accepted by the kernel: this one waits for the TLS greeting
            descriptors = psutil.Process().num_fds()
            started = time.perf_counter()
            task.cancel()
            await asyncio.wait([task])
            assert time.perf_counter() - started < 1.0
            assert psutil.Process().num_fds() < descriptors


@pytest.mark.alone
async def test_R10_the_upstream_sees_a_cancel_within_milliseconds(transport: CurlTransport, wire: Wire) -> None:
    left: list[float] = []
    arrived = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.respond(200)
        await exchange.send(b"1")
        arrived.set()
        await exchange.gone.wait()
        left.append(time.perf_counter())

    async with wire.origin(handler) as origin:
        delays = []
        for number in range(50):
            stream = await open_stream(transport, origin.url)
            await stream.read()
            started = time.perf_counter()
            await stream.aclose()
            await until(lambda number=number: len(left) > number, "upstream noticed")  # type: ignore[misc]
            delays.append(left[-1] - started)
    delays.sort()
    assert delays[25] < 0.05
    assert delays[-2] < 0.25


async def test_R10_two_hundred_cancels_leave_nothing_behind(transport: CurlTransport, wire: Wire) -> None:
    choose = random.Random(7)

    async def handler(exchange: Exchange) -> None:
        if exchange.seen.target == "/silent":
            await exchange.gone.wait()
        else:
            await hold(exchange)

    async with wire.origin(handler) as origin:
        warm = await open_stream(transport, origin.url)
        await warm.aclose()
        descriptors, tasks = psutil.Process().num_fds(), len(asyncio.all_tasks())
        for _ in range(200):
            async with reading(transport, origin.url + choose.choice(["/", "/silent"])) as task:
                await asyncio.sleep(choose.choice([0, 0, 0.001, 0.003]))
                task.cancel()
        if not wire.http2:
            async with asyncio.timeout(SOON):
                await origin.quiet.wait()
        # The origin lives in this process as well, so its handlers and sockets are counted too.
        await until(lambda: len(asyncio.all_tasks()) <= tasks, "tasks are gone")
        await until(lambda: psutil.Process().num_fds() <= descriptors + 2, "descriptors are back")


async def test_a_reader_that_waits_learns_of_the_close_by_another_task(transport: CurlTransport) -> None:
    async with Origin(hold) as origin:
        stream = await open_stream(transport, origin.url)
        await stream.read()
        waiting = asyncio.get_running_loop().create_task(stream.read())
        await asyncio.sleep(0)
        await stream.aclose()
        with pytest.raises(TransportError):
            await waiting


async def test_a_transfer_that_waited_for_a_cancelled_connection_makes_its_own(transport: CurlTransport) -> None:
    """HTTP/2 requests wait for the first one's connection; when that one leaves, they must not wait for ever."""
    async with Origin(answer, tls=True, http2=True) as origin:
        tasks = [asyncio.get_running_loop().create_task(fetch(transport, origin.url)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()
        async with asyncio.timeout(SOON):
            answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(item, Response) for item in answers] == [False, True, True, True, True]


async def test_a_first_connection_that_hangs_holds_the_others_up_for_a_moment_only(
    transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "FIRST_CONNECTION_WAIT", 0.1)
    async with HttpProxy(mode="stall") as proxy:
        on = channel(proxy=proxy.url())
        requests = [fetch(transport, "https://127.0.0.1:1/", on=on) for _ in range(3)]
        tasks = [asyncio.get_running_loop().create_task(request) for request in requests]
        await until(lambda: proxy.connections >= 2, "the others do not wait for the first any more")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_requests_that_wait_for_a_first_connection_end_with_the_transport(transport: CurlTransport) -> None:
    async with HttpProxy(mode="stall") as proxy:
        on = channel(proxy=proxy.url())
        requests = [fetch(transport, "https://127.0.0.1:1/", on=on) for _ in range(3)]
        tasks = [asyncio.get_running_loop().create_task(request) for request in requests]
        await until(lambda: proxy.connections == 1, "the first one connects")
        await transport.aclose()
        async with asyncio.timeout(SOON):
            ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [TransportError, DrainingError, DrainingError]


# Back-pressure


async def test_F3_R12_a_reader_that_stops_holds_little_and_then_gets_every_byte(
    transport: CurlTransport, wire: Wire
) -> None:
    block = random.Random(3).randbytes(1 << 20)
    sent = 0

    async def push(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.respond(200)
        for _ in range(40):
            await exchange.send(block)
            sent += len(block)
        await exchange.finish()

    async with wire.origin(push) as origin:
        stream = await open_stream(transport, origin.url)
        before = psutil.Process().memory_info().rss
        seen = -1
        while seen != sent:  # until the push stands still
            seen = sent
            await asyncio.sleep(0.1)
        assert sent < 12 << 20, "socket buffers and HTTP/2's window, not the whole answer"
        assert psutil.Process().memory_info().rss - before < 12 << 20
        digest, first = hashlib.sha256(), await stream.read()
        assert len(first) <= HELD_LIMIT + 16384
        digest.update(first)
        while part := await stream.read():
            digest.update(part)
        await stream.aclose()
    assert digest.digest() == hashlib.sha256(block * 40).digest()


async def test_R12_a_stalled_reader_does_not_hold_up_its_neighbours(transport: CurlTransport) -> None:
    async def push(exchange: Exchange) -> None:
        await exchange.respond(200)
        for _ in range(64):
            await exchange.send(b"x" * 65536)
        await exchange.finish()

    async with Origin(push, tls=True, http2=True) as origin:
        stalled = await open_stream(transport, origin.url)
        for _ in range(3):
            other = await open_stream(transport, origin.url)
            async with asyncio.timeout(SOON):
                assert len(await read_all(other)) == 64 * 65536
            await other.aclose()
        assert origin.connections == 1
        assert len(await read_all(stalled)) == 64 * 65536
        await stalled.aclose()


# Early ends


async def _short(exchange: Exchange) -> None:
    await exchange.respond(200, [("content-length", "10")])
    await exchange.send(b"abc")
    exchange.close()


async def _no_terminator(exchange: Exchange) -> None:
    await exchange.respond(200)
    await exchange.send(b"abc")
    exchange.close()


async def _reset(exchange: Exchange) -> None:
    await exchange.respond(200)
    await exchange.send(b"abc")
    await asyncio.sleep(0.02)
    exchange.abort()


@pytest.mark.parametrize("cut", [_short, _no_terminator, _reset])
async def test_R14_a_body_that_ends_early_is_an_error(
    transport: CurlTransport, wire: Wire, cut: Callable[[Exchange], Awaitable[None]]
) -> None:
    async with wire.origin(cut) as origin:
        stream = await open_stream(transport, origin.url)
        assert await stream.read() == b"abc"
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                await stream.read()
            assert (caught.value.phase, caught.value.request_sent) == ("body", True)
        await stream.aclose()


async def test_R14_bytes_that_came_before_the_cut_are_given_first(transport: CurlTransport, wire: Wire) -> None:
    async with wire.origin(_reset) as origin:
        stream = await open_stream(transport, origin.url)
        await asyncio.sleep(0.1)
        assert await stream.read() == b"abc"
        with pytest.raises(TransportError):
            await stream.read()
        await stream.aclose()


@pytest.mark.parametrize("body", [b"{}", b"x" * 300_000, b""], ids=["small", "large", "empty"])
@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "pooled"])
@pytest.mark.parametrize("orderly", [False, True], ids=["reset", "closed"])
async def test_R3_a_post_that_upstream_took_and_did_not_answer_is_not_sent_twice(
    transport: CurlTransport, wire: Wire, body: bytes, warm: bool, orderly: bool
) -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.seen.target == "/warm":
            await answer(exchange)
        elif orderly:
            exchange.close()
        else:
            exchange.abort()

    async with wire.origin(handler) as origin:
        if warm:
            await fetch(transport, f"{origin.url}/warm")
        with pytest.raises(TransportError) as caught:
            await fetch(transport, f"{origin.url}/post", body=body)
        assert (caught.value.phase, caught.value.request_sent) == ("headers", True)
        assert [seen.target for seen in origin.requests].count("/post") == 1


async def test_a_pooled_connection_that_upstream_closed_is_replaced_unnoticed(
    transport: CurlTransport, wire: Wire
) -> None:
    async def last(exchange: Exchange) -> None:
        await answer(exchange)
        exchange.close()

    async with wire.origin(last) as origin:
        for number in range(3):
            assert (await fetch(transport, origin.url, body=b"%d" % number)).body == b"echo:%d" % number
            await asyncio.sleep(0.02)
        assert origin.connections == 3


# Timeouts and failures to connect


async def test_R1_an_upstream_that_does_not_answer_ends_at_the_headers_limit(
    transport: CurlTransport, wire: Wire
) -> None:
    async with wire.origin(silence) as origin:
        started = time.perf_counter()
        with pytest.raises(UpstreamTimeoutError) as caught:
            await transport.open(channel(), Request("GET", origin.url), connect_timeout=0.2, headers_timeout=0.4)
        assert caught.value.phase == "headers"
        assert 0.39 < time.perf_counter() - started < 4.0
        if not wire.http2:
            async with asyncio.timeout(SOON):
                await origin.quiet.wait()


async def test_R1_a_handshake_that_stalls_ends_at_the_connect_limit(transport: CurlTransport) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        started = time.perf_counter()
        with pytest.raises(UpstreamTimeoutError) as caught:
            await transport.open(channel(), Request("GET", url), connect_timeout=0.3, headers_timeout=0.1)
        assert caught.value.phase == "connect"
        assert 0.29 < time.perf_counter() - started < 3.0


async def test_R1_a_fetch_has_a_limit_for_the_whole_answer(transport: CurlTransport) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.respond(200)
        while True:
            await exchange.send(b".")
            await asyncio.sleep(0.02)

    async with Origin(drip) as origin:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await transport.fetch(channel(), Request("GET", origin.url), connect_timeout=SOON, timeout=0.2)
        assert caught.value.phase == "whole"
        async with asyncio.timeout(SOON):
            await origin.quiet.wait()


async def test_an_untrusted_certificate_is_a_tls_failure() -> None:
    untrusting = CurlTransport()
    async with Origin(answer, tls=True) as origin:
        with pytest.raises(TransportError) as caught:
            await fetch(untrusting, origin.url)
    await untrusting.aclose()
    assert (caught.value.phase, caught.value.request_sent) == ("tls", False)
    assert origin.requests == []


async def test_a_name_on_no_certificate_is_a_tls_failure(transport: CurlTransport) -> None:
    async with Origin(answer, tls=True) as origin:
        request = Request("GET", f"https://other.test:{origin.port}/", address="127.0.0.1")
        with pytest.raises(TransportError) as caught:
            await transport.fetch(channel(), request, connect_timeout=SOON, timeout=SOON)
    assert caught.value.phase == "tls"


async def test_a_closed_port_is_a_connect_failure(transport: CurlTransport) -> None:
    with pytest.raises(TransportError) as caught:
        await fetch(transport, f"http://127.0.0.1:{_closed_port()}/")
    assert (caught.value.phase, caught.value.request_sent) == ("connect", False)


async def test_an_unknown_name_is_a_resolve_failure(transport: CurlTransport) -> None:
    with pytest.raises(TransportError) as caught:
        await fetch(transport, "http://no-such-host.invalid/")
    assert (caught.value.phase, caught.value.request_sent) == ("resolve", False)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_S33_a_pinned_address_is_used_instead_of_the_name(transport: CurlTransport) -> None:
    async with Origin(answer) as origin:
        request = Request("GET", f"http://pinned.test:{origin.port}/", address="127.0.0.1")
        response = await transport.fetch(channel(), request, connect_timeout=SOON, timeout=SOON)
        assert response.status == 200
        assert origin.requests[0].header("host") == f"pinned.test:{origin.port}"


# Proxies


async def test_every_kind_of_proxy_carries_a_request(transport: CurlTransport, wire: Wire) -> None:
    async with (
        wire.origin(answer) as origin,
        HttpProxy(credentials="user:p%40ss") as http,
        HttpProxy(tls=True) as https,
        Socks5Proxy(credentials="user:secret") as socks,
    ):
        http.credentials = "user:p@ss"
        for proxy in (
            http.url("user:p%40ss"),
            https.url(),
            socks.url("user:secret"),
            socks.url("user:secret", "socks5"),
        ):
            response = await fetch(transport, origin.url, on=channel(proxy=proxy), body=b"{}")
            assert (response.body, "set-cookie" in response.headers) == (b"echo:{}", False)
        assert [(proxy.connections, proxy.targets[0]) for proxy in (http, https, socks)] == [
            (1, ("127.0.0.1", origin.port)),
            (1, ("127.0.0.1", origin.port)),
            (2, ("127.0.0.1", origin.port)),
        ]
        assert http.methods == ["CONNECT" if wire.tls else "POST"]
        assert len(origin.requests) == 4
        assert all("proxy-authorization" not in seen.names() for seen in origin.requests[1:])
        assert all(seen.header("cookie") is None for seen in origin.requests)


async def test_socks5h_leaves_names_to_the_proxy(transport: CurlTransport) -> None:
    async with Origin(answer) as origin, Socks5Proxy() as socks:
        response = await fetch(transport, f"http://localhost:{origin.port}/", on=channel(proxy=socks.url()))
    assert (response.status, socks.names) == (200, ["localhost"])


@pytest.mark.parametrize("fault", ["credentials", "refuse", "closed"])
@pytest.mark.parametrize("kind", [HttpProxy, Socks5Proxy])
async def test_a_failing_proxy_is_told_from_a_failing_upstream_and_keeps_its_secrets(
    transport: CurlTransport, kind: type[HttpProxy | Socks5Proxy], fault: str
) -> None:
    async with Origin(answer, tls=True) as origin, kind(credentials="user:hunter2") as proxy:
        url = proxy.url("user:wrong-hunter2" if fault == "credentials" else "user:hunter2")
        if fault == "refuse":
            proxy.mode = "refuse"
        elif fault == "closed":
            url = f"{proxy.scheme}://user:hunter2@127.0.0.1:{_closed_port()}"
        on = channel(proxy=url)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, f"{origin.url}/path?token=query-secret", on=on)
        assert (caught.value.phase, caught.value.request_sent) == ("proxy", False)
        for text in (str(caught.value), repr(caught.value), repr(on), repr(caught.value.__cause__)):
            assert "hunter2" not in text
            assert "query-secret" not in text
        assert origin.requests == []


@pytest.mark.parametrize("kind", [HttpProxy, Socks5Proxy])
async def test_R1_a_proxy_that_stalls_ends_at_the_connect_limit(
    transport: CurlTransport, kind: type[HttpProxy | Socks5Proxy]
) -> None:
    async with Origin(answer, tls=True) as origin, kind(mode="stall") as proxy:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await transport.open(
                channel(proxy=proxy.url()), Request("GET", origin.url), connect_timeout=0.2, headers_timeout=SOON
            )
        assert caught.value.phase == "connect"
        await until(lambda: proxy.open_connections == 0, "the connection to the proxy is closed")


async def test_a_407_to_a_plain_request_is_the_proxys(transport: CurlTransport) -> None:
    async with Origin(answer) as origin, HttpProxy(credentials="a:b") as proxy:
        with pytest.raises(TransportError) as caught:
            await fetch(transport, origin.url, on=channel(proxy=proxy.url("a:wrong")))
        assert caught.value.phase == "proxy"


async def test_the_environments_proxies_are_ignored(transport: CurlTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = f"http://127.0.0.1:{_closed_port()}"
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, dead)
    monkeypatch.setenv("no_proxy", "*")
    async with Origin(answer) as origin, HttpProxy() as proxy:
        assert (await fetch(transport, origin.url)).status == 200
        assert (await fetch(transport, origin.url, on=channel(proxy=proxy.url()))).status == 200
        assert proxy.connections == 1


# Channels


async def test_cookies_come_back_on_their_channel_and_on_no_other(transport: CurlTransport, wire: Wire) -> None:
    async def handler(exchange: Exchange) -> None:
        name = exchange.seen.target.strip("/")
        await exchange.respond(200, [("set-cookie", f"did={name}; Path=/"), ("set-cookie", "both=1; Path=/")])
        await exchange.finish()

    async with wire.origin(handler) as origin, HttpProxy() as proxy:
        a, b, a_by_proxy = channel("a"), channel("b"), channel("a", proxy.url())
        await fetch(transport, f"{origin.url}/a", on=a)
        await fetch(transport, f"{origin.url}/b", on=b)
        await fetch(transport, f"{origin.url}/p", on=a_by_proxy)
        assert [seen.header("cookie") for seen in origin.requests] == [None, None, None]
        for on in (a, b, a_by_proxy):
            await fetch(transport, f"{origin.url}/x", on=on)
        sent = [set((seen.header("cookie") or "").split("; ")) for seen in origin.requests[3:]]
        assert sent == [{"did=a", "both=1"}, {"did=b", "both=1"}, {"did=p", "both=1"}]
        given = Request("GET", f"{origin.url}/x", (("Cookie", "did=mine"),))
        await transport.fetch(a, given, connect_timeout=SOON, timeout=SOON)
        assert set((origin.requests[-1].header("cookie") or "").split("; ")) == {"did=mine", "both=1"}


async def test_connections_are_shared_in_a_channel_and_never_between_channels(
    transport: CurlTransport, wire: Wire
) -> None:
    async with wire.origin(answer) as origin:
        for key in ("a", "b", "c"):
            for _ in range(3):
                await fetch(transport, origin.url, on=channel(key))
        assert origin.connections == 3


async def test_a_stampede_shares_one_http2_connection(transport: CurlTransport) -> None:
    async with Origin(answer, tls=True, http2=True) as origin:
        answers = await asyncio.gather(*(fetch(transport, origin.url) for _ in range(60)))
        assert [response.status for response in answers] == [200] * 60
        assert origin.connections == 1


async def test_three_hundred_streams_at_once_all_complete(transport: CurlTransport, wire: Wire) -> None:
    started = 0
    everyone = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        nonlocal started
        await exchange.respond(200)
        started += 1
        if started == 300:
            everyone.set()
        await everyone.wait()
        for number in range(5):
            await exchange.send(b"%d" % number)
            await asyncio.sleep(0)
        await exchange.finish()

    async def one() -> bytes:
        stream = await open_stream(transport, origin.url)
        try:
            return await read_all(stream)
        finally:
            await stream.aclose()

    async with wire.origin(handler) as origin:
        async with asyncio.timeout(2 * SOON):
            assert await asyncio.gather(*(one() for _ in range(300))) == [b"01234"] * 300


async def test_idle_connections_close_while_cookies_stay() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.respond(200, [("set-cookie", "did=1; Path=/")])
        await exchange.finish()

    clock = StillClock()
    transport = CurlTransport(idle_timeout=300, clock=clock)
    async with Origin(handler) as origin:
        await fetch(transport, origin.url)
        clock.advance(299)
        await transport.close_idle()
        assert origin.open_connections == 1
        clock.advance(2)
        await transport.close_idle()
        async with asyncio.timeout(SOON):
            await origin.quiet.wait()
        await fetch(transport, origin.url)
        assert origin.requests[-1].header("cookie") == "did=1"
        clock.advance(86_401)
        await transport.close_idle()
        await fetch(transport, origin.url)
        assert origin.requests[-1].header("cookie") is None
        await transport.aclose()


async def test_a_channel_with_a_running_stream_is_not_idle() -> None:
    clock = StillClock()
    transport = CurlTransport(idle_timeout=300, clock=clock)
    async with Origin(hold) as origin:
        stream = await open_stream(transport, origin.url)
        clock.advance(10_000)
        await transport.close_idle()
        assert (await stream.read(), origin.open_connections) == (b"1", 1)
        await stream.aclose()
        await transport.aclose()


async def test_only_so_many_idle_channels_keep_connections() -> None:
    clock = StillClock()
    transport = CurlTransport(clock=clock)
    async with Origin(answer) as origin:
        for number in range(IDLE_CHANNELS + 5):
            clock.advance(0.1)
            await fetch(transport, origin.url, on=channel(str(number)))
        await transport.close_idle()
        await until(lambda: origin.open_connections == IDLE_CHANNELS, "the oldest were closed")
        await fetch(transport, origin.url, on=channel(str(IDLE_CHANNELS + 4)))
        assert origin.connections == IDLE_CHANNELS + 5, "the newest was kept"
        await transport.aclose()


# Handles that serve one request after another


async def test_nothing_of_one_request_is_left_in_the_next(transport: CurlTransport, wire: Wire) -> None:
    async def echo(exchange: Exchange) -> None:
        await exchange.respond(200)
        await exchange.send(exchange.seen.body)
        await exchange.finish()

    requests = [
        ("POST", (("X-One", "1"), ("Authorization", "Bearer one")), b"a long body" * 100),
        ("POST", (), b"short"),
        ("GET", (), None),
        ("POST", (), b""),
        ("PUT", (("X-One", "2"),), b"put"),
        ("GET", (), None),
        ("DELETE", (), None),
        ("GET", (), b"unusual"),
        ("HEAD", (), None),
        ("POST", (("X-One", "3"),), None),
        ("POST", (), b"another"),
    ]
    async with wire.origin(echo) as origin:
        for number, (method, headers, body) in enumerate(requests * 3):
            request = Request(method, f"{origin.url}/{number}", headers, body)
            response = await transport.fetch(channel(), request, connect_timeout=SOON, timeout=SOON)
            seen = origin.requests[-1]
            assert (seen.method, seen.target, seen.body) == (method, f"/{number}", body or b"")
            assert response.body == (b"" if method == "HEAD" else body or b"")
            given = dict(headers)
            assert (seen.header("x-one"), seen.header("authorization")) == (
                given.get("X-One"),
                given.get("Authorization"),
            )
            declared = None if body is None and method != "POST" else str(len(body or b""))
            assert seen.header("content-length") == declared


async def test_a_pinned_address_serves_its_own_request_only(transport: CurlTransport) -> None:
    async with Origin(answer) as origin:
        name = f"http://pinned.invalid:{origin.port}/"
        request = Request("GET", name, address="127.0.0.1")
        for _ in range(2):
            assert (await transport.fetch(channel(), request, connect_timeout=SOON, timeout=SOON)).status == 200
        with pytest.raises(TransportError) as caught:
            await fetch(transport, name, on=channel("another"))
        assert caught.value.phase == "resolve"


async def test_requests_succeed_after_any_kind_of_failure(transport: CurlTransport, wire: Wire) -> None:
    async def moody(exchange: Exchange) -> None:
        if exchange.seen.target == "/cut":
            await _reset(exchange)
        elif exchange.seen.target == "/silent":
            await exchange.gone.wait()
        elif exchange.seen.target == "/long":
            await exchange.respond(200)
            await exchange.send(b"x" * 100_000)
            await exchange.finish()
        else:
            await answer(exchange)

    async with wire.origin(moody) as origin:
        for path in ("/cut", "/silent", "/long") * 3:
            request = Request("POST", origin.url + path, (), b"{}")
            with pytest.raises(UpstreamError):
                await transport.fetch(channel(), request, connect_timeout=SOON, timeout=0.1, max_bytes=50_000)
            assert (await fetch(transport, origin.url, body=b"{}")).body == b"echo:{}"


# Many streams: beats


@asynccontextmanager
async def many_streams(transport: CurlTransport, url: str, count: int) -> AsyncIterator[list[ResponseStream]]:
    streams = await asyncio.gather(*(open_stream(transport, url) for _ in range(count)))
    yield streams
    for stream in streams:
        await stream.aclose()


@pytest.fixture
def slow_beats(monkeypatch: pytest.MonkeyPatch) -> float:
    """Beats so slow that waiting for one cannot be taken for a busy machine; their seconds."""
    seconds = 50 * BEAT
    monkeypatch.setattr(readiness, "BEAT", seconds)
    return seconds


async def _pace(exchange: Exchange) -> None:
    await exchange.respond(200)
    for number in range(40):
        await exchange.send(b"data: %d\n\n" % number)
        await asyncio.sleep(0.003)
    await exchange.finish()


async def test_R14_many_paced_streams_lose_nothing_keep_their_order_and_wake_their_readers_less_often(
    transport: CurlTransport, wire: Wire, slow_beats: float
) -> None:
    reads = 0

    async def read_counted(stream: ResponseStream) -> bytes:
        nonlocal reads
        parts = []
        while part := await stream.read():
            parts.append(part)
            reads += 1
        return b"".join(parts)

    async with wire.origin(_pace) as origin, many_streams(transport, origin.url, 40) as streams:
        async with asyncio.timeout(2 * SOON):
            texts = await asyncio.gather(*(read_counted(stream) for stream in streams))
    assert texts == [b"".join(b"data: %d\n\n" % number for number in range(40))] * 40
    assert reads < 40 * 40 * 0.8


async def test_requests_are_answered_at_once_while_many_streams_wait_for_beats(
    transport: CurlTransport, wire: Wire, slow_beats: float
) -> None:
    """The best of several turns says it: other work may always make one late, a beat would make all of them late."""

    async def handler(exchange: Exchange) -> None:
        if exchange.seen.target == "/quick":
            await answer(exchange)
            return
        await exchange.respond(200)
        with suppress(ConnectionError):
            while True:
                await exchange.send(b"data: x\n\n")
                await asyncio.sleep(0.008)

    async with wire.origin(handler) as origin, many_streams(transport, origin.url, 50) as streams:
        readers = [asyncio.get_running_loop().create_task(read_all(stream)) for stream in streams]
        await fetch(transport, f"{origin.url}/quick")
        turns = []
        for _ in range(10):
            started = time.perf_counter()
            assert (await fetch(transport, f"{origin.url}/quick")).body == b"echo:"
            turns.append(time.perf_counter() - started)
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
    assert min(turns) < slow_beats / 2


async def test_R10_a_cancel_does_not_wait_for_a_beat(transport: CurlTransport, wire: Wire, slow_beats: float) -> None:
    left: list[float] = []

    async def endless(exchange: Exchange) -> None:
        await exchange.respond(200)
        while not exchange.gone.is_set():
            try:
                await exchange.send(b"data: x\n\n")
            except ConnectionError:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(0.005):
                    await exchange.gone.wait()
        left.append(time.perf_counter())

    async with wire.origin(endless) as origin, many_streams(transport, origin.url, 40) as streams:
        readers = [asyncio.get_running_loop().create_task(read_all(stream)) for stream in streams]
        await asyncio.sleep(0.05)
        delays = []
        for number, (stream, reader) in enumerate(zip(streams, readers, strict=True)):
            started = time.perf_counter()
            await stream.aclose()
            await until(lambda number=number: len(left) > number, "upstream noticed")  # type: ignore[misc]
            delays.append(left[number] - started)
            with pytest.raises(TransportError):
                await reader
        delays.sort()
        assert delays[20] < slow_beats / 2


async def test_R12_a_stalled_reader_among_many_gets_every_byte(transport: CurlTransport, wire: Wire) -> None:
    block = random.Random(5).randbytes(700_000)

    async def push(exchange: Exchange) -> None:
        await exchange.respond(200)
        await exchange.send(block)
        await exchange.finish()

    async with wire.origin(push) as origin, many_streams(transport, origin.url, 20) as streams:
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2 * SOON):
            assert [await read_all(stream) == block for stream in streams] == [True] * 20


# The end


async def test_closing_aborts_what_runs_and_gives_every_descriptor_back(wire: Wire) -> None:
    transport = CurlTransport(ca_file=ca_file())
    async with wire.origin(hold) as origin:
        before = psutil.Process().num_fds()
        streams = [await open_stream(transport, origin.url, channel(str(number % 4))) for number in range(20)]
        for stream in streams:
            await stream.read()
        waiting = asyncio.get_running_loop().create_task(streams[0].read())
        await asyncio.sleep(0)
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(TransportError):
            await waiting
        with pytest.raises(DrainingError):
            await fetch(transport, origin.url)
        for stream in streams:
            await stream.aclose()
        async with asyncio.timeout(SOON):
            await origin.quiet.wait()
        await until(lambda: psutil.Process().num_fds() <= before, "descriptors are back")


async def test_an_idle_transport_wakes_nobody(transport: CurlTransport) -> None:
    async with Origin(answer) as origin:
        for number in range(20):
            await fetch(transport, origin.url, on=channel(str(number)))
        names = sorted(task.get_name() for task in asyncio.all_tasks() if "transport" in task.get_name())
        assert names == ["transport housekeeping"]
        before = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - before < 0.05


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "file:///etc/passwd"),
        Request("GET", "gopher://127.0.0.1:1/_x"),
        Request("GET", "http://user:secret@127.0.0.1/"),
        Request("GET", "/path"),
        Request("get", "http://127.0.0.1/"),
        Request("GET /evil", "http://127.0.0.1/"),
        Request("GET", "http://127.0.0.1/", (("Host", "other.test"),)),
        Request("GET", "http://127.0.0.1/", (("Content-Length", "3"),)),
        Request("GET", "http://127.0.0.1/", (("X", "a\r\nY: b"),)),
        Request("GET", "http://127.0.0.1/", address="127.0.0.1:80:x"),
    ],
    ids=lambda request_: f"{request_.method} {request_.url} {request_.headers}",
)
async def test_F7_S6_what_could_go_elsewhere_than_meant_is_refused(transport: CurlTransport, request_: Request) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        await transport.open(channel(), request_, connect_timeout=SOON, headers_timeout=SOON)
    assert not isinstance(caught.value, UpstreamError)
    assert "secret" not in str(caught.value)


async def test_a_proxy_of_another_scheme_is_refused(transport: CurlTransport) -> None:
    with pytest.raises(ValueError, match="scheme"):
        await fetch(transport, "http://127.0.0.1/", on=channel(proxy="ftp://127.0.0.1:1"))


def test_secrets_do_not_show_when_values_are_printed() -> None:
    request = Request("POST", "https://a.test/?sig=s3cret", (("Authorization", "s3cret"),), b"s3cret")
    assert "s3cret" not in repr(request) + repr(channel(proxy="http://u:s3cret@p.test"))
