"""Exceptions become OpenAI's error object and the headers that steer clients."""

import pytest

from chat2api import errors
from chat2api.errors import (
    AccountLimitedError,
    AllAccountsCoolingError,
    Chat2APIError,
    ConfigError,
    InvalidRequestError,
    NoAccountError,
    QuotaExceededError,
    RateLimitedError,
)
from chat2api.protocol.openai.errors import error_object


def test_body_has_message_type_param_and_code() -> None:
    status, body, headers = error_object(InvalidRequestError("No.", param="n", code="invalid_type"))
    assert status == 400
    assert body == {"error": {"message": "No.", "type": "invalid_request_error", "param": "n", "code": "invalid_type"}}
    assert headers == {"x-should-retry": "false"}


@pytest.mark.parametrize("wait, header", [(0.2, "1"), (-3.0, "1"), (1.0, "1"), (1.01, "2"), (119.5, "120")])
def test_retry_after_is_whole_seconds_rounded_up(wait: float, header: str) -> None:
    _, _, headers = error_object(RateLimitedError("Wait.", retry_after=wait))
    assert headers == {"retry-after": header}


@pytest.mark.parametrize("wait", [float("inf"), float("nan")])
def test_a_wait_that_is_no_number_is_not_told(wait: float) -> None:
    assert "retry-after" not in error_object(RateLimitedError("Wait.", retry_after=wait))[2]


def test_R3a_long_waits_are_not_for_clients_to_repeat_by_themselves() -> None:
    assert "x-should-retry" not in error_object(AllAccountsCoolingError("Wait.", retry_after=120.0))[2]
    headers = error_object(AllAccountsCoolingError("Wait.", retry_after=120.5))[2]
    assert headers == {"retry-after": "121", "x-should-retry": "false"}


def test_R3a_final_errors_say_so() -> None:
    for exc in (NoAccountError("None."), QuotaExceededError("Used up."), AccountLimitedError("Wait.", final=True)):
        assert error_object(exc)[2]["x-should-retry"] == "false"
    spent = errors.TransportError("Gone.")
    assert "x-should-retry" not in error_object(spent)[2]
    spent.final = True
    assert error_object(spent)[2]["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "exc",
    [ValueError("secret"), KeyError("secret"), ConfigError("secret"), Chat2APIError("secret"), TypeError("secret")],
)
def test_T1_what_is_not_for_callers_tells_nothing(exc: Exception) -> None:
    status, body, headers = error_object(exc)
    assert status == 500
    assert "secret" not in str(body)
    assert body["error"]["type"] == "server_error"
    assert headers == {}


def _make(kind: type[Chat2APIError]) -> Chat2APIError:
    if kind is errors.UpstreamTimeoutError:
        return errors.UpstreamTimeoutError("x", phase="connect")
    if kind is errors.UpstreamServerError:
        return errors.UpstreamServerError("x", upstream_status=500)
    if kind is errors.AccountRejectedError:
        return errors.AccountRejectedError("x", reason="token_expired")
    return kind("x")


T1_TABLE: list[tuple[type[Chat2APIError], int, str, str | None]] = [
    (errors.InvalidRequestError, 400, "invalid_request_error", None),
    (errors.PayloadTooLargeError, 413, "invalid_request_error", "payload_too_large"),
    (errors.UnsupportedMediaTypeError, 415, "invalid_request_error", "unsupported_media_type"),
    (errors.InvalidAPIKeyError, 401, "invalid_request_error", "invalid_api_key"),
    (errors.PermissionDeniedError, 403, "invalid_request_error", "permission_denied"),
    (errors.NotFoundError, 404, "invalid_request_error", "not_found"),
    (errors.RateLimitedError, 429, "requests", "rate_limit_exceeded"),
    (errors.QuotaExceededError, 429, "insufficient_quota", "insufficient_quota"),
    (errors.NoAccountError, 503, "server_error", "no_account"),
    (errors.AllAccountsCoolingError, 429, "requests", "rate_limit_exceeded"),
    (errors.LoopDetectedError, 508, "server_error", "loop_detected"),
    (errors.DrainingError, 503, "server_error", "draining"),
    (errors.StorageError, 503, "server_error", "storage"),
    (errors.TransportError, 502, "server_error", "upstream_transport"),
    (errors.UpstreamTimeoutError, 504, "server_error", "upstream_timeout"),
    (errors.UpstreamServerError, 502, "server_error", "upstream_server_error"),
    (errors.AccountRejectedError, 502, "server_error", "upstream_account"),
    (errors.KeyForbiddenError, 403, "invalid_request_error", "permission_denied"),
    (errors.CallerTokenRejectedError, 401, "invalid_request_error", "caller_token_rejected"),
    (errors.AnonymousUnavailableError, 401, "invalid_request_error", "anonymous_unavailable"),
    (errors.AccountLimitedError, 429, "requests", "rate_limit_exceeded"),
    (errors.ExitLimitedError, 429, "requests", "rate_limit_exceeded"),
    (errors.ChallengedError, 403, "server_error", "upstream_challenge"),
    (errors.WorkspaceRefusedError, 403, "invalid_request_error", "workspace_not_allowed"),
    (errors.UpstreamProtocolError, 502, "server_error", "upstream_protocol"),
    (errors.RefusedError, 400, "invalid_request_error", "content_policy_violation"),
    (errors.StreamInterruptedError, 502, "server_error", "stream_interrupted"),
]


@pytest.mark.parametrize("kind, status, error_type, code", T1_TABLE, ids=lambda value: getattr(value, "__name__", None))
def test_T1_each_class_has_its_status_type_and_code(
    kind: type[Chat2APIError], status: int, error_type: str, code: str | None
) -> None:
    got, body, _ = error_object(_make(kind))
    assert (got, body["error"]["type"], body["error"]["code"]) == (status, error_type, code)
