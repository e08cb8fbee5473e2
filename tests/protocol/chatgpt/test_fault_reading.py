"""What a failed answer says is read, in each of its shapes, and what may be quoted of it."""

import json

import pytest

from chat2api.protocol.chatgpt.fault_reading import is_challenge_page, quotable, read_fault

JSON = {"content-type": "application/json; charset=utf-8"}
HTML = {"content-type": "text/html; charset=UTF-8"}
NOW = 1_782_309_600.0  # Wed, 24 Jun 2026 14:00:00 GMT


@pytest.mark.parametrize(
    ("body", "code", "words", "quote"),
    [
        (b'{"detail": "Too Many Requests"}', "", "too many requests", "Too Many Requests"),
        (b'{"detail": "account_deactivated"}', "account_deactivated", "", ""),
        (b'{"detail": {"code": "X_Y", "message": "No."}}', "x_y", "no.", "No."),
        (b'{"detail": {"error": {"type": "t", "msg": "No."}}}', "t", "no.", "No."),
        (b'{"error": "invalid_grant", "error_description": "Bad."}', "invalid_grant", "bad.", "Bad."),
        (b'{"detail": [{"loc": ["body", "x"], "msg": "private"}]}', "", "", ""),
        (b"upstream Connect error", "", "upstream connect error", ""),
        (b"", "", "", ""),
    ],
)
def test_code_and_words_are_found_in_each_shape(body: bytes, code: str, words: str, quote: str) -> None:
    fault = read_fault(400, JSON, body, NOW)
    assert (fault.code, fault.words, fault.quote, fault.is_html) == (code, words, quote, False)


def test_fields_are_told_by_their_plain_names() -> None:
    problems = [{"loc": ["body", "messages", 0, "content"]}, {"loc": ["body", "a b", "x"]}, {"loc": None}, 5]
    assert read_fault(422, JSON, json.dumps({"detail": problems}).encode(), NOW).fields == ("messages.0.content", "x")


def test_a_page_is_searched_and_never_quoted() -> None:
    fault = read_fault(403, {}, b" <html>Window._CF_CHL_OPT = 1</html>", NOW)
    assert (fault.is_html, fault.quote) == (True, "")
    assert is_challenge_page(fault, {})


def test_a_challenge_is_also_told_by_its_header() -> None:
    assert is_challenge_page(read_fault(403, HTML, b"", NOW), {"cf-mitigated": "Challenge"})
    assert not is_challenge_page(read_fault(403, HTML, b"<html>Sorry</html>", NOW), {})
    assert not is_challenge_page(read_fault(403, JSON, b'{"detail": "cf_chl_opt"}', NOW), {})


@pytest.mark.parametrize(
    "body, headers, wait",
    [
        ({"detail": {"code": "model_cap_exceeded", "clears_in": 11461}}, {}, 11461.0),
        ({"detail": {"clears_in": "60.5"}}, {}, 60.5),
        ({"detail": "x", "clears_in": 7}, {}, 7.0),
        ({"detail": {"clears_in": 0}}, {}, 1.0),
        ({"detail": {"clears_in": -50}}, {}, 1.0),
        ({"detail": {"clears_in": 10**12}}, {}, 7 * 86400.0),
        ({"detail": {"clears_in": 10**400}}, {}, None),
        ({"detail": {"clears_in": True}}, {}, None),
        ({"detail": {"clears_in": None}}, {}, None),
        ({"detail": {"clears_in": 90}}, {"retry-after": "5"}, 90.0),
        ({"detail": {"clears_in": "soon"}}, {"retry-after": "5"}, 5.0),
        ({"detail": "x"}, {"retry-after": " 30 "}, 30.0),
        ({"detail": "x"}, {"retry-after": "0"}, 1.0),
        ({"detail": "x"}, {"retry-after": "inf"}, None),
        ({"detail": "x"}, {"retry-after": "nan"}, None),
        ({"detail": "x"}, {"retry-after": "soon"}, None),
        ({"detail": "x"}, {"retry-after": "Wed, 24 Jun 2026 14:02:00 GMT"}, 120.0),
        ({"detail": "x"}, {"retry-after": "Wed, 24 Jun 2026 13:00:00 GMT"}, 1.0),
        # The sender's clock is an hour behind ours.
        ({"detail": "x"}, {"retry-after": "Wed, 24 Jun 2026 13:02:00 GMT", "date": "Wed, 24 Jun 2026 13:00:00 GMT"}, 120.0),
        ({"detail": "x"}, {}, None),
    ],
)  # fmt: skip
def test_R7_a_stated_wait_is_read_within_its_bounds(body: object, headers: dict[str, str], wait: float | None) -> None:
    assert read_fault(429, {**JSON, **headers}, json.dumps(body).encode(), NOW).wait == wait


def test_a_date_without_any_clock_is_no_wait() -> None:
    headers = {"retry-after": "Wed, 24 Jun 2026 14:02:00 GMT"}
    assert read_fault(429, headers, b"{}", None).wait is None


@pytest.mark.parametrize(
    "host",
    ["https://chatgpt.com/backend-api/x", "chatgpt.com", "ab.chat.openai.com:443/y?z=1", "files.oaiusercontent.com"],
)
def test_T1_a_quote_names_no_host_of_the_backend(host: str) -> None:
    quote = quotable(f"Too many requests at {host} today.")
    assert ".com" not in quote
    assert "(link)" in quote


def test_T1_quoted_words_hold_no_markup_address_or_token() -> None:
    said = (
        "No <b>way</b>, see https://internal.example/x?k=1 or mail ann@example.test, token eyJhbGciOiJSUzI1NiJ9.e.s "
        "of org-AbCdEf123456\n" + "x" * 1000
    )
    quote = quotable(said)
    assert "No way" in quote
    for part in ("<b>", "https://", "example.test", "eyJ", "org-AbC", "\n"):
        assert part not in quote
    assert len(quote) < 350
