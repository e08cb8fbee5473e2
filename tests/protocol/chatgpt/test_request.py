"""Bodies of the conversation calls."""

import itertools
from typing import cast

import orjson
import pytest

from chat2api.protocol.chatgpt.request import (
    GO_ON,
    ROOT_MESSAGE_ID,
    Body,
    Form,
    Surroundings,
    Zone,
    continue_body,
    conversation_body,
    init_body,
    needs_f_form,
    prepare_body,
    resume_body,
    stop_body,
    zone_at,
)
from chat2api.protocol.prompt import Message, ModelChoice, Prompt, TextPart, ToolCall

FORMS: tuple[Form, ...] = ("2024", "classic", "f")


def _around() -> Surroundings:
    numbers = itertools.count(1)
    return Surroundings(1_782_309_600.5, Zone("Asia/Shanghai", -480), lambda: f"id-{next(numbers)}", page_age=37)


def _say(text: str) -> Message:
    return Message("user", (TextPart(text),))


def _prompt(*messages: Message, **fields: object) -> Prompt:
    return Prompt(messages or (_say("Name three rivers."),), ModelChoice("gpt-4o"), **fields)  # type: ignore[arg-type]  # of Prompt


def _messages(body: Body) -> list[dict[str, dict[str, object]]]:
    return cast("list[dict[str, dict[str, object]]]", body["messages"])


def test_body_of_2024() -> None:
    assert conversation_body(_prompt(), _around(), form="2024") == {
        "action": "next",
        "conversation_mode": {"kind": "primary_assistant"},
        "force_nulligen": False,
        "force_paragen": False,
        "force_paragen_model_slug": "",
        "force_rate_limit": False,
        "force_use_sse": True,
        "history_and_training_disabled": True,
        "messages": [
            {
                "id": "id-1",
                "author": {"role": "user"},
                "content": {"content_type": "text", "parts": ["Name three rivers."]},
                "metadata": {},
            }
        ],
        "model": "gpt-4o",
        "parent_message_id": "id-2",
        "reset_rate_limits": False,
        "suggestions": [],
        "timezone_offset_min": -480,
        "variant_purpose": "comparison_implicit",
        "websocket_request_id": "id-3",
    }


def test_classic_body_adds_what_2025_brought() -> None:
    older = conversation_body(_prompt(), _around(), form="2024")
    body = conversation_body(_prompt(), _around())
    added = {key: body[key] for key in body.keys() - older.keys()}
    assert older.keys() - body.keys() == {"force_nulligen"}
    info = cast("dict[str, object]", added.pop("client_contextual_info"))
    assert info["time_since_loaded"] == 37
    assert added == {
        "conversation_origin": None,
        "paragen_cot_summary_display_override": "allow",
        "paragen_stream_type_override": None,
        "supported_encodings": ["v1"],
        "system_hints": [],
        "timezone": "Asia/Shanghai",
    }


def test_whole_messages_can_be_asked_for() -> None:
    assert conversation_body(_prompt(), _around(), delta_encoding=False)["supported_encodings"] == []


def test_f_body_of_a_plain_turn() -> None:
    body = conversation_body(_prompt(thinking_effort="extended"), _around(), form="f")
    (message,) = _messages(body)
    assert cast(object, message.pop("create_time")) == 1_782_309_600.5
    assert message.pop("metadata").keys() >= {"selected_sources", "serialization_metadata"}
    assert body == {
        "action": "next",
        "messages": [
            {
                "id": "id-1",
                "author": {"role": "user"},
                "content": {"content_type": "text", "parts": ["Name three rivers."]},
            }
        ],
        "parent_message_id": ROOT_MESSAGE_ID,
        "model": "gpt-4o",
        "client_prepare_state": "success",
        "timezone_offset_min": -480,
        "timezone": "Asia/Shanghai",
        "conversation_mode": {"kind": "primary_assistant"},
        "system_hints": [],
        "history_and_training_disabled": True,
        "paragen_cot_summary_display_override": "allow",
        "force_parallel_switch": "auto",
        "thinking_effort": "extended",
    }


