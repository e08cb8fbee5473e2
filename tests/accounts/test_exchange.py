"""`chat2api/accounts/exchange.py`."""

import pytest

from chat2api.accounts.exchange import RefreshAnswer, fresh_tokens, outcome_unknown
from chat2api.accounts.tokens import UNKNOWN_LIFE
from chat2api.errors import (
    AccountLimitedError,
    Chat2APIError,
    TransportError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from tests.accounts.jwt import access_token


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (TransportError("", request_sent=True), True),
        (TransportError(""), False),
        (UpstreamTimeoutError("", phase="headers"), True),
        (UpstreamTimeoutError("", phase="connect"), False),
        (AccountLimitedError(""), False),
        (UpstreamServerError("", upstream_status=500), False),
    ],
)
def test_R29_only_silence_after_sending_leaves_the_outcome_unknown(error: Chat2APIError, unknown: bool) -> None:
    assert outcome_unknown(error) is unknown


def test_the_end_of_a_token_is_its_own_word_then_the_answers_then_a_guess() -> None:
    told = fresh_tokens(RefreshAnswer(access_token(expires_at=5000), None, expires_in=7.0), 1000.0)
    answered = fresh_tokens(RefreshAnswer("opaque", "next", expires_in=7.0), 1000.0)
    guessed = fresh_tokens(RefreshAnswer("opaque", None), 1000.0)

    assert (told.expires_at, answered.expires_at, guessed.expires_at) == (5000.0, 1007.0, 1000.0 + UNKNOWN_LIFE)
    assert (told.renewable, answered.renewable) == (None, "next")


def test_an_answer_does_not_show_its_tokens() -> None:
    assert "canary" not in repr(RefreshAnswer("canary-1", "canary-2"))
