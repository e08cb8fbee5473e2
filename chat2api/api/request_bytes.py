"""The bytes of HTTP/1.1 requests, cut into heads and bodies and refused whenever two readers could differ.

Theory of operation. Request smuggling needs two programs that disagree about where a request ends. h11, which
parses for us, is strict in most things but answers requests that carry both Content-Length and Transfer-Encoding,
that end lines with a bare LF, or that fold a header over two lines (measured with h11 0.16). `RequestBytes` therefore
reads the raw bytes first. It is a small state machine:

    HEAD ──blank line──> LENGTH or CHUNKED ──last byte of the body──> DONE ──next_request()──> HEAD

and hands on exactly the bytes of one request, so that the parser behind it never holds a byte of the next one.
Everything here is pure: bytes go in by `feed`, checked bytes come out of `take`, and what is wrong is raised as
an error that carries the status to answer. After a refusal the connection is of no more use.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from chat2api.errors import InvalidRequestError, MethodNotAllowedError

_TOKEN_BYTES = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
_REQUEST_LINE = re.compile(rb"([" + _TOKEN_BYTES + rb"]{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD_NAME = re.compile(rb"[" + _TOKEN_BYTES + rb"]+")
_BAD_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(rb"[0-9A-Za-z.\-_~%]*(:[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{0,5})?")
_ABSOLUTE_FORM = re.compile(rb"(?i:https?)://([^/?#]*)([/?].*)?", re.DOTALL)
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?")

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
    RAW = auto()


@dataclass(frozen=True, slots=True)
class _Head:
    data: bytes
    length: int
    chunked: bool


class RequestBytes:
    """One connection's incoming bytes, released request by request after checking."""

    def __init__(self, limits: HeadLimits) -> None:
        """Start at the head of a connection's first request."""
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0
        self._state = _State.HEAD
        self._remaining = 0

    @property
    def held(self) -> int:
        """How many bytes wait here, for more of their head or for their turn."""
        return len(self._buffer)

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and is not complete."""
        return self._state is _State.HEAD and bool(self._buffer)

    @property
    def complete(self) -> bool:
        """Whether the current request has been handed on to its last byte."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> None:
        """Add what the connection brought."""
        self._buffer += data

    def next_request(self) -> None:
        """Go on to the following request; the present one must be complete."""
        if self._state is not _State.DONE:
            raise RuntimeError("the present request is not complete")
        self._state = _State.HEAD

    def pass_through(self) -> None:
        """Hand on everything unchecked from here: the connection is a websocket now."""
        self._state = _State.RAW

    def take(self) -> bytes:
        """Return the next checked bytes of the current request, b"" when more are needed or it is complete.

        A head comes whole; a body comes as far as it has arrived. Raises InvalidRequestError, MethodNotAllowedError.
        """
        match self._state:
            case _State.HEAD:
                return self._take_head()
            case _State.LENGTH:
                return self._take_length()
            case _State.DONE:
                return b""
            case _State.RAW:
                return self._cut(len(self._buffer))
            case _:
                return self._take_chunked()

    def _cut(self, count: int) -> bytes:
        """Remove and return the buffer's first bytes."""
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._searched = 0
        return data

    def _find_blank_line(self, limit: int, too_large: HeadersTooLargeError) -> int | None:
        """Return where the lines that end in a blank one end, None when it has not come; refuse bare LF at once.

        Without the check a client that ends its lines with LF alone would wait for the time limit.
        """
        buffer = self._buffer
        line_end = buffer.find(b"\n", self._searched)
        while line_end != -1:
            if line_end == 0 or buffer[line_end - 1] != 0x0D:
                raise MalformedRequestError("A line of the request's head does not end with CRLF.")
            if line_end + 1 > limit:
                raise too_large
            if line_end == 1 or buffer[line_end - 3 : line_end] == b"\r\n\r":
                return line_end + 1
            line_end = buffer.find(b"\n", line_end + 1)
        self._searched = len(buffer)
        if self._searched > limit:
            raise too_large
        return None

    def _take_head(self) -> bytes:
        while self._buffer.startswith(b"\r\n"):
            self._cut(2)  # RFC 9112, 2.2: an empty line before a request is to be ignored
        if not self._buffer or self._buffer == b"\r":
            return b""
        limits = self._limits
        if not _FIELD_NAME.match(self._buffer, 0, 1):
            raise MalformedRequestError("This is not an HTTP/1.1 request.")
        longest_line = limits.target + 64
        if len(self._buffer) > longest_line and b"\n" not in self._buffer[:longest_line]:
            raise UrlTooLongError(f"The request's URL is over {limits.target} bytes.")
        end = self._find_blank_line(
            limits.head,
            HeadersTooLargeError(f"The request's headers are over {limits.head} bytes."),
        )
        if end is None:
            return b""
        head = check_head(self._cut(end), limits)
        if head.chunked:
            self._state = _State.CHUNK_LINE
        else:
            self._remaining = head.length
            self._state = _State.LENGTH if head.length else _State.DONE
        return head.data

    def _take_length(self) -> bytes:
        data = self._cut(min(self._remaining, len(self._buffer)))
        self._remaining -= len(data)
        if not self._remaining:
            self._state = _State.DONE
        return data

    def _take_chunked(self) -> bytes:
        """Return all complete pieces of chunked framing that have arrived, still framed."""
        pieces: list[bytes] = []
        while self._state is not _State.DONE:
            piece = self._take_chunk_piece()
            if not piece:
                break
            pieces.append(piece)
        return b"".join(pieces)

    def _take_chunk_piece(self) -> bytes:
        match self._state:
            case _State.CHUNK_LINE:
                return self._take_chunk_line()
            case _State.CHUNK_DATA:
                data = self._cut(min(self._remaining, len(self._buffer)))
                self._remaining -= len(data)
                if not self._remaining:
                    self._state = _State.CHUNK_END
                return data
            case _State.CHUNK_END:
                if not b"\r\n".startswith(self._buffer[:2]):
                    raise MalformedRequestError("A chunk of the body is longer than it says.")
                if len(self._buffer) < 2:
                    return b""
                self._state = _State.CHUNK_LINE
                return self._cut(2)
            case _:
                return self._take_trailers()

    def _take_chunk_line(self) -> bytes:
        end = self._buffer.find(b"\r\n", 0, _CHUNK_LINE_LIMIT)
        if end == -1:
            if len(self._buffer) >= _CHUNK_LINE_LIMIT or b"\n" in self._buffer:
                raise MalformedRequestError("A chunk of the body has no valid size.")
            return b""
        matched = _CHUNK_LINE.fullmatch(self._buffer, 0, end)
        if matched is None:
            raise MalformedRequestError("A chunk of the body has no valid size.")
        self._remaining = int(matched[1], 16)
        self._state = _State.CHUNK_DATA if self._remaining else _State.TRAILERS
        return self._cut(end + 2)

    def _take_trailers(self) -> bytes:
        end = self._find_blank_line(
            self._limits.head,
            HeadersTooLargeError("The trailers after the request's body are too large."),
        )
        if end is None:
            return b""
        _check_fields(bytes(self._buffer[: max(0, end - 4)]), self._limits)
        self._state = _State.DONE
        self._cut(end)
        return b"\r\n"  # nobody here reads trailers: they are checked and dropped


