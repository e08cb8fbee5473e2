"""The exchange of a RefreshToken or a login cookie for an access token, as public clients of 2024 to 2026 do it.

One request, one answer, never a second try: what a failure means for the token is told by the error, and what to do about
it is decided by the one who keeps the token.
"""

import uuid
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode

import orjson

from chat2api.clock import Clock
from chat2api.errors import AccountRejectedError, TransportError, UpstreamError
from chat2api.protocol.chatgpt.faults import classify_refresh_answer
from chat2api.upstream.transport import Channel, Request, Response, Transport

IOS_CLIENT_ID = "pdlLIX2Y72MIl2rhLhTE9VV9bN905kBh"
"""The client of 45-character tokens; seen in public clients from 2024 to 2026."""
CODEX_CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"
"""The client of `rt_` tokens; seen in 2026."""

_REDIRECT_URI = "com.openai.chat://auth.openai.com/ios/com.openai.chat/callback"
_SCOPE = "openid profile email offline_access"
_COOKIE = "__Secure-next-auth.session-token"
_CHUNK_SEPARATOR = "|||"
_BODY_LIMIT = 256 * 1024


@dataclass(frozen=True, slots=True)
class RenewedTokens:
    """What the sign-in server gave.

    `renewable` is the token or cookie that replaces the one sent, None when it stays as it is. `expires_in` is in
    seconds; `date_skew` is how far the server's clock is ahead of ours.
    """

    access: str = field(repr=False)
    renewable: str | None = field(repr=False)
    expires_in: float | None
    date_skew: float


class TokenExchange:
    """Asks the sign-in server."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        *,
        token_url: str,
        client_id: str,
        connect_timeout: float,
        timeout: float,
    ) -> None:
        """Exchange at `token_url`. `client_id` "" chooses by the token's form; times in seconds."""
        self._transport = transport
        self._clock = clock
        self._token_url = token_url
        self._client_id = client_id
        self._connect_timeout = connect_timeout
        self._timeout = timeout

    async def refresh(self, channel: Channel, token: str) -> RenewedTokens:
        """Exchange a RefreshToken.

        Raises AccountRejectedError when it is dead; TransportError with `request_sent` or UpstreamTimeoutError after
        connecting when the outcome is unknown; another UpstreamError for an answer that has not consumed it.
        """
        if token.startswith("rt_"):
            fields = {
                "grant_type": "refresh_token",
                "client_id": self._client_id or CODEX_CLIENT_ID,
                "refresh_token": token,
                "scope": _SCOPE,
            }
            content_type, body = "application/x-www-form-urlencoded", urlencode(fields).encode()
        else:
            fields = {
                "redirect_uri": _REDIRECT_URI,
                "grant_type": "refresh_token",
                "client_id": self._client_id or IOS_CLIENT_ID,
                "refresh_token": token,
            }
            content_type, body = "application/json", orjson.dumps(fields)
        headers = (("Accept", "application/json"), ("Content-Type", content_type))
        answer = await self._fetch(channel, Request("POST", self._token_url, headers, body))
        return self._read(answer, "access_token", "refresh_token")

    async def exchange_cookie(self, channel: Channel, origin: str, cookie: str) -> RenewedTokens:
        """Exchange a login cookie, whole or its chunks joined by `|||`; raises as `refresh` does.

        The call has a cookie jar of its own: in the account's jar chunks of an earlier cookie would lie, which the
        server would put together with this one's and take for a cookie that it does not know.
        """
        headers = (("Accept", "application/json"), ("Referer", f"{origin}/"), ("Cookie", _cookie_header(cookie)))
        apart = replace(channel, key=f"{channel.key} {uuid.uuid4()}")
        answer = await self._fetch(apart, Request("GET", f"{origin}/api/auth/session", headers))
        if answer.status == 200 and _json_object(answer.body) is not None and b"accessToken" not in answer.body:
            raise AccountRejectedError("The login cookie is not signed in any more.", reason="session_ended")
        renewed = self._read(answer, "accessToken", "sessionToken")
        fresh = _fresh_cookie(answer.headers.get("set-cookie", ""))
        return RenewedTokens(renewed.access, fresh or renewed.renewable, renewed.expires_in, renewed.date_skew)

    async def _fetch(self, channel: Channel, request: Request) -> Response:
        return await self._transport.fetch(
            channel, request, connect_timeout=self._connect_timeout, timeout=self._timeout, max_bytes=_BODY_LIMIT
        )

    def _read(self, answer: Response, access_name: str, renewable_name: str) -> RenewedTokens:
        if answer.status != 200:
            raise self._refusal(answer)
        facts = _json_object(answer.body)
        access = facts.get(access_name) if facts is not None else None
        if facts is None or not isinstance(access, str) or not access:
            if answer.headers.get("content-type", "").startswith("text/html"):
                raise self._refusal(answer)
            # The server has acted, but what it said is lost: whether the token was consumed is not known.
            raise TransportError("The sign-in server's answer cannot be read.", phase="body", request_sent=True)
        renewable, lifetime = facts.get(renewable_name), facts.get("expires_in")
        return RenewedTokens(
            access,
            renewable if isinstance(renewable, str) and renewable else None,
            float(lifetime) if isinstance(lifetime, int | float) and not isinstance(lifetime, bool) else None,
            self._skew(answer),
        )

    def _refusal(self, answer: Response) -> UpstreamError:
        return classify_refresh_answer(answer.status, answer.headers, answer.body, now=self._clock.now())

    def _skew(self, answer: Response) -> float:
        try:
            return parsedate_to_datetime(answer.headers["date"]).timestamp() - self._clock.now()
        except (KeyError, ValueError):
            return 0.0


def _json_object(body: bytes) -> dict[str, object] | None:
    try:
        facts = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return facts if isinstance(facts, dict) else None


def _cookie_header(cookie: str) -> str:
    chunks = cookie.split(_CHUNK_SEPARATOR)
    if len(chunks) == 1:
        return f"{_COOKIE}={cookie}"
    return "; ".join(f"{_COOKIE}.{index}={chunk}" for index, chunk in enumerate(chunks))


def _fresh_cookie(set_cookies: str) -> str | None:
    """Give the cookie that the server set, its chunks joined, None when it set none."""
    found: dict[str, str] = {}
    for line in set_cookies.split("\n"):
        try:
            found |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        except CookieError:
            continue
    if found.get(_COOKIE):
        return found[_COOKIE]
    chunks: list[str] = []
    while chunk := found.get(f"{_COOKIE}.{len(chunks)}"):
        chunks.append(chunk)
    return _CHUNK_SEPARATOR.join(chunks) or None
