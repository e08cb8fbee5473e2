"""What `RequestBytes` lets through, and where it cuts."""

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat2api.api.request_bytes import HeadLimits, RequestBytes, RequestHead, read_head
from chat2api.errors import InvalidRequestError, MethodNotAllowedError

HOST = b"Host: localhost\r\n"
LIMITS = HeadLimits()


def take_all(data: bytes, *cuts: int) -> list[tuple[bytes, bytes]]:
    """Feed data cut at those places and return path and body of each request that comes out whole."""
    incoming = RequestBytes(LIMITS)
    requests: list[tuple[bytes, bytes]] = []
    head: RequestHead | None = None
    body = b""
    start = 0
    for end in [*sorted(cuts), len(data)]:
        if end == start:
            continue
        incoming.feed(data[start:end])
        start = end
        while True:
            head = head or incoming.take_head()
            if head is None:
                break
            body += incoming.take_body()
            if not incoming.complete:
                break
            requests.append((head.path, body))
            head, body = None, b""
            incoming.next_request()
    return requests


BODY = b"GET / HTTP/1.1\r\n\r\n\n\r\x00"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = (
    b"POST /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n3;x=y\r\n\r\n\r\r\n00A\r\n0123456789\r\n0\r\n"
)
PLAIN_END = b"\r\n"
TRAILERS = b"x-checksum: 1\r\n\r\n"
A, B, C = (b"/a", b""), (b"/b", BODY), (b"/c", b"\r\n\r0123456789")


def test_requests_are_cut_where_they_end() -> None:
    assert take_all(GET + POST + CHUNKED + PLAIN_END + GET) == [A, B, C, A]


@given(st.lists(st.integers(0, len(GET + POST + CHUNKED + TRAILERS + GET)), max_size=12))
def test_any_split_of_the_same_bytes_gives_the_same_requests(cuts: list[int]) -> None:
    assert take_all(GET + POST + CHUNKED + TRAILERS + GET, *cuts) == [A, B, C, A]


def test_every_byte_alone_gives_the_same_requests() -> None:
    data = GET + POST + CHUNKED + TRAILERS + b"\r\n" + GET

    assert take_all(data, *range(len(data))) == [A, B, C, A]


@pytest.mark.parametrize(
    "trailers", [b" folded: 1\r\n\r\n", b"a: 1\n\r\n", b"a: 1\n\n", b"a : 1\r\n\r\n", b"a\r\n\r\n"]
)
def test_trailers_are_checked_and_dropped(trailers: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        take_all(CHUNKED + trailers)


def test_S37_trailers_have_the_limits_of_a_head() -> None:
    line = b"x: " + b"y" * 1000 + b"\r\n"
    for trailers in (line * 17, line * 17 + b"\r\n", b"x: 1\r\n" * 101 + b"\r\n"):
        with pytest.raises(InvalidRequestError) as refusal:
            take_all(CHUNKED + trailers)
        assert refusal.value.status == 431


def _read(data: bytes) -> RequestHead:
    return read_head(data, 0, len(data), LIMITS)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/v1/models?x=http://a/?b", b"/v1/models", b"x=http://a/?b"),
        (b"http://localhost/v1?a", b"/v1", b"a"),
        (b"HTTP://LOCALHOST", b"/", b""),
        (b"http://localhost?q", b"/", b"q"),
    ],
)
def test_an_absolute_url_of_the_same_host_becomes_a_path(target: bytes, path: bytes, query: bytes) -> None:
    head = _read(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")

    assert (head.path, head.query) == (path, query)


def test_options_of_the_whole_server_passes() -> None:
    assert _read(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n").path == b"*"


def test_a_head_tells_its_fields_in_order_and_what_they_mean() -> None:
    head = _read(
        b"POST /x HTTP/1.1\r\n"
        + HOST
        + b"Content-Length:\t12 \r\nX-Two: \xe4 b\r\nExpect: 100-Continue\r\nx-two:\r\n\r\n"
    )

    assert head.fields == [
        (b"host", b"localhost"), (b"content-length", b"12"), (b"x-two", b"\xe4 b"), (b"expect", b"100-Continue"),
        (b"x-two", b""),
    ]  # fmt: skip
    assert (head.method, head.version, head.length, head.chunked) == ("POST", "1.1", 12, False)
    assert (head.persistent, head.expects_continue, head.upgrade) == (True, True, b"")


@pytest.mark.parametrize(
    ("lines", "persistent", "upgrade"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n", True, b""),
        (b"GET / HTTP/1.0\r\n", False, b""),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", False, b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n", False, b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n", False, b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n", True, b"websocket"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n", True, b""),
    ],
)
def test_what_becomes_of_the_connection(lines: bytes, persistent: bool, upgrade: bytes) -> None:
    head = _read(lines + b"\r\n")

    assert (head.persistent, head.upgrade) == (persistent, upgrade)


def test_nobody_waits_for_a_continue_without_a_body_or_in_an_older_version() -> None:
    assert not _read(b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n\r\n").expects_continue
    assert not _read(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").expects_continue


def _head(*, target: int = 1, fields: int = 0, filler: int = 0) -> bytes:
    lines = b"".join(b"x-%d: 1\r\n" % number for number in range(fields))
    return b"GET /" + b"a" * (target - 1) + b" HTTP/1.1\r\n" + HOST + lines + b"f: " + b"f" * filler + b"\r\n\r\n"


def test_S37_the_largest_target_head_and_number_of_fields_pass_and_one_more_does_not() -> None:
    spare = LIMITS.head - len(_head())
    for whole, over, status in (
        (_head(target=LIMITS.target), _head(target=LIMITS.target + 1), 414),
        (_head(fields=LIMITS.fields - 2), _head(fields=LIMITS.fields - 1), 431),
        (_head(filler=spare), _head(filler=spare + 1), 431),
    ):
        assert len(take_all(whole)) == 1
        with pytest.raises(InvalidRequestError) as refusal:
            take_all(over)
        assert refusal.value.status == status


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"GET /" + b"a" * (LIMITS.target + 100), 414),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * LIMITS.head, 431),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 10 * LIMITS.head + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\n", 400),
        (b"\x16\x03\x01\x02", 400),
        (b"\n", 400),
        (b" GET", 400),
    ],
)
def test_a_head_that_cannot_become_good_is_refused_before_it_ends(begun: bytes, status: int) -> None:
    for whole in (True, False):
        incoming = RequestBytes(LIMITS)
        with pytest.raises(InvalidRequestError) as refusal:
            for piece in [begun] if whole else [begun[at : at + 100] for at in range(0, len(begun), 100)]:
                incoming.feed(piece)
                incoming.take_head()

        assert refusal.value.status == status


