"""What `RequestBytes` lets through, and where it cuts."""

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat2api.api.request_bytes import HeadLimits, RequestBytes, check_head
from chat2api.errors import InvalidRequestError, MethodNotAllowedError

HOST = b"Host: localhost\r\n"
LIMITS = HeadLimits()


def _take_all(data: bytes, *pieces: int) -> list[bytes]:
    """Feed data cut at those places and return the requests that come out, framing included."""
    incoming = RequestBytes(LIMITS)
    requests = [b""]
    ends = [*sorted(pieces), len(data)]
    start = 0
    for end in ends:
        if end == start:
            continue
        incoming.feed(data[start:end])
        start = end
        while True:
            taken = incoming.take()
            requests[-1] += taken
            if incoming.complete:
                requests.append(b"")
                incoming.next_request()
            elif not taken:
                break
    return requests[:-1]


GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: 21\r\n\r\nGET / HTTP/1.1\r\n\r\n\n\r\x00"
CHUNKED = (
    b"POST /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n3;x=y\r\n\r\n\r\r\n00A\r\n0123456789\r\n0\r\n"
)
PLAIN_END = b"\r\n"
TRAILERS = b"x-checksum: 1\r\n\r\n"


def test_requests_are_cut_where_they_end() -> None:
    assert _take_all(GET + POST + CHUNKED + PLAIN_END + GET) == [GET, POST, CHUNKED + PLAIN_END, GET]


@given(st.lists(st.integers(0, len(GET + POST + CHUNKED + TRAILERS + GET)), max_size=12))
def test_any_split_of_the_same_bytes_gives_the_same_requests(cuts: list[int]) -> None:
    assert _take_all(GET + POST + CHUNKED + TRAILERS + GET, *cuts) == [GET, POST, CHUNKED + PLAIN_END, GET]


def test_every_byte_alone_gives_the_same_requests() -> None:
    data = GET + POST + CHUNKED + TRAILERS + b"\r\n" + GET

    assert _take_all(data, *range(len(data))) == [GET, POST, CHUNKED + PLAIN_END, GET]


def test_trailers_are_checked_and_dropped() -> None:
    with pytest.raises(InvalidRequestError):
        _take_all(CHUNKED + b" folded: 1\r\n\r\n")
    with pytest.raises(InvalidRequestError):
        _take_all(CHUNKED + b"a: 1\n\r\n")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/", b"/"),
        (b"/v1/models?x=http://a/", b"/v1/models?x=http://a/"),
        (b"http://localhost/v1?a", b"/v1?a"),
        (b"HTTP://LOCALHOST", b"/"),
        (b"http://localhost?q", b"/?q"),
    ],
)
def test_an_absolute_url_of_the_same_host_becomes_a_path(target: bytes, expected: bytes) -> None:
    head = check_head(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n", LIMITS)

    assert head.data == b"GET " + expected + b" HTTP/1.1\r\n" + HOST + b"\r\n"


def test_options_of_the_whole_server_passes() -> None:
    request = b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"

    assert check_head(request, LIMITS).data == request


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
        assert _take_all(whole) == [whole]
        with pytest.raises(InvalidRequestError) as refusal:
            _take_all(over)
        assert refusal.value.status == status


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"GET /" + b"a" * (LIMITS.target + 100), 414),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * LIMITS.head, 431),
        (b"GET / HTTP/1.1\r\nHost: a\n", 400),
        (b"\x16\x03\x01\x02", 400),
        (b"\n", 400),
        (b" GET", 400),
    ],
)
def test_a_head_that_cannot_become_good_is_refused_before_it_ends(begun: bytes, status: int) -> None:
    incoming = RequestBytes(LIMITS)
    incoming.feed(begun)

    with pytest.raises(InvalidRequestError) as refusal:
        incoming.take()

    assert refusal.value.status == status


def test_a_websocket_passes_unchecked() -> None:
    incoming = RequestBytes(LIMITS)
    incoming.feed(GET + b"\x00\n\r\n")
    assert incoming.take() == GET
    incoming.pass_through()

    assert incoming.take() == b"\x00\n\r\n"


def test_the_next_request_waits_for_the_present_one() -> None:
    incoming = RequestBytes(LIMITS)
    incoming.feed(POST[:-1])
    incoming.take()

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
@example(GET + POST + CHUNKED + TRAILERS)
def test_S39_whatever_passes_is_one_whole_request_to_the_parser_behind(data: bytes) -> None:
    incoming = RequestBytes(LIMITS)
    incoming.feed(data)
    while True:
        passed = b""
        try:
            while taken := incoming.take():
                passed += taken
        except (InvalidRequestError, MethodNotAllowedError):
            return
        if not passed:
            return
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(passed)
        events = []
        while (event := parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            events.append(event)
        assert isinstance(events[0], h11.Request)
        assert any(isinstance(event, h11.EndOfMessage) for event in events) is incoming.complete
        assert parser.trailing_data[0] == b""
        if not incoming.complete:
            return
        incoming.next_request()
