"""Web sockets as messages: over libcurl in front of a real server, and the frames by themselves."""

import asyncio
import zlib
from collections.abc import AsyncIterator

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from chat2api.errors import TransportError, UpstreamError, UpstreamProtocolError, UpstreamTimeoutError
from chat2api.upstream.profiles import profile_for
from chat2api.upstream.sockets import MESSAGE_LIMIT, FramedSocket, FrameKind
from chat2api.upstream.transfer import HELD_LIMIT
from chat2api.upstream.transport import Channel, CurlTransport, Request, WebSocket
from tests.e2e.harness import until
from tests.origin import Exchange, Origin, ca_file
from tests.proxies import HttpProxy, Socks5Proxy
from tests.upstream.socket_server import CloseConnection, Peer, Ping, Pong, SocketServer, TextMessage

SOON = 5.0
CHANNEL = Channel("account", None, profile_for("account"))


@pytest.fixture
async def transport() -> AsyncIterator[CurlTransport]:
    made = CurlTransport(ca_file=ca_file())
    yield made
    await made.aclose()


async def connect(
    transport: CurlTransport,
    url: str,
    *,
    on: Channel = CHANNEL,
    sub_protocol: str | None = None,
    ping_period: float | None = None,
    timeout: float = SOON,
) -> WebSocket:
    return await transport.connect(
        on,
        url,
        (("Origin", "https://chatgpt.com"),),
        sub_protocol=sub_protocol,
        ping_period=ping_period,
        connect_timeout=timeout,
        headers_timeout=timeout,
    )


async def greet(peer: Peer) -> None:
    await peer.say("hello")


async def wait(peer: Peer) -> None:
    """Say nothing."""


async def echo(peer: Peer) -> None:
    while True:
        event = await peer.events.get()
        if isinstance(event, TextMessage):
            await peer.say(event.data.upper())


# Over libcurl


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_messages_go_both_ways_over_http1_whatever_else_the_server_speaks(
    transport: CurlTransport, tls: bool
) -> None:
    async with SocketServer(echo, tls=tls) as server:
        socket = await connect(transport, server.url)
        for text in ("one", "two", "ä" * 1000):
            socket.send(text.encode())
            assert await asyncio.wait_for(socket.receive(), SOON) == text.upper()
        await socket.aclose()
        (peer,) = server.peers
        assert peer.alpn == ("http/1.1" if tls else None)


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_socket_goes_through_the_channels_proxy(transport: CurlTransport, kind: str) -> None:
    async with SocketServer(greet, tls=True) as server, HttpProxy() if kind == "http" else Socks5Proxy() as proxy:
        on = Channel("account", proxy.url(), profile_for("account"))
        socket = await connect(transport, server.url, on=on)
        assert await socket.receive() == "hello"
        await socket.aclose()


async def test_the_handshake_is_the_browsers(transport: CurlTransport) -> None:
    async with SocketServer(greet, sub_protocol="some.protocol") as server:
        socket = await connect(transport, server.url, sub_protocol="some.protocol")
        await socket.receive()
        await socket.aclose()
        (peer,) = server.peers
    assert peer.request.target == "/socket?token=x"
    assert peer.request.subprotocols == ["some.protocol"]
    assert peer.header_names == [
        "host",
        "upgrade",
        "pragma",
        "cache-control",
        "user-agent",
        "origin",
        "sec-websocket-version",
        "accept-encoding",
        "sec-websocket-key",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "connection",
    ]
    assert f"User-Agent: {CHANNEL.profile.user_agent}\r\n".encode() in peer.head
    assert b"Origin: https://chatgpt.com\r\n" in peer.head


async def test_cookies_of_the_channel_go_with_the_handshake_and_with_no_other(transport: CurlTransport) -> None:
    async def set_cookie(exchange: Exchange) -> None:
        await exchange.respond(200, [("set-cookie", "known=1; Path=/"), ("content-length", "0")])

    async with Origin(set_cookie) as origin, SocketServer(greet) as server:
        request = Request("GET", f"{origin.url}/")
        await transport.fetch(CHANNEL, request, connect_timeout=SOON, timeout=SOON)
        for key in ("account", "stranger"):
            await (await connect(transport, server.url, on=Channel(key, None, CHANNEL.profile))).aclose()
        assert [b"known=1" in peer.head for peer in server.peers] == [True, False]