def test_prepare_body_shows_the_first_characters_only() -> None:
    prompt = _prompt(thinking_effort="max")
    body = prepare_body(prompt, _around())
    query = cast("dict[str, object]", body["partial_query"])
    assert query["content"] == {"content_type": "text", "parts": ["Name "]}
    assert body["client_prepare_state"] == "success"
    assert body["parent_message_id"] == ROOT_MESSAGE_ID
    assert body["supported_encodings"] == ["v1"]
    assert body["thinking_effort"] == "max"
    assert "messages" not in body
    sent = conversation_body(prompt, _around(), form="f")
    for key in body.keys() & sent.keys():
        assert body[key] == sent[key], key


def test_pictures_are_asked_for_in_a_stored_conversation() -> None:
    prompt = Prompt((_say("A boat"),), ModelChoice("auto", hints=("picture_v2",)), temporary=True)
    body = conversation_body(prompt, _around(), form="f")
    assert body["client_prepare_state"] == "sent"
    assert body["system_hints"] == ["picture_v2"]
    assert _messages(body)[0]["metadata"]["system_hints"] == ["picture_v2"]
    assert body["supported_encodings"] == ["v1"]
    assert "history_and_training_disabled" not in body
    query = cast("dict[str, dict[str, object]]", prepare_body(prompt, _around())["partial_query"])
    assert query["content"]["parts"] == ["A boat"]


@pytest.mark.parametrize("form", FORMS)
def test_a_stored_conversation_is_continued_after_its_last_message(form: Form) -> None:
    prompt = _prompt(conversation_id="c-1", parent_message_id="m-3", temporary=True)
    body = conversation_body(prompt, _around(), form=form)
    assert (body["conversation_id"], body["parent_message_id"]) == ("c-1", "m-3")
    assert not body.get("history_and_training_disabled")
    with pytest.raises(ValueError, match="parent_message_id"):
        conversation_body(_prompt(conversation_id="c-1"), _around(), form=form)


@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_to_be_kept_is_not_temporary(form: Form) -> None:
    body = conversation_body(_prompt(temporary=False), _around(), form=form)
    assert not body.get("history_and_training_disabled")
    assert "conversation_id" not in body


@pytest.mark.parametrize("form", FORMS)
def test_custom_gpt_is_a_mode_of_the_conversation(form: Form) -> None:
    prompt = Prompt((_say("Hi"),), ModelChoice("gpt-4o", "g-AbC"))
    assert conversation_body(prompt, _around(), form=form)["conversation_mode"] == {
        "kind": "gizmo_interaction",
        "gizmo_id": "g-AbC",
    }


@pytest.mark.parametrize("form", FORMS)
def test_all_messages_are_sent_in_order_under_their_own_ids(form: Form) -> None:
    history = (
        Message("system", (TextPart("Be brief."),)),
        Message("developer", (TextPart("No lists."),)),
        Message("user", (TextPart("Hi"), TextPart("there")), "Ann"),
        Message("assistant", (TextPart("Hello."),)),
        _say("Name three rivers."),
    )
    sent = _messages(conversation_body(_prompt(*history), _around(), form=form))
    assert [message["author"]["role"] for message in sent] == ["system", "system", "user", "assistant", "user"]
    assert [message["content"]["parts"] for message in sent] == [
        ["Be brief."],
        ["No lists."],
        ["Hi\nthere"],
        ["Hello."],
        ["Name three rivers."],
    ]
    assert sent[2]["author"]["name"] == "Ann"
    assert len({str(message["id"]) for message in sent}) == 5


def _said(*messages: Message, **fields: object) -> list[tuple[object, object]]:
    """Give role and text of what is sent for these messages."""
    body = conversation_body(_prompt(*messages, **fields), _around())
    return [(sent["author"]["role"], cast("list[str]", sent["content"]["parts"])[0]) for sent in _messages(body)]


def test_a_begun_answer_is_gone_on_with() -> None:
    begun = Message("assistant", (TextPart("Once upon a"),))

    assert _said(_say("Tell."), begun) == [("user", "Tell."), ("assistant", "Once upon a"), ("user", GO_ON)]
    assert _said(begun, conversation_id="c-1", parent_message_id="m-1") == [("user", GO_ON)]
    partial = cast(
        "dict[str, dict[str, object]]", prepare_body(_prompt(_say("Tell."), begun), _around())["partial_query"]
    )
    assert partial["content"]["parts"] == [GO_ON[:5]]


