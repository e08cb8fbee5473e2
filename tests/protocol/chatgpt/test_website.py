"""What of a call's path, query and body goes on to the backend: an allow-list, and defaults where nothing is said."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.chatgpt.website import (
    Page,
    SiteCall,
    accounts_call,
    attachment_call,
    feedback_call,
    file_call,
    hide_all_call,
    hide_call,
    models_call,
    page_call,
    read_call,
    read_page,
    sandbox_call,
    shared_accounts,
    shown_models,
    summary_of,
    title_call,
    update_call,
)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, Page(0, 20, "updated", False)),
        ({"offset": "", "limit": ""}, Page()),
        ({"offset": "40", "limit": "100", "order": "created"}, Page(40, 100, "created")),
        ({"is_archived": "true", "conversation_filter": "all"}, Page(archived=True)),
    ],
)
def test_a_page_of_the_list(query: dict[str, str], page: Page) -> None:
    assert read_page(query) == page


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"offset": "1e3"}, "offset"),
        ({"offset": "-5"}, "offset"),
        ({"order": "random&account=x"}, "order"),
    ],
)
def test_a_page_that_cannot_be_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_page(query)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("call", "method", "path", "body"),
    [
        (page_call(Page(5, 10)), "GET", "/conversations?offset=5&limit=10&order=updated", None),
        (
            page_call(Page(archived=True)),
            "GET",
            "/conversations?offset=0&limit=20&order=updated&is_archived=true",
            None,
        ),
        (read_call("c-1"), "GET", "/conversation/c-1", None),
        (
            title_call("c-1", {"message_id": "m-1", "model": "auto", "x": 1}),
            "POST",
            "/conversation/gen_title/c-1",
            {"message_id": "m-1", "model": "auto"},
        ),
        (update_call("c-1", {"title": "New", "x": 1}), "PATCH", "/conversation/c-1", {"title": "New"}),
        (
            update_call("c-1", {"title": "New", "is_visible": True}),
            "PATCH",
            "/conversation/c-1",
            {"title": "New", "is_visible": True},
        ),
        (update_call("c-1", {"is_archived": True}), "PATCH", "/conversation/c-1", {"is_archived": True}),
        (hide_call("c-1"), "PATCH", "/conversation/c-1", {"is_visible": False}),
        (hide_all_call({"is_visible": False}), "PATCH", "/conversations", {"is_visible": False}),
        (
            feedback_call({"conversation_id": "c-1", "message_id": "m-1", "rating": "thumbsUp", "x": 1}),
            "POST",
            "/conversation/message_feedback",
            {"conversation_id": "c-1", "message_id": "m-1", "rating": "thumbsUp"},
        ),
        (file_call("file-1"), "GET", "/files/file-1/download", None),
        (file_call("hash#file_1#p_0.png"), "GET", "/files/hash%23file_1%23p_0.png/download", None),
        (attachment_call("c-1", "file_1"), "GET", "/conversation/c-1/attachment/file_1/download", None),
        (
            sandbox_call("c-1", {"message_id": "m-1", "sandbox_path": "/mnt/data/a b&c.csv", "x": "1"}),
            "GET",
            "/conversation/c-1/interpreter/download?message_id=m-1&sandbox_path=%2Fmnt%2Fdata%2Fa+b%26c.csv",
            None,
        ),
        (models_call(), "GET", "/models?history_and_training_disabled=false", None),
        (accounts_call(), "GET", "/accounts/check/v4-2023-04-27", None),
    ],
)
def test_calls_beside_the_turns(call: SiteCall, method: str, path: str, body: object) -> None:
    assert (call.method, call.path, call.body) == (method, path, body)


@pytest.mark.parametrize(
    ("call", "hides"),
    [
        (hide_call("c"), True),
        (update_call("c", {"is_visible": True}), False),
        (update_call("c", {"title": "x"}), False),
        (read_call("c"), False),
    ],
)
def test_it_is_known_which_call_takes_a_conversation_away(call: SiteCall, hides: bool) -> None:
    assert call.hides is hides


HOSTILE = ["../me", "..", ".", "", "a/b", "a%2fb", "a?b", "a#b", "a;b", "a\\b", "a@b", "//evil.test", "a b", "é", "-a",
           "x" * 129, "a\n", "a\r\nX: y", "a\0", "http://evil.test", "%2e%2e", "c:d", "a&b", "{id}"]  # fmt: skip


@pytest.mark.parametrize("identifier", HOSTILE)
def test_S6_an_id_never_becomes_another_path(identifier: str) -> None:
    makers: tuple[Callable[[], SiteCall], ...] = (
        lambda: read_call(identifier),
        lambda: hide_call(identifier),
        lambda: title_call(identifier, {"message_id": "m"}),
        lambda: attachment_call(identifier, "file-1"),
        lambda: sandbox_call(identifier, {"message_id": "m", "sandbox_path": "/mnt/data/x"}),
        lambda: feedback_call({"conversation_id": identifier, "message_id": "m", "rating": "thumbsUp"}),
    )
    for make in makers:
        with pytest.raises(InvalidRequestError):
            make()


@pytest.mark.parametrize(
    "identifier", [one for one in HOSTILE if one not in ("a#b", "x" * 129)] + ["x" * 201, "#a", ".a", "a%23b"]
)
def test_S6_a_files_id_never_becomes_another_path(identifier: str) -> None:
    for make in (file_call, partial(attachment_call, "c")):
        with pytest.raises(InvalidRequestError):
            make(identifier)


@pytest.mark.parametrize(
    "make",
    [
        lambda: title_call("c", {}),
        lambda: title_call("c", []),
        lambda: title_call("c", {"message_id": 5}),
        lambda: update_call("c", {}),
        lambda: update_call("c", {"title": ""}),
        lambda: update_call("c", {"title": 5}),
        lambda: update_call("c", {"title": "x" * 501}),
        lambda: update_call("c", {"is_visible": "false"}),
        lambda: hide_all_call({}),
        lambda: hide_all_call({"is_visible": True}),
        lambda: hide_all_call(None),
        lambda: feedback_call({"conversation_id": "c", "message_id": "m", "rating": "great"}),
        lambda: feedback_call({"conversation_id": "c", "rating": "thumbsUp"}),
        lambda: sandbox_call("c", {"sandbox_path": "/mnt/data/x"}),
        lambda: sandbox_call("c", {"message_id": "m"}),
        lambda: sandbox_call("c", {"message_id": "m", "sandbox_path": "/etc/passwd"}),
        lambda: sandbox_call("c", {"message_id": "m", "sandbox_path": "/mnt/data/\r\nX: y"}),
        lambda: sandbox_call("c", {"message_id": "m", "sandbox_path": "/mnt/data/" + "x" * 500}),
    ],
)
def test_a_body_that_says_nothing_usable_is_refused(make: Any) -> None:
    with pytest.raises(InvalidRequestError):
        make()


# What is told of shared accounts


def test_models_are_listed_as_far_as_they_may_be_used() -> None:
    listing = {"models": [{"slug": "gpt-4o"}, {"slug": "o3", "title": "o3"}, "odd", {}], "categories": [1]}
    assert shown_models(listing, lambda slug: slug == "o3") == {
        "models": [{"slug": "o3", "title": "o3"}],
        "categories": [1],
    }
    assert shown_models({"models": {}}, lambda slug: True) == {"models": []}


def entry(plan: str, number: str) -> dict[str, Any]:
    return {
        "account": {
            "account_id": f"workspace-{number}",
            "account_user_id": f"user-Canary__workspace-{number}",
            "name": "Canary Company",
            "plan_type": plan,
            "structure": "personal",
            "is_deactivated": False,
        },
        "features": ["image_gen"],
        "entitlement": {"subscription_id": "sub-Canary", "has_active_subscription": True},
        "last_active_subscription": {"email": "canary@example.test"},
    }


def test_S8_of_a_shared_account_the_plan_is_told_and_nobody() -> None:
    answer = {"accounts": {"1": entry("plus", "1"), "2": entry("team", "2")}, "account_ordering": ["1", "2"]}
    told = shared_accounts(answer, None)
    assert told == {
        "accounts": {
            "default": {
                "account": {
                    "account_id": "default",
                    "name": None,
                    "plan_type": "plus",
                    "structure": "personal",
                    "is_deactivated": False,
                },
                "features": ["image_gen"],
                "entitlement": {"has_active_subscription": True},
            }
        },
        "account_ordering": ["default"],
    }
    assert shared_accounts(answer, "2")["accounts"]["default"]["account"]["plan_type"] == "team"  # type: ignore[index]
    assert "Canary" not in str(told)


@pytest.mark.parametrize("answer", [{}, {"accounts": []}, {"accounts": {"1": "odd"}, "account_ordering": "odd"}])
def test_an_odd_list_of_accounts_is_an_empty_one(answer: dict[str, object]) -> None:
    assert shared_accounts(answer, None)["account_ordering"] == ["default"]


def test_a_whole_conversation_as_an_item_of_the_list() -> None:
    whole = {"title": "Rivers", "create_time": 0.5, "update_time": 86400.0, "mapping": {"m": {}}, "gizmo_id": None}
    assert summary_of("c-1", whole) == {
        "id": "c-1",
        "title": "Rivers",
        "create_time": "1970-01-01T00:00:00.500000+00:00",
        "update_time": "1970-01-02T00:00:00+00:00",
        "mapping": None,
        "current_node": None,
        "is_archived": False,
        "gizmo_id": None,
    }
    assert summary_of("c-1", {"create_time": "2026-01-01"})["create_time"] == "2026-01-01"
    assert summary_of("c-1", {"create_time": True})["create_time"] is None
