"""Raw requests through two reverse proxies that read HTTP differently: nobody gets another's answer, none reads more than one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

from chat2api.api.connection import ConnectionSettings
from chat2api.api.guards import BodyGuard, BodySettings
from tests.api.raw_http import Client, RunningServer, answer, app_of, read_body, serving

HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

CODINGS = [
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: CHUNKED",
    b"Transfer-Encoding:chunked",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding : chunked",
    b" Transfer-Encoding: chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding\n : chunked",
    b"Transfer-Encoding:\n chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: chunked\x00",
    b"Transfer_Encoding: chunked",
    b'Transfer-Encoding: "chunked"',
    b"X-Empty:\r\nTransfer-Encoding: chunked;q=1",
]
LENGTHS = [
    b"Content-Length: %d",
    b"content-length:%d",
    b"Content-Length: +%d",
    b"Content-Length: 0%d",
    b"Content-Length: %d, 0",
    b"Content-Length: 0\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 0",
    b"Content-Length : %d",
    b" Content-Length: %d",
    b"Content-Length: -%d",
    b"Content-Length: %d 0",
    b"Content-Length: 0x%x",
    b"X: y\nContent-Length: %d",
    b"Content_Length: %d",
]


def corpus() -> Iterator[bytes]:
    """Make raw requests about whose end two readers may differ, with a request hidden where one of them may look."""
    body = CHUNKS + HIDDEN

    def request(lines: bytes, body: bytes) -> bytes:
        return b"POST /outer HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n\r\n" + body

    for coding in CODINGS:
        for length in (None, len(body), 4):
            lines = coding if length is None else b"Content-Length: %d\r\n" % length + coding
            yield request(lines, body)
    for line, size in product(LENGTHS, (len(HIDDEN), 3)):
        yield request(line.replace(b"%x", b"%d") % ((size,) * (line.count(b"%"))), HIDDEN)
    for chunks in (
        b"5\nhello\n0\n\n", b"5;\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n00\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
        b"100000000000000005\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\n\r\n", b"5\r\nhello\r\n0\r\n \r\n\r\n",
    ):  # fmt: skip
        yield request(b"Transfer-Encoding: chunked", chunks + HIDDEN)


@dataclass
class Cut:
    """One request as a proxy reads it: what it sends on, the path, and what it takes for the next request's bytes."""

    sent: bytes
    path: bytes
    rest: bytes


def _end_of_chunks(data: bytes, line_end: re.Pattern[bytes]) -> int:
    """Return where a chunked body ends for a reader that takes sizes as Python does."""
    at = 0
    while True:
        line = line_end.search(data, at)
        if line is None:
            return len(data)
        try:
            size = int(data[at : line.start()].partition(b";")[0].strip(), 16)
        except ValueError:
            return len(data)
        at = min(len(data), line.end() + size)
        end = line_end.match(data, at)
        if size <= 0:
            return end.end() if end is not None else len(data)
        at = end.end() if end is not None else at


def cut_by_coding(data: bytes) -> Cut:
    """Read as a lenient proxy: any line end, any line with the word chunked wins over a length; bytes go on as they came."""
    head = re.match(rb"(?s).*?\r?\n\r?\n", data)
    assert head is not None
    rest = data[head.end() :]
    if re.search(rb"(?im)^\s*transfer-encoding\s*:.*chunked", head[0]):
        size = _end_of_chunks(rest, re.compile(rb"\r?\n"))
    else:
        lengths = re.findall(rb"(?im)^\s*content-length\s*:\s*\+?(\d+)", head[0])
        size = int(lengths[-1]) if lengths else 0
    return Cut(head[0] + rest[:size], data.split(b" ")[1], rest[size:])


def cut_by_length(data: bytes) -> Cut:
    """Read as a stubborn proxy: CRLF alone ends lines, a length wins over a coding; headers are written anew."""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    fields: list[list[bytes]] = []
    for line in lines:
        name, _, value = line.partition(b":")
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1][1] += b" " + line.strip()  # folded, and unfolded here
        else:
            fields.append([name.strip().title(), value.strip()])
    lengths = [value for name, value in fields if name == b"Content-Length" and value.isdigit()]
    codings = [value for name, value in fields if name == b"Transfer-Encoding"]
    if lengths:
        size = int(lengths[0])
    else:
        size = _end_of_chunks(rest, re.compile(rb"\r\n")) if codings and codings[-1].lower() == b"chunked" else 0
    written = b"\r\n".join([first, *[name + b": " + value for name, value in fields]])
    return Cut(written + b"\r\n\r\n" + rest[:size], data.split(b" ")[1], rest[size:])


class ReverseProxy:
    """A proxy that sends all clients' requests over one connection and hands each the next answer that comes."""

    def __init__(self, server: RunningServer, cut: Any) -> None:
        self._server = server
        self._cut = cut
        self._upstream: Client | None = None
        self.forwarded: list[bytes] = []
        self.refused = 0

    async def carry(self, data: bytes) -> list[bytes]:
        """Carry what one client sent and return the bodies of the answers with a good status."""
        bodies = []
        while data.strip(b"\r\n"):
            if not re.match(rb"(?s)[A-Z]+ /.*?\n\r?\n", data) or b"\r\n\r\n" not in data:
                break  # not a request to this proxy either
            cut = self._cut(data)
            data = cut.rest
            if self._upstream is None:
                self._upstream = await self._server.connect()
            self.forwarded.append(cut.path)
            await self._upstream.send(cut.sent)
            status, headers, body = await self._upstream.response()
            if status == 200:
                bodies.append(body)
            if headers.get("connection") == "close":
                self._upstream.leave()
                self._upstream = None
                self.refused += 1
                break  # the client's connection ends with it
        return bodies


@pytest.mark.parametrize("cut", [cut_by_coding, cut_by_length])
async def test_S39_two_proxies_in_front_never_get_out_of_step(cut: Any) -> None:
    served: list[bytes] = []

    async def app(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if await read_body(receive) is not None:
            served.append(scope["raw_path"])
            await answer(send, scope["raw_path"])

    requests = list(dict.fromkeys(corpus()))
    assert len(requests) >= 100
    settings = ConnectionSettings(header_timeout=0.1, linger_timeout=0.05)
    guarded = BodyGuard(app_of(app), limit_for=lambda _: 10_000, settings=BodySettings(timeout=0.1))
    async with serving(guarded, asgi=True, connection=settings) as server:
        proxy = ReverseProxy(server, cut)
        for number, attack in enumerate(requests):
            begin, served_before = len(proxy.forwarded), len(served)
            answers = await proxy.carry(attack)
            assert answers == proxy.forwarded[begin : begin + len(answers)], attack

            victim = b"/victim/%d" % number
            assert await proxy.carry(b"GET " + victim + b" HTTP/1.1\r\nHost: localhost\r\n\r\n") == [victim], attack
            assert served[served_before:] == [*answers, victim], attack

    assert proxy.refused > 20
    assert len(proxy.forwarded) - proxy.refused > 20 + len(requests)
