"""What of a turn's body goes on to the backend: an allow-list, and defaults where nothing is said."""

import itertools
from typing import Any

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.chatgpt.request import Surroundings, Zone
from chat2api.protocol.chatgpt.website_turns import (
    MAX_FILES,
    MAX_MESSAGES,
    SiteTurn,
    classic_turn_body,
    newer_turn_bodies,
    read_turn,
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
    metadata = connected | {"attachments": [{"id": "f-1"}], "targeted_reply": "this"}
    said = [{"content": {"parts": ["x"]}, "metadata": metadata}, {"content": {"parts": ["y"]}}]
    read = read_turn({"messages": said}, around())
    assert read.messages[0]["metadata"] == metadata
    shared = read.shared(around()).messages
    assert shared[0]["metadata"] == {"attachments": [{"id": "f-1"}], "targeted_reply": "this"}
    assert shared[1] == read.messages[1]


def test_a_turn_of_who_shares_an_account_says_what_front_ends_say() -> None:
    pointer = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://f-1", "size_bytes": 3, "width": 8}
    message = {
        "id": "m-9",
        "author": {"role": "user", "name": "somebody"},
        "create_time": 5.5,
        "content": {"content_type": "multimodal_text", "parts": [pointer, "What is it?"]},
        "metadata": {
            "attachments": [{"id": "f-1", "name": "a.png", "mimeType": "image/png"}],
            "system_hints": ["search"],
        },
    }
    fields: dict[str, Any] = {
        "conversation_id": "c-1",
        "parent_message_id": "m-1",
        "conversation_mode": {"kind": "gizmo_interaction", "gizmo_id": "g-Abc"},
        "history_and_training_disabled": True,
        "suggestions": [],
        "supported_encodings": ["v1"],
        "system_hints": ["search"],
    }
    read = read_turn({"messages": [message], **fields}, around())
    assert read.shared(around()) == read
    assert read.files == ("f-1", "f-1")
    assert read.gizmo_id == "g-Abc"


HIDDEN = {"asset_pointer": "sediment://f-theirs", "id": "f-theirs", "gizmo_id": "g-p-theirs"}


@pytest.mark.parametrize(
    "body",
    [
        {"content": {"parts": ["x"], "asset_pointer": "sediment://f-theirs"}},
        {"content": {"parts": ["x"], "assets": [HIDDEN]}},
        {"content": {"parts": ["x"], "content_type": HIDDEN}},
        {"content": {"parts": [{"content_type": "odd", "asset_pointer": "sediment://f-mine", "audio": HIDDEN}]}},
        {"content": {"parts": [{"asset_pointer": "sediment://f-mine", "width": HIDDEN, "metadata": HIDDEN}]}},
        {"content": {"parts": [{"asset_pointer": "sediment://f-mine", "size_bytes": [HIDDEN]}]}},
        {
            "content": {"parts": ["x"]},
            "metadata": {"attachments": [{"id": "f-mine", "file": HIDDEN, "name": [HIDDEN]}]},
        },
        {"content": {"parts": ["x"]}, "metadata": {"attachments": HIDDEN}},
        {"content": {"parts": ["x"]}, "metadata": {"serialization_metadata": HIDDEN, "targeted_reply": HIDDEN}},
        {"content": {"parts": ["x"]}, "metadata": {"system_hints": [HIDDEN]}},
        {"content": {"parts": ["x"]}, "author": {"role": "user", "name": HIDDEN}},
        {"content": {"parts": ["x"]}, "create_time": HIDDEN},
    ],
)
def test_S8_nothing_that_names_a_file_is_hidden_in_a_shared_turn(body: dict[str, Any]) -> None:
    shared = read_turn({"messages": [body]}, around()).shared(around())
    assert "theirs" not in str(classic_turn_body(shared, around()))
    assert set(shared.files) <= {"f-mine"}


@pytest.mark.parametrize(
    "fields",
    [
        {"conversation_mode": {"kind": "gizmo_interaction", "gizmo": HIDDEN}},
        {"conversation_mode": [HIDDEN]},
        {"conversation_mode": {"kind": HIDDEN, "gizmo_id": {"a": "g-p-theirs"}}},
        {"conversation_origin": HIDDEN},
        {"suggestions": [HIDDEN]},
        {"supported_encodings": {"theirs": 1}},
        {"paragen_stream_type_override": [[HIDDEN]]},
    ],
)
def test_S8_nothing_is_hidden_in_the_fields_of_a_shared_turn(fields: dict[str, Any]) -> None:
    shared = turn(**fields).shared(around())
    assert "theirs" not in str(classic_turn_body(shared, around()))
    assert shared.gizmo_id is None


def test_S8_a_new_conversation_of_who_shares_an_account_follows_no_message_of_others() -> None:
    assert turn(parent_message_id="m-theirs").shared(around()).parent_message_id == "id-1"
    assert turn(parent_message_id="m-theirs").parent_message_id == "m-theirs"
    assert turn(conversation_id="c-1", parent_message_id="m-1").shared(around()).parent_message_id == "m-1"
    assert turn(conversation_id="c-1").shared(around()).parent_message_id is None


def test_a_shared_turn_names_so_many_files_and_no_more() -> None:
    def naming(count: int) -> SiteTurn:
        attachments = [{"id": f"f-{number}"} for number in range(count)]
        return read_turn(
            {"messages": [{"content": {"parts": ["x"]}, "metadata": {"attachments": attachments}}]}, around()
        )

    assert len(naming(MAX_FILES).shared(around()).files) == MAX_FILES
    with pytest.raises(InvalidRequestError):
        naming(MAX_FILES + 1).shared(around())


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
    assert turn(model="o3", system_hints=["research"]).public_models == ("o3", "o3-deep-research")
    assert turn(model="o3").public_models == ("o3",)


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
