"""Calls of the OpenAI API: where they go, with what, and what is read of a refusal."""

from typing import cast

import pytest

from chat2api.errors import TransportError
from chat2api.upstream.exchange import Channel, Request, ResponseStream
from chat2api.upstream.openai import REFUSAL_LIMIT, ApiCall, OpenAIClient, is_safe_value, passed_through, read_refusal
from chat2api.upstream.transport import CurlTransport
from tests.origin import Exchange, Origin, Seen


def client(base: str = "https://api.example.org/v1") -> OpenAIClient:
    return OpenAIClient(CurlTransport(), base, connect_timeout=5)


def call(*path: str, **more: object) -> ApiCall:
    return ApiCall("GET", path, 5.0, **more)  # type: ignore[arg-type]  # for brevity


def test_a_path_is_put_below_the_base() -> None:
    assert (
        client("https://a.example/x/v1/").url(call("chat", "completions")) == "https://a.example/x/v1/chat/completions"
    )
    assert (
        client()
        .url(call("files", query=(("after", "a&b"), ("include[]", "x y"))))
        .endswith("/files?after=a%26b&include%5B%5D=x+y")
    )


HOSTILE = [
    "@evil.example", "//evil.example", "\\evil.example", "evil.example:80", "?x=1", "#x", "a/b", "a/../b", "..%2f", "%2e%2e",
    ";x", "\r\nHost: evil", "\0", "https://evil.example", ".evil.example", " ", "é", "%", "::1", "[::1]",
]  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_S6_no_part_of_a_path_leads_out_of_it(part: str) -> None:
    url = client().url(call("files", part, "content"))
    assert url.startswith("https://api.example.org/v1/files/")
    assert url.endswith("/content")
    inner = url.removeprefix("https://api.example.org/v1/files/").removesuffix("/content")
    assert not set(inner) & set("/?#@\\:;[] \r\n\0")


@pytest.mark.parametrize("part", ["", ".", ".."])
def test_S6_a_part_that_means_another_place_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="dots"):
        client().url(call("files", part))


@pytest.mark.parametrize(
    ("base", "local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.2/v1", True),
        ("http://[::1]:1/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_a_server_on_this_machine_is_known(base: str, local: bool) -> None:
    assert client(base).is_local is local


async def test_a_call_carries_its_key_and_what_it_says() -> None:
    seen: list[Seen] = []

    async def answer(exchange: Exchange) -> None:
        seen.append(exchange.seen)
        await exchange.respond(418)
        await exchange.send(b"body")
        await exchange.finish()

    async with Origin(answer) as origin:
        transport = CurlTransport()
        openai = OpenAIClient(transport, f"{origin.url}/v1", connect_timeout=5)
        made = ApiCall(
            "POST", ("x",), 5.0, b"{}", "application/json", "text/event-stream", headers=(("OpenAI-Beta", "b"),)
        )
        stream = await openai.open("sk-one", None, made)
        assert (stream.status, await read_refusal(stream)) == (418, b"body")
        await stream.aclose()
        await transport.aclose()
    assert seen[0].header("authorization") == "Bearer sk-one"
    assert seen[0].header("content-type") == "application/json"
    assert seen[0].header("accept") == "text/event-stream"
    assert seen[0].header("openai-beta") == "b"
    assert openai.host == origin.url.removeprefix("http://")


class Broken:
    """An answer that gives pieces and then breaks."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def read(self) -> bytes:
        if not self.pieces:
            raise TransportError("gone", phase="body")
        return self.pieces.pop(0)


async def read(broken: Broken) -> bytes:
    return await read_refusal(cast(ResponseStream, broken))


async def test_a_refusal_is_read_as_far_as_it_comes_and_no_further_than_needed() -> None:
    assert await read(Broken(b"half")) == b"half"
    endless = Broken(*[b"a" * 65536] * 100)
    assert len(await read(endless)) == REFUSAL_LIMIT
    assert len(endless.pieces) > 90


@pytest.mark.parametrize(("value", "safe"), [("a", True), ("a b=c", True), ("", False), (" a", False), ("a\n", False),
                                             ("é", False), ("a" * 513, False), ("a" * 512, True)])  # fmt: skip
def test_S39_only_plain_values_are_passed_on(value: str, safe: bool) -> None:
    assert is_safe_value(value) is safe


def test_the_servers_that_a_call_passed_are_listed() -> None:
    one, two = "0123456789abcdef", "f" * 16
    assert passed_through(f"{one}, {two} ,,c, ../../x,{one}0") == [one, two]
    assert passed_through(None) == []


def test_a_key_is_never_shown() -> None:
    made = ApiCall(
        "POST", ("x",), 5.0, b"secret body", headers=(("X", "secret header"),), query=(("q", "secret query"),)
    )
    assert "secret" not in repr(made)
    assert "secret" not in repr(Request("GET", "https://secret", (("A", "secret"),), b"secret"))
    assert "secret" not in repr(Channel("a", "http://secret@proxy", None))  # type: ignore[arg-type]  # not looked at
