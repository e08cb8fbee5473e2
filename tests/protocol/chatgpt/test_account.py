"""`chat2api/protocol/chatgpt/account.py`."""

from typing import Any

import pytest

from chat2api.protocol.chatgpt.account import AccountInfo, parse_account_check


def entry(plan: object = "plus", features: object = ("image_gen",), *, deactivated: object = False) -> dict[str, Any]:
    listed = list(features) if isinstance(features, tuple) else features
    return {"account": {"plan_type": plan, "is_deactivated": deactivated}, "features": listed}


def test_the_workspaces_entry_is_read() -> None:
    answer = {"accounts": {"home": entry(), "team-1": entry("team", ("b", "a", 3)), "default": entry("free", ())}}

    assert parse_account_check(answer, "team-1") == AccountInfo("team", ("a", "b"), is_deactivated=False)
    assert parse_account_check(answer, None) == AccountInfo("free", (), is_deactivated=False)
    assert parse_account_check(answer, "gone") == AccountInfo("free", (), is_deactivated=False)


def test_without_a_default_the_first_one_counts() -> None:
    answer = {"accounts": {"home": entry(deactivated=True), "team-1": entry("team")}}

    assert parse_account_check(answer, None) == AccountInfo("plus", ("image_gen",), is_deactivated=True)


@pytest.mark.parametrize(
    "answer", [{}, {"accounts": {}}, {"accounts": []}, {"accounts": {"a": 3}}, {"accounts": {"a": {"account": None}}}]
)
def test_R14_what_cannot_be_read_is_none(answer: dict[str, Any]) -> None:
    assert parse_account_check(answer, None) is None


@pytest.mark.parametrize("plan", [None, "", 7, ["plus"]])
def test_a_plan_that_is_no_name_is_not_told(plan: object) -> None:
    info = parse_account_check({"accounts": {"a": entry(plan, "features", deactivated="yes")}}, "a")

    assert info == AccountInfo(None, (), is_deactivated=False)