def test_S39_a_bare_lf_is_noticed_where_two_pieces_meet() -> None:
    incoming = RequestBytes(LIMITS)
    incoming.feed(b"GET / HTTP/1.1\r")
    assert incoming.take_head() is None
    incoming.feed(b"\n")
    assert incoming.take_head() is None
    incoming.feed(b"\n")
    with pytest.raises(InvalidRequestError):
        incoming.take_head()


def test_what_follows_a_head_is_given_as_it_is_when_something_else_is_spoken() -> None:
    incoming = RequestBytes(LIMITS)
    incoming.feed(GET + b"\x00\n\r\n")
    assert incoming.take_head() is not None

    assert incoming.take_rest() == b"\x00\n\r\n"
    assert incoming.take_rest() == b""


def test_the_next_request_waits_for_the_present_one() -> None:
    incoming = RequestBytes(LIMITS)
    incoming.feed(POST[:-1])
    incoming.take_head()
    incoming.take_body()

    with pytest.raises(RuntimeError):
        incoming.next_request()


PIECES = [
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\n",
    b"POST /a HTTP/1.0\r\n",
    HOST,
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"x: y\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b" ",
    b"5\r\nabcde\r\n",
    b"0\r\n\r\n",
    b"0\r\nt: 1\r\n\r\n",
    b"abcde",
    b";ext",
    GET,
    POST,
    CHUNKED + PLAIN_END,
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
@example(GET + POST + CHUNKED + TRAILERS + GET)
@example(b"\r\n" + GET)
def test_S39_another_parser_reads_whatever_passes_in_the_same_way(data: bytes) -> None:
    incoming = RequestBytes(LIMITS)
    incoming.feed(data)
    while True:
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(_without_blank_lines(data[len(data) - incoming.held :]))
        body = b""
        try:
            head = incoming.take_head()
            if head is not None:
                body = incoming.take_body()
        except (InvalidRequestError, MethodNotAllowedError):
            return
        if head is None:
            return
        event = parser.next_event()
        assert isinstance(event, h11.Request)
        assert (event.method.decode(), event.http_version.decode()) == (head.method, head.version)
        assert list(event.headers) == [
            (name, value.lower() if name == b"transfer-encoding" else value) for name, value in head.fields
        ]
        seen = b""
        while isinstance(event := parser.next_event(), h11.Data):
            seen += event.data
        assert seen == body
        assert isinstance(event, h11.EndOfMessage) is incoming.complete
        if not incoming.complete:
            return
        incoming.next_request()


def _without_blank_lines(data: bytes) -> bytes:
    """Leave out the blank lines before a request, which we ignore and h11 refuses."""
    while data.startswith(b"\r\n"):
        data = data[2:]
    return data