async def test_a_compressed_message_is_given_plain(transport: CurlTransport) -> None:
    text = "word " * 20_000

    async def talk(peer: Peer) -> None:
        await peer.say(text)
        await peer.say("and more")

    async with SocketServer(talk, compress=True) as server:
        socket = await connect(transport, server.url)
        assert await socket.receive() == text
        assert await socket.receive() == "and more"
        await socket.aclose()


async def test_a_ping_is_answered(transport: CurlTransport) -> None:
    async def ping(peer: Peer) -> None:
        await peer.send(Ping(payload=b"are you there"))
        event = await peer.events.get()
        assert isinstance(event, Pong)
        await peer.say(bytes(event.payload).decode())

    async with SocketServer(ping) as server:
        socket = await connect(transport, server.url)
        assert await asyncio.wait_for(socket.receive(), SOON) == "are you there"
        await socket.aclose()


async def test_pings_go_out_while_nothing_comes(transport: CurlTransport) -> None:
    async def wait_for_pings(peer: Peer) -> None:
        for _ in range(3):
            assert isinstance(await peer.events.get(), Ping)
        await peer.say("three")

    async with SocketServer(wait_for_pings) as server:
        socket = await connect(transport, server.url, ping_period=0.01)
        assert await asyncio.wait_for(socket.receive(), SOON) == "three"
        await socket.aclose()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_R10_closing_a_silent_socket_says_goodbye_and_ends_the_connection(
    transport: CurlTransport, tls: bool
) -> None:
    async with SocketServer(wait, tls=tls) as server:
        socket = await connect(transport, server.url)
        reading = asyncio.ensure_future(socket.receive())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await socket.aclose()
        await socket.aclose()
        (peer,) = server.peers
        await asyncio.wait_for(peer.gone.wait(), SOON)
        goodbye = peer.events.get_nowait()
        assert isinstance(goodbye, CloseConnection)
        assert goodbye.code == 1000


async def test_R10_cancelling_a_handshake_ends_the_connection(transport: CurlTransport) -> None:
    async def hold(exchange: Exchange) -> None:
        await exchange.gone.wait()

    async with Origin(hold) as origin:
        connecting = asyncio.ensure_future(connect(transport, "ws" + origin.url.removeprefix("http")))
        await until(lambda: bool(origin.requests), "the handshake did not arrive")
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await until(lambda: not origin.open_connections, "a connection is left")


async def test_R1_a_handshake_that_is_not_answered_ends_at_its_limit(transport: CurlTransport) -> None:
    async def hold(exchange: Exchange) -> None:
        await exchange.gone.wait()

    async with Origin(hold) as origin:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await connect(transport, "ws" + origin.url.removeprefix("http"), timeout=0.1)
    assert caught.value.phase == "headers"


@pytest.mark.parametrize("status", [200, 401, 404, 503])
async def test_an_answer_that_opens_no_socket_is_an_error(transport: CurlTransport, status: int) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.respond(status, [("content-length", "2")])
        await exchange.send(b"no")

    async with Origin(refuse) as origin:
        with pytest.raises(UpstreamError):
            await connect(transport, "ws" + origin.url.removeprefix("http"))
        await until(lambda: not origin.open_connections, "a connection is left")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ftp://127.0.0.1/", "ws://user:word@127.0.0.1/", "ws:///x"])
async def test_S33_only_a_plain_socket_address_is_connected_to(transport: CurlTransport, url: str) -> None:
    with pytest.raises(ValueError, match="needs a"):
        await connect(transport, url)


