"""Tests of reading a request."""

import pytest

from chat2api.simulator.wire import Answer, Refusal, Request, html_answer, json_answer


def _request(target: str = "/", headers: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> Request:
    return Request("GET", target, headers, body, "1.1", "http", 1)


def test_target_is_taken_apart() -> None:
    request = _request("/a%20b/c?x=1&x=2&empty=&path=%2Fmnt")
    assert request.path == "/a b/c"
    assert request.query == {"x": "2", "empty": "", "path": "/mnt"}


def test_headers_are_joined_and_cookies_read() -> None:
    request = _request(
        headers=(("host", "h:1"), ("x", "a"), ("x", "b"), ("cookie", "one=1; two=a.b-c"), ("cookie", "3=x"))
    )
    assert (request.header("x"), request.header("y")) == ("a, b", None)
    assert request.cookies == {"one": "1", "two": "a.b-c", "3": "x"}
    assert request.origin == "http://h:1"
    assert _request(headers=(("cookie", "bad cookie\x00"),)).cookies == {}


def test_a_body_that_is_not_json_is_an_error() -> None:
    assert _request(body=b'{"a": 1}').json() == {"a": 1}
    with pytest.raises(ValueError, match="Expecting"):
        _request(body=b"{").json()


def test_answers_name_their_content() -> None:
    assert json_answer({"a": 1}) == Answer(200, b'{"a":1}', (("content-type", "application/json"),))
    assert html_answer("<p>", 502).status == 502
    assert str(Refusal(Answer(404))) == "refused with 404"
