"""Tests of accounts and tokens."""

import re

import pytest

from chat2api.simulator.accounts import AccountBook, make_starting_accounts, select_workspace
from chat2api.simulator.wire import Refusal, Request

_NOW = 1_790_000_000.0


def _book(seed: str = "s") -> AccountBook:
    return AccountBook(seed, 1000.0)


def test_tokens_have_the_published_shapes() -> None:
    plus, free, phone = make_starting_accounts(_book(), 3, _NOW)
    assert re.fullmatch(r"rt_[0-9A-Za-z_-]{60,}", plus.refresh_token)
    assert re.fullmatch(r"[0-9A-Za-z_-]{45}", phone.refresh_token)
    assert plus.access_token.startswith("eyJhbGciOi")
    assert plus.access_token.count(".") == 2
    assert len(plus.access_token.rpartition(".")[2]) == 342  # 256 bytes, as RS256
    assert plus.session_cookie.startswith("eyJhbGciOiJkaXIi")
    assert plus.session_cookie.count(".") == 4
    assert (plus.plan, free.plan, len(phone.account_ids)) == ("plus", "free", 2)


def test_a_seed_makes_the_same_accounts() -> None:
    assert make_starting_accounts(_book(), 4, _NOW) == make_starting_accounts(_book(), 4, _NOW)
    assert make_starting_accounts(_book("t"), 1, _NOW) != make_starting_accounts(_book(), 1, _NOW)


def test_a_changed_token_is_refused_at_every_part() -> None:
    book = _book()
    token = book.add_account(now=_NOW).access_token
    assert book.check_access_token(token, _NOW).plan == "plus"
    for place in (5, len(token) // 2, len(token) - 5):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(Refusal):
            book.check_access_token(changed, _NOW)
    with pytest.raises(Refusal) as caught:
        book.check_access_token(token, _NOW + 1001)
    assert b"token_expired" in caught.value.answer.body


def test_single_tokens_can_be_taken_back() -> None:
    book = _book()
    credentials = book.add_account(now=_NOW)
    grant = book.grant_of(credentials.user_id)
    other = book.make_access_token(grant, _NOW)
    book.accounts[credentials.user_id].tokens_refused.add(other)
    assert book.check_access_token(credentials.access_token, _NOW)
    with pytest.raises(Refusal):
        book.check_access_token(other, _NOW)


def test_the_header_selects_a_workspace_of_the_account() -> None:
    book = _book()
    credentials = book.add_account(now=_NOW, team=True)
    account = book.accounts[credentials.user_id]

    def request(account_id: str | None) -> Request:
        headers = (("chatgpt-account-id", account_id),) if account_id is not None else ()
        return Request("GET", "/", headers, b"", "1.1", "http", 1)

    assert select_workspace(account, request(None)).plan == "plus"
    assert select_workspace(account, request(credentials.account_ids[1])).plan == "team"
    with pytest.raises(Refusal):
        select_workspace(account, request("another"))
    account.workspaces[1].deactivated = True
    with pytest.raises(Refusal):
        select_workspace(account, request(credentials.account_ids[1]))
