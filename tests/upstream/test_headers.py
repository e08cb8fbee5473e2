import pytest

from chat2api.errors import UpstreamProtocolError
from chat2api.upstream.headers import HeaderBlock, HeaderLines

ORDER = ("content-length", "user-agent", "", "accept", "priority")


def test_headers_take_the_order_of_the_browser_whatever_order_they_come_in() -> None:
    made = HeaderLines(ORDER, [("Accept", "*/*"), ("User-Agent", "U")])
    given = [("Priority", "u=1"), ("X-B", "2"), ("X-A", "1"), ("X-B", "3")]
    assert made.lines(given, length=7) == [
        b"Content-Length: 7",
        b"User-Agent: U",
        b"X-B: 2",
        b"X-A: 1",
        b"X-B: 3",
        b"Accept: */*",
        b"Priority: u=1",
    ]
    assert made.lines([]) == [b"User-Agent: U", b"Accept: */*"], "nothing of one request stays for the next"


def test_without_an_order_headers_go_out_as_given_before_the_defaults() -> None:
    assert HeaderLines((), [("B", "2")]).lines([("C", "3"), ("A", "1")]) == [b"C: 3", b"A: 1", b"B: 2"]


def test_a_given_header_replaces_the_default_of_the_same_name_in_any_case() -> None:
    made = HeaderLines(ORDER, [("Accept", "*/*")])
    assert made.lines([("ACCEPT", "text/event-stream")]) == [b"ACCEPT: text/event-stream"]


def test_an_empty_value_is_written_as_curl_wants_it() -> None:
    assert HeaderLines((), []).lines([("X-Empty", "")]) == [b"X-Empty;"]


def test_values_may_hold_tabs_and_latin_letters() -> None:
    assert HeaderLines((), []).lines([("X", "a\té")]) == [b"X: a\t\xe9"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nHost: evil"),
        ("X", "a\nb"),
        ("X", "a\0"),
        ("X", "a\x7f"),
        ("X Y", "a"),
        ("", "a"),
        ("X:", "a"),
        ("Xä", "a"),
        ("X\n", ""),
        ("Content-Length", "3"),
        ("transfer-encoding", "chunked"),
        ("HOST", "other.test"),
    ],
)
def test_S6_a_header_that_could_change_the_framing_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        HeaderLines((), []).lines([(name, value)])


def test_a_value_outside_of_latin_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="latin-1"):
        HeaderLines((), []).lines([("X", "…")])


def _block(*lines: bytes, limit: int = 1000) -> HeaderBlock:
    block = HeaderBlock(limit)
    for line in lines:
        block.feed(line)
    return block


def test_an_interim_answer_is_skipped_with_its_headers() -> None:
    block = _block(b"HTTP/1.1 103 Early Hints\r\n", b"Link: x\r\n", b"\r\n")
    assert not block.complete
    for line in (b"HTTP/2 429 \r\n", b"Retry-After: 7\r\n", b"\r\n"):
        block.feed(line)
    assert (block.complete, block.status, dict(block.headers)) == (True, 429, {"retry-after": "7"})


def test_repeated_headers_are_joined_and_cookies_stay_apart() -> None:
    block = _block(
        b"HTTP/1.1 200 OK\r\n",
        b"A: 1\r\n",
        b"a:2\r\n",
        b"Set-Cookie: x=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT\r\n",
        b"Set-Cookie: y=2\r\n",
        b"\r\n",
    )
    assert block.headers["a"] == "1, 2"
    assert (
        block.headers["set-cookie"].split("\n")
        == block.set_cookies
        == [
            "x=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT",
            "y=2",
        ]
    )


def test_trailers_do_not_change_the_head() -> None:
    block = _block(b"HTTP/1.1 200 OK\r\n", b"A: 1\r\n", b"\r\n", b"A: 2\r\n", b"B: 3\r\n", b"\r\n")
    assert dict(block.headers) == {"a": "1"}


def test_an_undone_encoding_is_not_reported() -> None:
    block = _block(b"HTTP/1.1 200 OK\r\n", b"Content-Encoding: gzip\r\n", b"Content-Length: 9\r\n", b"\r\n")
    assert dict(block.headers) == {}


def test_a_head_over_the_limit_is_refused() -> None:
    with pytest.raises(UpstreamProtocolError):
        _block(b"HTTP/1.1 200 OK\r\n", b"A: " + b"x" * 100 + b"\r\n", limit=100)


@pytest.mark.parametrize("line", [b"HTTP/1.1\r\n", b"HTTP/1.1 2x0 OK\r\n"])
def test_an_unreadable_status_is_refused(line: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        _block(line)


def test_a_value_may_hold_bytes_that_unicode_takes_for_line_ends() -> None:
    block = HeaderBlock(4096)
    for line in (b"HTTP/1.1 200 OK\r\n", b"X-Odd:  a\x85b\x0cc \t\r\n", b"X-Empty:\r\n", b"no colon\r\n", b"\r\n"):
        block.feed(line)
    assert block.headers == {"x-odd": "a\x85b\x0cc", "x-empty": ""}
