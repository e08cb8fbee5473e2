"""Counts the calls to the backend by kind and outcome, for the metrics."""

from collections import Counter
from functools import lru_cache
from urllib.parse import urlsplit

from chat2api.errors import UpstreamError
from chat2api.upstream.exchange import Channel, Request, Response, ResponseStream, Transport, WebSocket

_KINDS = (
    ("/conversation/prepare", "prepare"),
    ("/conversation/resume", "resume"),
    ("/conversation/init", "init"),
    ("/conversation/", "stored conversation"),
    ("/conversation", "conversation"),
    ("/sentinel/", "requirements"),
    ("/models", "models"),
    ("/files", "files"),
    ("/oauth/token", "refresh"),
    ("/api/auth/session", "refresh"),
    ("/accounts/check", "account"),
    ("/me", "account"),
)
"""By what a path holds, the narrower before the wider; `home page` and `other` come beside these."""


@lru_cache(maxsize=256)
def kind_of(url: str) -> str:
    """Give the kind of call that an address stands for: one of a few words, never a part of the address."""
    path = urlsplit(url).path
    if path in ("", "/"):
        return "home page"
    return next((kind for part, kind in _KINDS if part in path), "other")


@lru_cache(maxsize=256)
def outcome_of(status: int) -> str:
    """Give a status as an outcome: those that mean something of their own by themselves, others by their class."""
    return str(status) if status in (401, 403, 404, 429) else f"{status // 100}xx"


class CountedTransport:
    """A transport that counts what goes through it. A call that its caller cancels is not counted."""

    def __init__(self, inner: Transport) -> None:
        """Count the calls of that transport."""
        self._inner = inner
        self.calls: Counter[tuple[str, str]] = Counter()
        """Calls so far by kind and outcome: a status or its class, or the code of the error."""

    async def fetch(
        self,
        channel: Channel,
        request: Request,
        *,
        connect_timeout: float,
        timeout: float,
        max_bytes: int = 4 * 1024 * 1024,
    ) -> Response:
        """See Transport."""
        try:
            answer = await self._inner.fetch(
                channel, request, connect_timeout=connect_timeout, timeout=timeout, max_bytes=max_bytes
            )
        except UpstreamError as error:
            self.calls[kind_of(request.url), str(error.code)] += 1
            raise
        self.calls[kind_of(request.url), outcome_of(answer.status)] += 1
        return answer

    async def open(
        self, channel: Channel, request: Request, *, connect_timeout: float, headers_timeout: float
    ) -> ResponseStream:
        """See Transport. The outcome is that of the answer's head."""
        try:
            answer = await self._inner.open(
                channel, request, connect_timeout=connect_timeout, headers_timeout=headers_timeout
            )
        except UpstreamError as error:
            self.calls[kind_of(request.url), str(error.code)] += 1
            raise
        self.calls[kind_of(request.url), outcome_of(answer.status)] += 1
        return answer

    async def connect(
        self,
        channel: Channel,
        url: str,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        sub_protocol: str | None = None,
        ping_period: float | None = None,
        connect_timeout: float,
        headers_timeout: float,
    ) -> WebSocket:
        """See Transport."""
        try:
            socket = await self._inner.connect(
                channel,
                url,
                headers,
                sub_protocol=sub_protocol,
                ping_period=ping_period,
                connect_timeout=connect_timeout,
                headers_timeout=headers_timeout,
            )
        except UpstreamError as error:
            self.calls["web socket", str(error.code)] += 1
            raise
        self.calls["web socket", "1xx"] += 1
        return socket

    async def aclose(self) -> None:
        """See Transport."""
        await self._inner.aclose()
