"""Request and answer headers as they stand on the wire: merged, ordered, checked; nothing here knows libcurl."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from chat2api.errors import UpstreamProtocolError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FIELD = re.compile(r"^[ \t]*([^: \t\r\n]++)[ \t]*+:([^\r\n]*+)", re.MULTILINE)
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"})
_LENGTH = "content-length"

UNNAMED = ""
"""Stands in an order for every header that the order does not name."""

Fields = tuple[tuple[str, str], ...]
"""Headers: names and values."""


class Plan:
    """The lines of requests that differ in some values only, one and the same object for all of them."""

    __slots__ = ("lines", "places")

    def __init__(self, lines: tuple[bytes, ...], places: tuple[int, ...]) -> None:
        """Take all lines in their order, and the places of those that vary, in the order of `Lines.values`."""
        self.lines = lines
        self.places = places


class Lines(NamedTuple):
    """A request's lines: a plan, and the lines that stand in its places this time."""

    plan: Plan
    values: list[bytes]

    def whole(self) -> list[bytes]:
        """Give all lines in their order."""
        lines = list(self.plan.lines)
        for place, line in zip(self.plan.places, self.values, strict=True):
            lines[place] = line
        return lines


class HeaderLines:
    """A browser's own headers and its order, made ready once; gives the lines of each request."""

    def __init__(self, order: tuple[str, ...], defaults: Iterable[tuple[str, str]]) -> None:
        """Take the order, lower-case names with UNNAMED once where the others go, and what is sent unless replaced.

        Raises ValueError as `lines` does.
        """
        self._places = {name: place for place, name in enumerate(order)}
        self._rest = self._places.get(UNNAMED, len(order))
        # Most of what an account's requests say never changes.
        self._given = lru_cache(maxsize=64)(_Given)
        self._known = lru_cache(maxsize=64)(self._check_name)
        self._defaults = [(*self._known(name), _write(name, value)) for name, value in defaults]

    def lines(
        self,
        given: Fields,
        varying: Fields = (),
        *,
        length: int | None = None,
        add_cookies: Callable[[str], str] | None = None,
    ) -> Lines:
        """Give the request's lines in curl's notation, where `Name;` stands for a header with an empty value.

        A given header replaces the default of the same name in any case; given ones that repeat a name are all kept,
        in the order in which they came. `varying` ones count as given last: they are those whose values are new in
        each request, and all else is remembered. `length` is the body's, None for a request without one;
        `add_cookies` makes the value of the Cookie header of the given one, "" for none. Raises ValueError for a name or
        value that could change the request's framing.
        """
        known = self._given(given)
        cookie = known.cookies if add_cookies is None else add_cookies(known.cookies)
        has_cookie = cookie != known.cookies
        values = [_write(name, value) for name, value in varying]
        if has_cookie:
            values.append(_write("Cookie", cookie))
        if length is not None:
            values.append(b"Content-Length: %d" % length)
        kind = (tuple([name for name, _ in varying]), has_cookie, length is not None)
        plan = known.plans.get(kind)
        if plan is None:
            plan = known.plans[kind] = self._make_plan(given, *kind)
        return Lines(plan, values)

    def _make_plan(self, given: Fields, varying: tuple[str, ...], has_cookie: bool, has_length: bool) -> Plan:
        if has_cookie:
            given = tuple([pair for pair in given if pair[0].lower() != "cookie"])
            varying = (*varying, "Cookie")
        chosen = [(*self._known(name), _write(name, value)) for name, value in given]
        chosen += [(*self._known(name), b"") for name in varying]
        changing = list(range(len(given), len(chosen)))
        taken = {known for _, known, _ in chosen}
        chosen += [default for default in self._defaults if default[1] not in taken]
        if has_length:
            changing.append(len(chosen))
            chosen.append((self._places.get(_LENGTH, self._rest), _LENGTH, b""))
        order = sorted(range(len(chosen)), key=lambda number: chosen[number][0])
        return Plan(tuple([chosen[number][2] for number in order]), tuple([order.index(number) for number in changing]))

    def _check_name(self, name: str) -> tuple[int, str]:
        """Give a header's place and its name in lower case."""
        if not _TOKEN.fullmatch(name):
            raise ValueError("a header name has a character that HTTP does not allow")
        known = name.lower()
        if known in _OURS:
            raise ValueError(f"header {name} is for the transport to write")
        return self._places.get(known, self._rest), known


def _write(name: str, value: str) -> bytes:
    """Give a header's line, its value checked."""
    if not value:
        return f"{name};".encode("latin-1")
    if not value.isprintable() and _FORBIDDEN.search(value):
        raise ValueError(f"the value of header {name} has a control character")
    return f"{name}: {value}".encode("latin-1")


class _Given:
    """What is known of given headers: their cookies, and the plans of requests with them, by all else that matters."""

    __slots__ = ("cookies", "plans")

    def __init__(self, fields: Fields) -> None:
        self.cookies = "; ".join([value for name, value in fields if name.lower() == "cookie"])
        self.plans: dict[tuple[tuple[str, ...], bool, bool], Plan] = {}


class HeaderBlock:
    """Collects the lines of an answer's head: skips 1xx answers, knows the final one, ignores trailers."""

    __slots__ = ("_final", "_left", "_lines", "_tell", "complete", "headers", "http2", "set_cookies", "status")

    def __init__(self, limit: int, *, upgrade: bool = False, tell: Callable[[], None] | None = None) -> None:
        """Make a collector that takes at most `limit` bytes in all, 1xx answers included; it calls `tell` when complete.

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
        self._tell = tell

    def write(self, line: bytes) -> None:
        """Take one line with its end.

        Raises UpstreamProtocolError when the head is too long or its status unreadable.
        """
        if self.complete:
            return  # a trailer
        size = len(line)
        self._left -= size
        if self._left < 0:
            raise UpstreamProtocolError("The upstream's headers are too long.")
        if size > 2:
            self._lines.append(line)
        elif self._lines:
            self._close()

    def _close(self) -> None:
        """Read the lines of one answer, of which this may be an interim one."""
        start = self._lines[0].split(None, 2)
        if len(start) < 2 or not start[0].startswith(b"HTTP/") or not start[1].isdigit():
            raise UpstreamProtocolError("The upstream's status line cannot be read.")
        self.status = int(start[1])
        if self.status >= self._final:
            self.http2 = not start[0].startswith(b"HTTP/1")
            self._read_fields()
            self.complete = True
            if self._tell is not None:
                self._tell()
        self._lines.clear()

    def _read_fields(self) -> None:
        headers: dict[str, str] = {}
        for raw_name, raw_value in _FIELD.findall(b"".join(self._lines[1:]).decode("latin-1")):
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
