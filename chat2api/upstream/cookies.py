"""The cookies of one channel: what its servers set, sent back where it belongs, never seen by another channel.

The rules are a browser's (RFC 6265, and what its revision 6265bis adds: no Secure cookie from or over an insecure
answer, the __Host- and __Secure- names), without those that need a page: SameSite and HttpOnly say nothing to a client
that has no scripts and no frames. There is no list of public suffixes either; a domain without a dot is refused, and a
channel speaks to one operator's hosts only.

The jar is asked for every request and changes with few answers, so what it gives is kept until something changes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from ipaddress import ip_address
from math import inf
from time import time

from chat2api.upstream.urls import Location, locate

MAX_COOKIES = 300
"""Cookies of one jar; past it the one that expires first goes, among those that end with the process the oldest."""

MAX_BYTES = 4096
"""Of a cookie's name and value together; a longer one is ignored, as browsers do."""

_KEPT_HEADERS = 128
_AGE = re.compile(r"-?[0-9]{1,15}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_Key = tuple[str, str, str]
"""A cookie's identity: domain, path, name."""


@dataclass(frozen=True, slots=True)
class _Cookie:
    name: str
    value: str
    domain: str
    path: str
    host_only: bool
    secure: bool
    expires_at: float
    """Unix seconds; infinite for one without an end."""

    @property
    def key(self) -> _Key:
        return (self.domain, self.path, self.name)

    def belongs_to(self, location: Location) -> bool:
        """Whether it is sent there."""
        if self.secure and location.scheme != "https":
            return False
        if self.domain != location.host and (self.host_only or not location.host.endswith("." + self.domain)):
            return False
        return _path_matches(self.path, location.path)


class Cookies:
    """A jar with the browser's rules for domain, path, Secure and expiry."""

    def __init__(self, now: Callable[[], float] = time) -> None:
        """Make an empty jar; `now` gives Unix seconds."""
        self._now = now
        self._held: dict[_Key, _Cookie] = {}
        self._headers: dict[tuple[str, str, str, str], str] = {}
        self._next_end = inf

    def __bool__(self) -> bool:
        """Whether anything is held."""
        self._drop_expired()
        return bool(self._held)

    def store(self, url: str, set_cookies: Sequence[str]) -> None:
        """Take the Set-Cookie values of an answer from `url`; a value that cannot be read is ignored, as browsers do."""
        location = locate(url)
        self._drop_expired()
        for value in set_cookies:
            if (cookie := _parse(value, location, self._now())) is not None:
                self._put(cookie, location)

    def header(self, url: str, given: str = "") -> str:
        """Give the value of the Cookie header for `url`, "" for none.

        `given` is a value that the caller wants to send: its cookies come first and win over held ones of the same
        name. Of the held ones those with longer paths come first, then older ones.
        """
        self._drop_expired()
        if not self._held:
            return given
        location = locate(url)
        asked = (location.scheme, location.host, location.path, given)
        if (kept := self._headers.get(asked)) is not None:
            return kept
        if len(self._headers) >= _KEPT_HEADERS:
            self._headers.clear()
        self._headers[asked] = made = self._make_header(location, given)
        return made

    def _make_header(self, location: Location, given: str) -> str:
        names = {pair.partition("=")[0].strip() for pair in given.split(";")}
        fitting = [cookie for cookie in self._held.values() if cookie.belongs_to(location) and cookie.name not in names]
        fitting.sort(key=lambda cookie: -len(cookie.path))
        pairs = [f"{cookie.name}={cookie.value}" for cookie in fitting]
        return "; ".join([given, *pairs] if given else pairs)

    def _put(self, cookie: _Cookie, location: Location) -> None:
        before = self._held.get(cookie.key)
        if location.scheme != "https" and self._shadows_secure(cookie):
            return
        if cookie.expires_at <= self._now():
            if before is not None:
                del self._held[cookie.key]
                self._headers.clear()
            return
        if before is None and len(self._held) >= MAX_COOKIES:
            del self._held[min(self._held.values(), key=lambda held: held.expires_at).key]
        # A dict keeps the place of a key that is set again: a replaced cookie stays as old as it was.
        self._held[cookie.key] = cookie
        self._next_end = min(self._next_end, cookie.expires_at)
        if before is None or (before.value, before.secure, before.host_only) != (
            cookie.value,
            cookie.secure,
            cookie.host_only,
        ):
            self._headers.clear()

    def _shadows_secure(self, cookie: _Cookie) -> bool:
        """Whether a Secure cookie of that name is held where this one would be sent too."""
        return any(
            held.secure
            and held.name == cookie.name
            and (_domain_matches(held.domain, cookie.domain) or _domain_matches(cookie.domain, held.domain))
            and _path_matches(held.path, cookie.path)
            for held in self._held.values()
        )

    def _drop_expired(self) -> None:
        if self._next_end == inf or (now := self._now()) < self._next_end:
            return
        self._held = {key: cookie for key, cookie in self._held.items() if cookie.expires_at > now}
        self._next_end = min((cookie.expires_at for cookie in self._held.values()), default=inf)
        self._headers.clear()


def _parse(text: str, location: Location, now: float) -> _Cookie | None:
    """Read one Set-Cookie value of an answer from that place; None for what a browser would not keep."""
    pair, _, rest = text.partition(";")
    name, equals, value = pair.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not name or len(name) + len(value) > MAX_BYTES:
        return None
    if not text.isprintable() and _CONTROL.search(name + value):
        return None
    attributes = _attributes(rest)
    domain = attributes.get("domain", "").removeprefix(".").lower()
    # A domain that could be no more than the host itself makes a cookie for that host alone.
    alone = "." not in domain or _is_address(location.host)
    host_only = not domain or (domain == location.host and alone)
    if not host_only and (alone or not _domain_matches(location.host, domain)):
        return None
    path = attributes.get("path", "")
    cookie = _Cookie(
        name=name,
        value=value,
        domain=location.host if host_only else domain,
        path=path if path.startswith("/") else _default_path(location.path),
        host_only=host_only,
        secure="secure" in attributes,
        expires_at=_end(attributes, now),
    )
    return cookie if _keeps_promises(cookie, location, attributes) else None


@lru_cache(maxsize=128)
def _attributes(text: str) -> Mapping[str, str]:
    """Read what stands behind a cookie's value: the same few texts in all answers, but for dates."""
    attributes: dict[str, str] = {}
    for item in text.split(";") if text else ():
        key, _, worth = item.partition("=")
        attributes[key.strip().lower()] = worth.strip()
    return attributes


def _keeps_promises(cookie: _Cookie, location: Location, attributes: Mapping[str, str]) -> bool:
    """Whether an insecure answer leaves Secure alone, and a name that promises something keeps it."""
    if cookie.secure and location.scheme != "https":
        return False
    prefix = cookie.name.lower()
    if prefix.startswith("__secure-"):
        return cookie.secure
    if prefix.startswith("__host-"):
        return cookie.secure and "domain" not in attributes and attributes.get("path") == "/"
    return True


def _end(attributes: Mapping[str, str], now: float) -> float:
    """Give when the cookie ends: Max-Age before Expires, neither for one that stays."""
    age = attributes.get("max-age", "")
    if _AGE.fullmatch(age):
        return now + int(age) if int(age) > 0 else -inf
    if "expires" in attributes:
        instant = _read_date(attributes["expires"])
        return inf if instant is None else instant
    return inf


@lru_cache(maxsize=64)
def _read_date(text: str) -> float | None:
    """Read a date as servers write it, with or without hyphens; None when it is none."""
    parts = parsedate_tz(text.replace("-", " "))
    try:
        return None if parts is None else float(mktime_tz(parts))
    except (OverflowError, ValueError):
        return None


def _default_path(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _path_matches(path: str, asked: str) -> bool:
    if not asked.startswith(path):
        return False
    return len(asked) == len(path) or path.endswith("/") or asked[len(path)] == "/"


def _domain_matches(host: str, domain: str) -> bool:
    return host == domain or host.endswith("." + domain)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
