"""What one account sends on every call: its identity, and the headers of the web app."""

from dataclasses import dataclass, field
from functools import lru_cache
from os import urandom
from typing import Literal

from chat2api.upstream.exchange import BrowserProfile, Channel
from chat2api.upstream.headers import Fields
from chat2api.upstream.profiles import profile_for

Credential = Literal["account", "caller", "anonymous"]
"""Whose credential a session bears: an account that is kept here, the caller's own AccessToken, or none."""


@dataclass(frozen=True, slots=True)
class Session:
    """One account on one way out.

    `key` is the account's id, never a token. `access_token` None means the sign-in-free backend. `workspace_id` is
    sent as Chatgpt-Account-Id when the operator or caller named one. `origin` is a value of CHATGPT_BASE_URL.
    `private` says that the account is the caller's own.
    """

    key: str
    device_id: str
    origin: str
    proxy: str | None
    access_token: str | None = field(default=None, repr=False)
    workspace_id: str | None = None
    credential: Credential = "account"
    private: bool = False

    @property
    def base(self) -> str:
        """The backend's base URL for this kind of credential."""
        return f"{self.origin}{self.prefix}"

    @property
    def prefix(self) -> str:
        """The backend's path prefix for this kind of credential."""
        return "/backend-anon" if self.access_token is None else "/backend-api"

    @property
    def profile(self) -> BrowserProfile:
        """The browser that this account always is."""
        return profile_for(self.key)

    @property
    def channel(self) -> Channel:
        """The scope of its connections and cookies."""
        return _channel(self.key, self.proxy)


def call_headers(
    session: Session,
    path: str,
    *,
    session_id: str,
    language: str,
    accept: str = "*/*",
    route: str | None = None,
    in_conversation: bool = False,
    is_json: bool = False,
    build_id: str | None = None,
    auth_key: str = "",
) -> Fields:
    """Give the headers of one call of the web app of 2026, without those of the browser itself.

    `session_id` is a UUID that differs from one browser start to the next. `path` is the request's path, `route` its
    template where that differs; `build_id` is the web build when it is known. A call from a page that shows a
    conversation has the Referer `conversation_page` beside these.
    """
    headers = [
        ("Accept", accept),
        ("Accept-Language", accept_language(language)),
        ("Oai-Device-Id", session.device_id),
        ("Oai-Session-Id", session_id),
        ("Oai-Language", language),
        ("Origin", session.origin),
        ("Sec-Fetch-Dest", "empty"),
        ("Sec-Fetch-Mode", "cors"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Priority", "u=1, i"),
        ("X-OpenAI-Target-Path", path),
        ("X-OpenAI-Target-Route", route or path),
        ("Cookie", f"oai-did={session.device_id}"),
    ]
    if not in_conversation:
        headers.append(("Referer", f"{session.origin}/"))
    if build_id is not None:
        headers.append(("Oai-Client-Version", build_id))
    if session.access_token is not None:
        headers.append(("Authorization", f"Bearer {session.access_token}"))
    if session.workspace_id is not None:
        headers.append(("Chatgpt-Account-Id", session.workspace_id))
    if auth_key:
        headers.append(("authkey", auth_key))
    if is_json:
        headers.append(("Content-Type", "application/json"))
    return tuple(headers)


def conversation_page(session: Session, conversation_id: str) -> str:
    """Give the address of the page that shows a conversation."""
    return f"{session.origin}/c/{conversation_id}"


@lru_cache(maxsize=4096)
def _channel(key: str, proxy: str | None) -> Channel:
    return Channel(key, proxy, profile_for(key))


def fresh_id() -> str:
    """Give a random UUID, as str(uuid4()) does at several times the cost: each turn takes some."""
    digits = urandom(16).hex()
    return (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"
    )


@lru_cache(maxsize=64)
def accept_language(language: str) -> str:
    """Give what a browser of that language sends: `en-US,en;q=0.9`."""
    primary = language.partition("-")[0]
    return language if primary == language else f"{language},{primary};q=0.9"
