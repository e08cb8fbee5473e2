"""The backend's failures become the right errors, and nothing of the request comes back with them."""

import json
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    AnonymousUnavailableError,
    CallerTokenRejectedError,
    ChallengedError,
    ExitLimitedError,
    RefusedError,
    UpstreamError,
    UpstreamNotFoundError,
    UpstreamProtocolError,
    UpstreamRefusedRequestError,
    UpstreamServerError,
    UpstreamTimeoutError,
    WorkspaceRefusedError,
)
from chat2api.protocol.chatgpt.faults import Call, classify_answer, classify_failed, classify_refresh_answer
from chat2api.protocol.events import Failed

CALL = Call("conversation")
JSON = {"content-type": "application/json; charset=utf-8"}
HTML = {"content-type": "text/html; charset=UTF-8"}
NOW = 1_782_309_600.0  # Wed, 24 Jun 2026 14:00:00 GMT

Credential = Literal["account", "caller", "anonymous"]


def _answer(
    status: int, body: object, headers: dict[str, str] | None = None, *, credential: Credential = "account"
) -> UpstreamError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify_answer(status, {**JSON, **(headers or {})}, data, call=Call("conversation", credential), now=NOW)


def _detail(code: str, message: str = "Something about it.") -> dict[str, object]:
    return {"detail": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


KNOWN: list[tuple[int, object, type[UpstreamError], str | None]] = [
    (400, {"detail": "Malformed."}, UpstreamRefusedRequestError, "upstream_invalid_request"),
    (401, _detail("token_expired"), AccountRejectedError, "upstream_account"),
    (401, {"error": {"message": "Could not parse your authentication token.", "code": "invalid_jwt"}},
     AccountRejectedError, "upstream_account"),
    (401, {"detail": "Unauthorized"}, AccountRejectedError, "upstream_account"),
    (403, {"detail": "Unusual activity has been detected from your device. Try again later. (8c0ffee0-AMS)"},
     ChallengedError, "upstream_challenge"),
    (403, {"detail": "Our systems have detected unusual activity from your system. Please try again later."},
     ChallengedError, "upstream_challenge"),
    (403, _detail("unsupported_country"), ChallengedError, "upstream_challenge"),
    (403, {"error": {"code": "unsupported_country_region_territory", "message": "Country, region, or territory"}},
     ChallengedError, "upstream_challenge"),
    (403, _detail("no_workspace_access", "Ask the owner."), WorkspaceRefusedError, "workspace_not_allowed"),
    (403, {"detail": "You are not part of this Workspace."}, WorkspaceRefusedError, "workspace_not_allowed"),
    (403, {"detail": "Unusual activity in your workspace."}, ChallengedError, "upstream_challenge"),
    (403, {"detail": "Forbidden"}, ChallengedError, "upstream_challenge"),
    (404, _detail("conversation_not_found", "Conversation not found"), UpstreamNotFoundError, "conversation_not_found"),
    (404, _detail("conversation_inaccessible"), UpstreamNotFoundError, "conversation_not_found"),
    (404, {"detail": "Conversation not found"}, UpstreamNotFoundError, "conversation_not_found"),
    (404, _detail("gizmo_not_found"), UpstreamNotFoundError, "model_not_found"),
    (404, {"detail": "Model not found"}, UpstreamNotFoundError, "model_not_found"),
    (404, {"detail": "Not Found"}, UpstreamNotFoundError, "not_found"),
    (405, {"detail": "Method Not Allowed"}, UpstreamProtocolError, "upstream_protocol"),
    (410, {}, UpstreamProtocolError, "upstream_protocol"),
    (408, {}, UpstreamTimeoutError, "upstream_timeout"),
    (413, _detail("message_length_exceeds_limit", "The message you submitted exceeded the limit."),
     UpstreamRefusedRequestError, "context_length_exceeded"),
    (413, {}, UpstreamRefusedRequestError, "context_length_exceeded"),
    (418, {"detail": "Invalid conversation body"}, UpstreamRefusedRequestError, "upstream_invalid_request"),
    (422, {"detail": "Invalid conversation body"}, UpstreamRefusedRequestError, "upstream_invalid_request"),
    (422, {"detail": "The number of parts exceeded the limit"}, UpstreamRefusedRequestError, "upstream_invalid_request"),
    (422, {"detail": [{"loc": ["body", "thinking_effort"], "msg": "bad", "type": "enum"}]},
     UpstreamRefusedRequestError, "upstream_invalid_request"),
    (400, _detail("content_policy_violation"), RefusedError, "content_policy_violation"),
    (429, {"detail": {"message": "Cap.", "code": "model_cap_exceeded", "clears_in": 11461}},
     AccountLimitedError, "rate_limit_exceeded"),
    (429, {"detail": "Too many requests"}, AccountLimitedError, "rate_limit_exceeded"),
    (429, {"detail": "Only one message at a time. Please wait."}, AccountLimitedError, "rate_limit_exceeded"),
    (429, {"detail": {"code": "rate_limit_exceeded"}}, AccountLimitedError, "rate_limit_exceeded"),
    (429, {"detail": "Too many requests from your IP address."}, ExitLimitedError, "rate_limit_exceeded"),
    (429, b"rate limited", AccountLimitedError, "rate_limit_exceeded"),
    (500, {"detail": "Internal error"}, UpstreamServerError, "upstream_server_error"),
    (502, b"upstream connect error", UpstreamServerError, "upstream_server_error"),
    (503, {"detail": "You have reached the limit"}, UpstreamServerError, "upstream_server_error"),
    (504, b"", UpstreamServerError, "upstream_server_error"),
    (522, b"", UpstreamServerError, "upstream_server_error"),
    (302, b"", UpstreamProtocolError, "upstream_protocol"),
    (200, {"odd": True}, UpstreamProtocolError, "upstream_protocol"),
    (403, {"detail": "Please complete the Turnstile challenge."}, ChallengedError, "upstream_challenge"),
]  # fmt: skip


@pytest.mark.parametrize("status, body, kind, code", KNOWN)
def test_known_answers_have_their_class(status: int, body: object, kind: type[UpstreamError], code: str) -> None:
    error = _answer(status, body)
    assert type(error) is kind
    assert error.code == code
    assert len(error.message) > 20


@pytest.mark.parametrize(("asked", "scope"), [(False, "both"), (True, "account")])
def test_R3_unusual_activity_after_a_check_was_asked_for_means_the_check(asked: bool, scope: str) -> None:
    body = json.dumps({"detail": "Unusual activity has been detected from your device. Try again later."}).encode()
    error = classify_answer(403, JSON, body, call=Call("conversation", check_asked=asked))
    assert isinstance(error, ChallengedError)
    assert error.scope == scope


@pytest.mark.parametrize(
    "call, private",
    [
        (Call("conversation"), False),
        (Call("conversation", private=True), True),
        (Call("conversation", "caller"), True),
        (Call("conversation", "anonymous"), True),
    ],
)
def test_a_refused_workspace_says_whose_account_it_was(call: Call, private: bool) -> None:
    body = json.dumps({"detail": "No such workspace."}).encode()
    error = classify_answer(403, JSON, body, call=call)
    assert isinstance(error, WorkspaceRefusedError)
    assert (error.private, error.param, error.final) == (private, "ChatGPT-Account-ID", True)


@pytest.mark.parametrize(
    "body, reason",
    [
        (_detail("token_expired"), "token_expired"),
        ({"detail": "Unauthorized"}, "token_expired"),
        (b"", "token_expired"),
        (_detail("token_invalidated"), "token_revoked"),
        (_detail("token_revoked"), "token_revoked"),
        ({"error": {"code": "TOKEN_REVOKED"}}, "token_revoked"),
        ({"detail": "Your authentication token has been invalidated. Please sign in again."}, "token_revoked"),
        (_detail("account_deactivated"), "account_deactivated"),
        ({"detail": "account_deactivated"}, "account_deactivated"),
        ({"detail": "Your account has been deactivated."}, "account_deactivated"),
        ({"error": {"code": "invalid_jwt"}}, "invalid_jwt"),
    ],
)
def test_a_refused_account_token_has_its_reason(body: object, reason: str) -> None:
    error = _answer(401, body)
    assert isinstance(error, AccountRejectedError)
    assert error.reason == reason
    assert error.may_refresh == (reason == "token_expired")


def test_whose_token_was_refused_makes_the_difference() -> None:
    caller = _answer(401, _detail("token_expired"), credential="caller")
    assert type(caller) is CallerTokenRejectedError
    nobody = _answer(401, {"detail": "Unauthorized"}, credential="anonymous")
    assert type(nobody) is AnonymousUnavailableError
    assert "PROXY_URL" in nobody.message


@pytest.mark.parametrize(
    "status, headers, page",
    [
        (403, HTML, b"<!DOCTYPE html><title>Just a moment...</title><script>window._cf_chl_opt={}</script>"),
        (503, HTML, b"<html><div id='cf-please-wait'>"),
        (403, {}, b"  <html>cf_chl_opt"),
        (403, {**HTML, "cf-mitigated": "challenge"}, b"<html>"),
        (200, HTML, b"<html>cf_chl_opt"),
        (403, HTML, b"<html>Access denied</html>"),
    ],
)
def test_a_page_of_the_network_in_front_is_about_the_exit(status: int, headers: dict[str, str], page: bytes) -> None:
    error = classify_answer(status, headers, page, call=CALL)
    assert type(error) is ChallengedError
    assert error.scope == "exit"
    assert "PROXY_URL" in error.message
    assert "<" not in error.message


def test_other_pages() -> None:
    limited = classify_answer(429, {**HTML, "retry-after": "30"}, b"<html>1015</html>", call=CALL)
    assert type(limited) is ExitLimitedError
    assert (limited.scope, limited.retry_after) == ("exit", 30.0)
    assert type(classify_answer(502, HTML, b"<html>Bad gateway</html>", call=CALL)) is UpstreamServerError
    assert type(classify_answer(401, HTML, b"<html>no</html>", call=CALL)) is AccountRejectedError
    assert type(classify_answer(200, HTML, b"<html>hi</html>", call=CALL)) is UpstreamProtocolError
    assert type(classify_answer(404, HTML, b"<html>hi</html>", call=CALL)) is UpstreamProtocolError


@pytest.mark.parametrize(
    "body, scope",
    [
        ({"detail": "Unusual activity has been detected from your device."}, "both"),
        ({"detail": "Solve the captcha"}, "account"),
        (_detail("unsupported_country"), "exit"),
        ({"detail": "Forbidden"}, "both"),
    ],
)
def test_a_challenge_tells_what_shall_cool_down(body: object, scope: str) -> None:
    error = _answer(403, body)
    assert isinstance(error, ChallengedError)
    assert error.scope == scope


def test_R7_a_limited_account_waits_as_long_as_was_stated() -> None:
    error = _answer(429, {"detail": {"code": "model_cap_exceeded", "clears_in": 11461}})
    assert isinstance(error, AccountLimitedError)
    assert error.retry_after == 11461.0


def test_a_server_error_keeps_its_status_and_wait() -> None:
    error = _answer(503, {"detail": "Busy"}, {"retry-after": "9"})
    assert isinstance(error, UpstreamServerError)
    assert (error.upstream_status, error.retry_after) == (503, 9.0)


SECRET = "my very private question"


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"loc": ["body", "messages", 0, SECRET], "msg": SECRET, "input": {"parts": [SECRET]}, "ctx": SECRET}]},
        {"detail": {"code": "invalid", "input": SECRET, "message": "Wrong."}},
        {"detail": {"detail": [SECRET]}, "body": SECRET},
        [SECRET],
        SECRET.encode(),
        f"<html>{SECRET}</html>".encode(),
        json.dumps({"detail": SECRET}).encode()[:-1],
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 403, 422, 429, 500])
def test_G6_the_request_does_not_come_back(body: object, status: int) -> None:
    assert SECRET not in _answer(status, body).message


