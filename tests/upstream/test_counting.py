"""Calls to the backend, counted by kind and outcome."""

from typing import cast

import pytest

from chat2api.errors import TransportError
from chat2api.upstream.counting import CountedTransport, kind_of, outcome_of
from chat2api.upstream.exchange import Channel, Request, Response, ResponseStream, Transport, WebSocket
from chat2api.upstream.profiles import profile_for

CHANNEL = Channel("one", None, profile_for("one"))


class Scripted:
    """A transport that answers with a status, or fails."""

    def __init__(self, outcome: int | TransportError) -> None:
        self.outcome = outcome
        self.closed = False

    async def fetch(self, channel: Channel, request: Request, **limits: object) -> Response:
        if isinstance(self.outcome, TransportError):
            raise self.outcome
        return Response(self.outcome, {}, b"", request.url)

    async def open(self, channel: Channel, request: Request, **limits: object) -> ResponseStream:
        return cast(ResponseStream, await self.fetch(channel, request))

    async def connect(self, channel: Channel, url: str, headers: object = (), **limits: object) -> WebSocket:
        return cast(WebSocket, await self.fetch(channel, Request("GET", url, ())))

    async def aclose(self) -> None:
        self.closed = True


def counted(outcome: int | TransportError) -> CountedTransport:
    return CountedTransport(cast(Transport, Scripted(outcome)))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "home page"),
        ("", "home page"),
        ("/backend-api/conversation", "conversation"),
        ("/backend-api/f/conversation", "conversation"),
        ("/backend-api/f/conversation/prepare", "prepare"),
        ("/backend-api/f/conversation/resume", "resume"),
        ("/backend-api/conversation/11111111-2222-4333-8444-555555555555", "stored conversation"),
        ("/backend-anon/sentinel/chat-requirements", "requirements"),
        ("/backend-api/models?history_and_training_disabled=false", "models"),
        ("/oauth/token", "refresh"),
        ("/api/auth/session", "refresh"),
        ("/backend-api/files/file-canary/download", "files"),
        ("/backend-api/canary/anything?else=1", "other"),
    ],
)
def test_a_kind_is_a_word_of_ours_and_holds_nothing_of_the_address(path: str, kind: str) -> None:
    assert kind_of(f"https://host.test{path}") == kind


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "2xx"), (204, "2xx"), (301, "3xx"), (400, "4xx"), (401, "401"), (429, "429"), (522, "5xx")],
)
def test_outcomes_are_few(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


async def test_answers_and_failures_are_counted_and_passed_on() -> None:
    request = Request("GET", "https://host.test/backend-api/models", ())
    good, broken = counted(200), counted(TransportError("It broke."))
    assert (await good.fetch(CHANNEL, request, connect_timeout=1, timeout=1)).status == 200
    assert (await good.open(CHANNEL, request, connect_timeout=1, headers_timeout=1)).status == 200
    await good.connect(CHANNEL, "wss://host.test/x", connect_timeout=1, headers_timeout=1)
    for call in (
        broken.fetch(CHANNEL, request, connect_timeout=1, timeout=1),
        broken.open(CHANNEL, request, connect_timeout=1, headers_timeout=1),
        broken.connect(CHANNEL, "wss://host.test/x", connect_timeout=1, headers_timeout=1),
    ):
        with pytest.raises(TransportError):
            await call
    assert good.calls == {("models", "2xx"): 2, ("web socket", "1xx"): 1}
    assert broken.calls == {("models", "upstream_transport"): 2, ("web socket", "upstream_transport"): 1}


async def test_closing_closes_what_is_inside() -> None:
    inner = Scripted(200)
    await CountedTransport(cast(Transport, inner)).aclose()
    assert inner.closed
