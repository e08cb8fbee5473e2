"""Single calls of the web app: URL, headers, limits. What their answers mean is told elsewhere."""

import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import lru_cache

from chat2api.errors import UpstreamProtocolError
from chat2api.upstream.chatgpt.session import Session, accept_language, call_headers, conversation_page
from chat2api.upstream.exchange import Request, Response, ResponseStream, Transport, WebSocket
from chat2api.upstream.headers import Fields
from chat2api.upstream.urls import locate

_WEBSITE = frozenset({"chatgpt.com", "www.chatgpt.com", "chat.openai.com"})
"""Hosts that are no gateway of the operator's, which alone are told its key (S5)."""

_PAGE_LIMIT = 8 * 1024 * 1024
_BODY_LIMIT = 32 * 1024 * 1024
_SESSION_IDS_KEPT = 4096
_HEADERS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What all calls share: times in seconds, the language, and the key for gateways (`authkey`)."""

    connect_timeout: float
    preparation_timeout: float
    headers_timeout: float
    language: str = "en-US"
    auth_key: str = ""


class BackendCalls:
    """Makes calls to the backend as one session at a time."""

    def __init__(self, transport: Transport, settings: CallSettings) -> None:
        """Make calls over that transport."""
        self._transport = transport
        self._settings = settings
        self._process_id = uuid.uuid4()
        self._session_ids: dict[str, str] = {}
        self._headers = lru_cache(maxsize=_HEADERS_KEPT)(self._make_headers)

    async def load_page(self, session: Session) -> Response:
        """GET the home page as a browser opens it."""
        headers = (
            ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
            ("Sec-Fetch-Dest", "document"),
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Site", "none"),
            ("Sec-Fetch-User", "?1"),
            ("Upgrade-Insecure-Requests", "1"),
        )
        return await self._fetch(session, Request("GET", f"{session.origin}/", headers), _PAGE_LIMIT)

    async def get(self, session: Session, path: str, *, route: str | None = None) -> Response:
        """GET a path below the backend's base, which may hold a query."""
        request = Request("GET", session.base + path, self._headers(session, path, "*/*", route))
        return await self._fetch(session, request, _BODY_LIMIT)

    async def post(
        self,
        session: Session,
        path: str,
        body: bytes,
        *,
        route: str | None = None,
        extra: Fields = (),
    ) -> Response:
        """POST a JSON body to a path below the backend's base."""
        headers = self._headers(session, path, "*/*", route, is_json=True)
        return await self._fetch(
            session, Request("POST", session.base + path, headers, body, varying=extra), _BODY_LIMIT
        )

    async def patch(self, session: Session, path: str, body: bytes, *, route: str | None = None) -> Response:
        """PATCH a path below the backend's base with a JSON body."""
        headers = self._headers(session, path, "*/*", route, is_json=True)
        return await self._fetch(session, Request("PATCH", session.base + path, headers, body), _BODY_LIMIT)

    async def open_stream(
        self,
        session: Session,
        path: str,
        body: bytes,
        *,
        conversation_id: str | None = None,
        build_id: str | None = None,
        extra: Fields = (),
    ) -> ResponseStream:
        """POST a JSON body and give the answer as it begins; close it."""
        if conversation_id:
            extra = (("Referer", conversation_page(session, conversation_id)), *extra)
        headers = self._headers(
            session, path, "text/event-stream", build_id=build_id, in_conversation=bool(conversation_id), is_json=True
        )
        return await self._transport.open(
            session.channel,
            Request("POST", session.base + path, headers, body, varying=extra),
            connect_timeout=self._settings.connect_timeout,
            headers_timeout=self._settings.headers_timeout,
        )

    async def connect(
        self, session: Session, address: str, *, sub_protocol: str | None = None, ping_period: float | None = None
    ) -> WebSocket:
        """Open a web socket at an address that the backend named; it holds what proves who we are.

        Raises UpstreamProtocolError for an address that is none, or that leads out of TLS.
        """
        scheme = address.partition("://")[0]
        if scheme != "wss" and (scheme != "ws" or session.origin.startswith("https:")):
            raise UpstreamProtocolError("The backend named an address for its web socket that is none.")
        headers = (("Origin", session.origin), ("Accept-Language", accept_language(self._settings.language)))
        try:
            return await self._transport.connect(
                session.channel,
                address,
                headers,
                sub_protocol=sub_protocol,
                ping_period=ping_period,
                connect_timeout=self._settings.connect_timeout,
                headers_timeout=self._settings.preparation_timeout,
            )
        except ValueError as error:
            raise UpstreamProtocolError("The backend named an address for its web socket that is none.") from error

    def _fetch(self, session: Session, request: Request, max_bytes: int) -> Awaitable[Response]:
        return self._transport.fetch(
            session.channel,
            request,
            connect_timeout=self._settings.connect_timeout,
            timeout=self._settings.preparation_timeout,
            max_bytes=max_bytes,
        )

    def _make_headers(
        self,
        session: Session,
        path: str,
        accept: str,
        route: str | None = None,
        build_id: str | None = None,
        in_conversation: bool = False,
        is_json: bool = False,
    ) -> Fields:
        return call_headers(
            session,
            session.prefix + path.partition("?")[0],
            session_id=self._session_id(session.key),
            language=self._settings.language,
            accept=accept,
            route=None if route is None else session.prefix + route,
            in_conversation=in_conversation,
            is_json=is_json,
            build_id=build_id,
            auth_key="" if locate(session.origin).host in _WEBSITE else self._settings.auth_key,
        )

    def _session_id(self, key: str) -> str:
        """Give the id of an account's browser start, which lasts as long as this object."""
        if (known := self._session_ids.get(key)) is not None:
            return known
        if len(self._session_ids) >= _SESSION_IDS_KEPT:
            self._session_ids.clear()  # they are made anew as they were: each follows from its key
        made = self._session_ids[key] = str(uuid.uuid5(self._process_id, key))
        return made
