"""The bytes of HTTP/1.1 requests, read into heads and bodies and refused whenever two readers could differ.

Theory of operation. Request smuggling needs two programs that disagree about where a request ends. So each rule is read
in its strictest way, and what it leaves open is refused: Content-Length beside Transfer-Encoding, lines that end with a
bare LF, headers folded over two lines. `RequestBytes` is a small state machine:

    HEAD ──blank line──> LENGTH or CHUNKED ──last byte of the body──> DONE ──next_request()──> HEAD

and never looks beyond the present request. Everything here is pure: bytes go in by `feed`, heads come out of `take_head`
and bodies of `take_body`, and what is wrong is raised as an error that carries the status to answer. After a refusal the
connection is of no more use.

A good head, which nearly all are, is checked by two regular expressions; only for a bad one is it found out what is wrong.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from chat2api.errors import InvalidRequestError, MethodNotAllowedError

_TOKEN_BYTES = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
_REQUEST_LINE = re.compile(rb"([" + _TOKEN_BYTES + rb"]{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD_NAME = re.compile(rb"[" + _TOKEN_BYTES + rb"]+")
_FIELDS = re.compile(rb"(?:[" + _TOKEN_BYTES + rb"]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_HOST = re.compile(rb"[0-9A-Za-z.\-_~%]*(:[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{0,5})?")
_ABSOLUTE_FORM = re.compile(rb"(?i:https?)://([^/?#]*)([/?].*)?", re.DOTALL)
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?")

# What decides about framing, the connection and the host; each is looked at once, while the fields are read.
_DECIDING = frozenset((
    b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade",
))  # fmt: skip

# A size and, rarely, an extension that nobody uses; a longer line only serves to make us work.
_CHUNK_LINE_LIMIT = 1024


class MalformedRequestError(InvalidRequestError):
    """The bytes are not HTTP/1.1, or could be read in two ways."""

    default_code = "bad_request"


class UrlTooLongError(InvalidRequestError):
    """The request target is over its limit."""

    status = 414
    default_code = "uri_too_long"


class HeadersTooLargeError(InvalidRequestError):
    """The head as a whole, or the number of its fields, is over its limit."""

    status = 431
    default_code = "headers_too_large"


class UnknownExpectationError(InvalidRequestError):
    """An Expect header asks for something other than 100-continue."""

    status = 417
    default_code = "expectation_failed"


class UnknownCodingError(InvalidRequestError):
    """The body comes in a transfer coding other than chunked."""

    status = 501
    default_code = "transfer_encoding"


class UnknownVersionError(InvalidRequestError):
    """Another HTTP than 1.0 and 1.1, such as HTTP/2 without asking first."""

    status = 505
    default_code = "http_version"


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How large the part before the body may be: the whole head and the request target in bytes, and its fields."""

    head: int = 16 * 1024
    target: int = 8 * 1024
    fields: int = 100


class _State(Enum):
    HEAD = auto()
    LENGTH = auto()
    CHUNK_LINE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    DONE = auto()


@dataclass(slots=True)
class RequestHead:
    """The head of one request, all of it checked."""

    method: str
    path: bytes
    """As it was sent, without the query; `*` for OPTIONS of the whole server."""
    query: bytes
    version: str
    """`1.1` or `1.0`."""
    fields: list[tuple[bytes, bytes]]
    """All headers in their order, names in lower case."""
    length: int
    chunked: bool
    """Whether chunks tell the body's end, and not `length`."""
    persistent: bool
    """Whether the client lets the connection live on afterwards."""
    expects_continue: bool
    """Whether the client waits to be told that its body is wanted."""
    upgrade: bytes
    """What the client would go over to, in lower case; b"" for nothing."""