def check_head(data: bytes, limits: HeadLimits) -> _Head:
    """Return the head with its framing, the target in origin form; data is everything up to the blank line's end.

    Raises InvalidRequestError, MethodNotAllowedError.
    Source: RFC 9112, sections 2.2, 3.2, 5.2, 6.1 and 6.3, each read in its strictest way.
    """
    request_line, _, rest = data[:-4].partition(b"\r\n")
    method, target, version = _check_request_line(request_line, limits)
    fields = _check_fields(rest, limits)
    host = _check_host(fields, version)
    length, chunked = _check_framing(fields, version)
    expect = _values(fields, b"expect")
    if any(value.lower() != b"100-continue" for value in expect):
        raise UnknownExpectationError("Only 'Expect: 100-continue' is known.")
    origin = _origin_form(method, target, host)
    if origin is not target:
        data = b" ".join((method, origin, version)) + data[len(request_line) :]
    return _Head(data, length, chunked)


def _check_request_line(line: bytes, limits: HeadLimits) -> tuple[bytes, bytes, bytes]:
    """Return method, target and version."""
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        raise MalformedRequestError("The request line is malformed.")
    method, target = matched[1], matched[2]
    if len(target) > limits.target:
        raise UrlTooLongError(f"The request's URL is over {limits.target} bytes.")
    if (matched[3], matched[4]) not in ((b"1", b"1"), (b"1", b"0")):
        raise UnknownVersionError("Only HTTP/1.1 is spoken here; a proxy in front may speak HTTP/2.")
    if method in (b"CONNECT", b"TRACE"):
        raise MethodNotAllowedError("This method is not supported.")
    return method, target, line[-8:]


def _check_fields(data: bytes, limits: HeadLimits) -> list[tuple[bytes, bytes]]:
    """Return the fields in order, names in lower case; data is lines without the last line end, or nothing."""
    if not data:
        return []
    lines = data.split(b"\r\n")
    if len(lines) > limits.fields:
        raise HeadersTooLargeError(f"The request has over {limits.fields} headers.")
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            raise MalformedRequestError("A header is folded over several lines.")
        if not colon or not _FIELD_NAME.fullmatch(name):
            raise MalformedRequestError("A header's name is malformed.")
        value = value.strip(b" \t")
        if _BAD_IN_VALUE.search(value):
            raise MalformedRequestError("A header's value holds a control character.")
        fields.append((name.lower(), value))
    return fields


def _values(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for field, value in fields if field == name]


def _check_host(fields: list[tuple[bytes, bytes]], version: bytes) -> bytes:
    """Return the Host header's value, b"" where HTTP/1.0 may leave it out."""
    hosts = _values(fields, b"host")
    if len(hosts) > 1 or (not hosts and version == b"HTTP/1.1"):
        raise MalformedRequestError("The request needs exactly one Host header.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise MalformedRequestError("The Host header is malformed.")
    return hosts[0] if hosts else b""


def _check_framing(fields: list[tuple[bytes, bytes]], version: bytes) -> tuple[int, bool]:
    """Return the body's length and whether it is chunked instead."""
    lengths = _values(fields, b"content-length")
    codings = _values(fields, b"transfer-encoding")
    if lengths and codings:
        raise MalformedRequestError("Content-Length and Transfer-Encoding exclude each other.")
    if codings:
        if len(codings) > 1 or version != b"HTTP/1.1":
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
