"""Request and answer headers as they stand on the wire: merged, ordered, checked; nothing here knows libcurl."""

import re
from collections.abc import Iterable, Mapping

from chat2api.errors import UpstreamProtocolError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

UNNAMED = ""
"""Stands in an order for every header that the order does not name."""


def wire_headers(
    order: tuple[str, ...], defaults: Iterable[tuple[str, str]], given: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Merge headers and put them in a browser's order.

    A given header replaces the default of the same name in any case; given ones that repeat a name are all kept.
    `order` holds lower-case names and UNNAMED once, where the others go, in the order in which they were given. Raises
    ValueError for a name or value that could change the request's framing.
    """
    chosen = [_checked(name, value) for name, value in given]
    taken = {name.lower() for name, _ in chosen}
    chosen += [(name, value) for name, value in defaults if name.lower() not in taken]
    place = {name: index for index, name in enumerate(order)}
    rest = place.get(UNNAMED, len(order))
    return sorted(chosen, key=lambda item: place.get(item[0].lower(), rest))


def _checked(name: str, value: str) -> tuple[str, str]:
    if not _TOKEN.fullmatch(name):
        raise ValueError("a header name has a character that HTTP does not allow")
    if _FORBIDDEN.search(value):
        raise ValueError(f"the value of header {name} has a control character")
    return name, value


class HeaderBlock:
    """Collects the lines of an answer's head: skips 1xx answers, knows the final one, ignores trailers."""

    def __init__(self, limit: int) -> None:
        """Make a collector that takes at most `limit` bytes in all, 1xx answers included."""
        self.status = 0
        self.complete = False
        self.set_cookies: list[str] = []
        self._headers: dict[str, str] = {}
        self._left = limit

    @property
    def headers(self) -> Mapping[str, str]:
        """Values by lower-case name, without what describes an encoding that curl has undone already.

        Repeated ones are joined by ', ', Set-Cookie by a line feed: its values hold commas.
        """
        return self._headers

    def feed(self, line: bytes) -> None:
        """Take one line with its end. Raises UpstreamProtocolError when the head is too long or its status unreadable."""
        self._left -= len(line)
        if self._left < 0:
            raise UpstreamProtocolError("The upstream's headers are too long.")
        if self.complete:
            return
        if line.startswith(b"HTTP/"):
            self._begin(line)
        elif line in (b"\r\n", b"\n"):
            self.complete = self.status >= 200
            if self.complete and self._headers.pop("content-encoding", None) is not None:
                self._headers.pop("content-length", None)
        else:
            self._add(line)

    def _begin(self, line: bytes) -> None:
        status = line.split(None, 2)[1:2]
        if not status or not status[0].isdigit():
            raise UpstreamProtocolError("The upstream's status line cannot be read.")
        self.status = int(status[0])
        self._headers = {}
        self.set_cookies = []

    def _add(self, line: bytes) -> None:
        raw_name, _, raw_value = line.partition(b":")
        name = raw_name.decode("latin-1").strip().lower()
        value = raw_value.decode("latin-1").strip()
        if name == "set-cookie":
            self.set_cookies.append(value)
            self._headers[name] = "\n".join(self.set_cookies)
        else:
            self._headers[name] = f"{self._headers[name]}, {value}" if name in self._headers else value