class RequestBytes:
    """One connection's incoming bytes, read request by request."""

    def __init__(self, limits: HeadLimits) -> None:
        """Start at the head of a connection's first request."""
        self._limits = limits
        self._buffer = b""
        self._at = 0
        self._searched = 0
        self._state = _State.HEAD
        self._remaining = 0

    @property
    def held(self) -> int:
        """How many bytes wait here, for more of their head or for their turn."""
        return len(self._buffer) - self._at

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and is not complete."""
        return self._state is _State.HEAD and self._at < len(self._buffer)

    @property
    def complete(self) -> bool:
        """Whether the present request has been taken to its last byte."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> None:
        """Add what the connection brought."""
        rest = self._buffer[self._at :]
        self._buffer = rest + data if rest else data
        self._at = 0

    def next_request(self) -> None:
        """Go on to the following request; the present one must be complete."""
        if self._state is not _State.DONE:
            raise RuntimeError("the present request is not complete")
        self._state = _State.HEAD

    def take_rest(self) -> bytes:
        """Return everything that is here, unchecked: for a connection that speaks something else from now on."""
        return self._cut(len(self._buffer) - self._at)

    def take_head(self) -> RequestHead | None:
        """Return the next request's head, None until all of it is here.

        Raises InvalidRequestError, MethodNotAllowedError.
        """
        buffer = self._buffer
        while buffer.startswith(b"\r\n", self._at):
            self._at += 2  # RFC 9112, 2.2: an empty line before a request is to be ignored
        begin = self._at
        if begin == len(buffer) or (buffer[begin] == 0x0D and begin + 1 == len(buffer)):
            return None
        end = buffer.find(b"\r\n\r\n", begin + self._searched)
        if end < 0 or end + 4 - begin > self._limits.head:
            self._check_unfinished()
            self._searched = max(0, len(buffer) - begin - 3)
            return None
        head = read_head(buffer, begin, end + 4, self._limits)
        self._at = end + 4
        self._searched = 0
        self._remaining = head.length
        self._state = _State.CHUNK_LINE if head.chunked else _State.LENGTH if head.length else _State.DONE
        return head

    def take_body(self) -> bytes:
        """Return what has arrived of the present request's body, without its framing. Raises InvalidRequestError."""
        if self._state is _State.LENGTH:
            data = self._cut(self._remaining)
            self._remaining -= len(data)
            if not self._remaining:
                self._state = _State.DONE
            return data
        pieces: list[bytes] = []
        while self._state is not _State.DONE and (piece := self._take_chunk_piece()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    def _cut(self, count: int) -> bytes:
        """Remove and return the next bytes, at most count."""
        data = self._buffer[self._at : self._at + count]
        self._at += len(data)
        self._searched = 0
        return data

    def _check_unfinished(self) -> None:
        """Raise what is wrong already with a head that has no end yet, or is too large.

        Without the look at line ends a client that ends its lines with LF alone would wait for the time limit.
        """
        limits, buffer, begin = self._limits, self._buffer, self._at
        if not _FIELD_NAME.match(buffer, begin, begin + 1):
            raise MalformedRequestError("This is not an HTTP/1.1 request.")
        line_end = buffer.find(b"\n", begin, begin + limits.target + 64)
        if line_end < 0 and len(buffer) - begin > limits.target + 64:
            raise UrlTooLongError(f"The request's URL is over {limits.target} bytes.")
        if _BARE_LF.search(buffer, begin):
            raise MalformedRequestError("A line of the request's head does not end with CRLF.")
        if len(buffer) - begin > limits.head:
            raise HeadersTooLargeError(f"The request's headers are over {limits.head} bytes.")

    def _take_chunk_piece(self) -> bytes | None:
        """Go one step through chunked framing; return what it gave of the body, None when more bytes are needed."""
        match self._state:
            case _State.CHUNK_LINE:
                return self._take_chunk_line()
            case _State.CHUNK_DATA:
                data = self._cut(self._remaining)
                self._remaining -= len(data)
                if not self._remaining:
                    self._state = _State.CHUNK_END
                return data or None
            case _State.CHUNK_END:
                if not b"\r\n".startswith(self._buffer[self._at : self._at + 2]):
                    raise MalformedRequestError("A chunk of the body is longer than it says.")
                if self.held < 2:
                    return None
                self._at += 2
                self._state = _State.CHUNK_LINE
                return b""
            case _:
                return self._take_trailers()

    def _take_chunk_line(self) -> bytes | None:
        begin = self._at
        end = self._buffer.find(b"\r\n", begin, begin + _CHUNK_LINE_LIMIT)
        if end < 0:
            if self.held >= _CHUNK_LINE_LIMIT or self._buffer.find(b"\n", begin) >= 0:
                raise MalformedRequestError("A chunk of the body has no valid size.")
            return None
        matched = _CHUNK_LINE.fullmatch(self._buffer, begin, end)
        if matched is None:
            raise MalformedRequestError("A chunk of the body has no valid size.")
        self._remaining = int(matched[1], 16)
        self._state = _State.CHUNK_DATA if self._remaining else _State.TRAILERS
        self._at = end + 2
        return b""

    def _take_trailers(self) -> bytes | None:
        """Go past the trailers, which nobody here reads: they are checked and dropped."""
        limits, buffer, begin = self._limits, self._buffer, self._at
        end = begin + 2
        if not buffer.startswith(b"\r\n", begin):
            end = buffer.find(b"\r\n\r\n", begin) + 4
            if (self.held if end < 4 else end - begin) > limits.head:
                raise HeadersTooLargeError("The trailers after the request's body are too large.")
            if end < 4:
                if _BARE_LF.search(buffer, begin):
                    raise MalformedRequestError("A line after the request's body does not end with CRLF.")
                return None
            _split_fields(buffer, begin, end, limits)
        self._at = end
        self._state = _State.DONE
        return b""


def read_head(data: bytes, begin: int, end: int, limits: HeadLimits) -> RequestHead:
    """Return the head that is data[begin:end], its blank line included.

    Raises InvalidRequestError, MethodNotAllowedError.
    Source: RFC 9112, sections 2.2, 3.2, 5.2, 6.1 and 6.3, each read in its strictest way.
    """
    line_end = data.find(b"\r\n", begin)
    if line_end - begin > limits.target + 64:
        raise UrlTooLongError(f"The request's URL is over {limits.target} bytes.")
    line = _REQUEST_LINE.fullmatch(data, begin, line_end)
    if line is None:
        raise MalformedRequestError("The request line is malformed.")
    method, target, major, minor = line.groups()
    if len(target) > limits.target:
        raise UrlTooLongError(f"The request's URL is over {limits.target} bytes.")
    if major != b"1" or minor not in (b"0", b"1"):
        raise UnknownVersionError("Only HTTP/1.1 is spoken here; a proxy in front may speak HTTP/2.")
    if method in (b"CONNECT", b"TRACE"):
        raise MethodNotAllowedError("This method is not supported.")
    modern = minor == b"1"
    fields: list[tuple[bytes, bytes]] = []
    deciding: dict[bytes, list[bytes]] = {}
    for field in _split_fields(data, line_end + 2, end, limits):
        name, _, value = field.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        fields.append((name, value))
        if name in _DECIDING:
            deciding.setdefault(name, []).append(value)
    host = _check_host(deciding.get(b"host", ()), modern)
    length, chunked = _check_framing(deciding, modern)
    expected = deciding.get(b"expect", ())
    if any(value.lower() != b"100-continue" for value in expected):
        raise UnknownExpectationError("Only 'Expect: 100-continue' is known.")
    path, _, query = _origin_form(method, target, host).partition(b"?")
    wishes = [wish.strip() for value in deciding.get(b"connection", ()) for wish in value.lower().split(b",")]
    upgrades = deciding.get(b"upgrade", ()) if b"upgrade" in wishes else ()
    return RequestHead(
        method=method.decode("ascii"),
        path=path,
        query=query,
        version="1.1" if modern else "1.0",
        fields=fields,
        length=length,
        chunked=chunked,
        persistent=modern and b"close" not in wishes,
        expects_continue=modern and bool(expected) and (chunked or length > 0),
        upgrade=upgrades[-1].lower() if upgrades else b"",
    )


def _split_fields(data: bytes, begin: int, end: int, limits: HeadLimits) -> list[bytes]:
    """Return the lines between begin and the blank line that ends at end, each a header's name, a colon and its value."""
    lines = data[begin : end - 4].split(b"\r\n") if end - begin > 4 else []
    if len(lines) > limits.fields:
        raise HeadersTooLargeError(f"The request has over {limits.fields} headers.")
    if not _FIELDS.fullmatch(data, begin, end):
        raise MalformedRequestError(_what_is_wrong(lines))
    return lines


def _what_is_wrong(lines: list[bytes]) -> str:
    """Return what to tell about lines that are not headers."""
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            return "A header is folded over several lines."
        name, colon, _ = line.partition(b":")
        if not colon or not _FIELD_NAME.fullmatch(name):
            return "A header's name is malformed."
    return "A header's value holds a control character."


def _check_host(hosts: Sequence[bytes], modern: bool) -> bytes:
    """Return the Host header's value, b"" where HTTP/1.0 may leave it out."""
    if len(hosts) > 1 or (not hosts and modern):
        raise MalformedRequestError("The request needs exactly one Host header.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise MalformedRequestError("The Host header is malformed.")
    return hosts[0] if hosts else b""


def _check_framing(deciding: Mapping[bytes, Sequence[bytes]], modern: bool) -> tuple[int, bool]:
    """Return the body's length and whether it is chunked instead."""
    lengths = deciding.get(b"content-length", ())
    codings = deciding.get(b"transfer-encoding", ())
    if lengths and codings:
        raise MalformedRequestError("Content-Length and Transfer-Encoding exclude each other.")
    if codings:
        if len(codings) > 1 or not modern:
            raise MalformedRequestError("The Transfer-Encoding header is malformed.")
        if codings[0].lower() != b"chunked":
            raise UnknownCodingError("The only transfer coding known is 'chunked'.")
        return 0, True
    if len(lengths) > 1 or (lengths and not _CONTENT_LENGTH.fullmatch(lengths[0])):
        raise MalformedRequestError("The Content-Length header is malformed.")
    return int(lengths[0]) if lengths else 0, False


def _origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    """Return the target as path and query; an absolute URL must name the very host of the Host header."""
    if b"#" in target:
        raise MalformedRequestError("The request's URL has a fragment.")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None or not host or absolute[1].lower() != host.lower():
        raise MalformedRequestError("The request's URL is not a path of this server.")
    rest = absolute[2] or b"/"
    return rest if rest.startswith(b"/") else b"/" + rest
