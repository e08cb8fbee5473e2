"""What of a caller's path, query and body goes on to the backend: an allow-list, and defaults where nothing is said."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.chatgpt.request import Surroundings, Zone
from chat2api.protocol.chatgpt.website import (
    MAX_MESSAGES,
    Page,
    SiteCall,
    SiteTurn,
    accounts_call,
    classic_turn_body,
    feedback_call,
    hide_all_call,
    hide_call,
    models_call,
    newer_turn_bodies,
    page_call,
    read_call,
    read_page,
    read_turn,
    shared_accounts,
    shown_models,
    summary_of,
    title_call,
    update_call,
)


def around() -> Surroundings:
    numbers = itertools.count(1)
    return Surroundings(now=1.0, zone=Zone("America/Los_Angeles", 480), new_id=lambda: f"id-{next(numbers)}")


def turn(**fields: Any) -> SiteTurn:
    message = {"content": {"content_type": "text", "parts": ["Name three rivers."]}}
    return read_turn({"messages": [message], **fields}, around())


def sent(**fields: Any) -> dict[str, Any]:
    body = classic_turn_body(turn(**fields), around())
    assert body is not None
    return body


# Turns


def test_what_is_left_out_of_a_turn_has_a_default() -> None:
    read = turn()
    assert (read.action, read.model, read.conversation_id, read.parent_message_id) == ("next", "auto", None, "id-2")
    assert read.messages == (
        {
            "content": {"content_type": "text", "parts": ["Name three rivers."]},
            "author": {"role": "user"},
            "id": "id-1",
        },
    )
    assert read.prompt[0].text == "Name three rivers."
    assert not read.temporary
    assert not read.auto_continue


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_id_is_none(empty: str | None) -> None:
    read = turn(conversation_id=empty, parent_message_id=empty, model=empty, action=empty)
    assert (read.conversation_id, read.model, read.action) == (None, "auto", "next")
    assert read.parent_message_id == "id-2"
    assert "conversation_id" not in sent(conversation_id=empty)


def test_a_conversation_without_a_parent_goes_on_after_its_last_message() -> None:
    assert turn(conversation_id="c-1").parent_message_id is None
    assert turn(conversation_id="c-1", parent_message_id="m-1").parent_message_id == "m-1"


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ({}, "user"),
        ({"author": {}}, "user"),
        ({"author": {"role": ""}}, "user"),
        ({"author": {"role": "system"}}, "system"),
        ({"role": "user"}, "user"),
        ({"role": "assistant"}, "assistant"),
    ],
)
def test_the_user_speaks_where_nobody_is_named(message: dict[str, Any], role: str) -> None:
    read = read_turn({"messages": [{**message, "content": {"parts": ["x"]}}]}, around())
    assert read.messages[0]["author"] == {"role": role}
    assert "role" not in read.messages[0]
    assert read.prompt[0].role == role


def test_a_message_goes_on_as_it_is_beside_its_defaults() -> None:
    part = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://f-1", "size_bytes": 3}
    message = {
        "id": "m-9",
        "author": {"role": "user", "name": "somebody"},
        "create_time": 5.5,
        "content": {"content_type": "multimodal_text", "parts": [part, "What is it?"]},
        "metadata": {"attachments": [{"id": "f-1"}]},
    }
    read = read_turn({"messages": [message]}, around())
    assert read.messages == (message,)
    assert read.prompt[0].text == "What is it?"


def test_G6_a_message_tells_nothing_of_the_front_end_that_wrote_it() -> None:
    message = {
        "id": "m-9",
        "author": {"role": "user", "metadata": {"real_author": "somebody"}},
        "content": {"parts": ["x"]},
        "metadata": {"session": "front-end-7", "attachments": [{"id": "f-1"}], "system_hints": ["search"]},
        "weight": 1.0,
        "device": "phone",
    }
    (sent_message,) = read_turn({"messages": [message]}, around()).messages
    assert sent_message == {
        "id": "m-9",
        "author": {"role": "user"},
        "content": {"content_type": "text", "parts": ["x"]},
        "metadata": {"attachments": [{"id": "f-1"}], "system_hints": ["search"]},
    }
    (odd,) = read_turn({"messages": [{"content": {"parts": ["x"]}, "metadata": "odd"}]}, around()).messages
    assert odd["metadata"] == {}


@pytest.mark.parametrize("author", [{"role": {"a": 1}}, {"role": ["user"]}, {"role": 5}])
def test_a_role_is_a_word(author: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        read_turn({"messages": [{"author": author, "content": {"parts": ["x"]}}]}, around())
    assert raised.value.param == "messages[0].author"


def test_S8_who_shares_an_account_has_nothing_of_what_is_connected_to_it() -> None:
    connected = {
        "developer_mode_connector_ids": ["c-1"],
        "selected_all_github_repos": True,
        "selected_github_repos": ["a/b"],
        "selected_sources": ["drive"],
    }
    metadata = connected | {"attachments": [{"id": "f-1"}]}
    said = [{"content": {"parts": ["x"]}, "metadata": metadata}, {"content": {"parts": ["y"]}}]
    read = read_turn({"messages": said}, around())
    assert read.messages[0]["metadata"] == metadata
    shared = read.without_connections().messages
    assert shared[0]["metadata"] == {"attachments": [{"id": "f-1"}]}
    assert shared[1] == read.messages[1]


def test_known_fields_go_on_and_unknown_ones_are_told() -> None:
    given = {
        "supported_encodings": ["v1"],
        "system_hints": ["search"],
        "conversation_mode": {"kind": "gizmo_interaction", "gizmo_id": "g-Abc"},
        "history_and_training_disabled": True,
    }
    read = turn(**given, upstream="https://evil.test", headers={"a": "b"}, **{"strange name": 1})
    body = classic_turn_body(read, around())
    assert body is not None
    assert given.items() <= body.items()
    assert not {"upstream", "headers", "strange name"} & body.keys()
    assert read.ignored == ("(other)", "headers", "upstream")
    assert read.temporary
    assert read.public_models == ("auto", "gpt-4-gizmo-g-Abc")


def test_G6_time_zone_and_page_are_the_servers_own() -> None:
    body = sent(
        timezone="Europe/Berlin",
        timezone_offset_min=-60,
        client_contextual_info={"screen_width": 99},
        websocket_request_id="theirs",
        force_use_sse=False,
        force_paragen=True,
        force_paragen_model_slug="gpt-9",
        force_rate_limit=True,
        reset_rate_limits=True,
        arkose_token="bought",
    )
    assert (body["timezone"], body["timezone_offset_min"]) == ("America/Los_Angeles", 480)
    assert body["client_contextual_info"]["screen_width"] == 1920
    assert body["websocket_request_id"] != "theirs"
    assert body["force_use_sse"] is True
    assert not {"force_paragen", "force_paragen_model_slug", "reset_rate_limits", "arkose_token"} & body.keys()
    assert turn(timezone="Europe/Berlin", arkose_token="bought").ignored == ()


@pytest.mark.parametrize("action", ["continue", "variant"])
def test_an_answer_can_be_continued_or_made_again(action: str) -> None:
    read = read_turn({"action": action, "conversation_id": "c-1", "parent_message_id": "m-1"}, around())
    body = classic_turn_body(read, around())
    assert body is not None
    assert body["action"] == action
    assert "messages" not in body


def test_the_rest_of_an_answer_is_asked_for_in_the_form_of_its_beginning() -> None:
    body = classic_turn_body(turn(supported_encodings=["v1"], model="o3").going_on("c-1", "m-2"), around())
    assert body is not None
    expected = {"action": "continue", "conversation_id": "c-1", "parent_message_id": "m-2", "model": "o3"}
    assert {**expected, "supported_encodings": ["v1"]}.items() <= body.items()
    assert "messages" not in body
    plain = classic_turn_body(turn().going_on("c-1", "m-2"), around())
    assert plain is not None
    assert "supported_encodings" not in plain


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], None),
        ("text", None),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "text"}, "messages"),
        ({"messages": [{}] * (MAX_MESSAGES + 1)}, "messages"),
        ({"messages": ["text"]}, "messages[0]"),
        ({"messages": [{"content": "text"}]}, "messages[0].content"),
        ({"messages": [{"content": {}}]}, "messages[0].content"),
        ({"messages": [{"content": {"parts": ["x"]}, "author": "me"}]}, "messages[0].author"),
        ({"messages": [{"content": {"parts": ["x"]}, "role": 7}]}, "messages[0].author"),
        ({"messages": [{"content": {"parts": ["x"]}, "id": "../x"}]}, "messages[0].id"),
        ({"action": "purge"}, "action"),
        ({"action": ["next"]}, "action"),
        ({"action": "continue"}, "conversation_id"),
        ({"messages": [{"content": {"parts": ["x"]}}], "conversation_id": "../../me"}, "conversation_id"),
        ({"messages": [{"content": {"parts": ["x"]}}], "conversation_id": 5}, "conversation_id"),
        ({"messages": [{"content": {"parts": ["x"]}}], "parent_message_id": "a b"}, "parent_message_id"),
        ({"messages": [{"content": {"parts": ["x"]}}], "model": 7}, "model"),
        ({"messages": [{"content": {"parts": ["x"]}}], "model": "m" * 200}, "model"),
    ],
)
def test_a_turn_that_makes_no_sense_is_refused_with_the_field_at_fault(body: object, param: str | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_turn(body, around())
    assert caught.value.param == param


@pytest.mark.parametrize("fields", [{"thinking_effort": "extended"}, {"system_hints": ["picture_v2"]}])
def test_what_only_the_newer_call_takes_goes_there_at_once(fields: dict[str, Any]) -> None:
    assert classic_turn_body(turn(**fields), around()) is None


def test_the_newer_call_is_prepared_with_the_first_characters_only() -> None:
    read = turn(supported_encodings=["v1"], supports_buffering=True, enable_message_followups=True)
    body, prepare = newer_turn_bodies(read, around())
    assert body["parent_message_id"] == "client-created-root"
    assert body["client_prepare_state"] == "success"
    assert not {"supported_encodings", "supports_buffering", "enable_message_followups"} & body.keys()
    assert prepare["partial_query"]["content"]["parts"] == ["Name "]  # type: ignore[index]  # as it is written
    assert not {"messages", "conversation_id"} & prepare.keys()
    continued, _ = newer_turn_bodies(turn(conversation_id="c-1", parent_message_id="m-1"), around())
    assert (continued["conversation_id"], continued["parent_message_id"]) == ("c-1", "m-1")


def test_a_picture_keeps_what_leads_the_answer_away() -> None:
    body, prepare = newer_turn_bodies(turn(system_hints=["picture_v2"], supports_buffering=True), around())
    assert body["supports_buffering"] is True
    assert prepare["partial_query"]["content"]["parts"] == ["Name three rivers."]  # type: ignore[index]  # as above


# Other calls


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
        lambda: feedback_call({"conversation_id": identifier, "message_id": "m", "rating": "thumbsUp"}),
    )
    for make in makers:
        with pytest.raises(InvalidRequestError):
            make()


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
