"""Calls of the OpenAI API, or of any server that speaks it: one call by one key, its answer as it comes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import quote, urlencode, urlsplit

from chat2api.errors import TransportError, UpstreamError
from chat2api.upstream.exchange import Channel, Request, ResponseStream, Transport
from chat2api.upstream.profiles import API_CLIENT
from chat2api.upstream.uploads import Upload
from chat2api.upstream.urls import locate

VIA = "x-chat2api-via"
"""Names the servers of ours that a call has passed through, so that one that comes back is known."""

REFUSAL_LIMIT = 256 * 1024
"""Bytes that are read of a refusal's body."""

_CHANNEL = "openai"
_SERVER = re.compile(r"[0-9a-f]{16}")
_SAFE_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,510}[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One call. `path` is the parts of the path below the base URL, not encoded; `headers` go beside the usual ones.

    `plain_body` goes in place of `body` to a server that does not take the question for usage in it.
    `headers_timeout` is in seconds, from when the connection stands until the answer's head is here.
    """

    method: str
    path: tuple[str, ...]
    headers_timeout: float
    body: bytes | None = field(default=None, repr=False)
    content_type: str | None = None
    accept: str | None = None
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    upload: Upload | None = field(default=None, repr=False)
    plain_body: bytes | None = field(default=None, repr=False)

    def plain(self) -> "ApiCall":
        """Give the call without a question for usage."""
        return self if self.plain_body is None else replace(self, body=self.plain_body, plain_body=None)


class OpenAIClient:
    """Makes calls to one server."""

    def __init__(self, transport: Transport, base_url: str, *, connect_timeout: float) -> None:
        """Call the server at that base URL, `https://api.openai.com/v1` for instance."""
        self._transport = transport
        self.base = base_url.rstrip("/")
        self._connect_timeout = connect_timeout
        self.host = urlsplit(base_url).netloc

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, where no proxy leads to."""
        host = locate(self.base).host
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    async def open(self, key: str | None, proxy: str | None, call: ApiCall) -> ResponseStream:
        """Give the answer once its head is here, whatever its status; close it. Without a key nobody is named.

        Raises TransportError, UpstreamTimeoutError and ValueError for a header that cannot go on the wire.
        """
        headers = [("Authorization", f"Bearer {key}")] if key is not None else []
        if call.content_type is not None:
            headers.append(("Content-Type", call.content_type))
        if call.accept is not None:
            headers.append(("Accept", call.accept))
        request = Request(call.method, self.url(call), (*headers, *call.headers), call.body, upload=call.upload)
        return await self._transport.open(
            Channel(_CHANNEL, proxy, API_CLIENT),
            request,
            connect_timeout=self._connect_timeout,
            headers_timeout=call.headers_timeout,
        )

    def url(self, call: ApiCall) -> str:
        """Give a call's URL: the base, and below it what no part can lead out of (S6). Raises ValueError."""
        if any(part in ("", ".", "..") for part in call.path):
            raise ValueError("a path has no empty parts and no dots")
        path = "".join("/" + quote(part, safe="") for part in call.path)
        return self.base + path + ("?" + urlencode(call.query) if call.query else "")


async def read_refusal(stream: ResponseStream) -> bytes:
    """Give the body of an answer that is a refusal, as far as it comes and is not too long."""
    pieces: list[bytes] = []
    size = 0
    try:
        while size <= REFUSAL_LIMIT and (data := await stream.read()):
            pieces.append(data)
            size += len(data)
    except TransportError:
        pass  # its status says enough
    except UpstreamError:
        pieces.clear()
    return b"".join(pieces)[:REFUSAL_LIMIT]


def is_safe_value(value: str) -> bool:
    """Whether a header's value may be passed on as it is."""
    return _SAFE_VALUE.fullmatch(value) is not None


def passed_through(value: str | None) -> Sequence[str]:
    """Give the ids in a header VIA; what is none of ours is not passed on."""
    return [part for part in map(str.strip, (value or "").split(",")) if _SERVER.fullmatch(part)]
