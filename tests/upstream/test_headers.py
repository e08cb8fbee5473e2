import pytest

from chat2api.errors import UpstreamProtocolError
from chat2api.upstream.headers import Fields, HeaderBlock, HeaderLines

ORDER = ("content-length", "user-agent", "", "accept", "priority")


def _lines(made: HeaderLines, *given: tuple[str, str], varying: Fields = (), length: int | None = None) -> list[bytes]:
    return made.lines(given, varying, length=length).whole()


def test_headers_take_the_order_of_the_browser_whatever_order_they_come_in() -> None:
    made = HeaderLines(ORDER, [("Accept", "*/*"), ("User-Agent", "U")])
    given = [("Priority", "u=1"), ("X-B", "2"), ("X-A", "1"), ("X-B", "3")]
    assert _lines(made, *given, length=7) == [
        b"Content-Length: 7",
        b"User-Agent: U",
        b"X-B: 2",
        b"X-A: 1",
        b"X-B: 3",
        b"Accept: */*",
        b"Priority: u=1",
    ]
    assert _lines(made) == [b"User-Agent: U", b"Accept: */*"], "nothing of one request stays for the next"


def test_without_an_order_headers_go_out_as_given_before_the_defaults() -> None:
    assert _lines(HeaderLines((), [("B", "2")]), ("C", "3"), ("A", "1")) == [b"C: 3", b"A: 1", b"B: 2"]


def test_a_given_header_replaces_the_default_of_the_same_name_in_any_case() -> None:
    made = HeaderLines(ORDER, [("Accept", "*/*")])
    assert _lines(made, ("ACCEPT", "text/event-stream")) == [b"ACCEPT: text/event-stream"]


def test_varying_headers_count_as_given_last_and_all_else_is_shared() -> None:
    made = HeaderLines(ORDER, [("User-Agent", "U"), ("Accept", "*/*")])
    given = (("Priority", "u=1"), ("X-A", "1"))
    one = made.lines(given, (("X-Turn", "one"), ("X-A", "2")), length=7)
    two = made.lines(given, (("X-Turn", "two"), ("X-A", "3")), length=8)
    assert one.plan is two.plan
    assert one.whole() == [
        b"Content-Length: 7",
        b"User-Agent: U",
        b"X-A: 1",
        b"X-Turn: one",
        b"X-A: 2",
        b"Accept: */*",
        b"Priority: u=1",
    ]
    assert {*two.whole()} - {*one.whole()} == {b"Content-Length: 8", b"X-Turn: two", b"X-A: 3"}
    assert _lines(made, *given, varying=(("accept", "x/y"),)) == [
        b"User-Agent: U",
        b"X-A: 1",
        b"accept: x/y",
        b"Priority: u=1",
    ]


def test_cookies_are_added_to_the_given_ones_in_one_header() -> None:
    given = (("Cookie", "a=1"), ("X", "1"), ("COOKIE", "b=2"))
    made = HeaderLines((), [])
    assert made.lines(given, add_cookies=lambda own: own + "; c=3").whole() == [b"X: 1", b"Cookie: a=1; b=2; c=3"]
    assert made.lines(given, add_cookies=lambda own: own).whole() == [b"Cookie: a=1", b"X: 1", b"COOKIE: b=2"]
    assert made.lines((), add_cookies=lambda own: own + "d=4").whole() == [b"Cookie: d=4"]
    with pytest.raises(ValueError, match="control"):
        made.lines((), add_cookies=lambda own: own + "a=1\r\nX: 2")


def test_an_empty_value_is_written_as_curl_wants_it() -> None:
    assert _lines(HeaderLines((), []), ("X-Empty", "")) == [b"X-Empty;"]


def test_values_may_hold_tabs_and_latin_letters() -> None:
    assert _lines(HeaderLines((), []), ("X", "a\té")) == [b"X: a\t\xe9"]


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
        _lines(HeaderLines((), []), (name, value))
    with pytest.raises(ValueError, match="header"):
        _lines(HeaderLines((), []), varying=((name, value),))


def test_a_value_outside_of_latin_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="latin-1"):
        _lines(HeaderLines((), []), ("X", "…"))


def _block(*lines: bytes, limit: int = 1000) -> HeaderBlock:
    block = HeaderBlock(limit)
    for line in lines:
        block.write(line)
    return block


def test_an_interim_answer_is_skipped_with_its_headers() -> None:
    block = _block(b"HTTP/1.1 103 Early Hints\r\n", b"Link: x\r\n", b"\r\n")
    assert not block.complete
    for line in (b"HTTP/2 429 \r\n", b"Retry-After: 7\r\n", b"\r\n"):
        block.write(line)
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


def test_the_end_of_the_final_head_is_told_once() -> None:
    told: list[int] = []
    block = HeaderBlock(1000, tell=lambda: told.append(block.status))
    for line in (b"HTTP/1.1 100 Continue\r\n", b"\r\n", b"HTTP/1.1 204 No Content\r\n", b"\r\n", b"T: 1\r\n", b"\r\n"):
        block.write(line)
    assert told == [204]


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
        _block(line, b"\r\n")


def test_a_value_may_hold_bytes_that_unicode_takes_for_line_ends() -> None:
    block = HeaderBlock(4096)
    for line in (b"HTTP/1.1 200 OK\r\n", b"X-Odd:  a\x85b\x0cc \t\r\n", b"X-Empty:\r\n", b"no colon\r\n", b"\r\n"):
        block.write(line)
    assert block.headers == {"x-odd": "a\x85b\x0cc", "x-empty": ""}
