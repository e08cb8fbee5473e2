"""The bytes of HTTP/1.1 responses: head, framed body and end, as the app's messages give them.

`ResponseBytes` is the counterpart of `RequestBytes`, and as pure: messages go in, bytes come out. It decides how a body
is delimited, and knows afterwards whether the response is whole and whether another may follow it. h11 could do this,
too, at three times the cost: each of its steps checks again what the step before has made.
"""

import re
from collections.abc import Iterable
from email.utils import formatdate
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus

_BAD_IN_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_BAD_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_DECIDING = frozenset((b"connection", b"content-length", b"transfer-encoding"))
_WITHOUT_BODY = frozenset({int(HTTPStatus.NO_CONTENT), int(HTTPStatus.NOT_MODIFIED)})


class ResponseError(RuntimeError):
    """The app's messages do not make a response; nothing of the offending one was sent."""


class _Framing(Enum):
    UNDECIDED = auto()
    NONE = auto()
    """There is no body, whatever the app sends: the answer to HEAD, 204, 304."""
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()
    """The connection's end ends it: HTTP/1.0 without a length."""


class ResponseBytes:
    """One response on its way to the client."""

    def __init__(self, method: str, http_version: str, *, persistent: bool) -> None:
        """Answer a request of that method and version; persistent says whether the client lets the connection live."""
        self._method = method
        self._http_version = http_version
        self._framing = _Framing.UNDECIDED
        self._remaining = 0
        self.persistent = persistent
        """Whether another request may follow once this response is whole."""
        self.begun = False
        """Whether the head has been given."""
        self.whole = False
        """Whether all of the response has been given."""

    @property
    def to_head(self) -> bool:
        """Whether it answers HEAD, and so never has a body."""
        return self._method == "HEAD"

    @property
    def until_close(self) -> bool:
        """Whether only the end of the connection shows where the body ends."""
        return self._framing is _Framing.CLOSE

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]], *, close: bool, now: float) -> bytes:
        """Return the head; with close it tells that the connection ends, now is Unix seconds for its date.

        The framing is ours: Transfer-Encoding of the app's is left out. Raises ResponseError for headers that could be
        read as something else, before anything has changed.
        """
        if self.begun:
            raise ResponseError("the response has begun already")
        lines = [_status_line(status)]
        length: bytes | None = None
        for name, value in _checked(headers):
            lowered = name.lower()
            if lowered not in _DECIDING:
                lines.append(b"%b: %b" % (name, value))
            elif lowered == b"content-length":
                if not _LENGTH.fullmatch(value) or length not in (None, value):
                    raise ResponseError("the response's Content-Length is malformed")
                length = value
            elif lowered == b"connection":
                close = close or b"close" in value.lower()
        framing = self._choose_framing(status, length)
        if length is not None and status != HTTPStatus.NO_CONTENT:
            lines.append(b"content-length: " + length)
        if framing is _Framing.CHUNKED:
            lines.append(b"transfer-encoding: chunked")
        self._framing = framing
        self.begun = True
        self._remaining = int(length or 0)
        self.persistent = self.persistent and not close and framing is not _Framing.CLOSE
        lines.append(_date_line(int(now)))
        lines.append(b"\r\n" if self.persistent else b"connection: close\r\n\r\n")
        return b"\r\n".join(lines)

    def _choose_framing(self, status: int, length: bytes | None) -> _Framing:
        if self._method == "HEAD" or status in _WITHOUT_BODY:
            return _Framing.NONE
        if length is not None:
            return _Framing.LENGTH
        return _Framing.CLOSE if self._http_version == "1.0" else _Framing.CHUNKED

    def frame(self, size: int) -> tuple[bytes, bytes] | None:
        """Return what goes before and after a piece of the body of size bytes, None when it is not to be sent at all.

        Raises ResponseError when it goes over the response's Content-Length.
        """
        match self._framing:
            case _Framing.CHUNKED:
                return (b"%x\r\n" % size, b"\r\n") if size else None
            case _Framing.LENGTH:
                if size > self._remaining:
                    raise ResponseError("the response's body is longer than its Content-Length")
                self._remaining -= size
            case _Framing.NONE:
                return None
            case _Framing.UNDECIDED:
                raise ResponseError("the response's body comes before its head")
        return (b"", b"") if size else None

    def framed(self, data: bytes) -> bytes:
        """Return a piece of the body in its framing, b"" for nothing to send. Raises as `frame`."""
        if self._framing is _Framing.CHUNKED and data:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return b"" if self.frame(len(data)) is None else data

    def end(self) -> bytes:
        """Return what ends the response. Raises ResponseError when the body is shorter than its Content-Length."""
        if self._framing is _Framing.UNDECIDED:
            raise ResponseError("the response ends before it has begun")
        if self._framing is _Framing.LENGTH and self._remaining:
            raise ResponseError("the response's body is shorter than its Content-Length")
        self.whole = True
        return b"0\r\n\r\n" if self._framing is _Framing.CHUNKED else b""


def switching_head(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the head after which the connection speaks what the client asked for. Raises ResponseError."""
    lines = [b"HTTP/1.1 101 Switching Protocols", *[b"%b: %b" % field for field in _checked(headers)]]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _checked(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers, their values stripped. Raises ResponseError for those that could be read as something else."""
    fields = [(name, value.strip(b" \t")) for name, value in headers]
    names = [name for name, _ in fields]
    if b"" in names or _BAD_IN_NAME.search(b"".join(names)):
        raise ResponseError("a header's name is malformed")
    if _BAD_IN_VALUE.search(b"".join([value for _, value in fields])):
        raise ResponseError("a header's value holds a control character")
    return fields


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    if not 200 <= status <= 999:
        raise ResponseError(f"a response cannot have the status {status}")
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b" % (status, phrase.encode())


@lru_cache(maxsize=2)
def _date_line(second: int) -> bytes:
    return b"date: " + formatdate(second, usegmt=True).encode()