def test_fields_that_validation_complains_of_are_named() -> None:
    error = _answer(422, {"detail": [{"loc": ["body", "thinking_effort"], "msg": SECRET}]})
    assert "thinking_effort" in error.message


FAILURES: list[tuple[str, str | None, type[UpstreamError]]] = [
    ("Our systems have detected unusual activity from your system. Please try again later.", None, ChallengedError),
    ("UNUSUAL ACTIVITY has been detected from your device.", None, ChallengedError),
    ("You've reached our limit of messages per hour. Please try again later.", None, AccountLimitedError),
    ("You've reached the current usage cap for GPT-4.", None, AccountLimitedError),
    ("You've hit the Plus plan limit for image generation requests.", None, AccountLimitedError),
    ("You have sent too many requests.", None, AccountLimitedError),
    ("Limit.", "rate_limit_exceeded", AccountLimitedError),
    ("Límite alcanzado.", "model_cap_exceeded", AccountLimitedError),
    ("Only one message at a time. Please allow any other responses to complete.", None, AccountLimitedError),
    ("The message you submitted was too long, please reload.", None, UpstreamRefusedRequestError),
    ("This content may violate our content policy.", None, RefusedError),
    ("This request violates our usage policies.", None, RefusedError),
    ("Conversation not found", None, UpstreamNotFoundError),
    ("x", "token_expired", AccountRejectedError),
    ("Something went wrong.", None, UpstreamServerError),
    ("出了点问题。", None, UpstreamServerError),
    ("", None, UpstreamServerError),
]


