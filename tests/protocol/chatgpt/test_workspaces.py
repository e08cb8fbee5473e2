"""`chat2api/protocol/chatgpt/workspaces.py`."""

import pytest

from chat2api.errors import UpstreamProtocolError
from chat2api.protocol.chatgpt.workspaces import Workspace, choose_workspace, known_names, parse_workspaces


def entry(
    account_id: str, plan: object = "plus", features: object = ("image_gen",), *, closed: object = False
) -> object:
    return {
        "account": {"account_id": account_id, "plan_type": plan, "is_deactivated": closed},
        "features": list(features) if isinstance(features, tuple) else features,
    }


def test_workspaces_come_in_the_backends_order_and_default_is_none_of_its_own() -> None:
    body = {
        "accounts": {"a": entry("a"), "t": entry("t", "team", ("x", "y")), "z": entry("z"), "default": entry("a")},
        "account_ordering": ["t", "gone", "a", "t", 5],
    }

    found = parse_workspaces(body)

    assert [one.account_id for one in found] == ["t", "a", "z"]
    assert found[0] == Workspace("t", "team", ("x", "y"), False)
    assert choose_workspace(found, None) == found[0]
    assert choose_workspace(found, "z") == found[2]
    assert choose_workspace(found, "gone") is choose_workspace((), None) is None


def test_what_is_not_told_is_none_and_a_closed_workspace_is_known() -> None:
    body = {"accounts": {"a": entry("a", None, None, closed=True), "bad": 5, "worse": {"account": 5}}}

    assert parse_workspaces(body) == (Workspace("a", None, (), True),)


@pytest.mark.parametrize("body", [None, 5, [], {}, {"accounts": []}, {"accounts": None}])
def test_R14_another_shape_is_a_named_error(body: object) -> None:
    with pytest.raises(UpstreamProtocolError):
        parse_workspaces(body)


def test_S24_only_names_are_kept_of_what_the_backend_says() -> None:
    assert known_names(["ok", "ok", "<script>", "", "x" * 81, 5, "a b", "gpt-4.1"]) == ("ok", "gpt-4.1")
    assert known_names({"a": 1}) == ()
    assert len(known_names([f"f{number}" for number in range(1000)])) == 200
    body = {"accounts": {"a": entry("a", "<b>")}}
    assert parse_workspaces(body)[0].plan is None
