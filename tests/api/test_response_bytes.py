"""Bytes of responses: how a body is delimited, what may follow, and what is refused."""

import pytest

from chat2api.api.response_bytes import ResponseBytes, ResponseError

NOW = 784111777.9
DATE = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
LENGTH = [(b"content-length", b"5")]


def answer(method: str = "GET", version: str = "1.1", *, persistent: bool = True) -> ResponseBytes:
    return ResponseBytes(method, version, persistent=persistent)


def test_a_length_is_kept_and_the_body_goes_out_as_it_is() -> None:
    response = answer()
    head = response.head(200, [(b"X-Thing", b" a b "), *LENGTH], close=False, now=NOW)

    assert head == b"HTTP/1.1 200 OK\r\nX-Thing: a b\r\ncontent-length: 5\r\n" + DATE + b"\r\n"
    assert response.frame(5) == (b"", b"")
    assert not response.whole
    assert response.end() == b""
    assert (response.whole, response.persistent, response.until_close) == (True, True, False)


def test_without_a_length_the_body_is_chunked() -> None:
    response = answer()
    head = response.head(200, [(b"transfer-encoding", b"gzip")], close=False, now=NOW)

    assert head == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + DATE + b"\r\n"
    assert response.frame(26) == (b"1a\r\n", b"\r\n")
    assert response.frame(0) is None  # an empty chunk would be the end
    assert response.end() == b"0\r\n\r\n"


def test_http_1_0_without_a_length_ends_with_the_connection() -> None:
    response = answer(version="1.0")
    head = response.head(200, [], close=False, now=NOW)

    assert head.endswith(b"connection: close\r\n\r\n")
    assert response.until_close
    assert not response.persistent
    assert response.frame(3) == (b"", b"")
    assert response.end() == b""


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_what_has_no_body_gets_none_whatever_the_app_sends(method: str, status: int) -> None:
    response = answer(method)
    head = response.head(status, LENGTH, close=False, now=NOW)

    assert (b"content-length: 5" in head) == (status != 204)
    assert b"transfer-encoding" not in head
    assert response.frame(5) is None
    assert response.end() == b""
    assert response.persistent


@pytest.mark.parametrize(
    ("persistent", "headers", "close"),
    [(False, LENGTH, False), (True, LENGTH, True), (True, [(b"Connection", b"Close"), *LENGTH], False)],
)
def test_whoever_wants_the_end_of_the_connection_it_is_told_once(
    persistent: bool, headers: list[tuple[bytes, bytes]], close: bool
) -> None:
    response = answer(persistent=persistent)
    head = response.head(200, headers, close=close, now=NOW)

    assert head.lower().count(b"connection: close") == 1
    assert not response.persistent


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\nset-cookie: b")],
        [(b"x", b"a\nb")],
        [(b"x", b"\x00")],
        [(b"x\r\ny", b"1")],
        [(b"x:y", b"1")],
        [(b"x y", b"1")],
        [(b"", b"1")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"1"), (b"content-length", b"2")],
    ],
)
def test_S39_headers_that_could_be_read_otherwise_are_refused_and_nothing_has_begun(
    headers: list[tuple[bytes, bytes]],
) -> None:
    response = answer()
    with pytest.raises(ResponseError):
        response.head(200, headers, close=False, now=NOW)
    assert not response.begun


@pytest.mark.parametrize("status", [99, 101, 1000])
def test_only_final_statuses_are_responses(status: int) -> None:
    with pytest.raises(ResponseError):
        answer().head(status, [], close=False, now=NOW)


def test_a_status_without_a_phrase_is_sent_without() -> None:
    assert answer().head(299, [], close=False, now=NOW).startswith(b"HTTP/1.1 299 \r\n")


def test_a_body_over_or_under_its_length_is_refused() -> None:
    response = answer()
    response.head(200, LENGTH, close=False, now=NOW)
    response.frame(3)

    with pytest.raises(ResponseError):
        response.end()
    with pytest.raises(ResponseError):
        response.frame(3)
    assert not response.whole


def test_messages_out_of_order_are_refused() -> None:
    response = answer()
    with pytest.raises(ResponseError):
        response.frame(1)
    with pytest.raises(ResponseError):
        response.end()
    response.head(200, [], close=False, now=NOW)
    with pytest.raises(ResponseError):
        response.head(200, [], close=False, now=NOW)
