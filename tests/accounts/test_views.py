"""`chat2api/accounts/views.py`."""

import re
from pathlib import Path

import pytest

import chat2api
from chat2api.accounts.views import AccountView, WaitView, advice_for, error_code, show_account
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    Chat2APIError,
    RefusedError,
    TransportError,
    UpstreamRefusedRequestError,
)
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.values import Account, AccountState
from tests.accounts.jwt import access_token
from tests.storage.accounts import add, new_account


@pytest.fixture
async def account(records: SqlRecords) -> Account:
    """An account that is well."""
    return await add(records, new_account(1))


def show(account: Account, *waits: WaitView, last_error: str | None = None) -> AccountView:
    return show_account(account, waits, in_flight=0, last_used_at=None, last_error=last_error, last_error_at=None)


async def test_a_healthy_account_has_no_reason_and_needs_no_advice(account: Account) -> None:
    view = show(account)

    assert (view.state, view.reason, view.advice, view.until_at, view.last_error_advice) == ("ok", None, "", None, "")


async def test_a_wait_with_all_models_cools_and_one_with_some_does_not(account: Account) -> None:
    some = WaitView("gpt", 30.0, 1030.0, True, "stated_limit")
    whole = WaitView("*", 60.0, 1060.0, False, "human_check")

    assert show(account, some).state == "ok"
    cooling = show(account, whole, some)

    assert (cooling.state, cooling.reason, cooling.until_at) == ("cooling", "human_check", 1060.0)
    assert cooling.waits == (some, whole)
    assert "browser" in cooling.advice


@pytest.mark.parametrize("state", ["needs_sign_in", "disabled", "suspect", "in_doubt"])
async def test_every_state_that_is_not_well_has_advice(
    account: Account, records: SqlRecords, state: AccountState
) -> None:
    changed = await records.set_state(account, state, None, 0.0)
    assert changed is not None

    view = show(changed, WaitView("*", 60.0, 1060.0, False, "distrusted"))

    assert view.advice
    assert (view.state == "cooling") is changed.usable


async def test_a_reason_that_nobody_knows_leaves_the_advice_of_the_state(account: Account, records: SqlRecords) -> None:
    changed = await records.set_state(account, "needs_sign_in", "never heard of", 0.0)
    assert changed is not None
    assert show(changed).advice == advice_for("needs_sign_in")


def test_every_reason_of_ours_is_known_to_the_adviser() -> None:
    source = "".join(path.read_text() for path in Path(chat2api.__file__).parent.rglob("*.py"))
    reasons = set(re.findall(r'reason="([a-z_]+)"', source))

    assert {"token_expired", "no_refresh_token", "in_doubt"} <= reasons
    unknown = advice_for("never heard of")
    assert [reason for reason in sorted(reasons) if advice_for(reason) == unknown] == []


def test_G6_an_error_is_kept_as_a_word_of_ours_only() -> None:
    token = access_token()

    assert error_code(AccountRejectedError(token, reason="token_revoked")) == "token_revoked"
    assert error_code(AccountRejectedError("", reason=f"text of the backend {token}")) == "upstream_account"
    assert error_code(AccountLimitedError(token)) == "rate_limit_exceeded"
    assert error_code(TransportError(token)) == "upstream_transport"


def test_errors_that_the_account_is_no_part_of_are_not_kept() -> None:
    for error in (UpstreamRefusedRequestError(""), RefusedError(""), Chat2APIError(""), ValueError()):
        assert error_code(error) is None
