"""Request and answer headers as they stand on the wire: merged, ordered, checked; nothing here knows libcurl."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from operator import itemgetter

from chat2api.errors import UpstreamProtocolError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FIELD = re.compile(r"^[ \t]*([^: \t\r\n]++)[ \t]*+:([^\r\n]*+)", re.MULTILINE)
_PLACE = itemgetter(0)
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"})

UNNAMED = ""
"""Stands in an order for every header that the order does not name."""


class HeaderLines:
    """A browser's own headers and its order, made ready once; gives the lines of each request."""

    def __init__(self, order: tuple[str, ...], defaults: Iterable[tuple[str, str]]) -> None:
        """Take the order, lower-case names with UNNAMED once where the others go, and what is sent unless replaced.

        Raises ValueError as `lines` does.
        """
        self._places = {name: place for place, name in enumerate(order)}
        self._rest = self._places.get(UNNAMED, len(order))
        self._ready = lru_cache(maxsize=64)(self._make_ready)
        self._defaults = [self._ready(name, value) for name, value in defaults]

    def lines(self, given: Iterable[tuple[str, str]], *, length: int | None = None) -> list[bytes]:
        """Give the request's lines in curl's notation, where `Name;` stands for a header with an empty value.

        A given header replaces the default of the same name in any case; given ones that repeat a name are all kept,
        in the order in which they came. `length` is the body's, None for a request without one. Raises ValueError for
        a name or value that could change the request's framing.
        """
        chosen = [self._ready(name, value) for name, value in given]
        taken = {known for _, known, _ in chosen}
        chosen += [default for default in self._defaults if default[1] not in taken]
        if length is not None:
            place = self._places.get("content-length", self._rest)
            chosen.append((place, "content-length", b"Content-Length: %d" % length))
        chosen.sort(key=_PLACE)
        return [line for _, _, line in chosen]

    def _make_ready(self, name: str, value: str) -> tuple[int, str, bytes]:
        """Check a header; give its place, its name in lower case and its line.

        Most of an account's headers never change, so what this gives is kept for a while.
        """
        if not _TOKEN.fullmatch(name):
            raise ValueError("a header name has a character that HTTP does not allow")
        known = name.lower()
        if known in _OURS:
            raise ValueError(f"header {name} is for the transport to write")
        place = self._places.get(known, self._rest)
        if not value:
            return place, known, f"{name};".encode("latin-1")
        if not value.isprintable() and _FORBIDDEN.search(value):
            raise ValueError(f"the value of header {name} has a control character")
        return place, known, f"{name}: {value}".encode("latin-1")


class HeaderBlock:
    """Collects the lines of an answer's head: skips 1xx answers, knows the final one, ignores trailers."""

    __slots__ = ("_final", "_left", "_lines", "complete", "headers", "http2", "set_cookies", "status")

    def __init__(self, limit: int, *, upgrade: bool = False) -> None:
        """Make a collector that takes at most `limit` bytes in all, 1xx answers included.

        With `upgrade` the status 101 is final: what follows it is no HTTP any more.
        """
        self.status = 0
        self._final = 101 if upgrade else 200
        self.complete = False
        self.http2 = False
        """Whether the answer came over HTTP/2 or later."""
        self.set_cookies: list[str] = []
        self.headers: Mapping[str, str] = {}
        """Values by lower-case name once complete, without what describes an encoding that curl has undone already.

        Repeated ones are joined by ', ', Set-Cookie by a line feed: its values hold commas.
        """
        self._lines: list[bytes] = []
        self._left = limit

    def feed(self, line: bytes) -> bool:
        """Take one line with its end; tell whether it is the one that completes the head.

        Raises UpstreamProtocolError when the head is too long or its status unreadable.
        """
        size = len(line)
        self._left -= size
        if self._left < 0:
            raise UpstreamProtocolError("The upstream's headers are too long.")
        if size > 2 and not self.complete:
            if line.startswith(b"HTTP/"):
                self._begin(line)
            else:
                self._lines.append(line)
        elif self.status >= self._final and not self.complete and line.strip() == b"":
            self._complete()
            return True
        return False

    def _begin(self, line: bytes) -> None:
        status = line.split(None, 2)[1:2]
        if not status or not status[0].isdigit():
            raise UpstreamProtocolError("The upstream's status line cannot be read.")
        self.status = int(status[0])
        self.http2 = not line.startswith(b"HTTP/1")
        self._lines.clear()

    def _complete(self) -> None:
        headers: dict[str, str] = {}
        for raw_name, raw_value in _FIELD.findall(b"".join(self._lines).decode("latin-1")):
            name, value = raw_name.lower(), raw_value.strip(" \t")
            if name == "set-cookie":
                self.set_cookies.append(value)
            else:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if self.set_cookies:
            headers["set-cookie"] = "\n".join(self.set_cookies)
        if headers.pop("content-encoding", None) is not None:
            headers.pop("content-length", None)
        self.headers = headers
        self.complete = True
        self._lines.clear()