def test_silence_at_the_end_is_left_out() -> None:
    rules = Message("system", (TextPart("Greet me."),))
    nothing = Message("tool", (), tool_call_id="c1")

    assert _said(rules, _say(" ")) == [("user", "Greet me.")]
    assert _said(_say("Hi"), Message("assistant", ()), _say("")) == [("user", "Hi")]
    assert [text for _, text in _said(_say("Hi"), nothing)] == ["Hi", "[Result of the tool (call c1)]\n"]


def test_hints_go_with_the_last_message_only() -> None:
    prompt = Prompt((_say("a"), _say("b")), ModelChoice("auto", hints=("search",)))
    first, last = _messages(conversation_body(prompt, _around(), form="f"))
    assert "system_hints" not in first["metadata"]
    assert last["metadata"]["system_hints"] == ["search"]


def test_instructions_alone_are_asked_as_a_question() -> None:
    prompt = _prompt(Message("system", (TextPart("Be kind."),)), Message("developer", (TextPart("Greet me."),)))
    sent = _messages(conversation_body(prompt, _around()))
    assert [message["author"]["role"] for message in sent] == ["system", "user"]


def test_tool_calls_and_results_are_spelled_out() -> None:
    calls = (ToolCall("c1", "look_up", '{"q":"tea"}'), ToolCall(None, "stop", ""))
    prompt = _prompt(
        Message("assistant", (TextPart("Wait."),), tool_calls=calls),
        Message("assistant", (), tool_calls=calls[:1]),
        Message("tool", (TextPart("green"),), "look_up", tool_call_id="c1"),
        Message("tool", (TextPart("42"),)),
    )
    sent = _messages(conversation_body(prompt, _around()))
    assert [message["author"] for message in sent] == [
        {"role": "assistant"},
        {"role": "assistant"},
        {"role": "user"},
        {"role": "user"},
    ]
    assert [message["content"]["parts"] for message in sent] == [
        ['Wait.\n[Called the tool look_up (call c1) with: {"q":"tea"}]\n[Called the tool stop with: ]'],
        ['[Called the tool look_up (call c1) with: {"q":"tea"}]'],
        ["[Result of the tool look_up (call c1)]\ngreen"],
        ["[Result of the tool]\n42"],
    ]


def test_the_f_form_is_needed_for_effort_and_pictures() -> None:
    assert not needs_f_form(_prompt())
    assert needs_f_form(_prompt(thinking_effort="standard"))
    assert needs_f_form(Prompt((_say("x"),), ModelChoice("auto", hints=("picture_v2",))))
    assert not needs_f_form(Prompt((_say("x"),), ModelChoice("auto", hints=("search",))))


def test_continue_body_holds_no_messages() -> None:
    body = continue_body("c-1", "m-3", ModelChoice("gpt-4o"), _around(), temporary=True)
    assert body["action"] == "continue"
    assert (body["conversation_id"], body["parent_message_id"], body["model"]) == ("c-1", "m-3", "gpt-4o")
    assert body["history_and_training_disabled"] is True
    assert body["timezone_offset_min"] == -480
    assert "messages" not in body


def test_small_bodies() -> None:
    assert init_body(_around(), gizmo_id="g-1") == {
        "gizmo_id": "g-1",
        "requested_default_model": None,
        "conversation_id": None,
        "timezone_offset_min": -480,
        "conversation_origin": None,
    }
    assert resume_body("c-1", 1) == {"conversation_id": "c-1", "offset": 1}
    assert stop_body("c-1") == {"conversation_id": "c-1", "exclude_async_types": []}


@pytest.mark.parametrize("form", FORMS)
def test_bodies_can_be_written_as_json(form: Form) -> None:
    body = conversation_body(_prompt(thinking_effort="max"), _around(), form=form)
    assert orjson.loads(orjson.dumps(body)) == body


@pytest.mark.parametrize(
    "name, now, offset",
    [
        ("Asia/Shanghai", 1_782_309_600.0, -480),
        ("America/Los_Angeles", 1_782_309_600.0, 420),  # June
        ("America/Los_Angeles", 1_768_000_000.0, 480),  # January
        ("Asia/Kolkata", 1_782_309_600.0, -330),
        ("America/St_Johns", 1_768_000_000.0, 210),
        ("UTC", 0.0, 0),
    ],
)
def test_zone_and_offset_agree_at_any_time_of_the_year(name: str, now: float, offset: int) -> None:
    assert zone_at(name, now) == Zone(name, offset)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", ""])
def test_unknown_zones_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        zone_at(name, 0.0)
