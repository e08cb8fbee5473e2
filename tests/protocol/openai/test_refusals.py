"""What the API's refusals mean, and what of them is told on."""

import json

import pytest

from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    KeyForbiddenError,
    UpstreamProtocolError,
    UpstreamServerError,
)
from chat2api.protocol.openai.refusals import (
    classify_refusal,
    is_bare_error,
    mask_error,
    mask_text,
    parse_duration,
    read_error,
    stated_wait,
    status_of_error,
)


def body(message: str = "No.", kind: str = "invalid_request_error", code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Invalid value.", "Invalid value."),
        ("No access for org-AbCdEf123456 here", "No access for (masked) here"),
        ("Project `proj_AbCdEf123456` does not have access.", "Project `(masked)` does not have access."),
        ("Incorrect API key provided: sk-proj-********abcd.", "Incorrect API key provided: (masked)"),
        ("Too much. Please check your plan and billing details. Try less.", "Too much. Try less."),
        (
            "You can add a payment method at https://platform.openai.com/account/billing.",
            "The API refused this request.",
        ),
        ("The organisation of your files is org-anised badly, my user-friendly friend.",) * 2,
        ("Read https://platform.openai.com/docs/guides/error-codes. Bye.",) * 2,
    ],
)
def test_ids_and_billing_hints_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask_text(text) == masked


def test_a_refusal_without_anything_to_mask_keeps_its_bytes() -> None:
    given = b'{ "error" : {"message":"caf\\u00e9", "type":null,\r\n "extra":12345678901234567890 } }'
    assert mask_error(given) is given


def test_a_page_is_told_in_our_own_words() -> None:
    for given in (b"<html>Ray ID 8f3ac</html>", b"", b"[]", b"null", b"\xff"):
        assert json.loads(mask_error(given))["error"]["message"] == "The API refused this request."


def test_ids_are_masked_wherever_they_stand() -> None:
    given = b'{"error":{"message":"x"},"detail":["org-AbCdEf123456",{"a":"proj_AbCdEf123456"}]}'
    assert json.loads(mask_error(given)) == {"error": {"message": "x"}, "detail": ["(masked)", {"a": "(masked)"}]}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20s", 20.0), ("6m0s", 360.0), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("1d", 86400.0),
     ("", None), ("soon", None), ("20", None), ("20s later", None)],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (pytest.approx(seconds) if seconds is not None else None)


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "2"}, "", 1.5),
        ({"retry-after": "7"}, "Please try again in 20s", 7.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0s"}, "", 60.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1m0s"}, "", None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "9s",
            },
            "",
            9.0,
        ),
        ({}, "Limit 3. Please try again in 6m0.5s. Visit us.", 360.5),
        ({"retry-after": DATE}, "Please try again in 450ms.", 0.45),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:26:30 GMT"}, "", 90.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:30:00 GMT"}, "", 0.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:26:30 -0000"}, "", None),
        ({"retry-after": DATE, "date": "today"}, "", None),
        ({"retry-after": "soon", "date": DATE}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "-5"}, "", None),
        ({}, "Later.", None),
    ],
)
def test_R7_the_wait_that_is_stated_is_found(headers: dict[str, str], message: str, seconds: float | None) -> None:
    assert stated_wait(headers, message) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("status", "given", "kind"),
    [
        (500, b"", UpstreamServerError),
        (503, b"<html>", UpstreamServerError),
        (429, body("Rate limit", "requests", "rate_limit_exceeded"), AccountLimitedError),
        (429, b"", AccountLimitedError),
        (402, body("Insufficient Balance"), AccountLimitedError),
        (401, body("Incorrect API key provided", code="invalid_api_key"), AccountRejectedError),
        (401, b"", AccountRejectedError),
        (
            401,
            body("You have insufficient permissions for this operation. Missing scopes: model.request"),
            KeyForbiddenError,
        ),
        (403, body("Project does not have access to model `gpt-5`", code="model_not_found"), KeyForbiddenError),
        (302, b"", UpstreamProtocolError),
    ],
)
def test_R3_what_is_about_the_key_or_the_server_is_an_error(status: int, given: bytes, kind: type[Exception]) -> None:
    assert type(classify_refusal(status, {}, given)) is kind


@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 422])
def test_R3_what_is_about_the_request_is_for_its_caller(status: int) -> None:
    assert classify_refusal(status, {}, body()) is None
    assert classify_refusal(403, {}, body("Country, region, or territory not supported")) is None


def test_a_key_without_credit_has_no_time() -> None:
    for given in (body("Quota", "insufficient_quota", "insufficient_quota"), body(code="billing_hard_limit_reached")):
        error = classify_refusal(429, {"retry-after": "5"}, given)
        assert isinstance(error, AccountLimitedError)
        assert error.retry_after is None


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        ("tokens", "rate_limit_exceeded", 429),
        ("insufficient_quota", "", 429),
        ("invalid_request_error", "invalid_api_key", 401),
        ("invalid_request_error", "context_length_exceeded", 400),
        ("", "content_policy_violation", 400),
        ("server_error", "", 500),
        ("", "", 500),
    ],
)
def test_R2_an_error_inside_a_stream_has_the_status_that_it_would_have_had(kind: str, code: str, status: int) -> None:
    assert status_of_error(kind, code) == status


def test_errors_of_other_shapes_are_read_as_far_as_they_go() -> None:
    assert read_error(body("Why", "kind", "code")) == ("Why", "kind", "code")
    assert read_error(b'{"error":"plain"}') == ("plain", "", "")
    assert read_error(b'{"type":"error","message":"m","code":"c"}') == ("m", "error", "c")
    for given in (b"", b"[]", b'{"error":5}', b'{"error":{"message":5}}', b"[" * 50_000):
        assert read_error(given) == ("", "", "")


@pytest.mark.parametrize(
    ("body", "bare"),
    [
        (b'{"error":{"message":"No."}}', True),
        (b' {"error": "No."}', True),
        (b'{"error":null,"data":[]}', False),
        (b'{"error":{"message":"No."},"id":"resp_1","object":"response"}', False),
        (b'{"text":"an \\"error\\" was made"}', False),
        (b'{"error":', False),
        (b"[]", False),
    ],
)
def test_an_error_and_nothing_else_is_known_whatever_its_status(body: bytes, bare: bool) -> None:
    assert is_bare_error(body) is bare