async def test_R12_what_nobody_reads_stays_with_the_sender(transport: CurlTransport) -> None:
    sent = 0

    async def flood(peer: Peer) -> None:
        nonlocal sent
        while True:
            await peer.say("x" * 60_000)
            sent += 60_000

    async with SocketServer(flood) as server:
        socket = await connect(transport, server.url)
        before = -1
        async with asyncio.timeout(SOON):
            while before != sent or not sent:
                before = sent
                await asyncio.sleep(0.1)
        assert sent < 16 * 1024 * 1024
        for _ in range(sent // 60_000 + 5 * HELD_LIMIT // 60_000):
            assert await asyncio.wait_for(socket.receive(), SOON) == "x" * 60_000
        await socket.aclose()


async def test_a_server_that_goes_without_a_word_has_broken_off(transport: CurlTransport) -> None:
    async def go(peer: Peer) -> None:
        await peer.say("hello")
        peer.leave()

    async with SocketServer(go) as server:
        socket = await connect(transport, server.url)
        assert await socket.receive() == "hello"
        with pytest.raises(TransportError) as caught:
            await asyncio.wait_for(socket.receive(), SOON)
        assert caught.value.phase == "body"
        with pytest.raises(TransportError):
            socket.send(b"are you there")
        await socket.aclose()


async def test_the_end_of_the_transport_ends_its_sockets(transport: CurlTransport) -> None:
    async with SocketServer(wait) as server:
        socket = await connect(transport, server.url)
        reading = asyncio.ensure_future(socket.receive())
        await asyncio.sleep(0)
        await transport.aclose()
        with pytest.raises(TransportError):
            await reading
        await socket.aclose()


# The frames by themselves


class Wire:
    """The connection of a socket: gives the bytes that the test wrote down, notes what is sent."""

    def __init__(self, *reads: bytes) -> None:
        self.reads = list(reads)
        self.sent: list[tuple[int, bytes]] = []
        self.closed = 0

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self.reads.pop(0) if self.reads else b""

    def send_frame(self, kind: int, payload: bytes) -> None:
        self.sent.append((kind, payload))

    async def aclose(self) -> None:
        self.closed += 1


def frames_of(*events: TextMessage | BytesMessage | CloseConnection) -> bytes:
    server = Connection(ConnectionType.SERVER)
    return b"".join(server.send(event) for event in events)


async def messages_of(socket: FramedSocket) -> list[str]:
    messages = []
    while (message := await socket.receive()) is not None:
        messages.append(message)
    return messages


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_messages_are_whole_wherever_the_bytes_are_cut(size: int) -> None:
    data = frames_of(
        TextMessage(data="one"),
        TextMessage(data="tw", message_finished=False),
        TextMessage(data="", message_finished=False),
        TextMessage(data="ö" * 200),
        TextMessage(data="three"),
        CloseConnection(code=1000),
    )
    wire = Wire(*[data[at : at + size] for at in range(0, len(data), size)])
    assert await messages_of(FramedSocket(wire)) == ["one", "tw" + "ö" * 200, "three"]
    assert wire.sent == [(FrameKind.CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 4401])
async def test_a_close_for_another_reason_than_the_end_is_a_failure(code: int) -> None:
    header = b"\x88\x02" + code.to_bytes(2, "big")
    socket = FramedSocket(Wire(frames_of(TextMessage(data="one")) + header))
    assert await socket.receive() == "one"
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await socket.receive()


async def test_a_message_may_be_as_long_as_the_limit_and_no_longer() -> None:
    halves = [TextMessage(data="x" * (MESSAGE_LIMIT // 2), message_finished=end) for end in (False, True)]
    assert await FramedSocket(Wire(frames_of(*halves))).receive() == "x" * MESSAGE_LIMIT
    more = TextMessage(data="x", message_finished=False)
    with pytest.raises(UpstreamProtocolError, match="longer"):
        await FramedSocket(Wire(frames_of(more, *halves))).receive()


async def test_a_compressed_flood_is_refused_before_it_is_unpacked() -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(b"x" * (200 * MESSAGE_LIMIT)) + packer.flush(zlib.Z_SYNC_FLUSH)
    payload = packed.removesuffix(b"\x00\x00\xff\xff")
    frame = b"\xc1\x7f" + len(payload).to_bytes(8, "big") + payload
    socket = FramedSocket(Wire(frame), "permessage-deflate")
    with pytest.raises(UpstreamProtocolError, match="longer"):
        await socket.receive()


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x81\x00\x00\x00\x00x",
        b"\x83\x01x",
        b"\xc1\x01x",
        b"\x81\x02\xff\xfe",
        b"\x80\x01x",
        frames_of(BytesMessage(data=b"x")),
    ],
    ids=["masked", "unknown", "compressed", "no-text", "continued", "binary"],
)
async def test_what_a_server_may_not_send_is_an_error(data: bytes) -> None:
    wire = Wire(data)
    with pytest.raises(UpstreamError):
        await FramedSocket(wire).receive()
    assert wire.sent == [(FrameKind.CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize(
    "extensions", ["x-other", "permessage-deflate, x", "permessage-deflate; server_max_window_bits=x"]
)
async def test_extensions_that_were_not_offered_are_refused(extensions: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        FramedSocket(Wire(), extensions)


async def test_closing_says_goodbye_once() -> None:
    wire = Wire()
    socket = FramedSocket(wire, ping_period=SOON)
    await socket.aclose()
    await socket.aclose()
    assert wire.sent == [(FrameKind.CLOSE, b"\x03\xe8")]
    assert await socket.receive() is None
