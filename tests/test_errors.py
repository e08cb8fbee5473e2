"""The error tree: what each class means to a client, and that no error is missing from its picture."""

import re

import pytest

from chat2api import errors
from chat2api.errors import QUOTES, Chat2APIError
from chat2api.protocol.openai.errors import error_object

TABLE = {
    "InvalidRequestError": (400, "invalid_request_error", None, True),
    "PayloadTooLargeError": (413, "invalid_request_error", "payload_too_large", True),
    "UnsupportedMediaTypeError": (415, "invalid_request_error", "unsupported_media_type", True),
    "InvalidAPIKeyError": (401, "invalid_request_error", "invalid_api_key", True),
    "MissingAPIKeyError": (401, "invalid_request_error", "invalid_api_key", True),
    "PermissionDeniedError": (403, "invalid_request_error", "permission_denied", True),
    "NotFoundError": (404, "invalid_request_error", "not_found", True),
    "MethodNotAllowedError": (405, "invalid_request_error", "method_not_allowed", True),
    "MisdirectedRequestError": (421, "invalid_request_error", "misdirected_request", True),
    "RateLimitedError": (429, "requests", "rate_limit_exceeded", False),
    "QuotaExceededError": (429, "insufficient_quota", "insufficient_quota", True),
    "NoAccountError": (503, "server_error", "no_account", True),
    "AllAccountsCoolingError": (429, "requests", "rate_limit_exceeded", False),
    "LoopDetectedError": (508, "server_error", "loop_detected", True),
    "DrainingError": (503, "server_error", "draining", False),
    "StorageError": (503, "server_error", "storage", False),
    "ConfigError": (500, "server_error", "config", False),
    "UpstreamError": (502, "server_error", "upstream_error", False),
    "TransportError": (502, "server_error", "upstream_transport", False),
    "UpstreamTimeoutError": (504, "server_error", "upstream_timeout", False),
    "UpstreamServerError": (502, "server_error", "upstream_server_error", False),
    "AccountRejectedError": (502, "server_error", "upstream_account", False),
    "KeyForbiddenError": (403, "invalid_request_error", "permission_denied", True),
    "CallerTokenRejectedError": (401, "invalid_request_error", "caller_token_rejected", True),
    "AnonymousUnavailableError": (401, "invalid_request_error", "anonymous_unavailable", True),
    "AccountLimitedError": (429, "requests", "rate_limit_exceeded", False),
    "ChallengedError": (403, "server_error", "upstream_challenge", True),
    "ExitLimitedError": (429, "requests", "rate_limit_exceeded", True),
    "WorkspaceRefusedError": (403, "invalid_request_error", "workspace_not_allowed", True),
    "ProofTooHardError": (403, "server_error", "proof_of_work_too_hard", True),
    "UpstreamRefusedRequestError": (400, "invalid_request_error", "upstream_invalid_request", True),
    "UpstreamNotFoundError": (404, "invalid_request_error", "not_found", True),
    "UpstreamProtocolError": (502, "server_error", "upstream_protocol", False),
    "RefusedError": (400, "invalid_request_error", "content_policy_violation", True),
    "StreamInterruptedError": (502, "server_error", "stream_interrupted", True),
    "AnswerElsewhereError": (502, "server_error", "stream_interrupted", True),
}
"""Status, type, code and finality of each class."""

REQUIRED: dict[str, dict[str, object]] = {
    "UpstreamTimeoutError": {"phase": "headers"},
    "UpstreamServerError": {"upstream_status": 503},
    "AccountRejectedError": {"reason": "token_revoked"},
}
"""What instances of some classes must be given."""


def make(name: str, message: str = "Words.") -> Chat2APIError:
    made = getattr(errors, name)(message, **REQUIRED.get(name, {}))
    assert isinstance(made, Chat2APIError)
    return made


def all_classes() -> set[type[Chat2APIError]]:
    found: set[type[Chat2APIError]] = set()
    waiting: list[type[Chat2APIError]] = [Chat2APIError]
    while waiting:
        for child in waiting.pop().__subclasses__():
            if child.__module__ == errors.__name__:
                found.add(child)
                waiting.append(child)
    return found


def test_every_class_is_in_the_table() -> None:
    assert {kind.__name__ for kind in all_classes()} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_each_class_means_what_the_table_says(name: str) -> None:
    error = make(name)
    assert (error.status, error.type, error.code, error.final) == TABLE[name]
    assert error.message == str(error) == "Words."


def test_the_picture_in_the_docstring_is_the_tree() -> None:
    lines = (errors.__doc__ or "").splitlines()
    drawn = [found for line in lines if (found := re.match(r"^([\s│├└─]*)(\w+Error)(?:\s+(\S+))?", line))]
    parents: list[tuple[int, str]] = []
    pictured: dict[str, tuple[str, str]] = {}
    for found in drawn:
        depth, name = len(found[1]), found[2]
        while parents and parents[-1][0] >= depth:
            parents.pop()
        if parents:
            pictured[name] = (parents[-1][1], found[3])
        parents.append((depth, name))
    assert set(pictured) == set(TABLE)
    for name, (parent, status) in pictured.items():
        kind = getattr(errors, name)
        assert kind.__base__.__name__ == parent, name
        assert status.startswith("(") or int(status) == kind.status, name


def test_an_instance_can_say_more_than_its_class() -> None:
    error = errors.NotFoundError("No.", param="conversation_id", code="conversation_not_found", retry_after=2.5)
    assert (error.param, error.code, error.retry_after) == ("conversation_id", "conversation_not_found", 2.5)
    assert errors.DrainingError("No.", final=True).final


def test_what_is_always_final_cannot_be_made_otherwise() -> None:
    assert errors.InvalidAPIKeyError("No.", final=False).final


@pytest.mark.parametrize("reason", ["token_revoked", "account_deactivated", "invalid_grant", "no_refresh_token", ""])
def test_only_an_expired_token_may_be_refreshed(reason: str) -> None:
    assert errors.AccountRejectedError("No.", reason="token_expired").may_refresh
    assert not errors.AccountRejectedError("No.", reason=reason).may_refresh


def test_a_limited_exit_is_a_challenge_of_the_exit() -> None:
    error = errors.ExitLimitedError("Slow down.", retry_after=9)
    assert (error.scope, error.retry_after) == ("exit", 9)
    assert errors.ChallengedError("No.").scope == "both"


@pytest.mark.parametrize("name", TABLE)
def test_G6_the_backends_own_words_are_told_and_not_logged(name: str) -> None:
    error = make(name, f"It failed.{QUOTES}the prompt again")
    assert str(error) == "It failed."
    assert "prompt" not in repr(error)
    _, body, _ = error_object(error)
    if error.status != 500:
        assert body["error"]["message"].endswith("the prompt again")