@pytest.mark.parametrize("message, code, kind", FAILURES)
def test_failures_inside_a_stream_have_their_class(message: str, code: str | None, kind: type[UpstreamError]) -> None:
    error = classify_failed(Failed(message, code, "c-1"), call=CALL)
    assert type(error) is kind
    if isinstance(error, UpstreamServerError):
        assert error.upstream_status == 500


REFRESHES: list[tuple[int, object, str]] = [
    (400, {"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}, "invalid_grant"),
    (403, {"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}, "invalid_grant"),
    (401, {"error": {"message": "It has already been used.", "code": "refresh_token_reused"}}, "refresh_token_reused"),
    (401, {"error": {"code": "refresh_token_expired"}}, "refresh_token_expired"),
    (401, {"error": {"code": "refresh_token_invalidated"}}, "refresh_token_invalidated"),
    (401, {"error": {"code": "app_session_terminated"}}, "app_session_terminated"),
    (403, {"error": "access_denied", "error_description": "No."}, "access_denied"),
]


@pytest.mark.parametrize("status, body, reason", REFRESHES)
def test_a_dead_sign_in_is_told_by_its_code(status: int, body: object, reason: str) -> None:
    error = classify_refresh_answer(status, JSON, json.dumps(body).encode(), now=NOW)
    assert isinstance(error, AccountRejectedError)
    assert error.reason == reason
    assert not error.may_refresh


@pytest.mark.parametrize(
    "status, headers, body, kind",
    [
        (429, JSON, b'{"error":"invalid_grant"}', AccountLimitedError),
        (500, JSON, b'{"error":"invalid_grant"}', UpstreamServerError),
        (502, HTML, b"<html>invalid_grant</html>", UpstreamServerError),
        (503, JSON, b"", UpstreamServerError),
        (403, HTML, b"<html>cf_chl_opt</html>", ChallengedError),
        (400, HTML, b"<html>invalid_grant</html>", ChallengedError),
        (200, HTML, b"<html></html>", ChallengedError),
        (400, JSON, b'{"error":"invalid_request"}', UpstreamProtocolError),
        (401, JSON, b'{"error":"invalid_client"}', UpstreamProtocolError),
        (403, JSON, b"{}", UpstreamProtocolError),
        (404, JSON, b"", UpstreamProtocolError),
        (200, JSON, b'{"error":"invalid_grant"}', UpstreamProtocolError),
        (400, JSON, b'{"error":"invalid_grant"', UpstreamProtocolError),
    ],
)
def test_R29_nothing_else_marks_a_refresh_token_dead(
    status: int, headers: dict[str, str], body: bytes, kind: type[UpstreamError]
) -> None:
    assert type(classify_refresh_answer(status, headers, body, now=NOW)) is kind


def test_a_limited_refresh_keeps_the_stated_wait() -> None:
    assert classify_refresh_answer(429, {"retry-after": "44"}, b"", now=NOW).retry_after == 44.0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["detail", "error", "code", "message", "loc", "clears_in", "x"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@settings(deadline=None, max_examples=300)
@given(st.integers(100, 599), VALUES, st.sampled_from([JSON, HTML, {}]), st.text(max_size=20))
def test_T3_any_answer_is_classified(status: int, body: object, headers: dict[str, str], wait: str) -> None:
    told = {**headers, "retry-after": wait, "date": wait}
    for data in (json.dumps(body).encode(), repr(body).encode()):
        for credential in ("account", "caller", "anonymous"):
            call = Call("conversation", credential)
            assert isinstance(classify_answer(status, told, data, call=call, now=NOW), UpstreamError)
        assert isinstance(classify_refresh_answer(status, told, data, now=NOW), UpstreamError)
