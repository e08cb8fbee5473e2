"""Tests of the body check: good forms pass, each bad field is named."""

from typing import Any

import pytest

from chat2api.simulator.request_body import read_turn_request
from chat2api.simulator.wire import Refusal
from tests.simulator.web_client import message

_BODY_2024: dict[str, Any] = {
    "action": "next",
    "conversation_mode": {"kind": "primary_assistant"},
    "force_nulligen": False,
    "force_paragen": False,
    "force_paragen_model_slug": "",
    "force_rate_limit": False,
    "force_use_sse": True,
    "history_and_training_disabled": True,
    "messages": [message("Name three rivers.")],
    "model": "gpt-4o",
    "parent_message_id": "0f2b7f0a-0000-4000-8000-000000000002",
    "reset_rate_limits": False,
    "suggestions": [],
    "timezone_offset_min": -480,
    "variant_purpose": "comparison_implicit",
    "websocket_request_id": "5ab1c6f4-0000-4000-8000-000000000003",
}
_BODY_2026: dict[str, Any] = {
    "action": "next",
    "messages": [message("Name three rivers.")],
    "parent_message_id": "client-created-root",
    "model": "auto",
    "client_prepare_state": "success",
    "timezone_offset_min": 420,
    "timezone": "America/Los_Angeles",
    "conversation_mode": {"kind": "gizmo_interaction", "gizmo_id": "g-1"},
    "system_hints": ["search"],
    "history_and_training_disabled": False,
    "paragen_cot_summary_display_override": "allow",
    "force_parallel_switch": "auto",
    "thinking_effort": "extended",
    "supported_encodings": ["v1"],
    "client_contextual_info": {"app_name": "chatgpt.com"},
}


def test_the_published_forms_are_understood() -> None:
    old, new = read_turn_request(_BODY_2024, 1000), read_turn_request(_BODY_2026, 1000)
    assert (old.action, old.model, old.temporary, old.wants_v1, old.gizmo_id) == ("next", "gpt-4o", True, False, None)
    assert (new.wants_v1, new.temporary, new.gizmo_id, new.hints) == (True, False, "g-1", ("search",))
    assert new.thinking_effort == "extended"
    assert old.texts == ["Name three rivers."]


def test_files_are_found_in_parts_and_attachments() -> None:
    asked = message("")
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_1", "width": 1}
    asked["content"] = {"content_type": "multimodal_text", "parts": [picture, "What?"]}
    asked["metadata"] = {"attachments": [{"id": "file-2", "name": "a.pdf"}]}
    assert read_turn_request({**_BODY_2024, "messages": [asked]}, 1000).pointers == ["file_1", "file-2"]


def _with_message(**changes: Any) -> dict[str, Any]:
    return {"messages": [{**message("x"), **changes}]}


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"action": "ask"}, "action"),
    ({"action": None}, "action"),
    ({"action": "continue", "messages": []}, "conversation_id"),
    ({"action": "continue", "conversation_id": "c"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": ["hello"]}, "messages.0"),
    ({"messages": [message("x") | {"id": "a"}, message("y") | {"id": "a"}]}, "messages"),
    (_with_message(id=7), "messages.0.id"),
    (_with_message(author={"role": "developer"}), "messages.0.author.role"),
    (_with_message(author="user"), "messages.0.author.role"),
    (_with_message(content="x"), "messages.0.content"),
    (_with_message(content={"content_type": "html", "parts": ["x"]}), "messages.0.content.content_type"),
    (_with_message(content={"content_type": "text", "parts": []}), "messages.0.content.parts"),
    (_with_message(content={"content_type": "text", "parts": [{}]}), "messages.0.content.parts.0"),
    (
        _with_message(content={"content_type": "multimodal_text", "parts": [{"type": "text", "text": "x"}]}),
        "messages.0.content.parts.0.content_type",
    ),
    (
        _with_message(
            content={
                "content_type": "multimodal_text",
                "parts": [{"content_type": "image_asset_pointer", "asset_pointer": "https://example.test/a.png"}],
            }
        ),
        "messages.0.content.parts.0.asset_pointer",
    ),
    (_with_message(metadata=None), "messages.0.metadata"),
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"parent_message_id": 7}, "parent_message_id"),
    ({"conversation_id": None}, "conversation_id"),
    ({"conversation_mode": "primary_assistant"}, "conversation_mode"),
    ({"conversation_mode": {"kind": "other"}}, "conversation_mode.kind"),
    ({"conversation_mode": {"kind": "gizmo_interaction", "gizmo_id": "rivers"}}, "conversation_mode.gizmo_id"),
    ({"history_and_training_disabled": "true"}, "history_and_training_disabled"),
    ({"system_hints": "search"}, "system_hints"),
    ({"supported_encodings": None}, "supported_encodings"),
    ({"thinking_effort": "high"}, "thinking_effort"),
    ({"thinking_effort": None}, "thinking_effort"),
    ({"timezone_offset_min": "480"}, "timezone_offset_min"),
    ({"client_contextual_info": []}, "client_contextual_info"),
]


@pytest.mark.parametrize(("change", "field"), _BAD)
def test_a_bad_field_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_turn_request({**_BODY_2024, **change}, 1000)
    assert caught.value.answer.status == 422
    where = ",".join(f'"{part}"' for part in ("body", *field.split(".")))
    assert f'"loc":[{where}]'.encode() in caught.value.answer.body


@pytest.mark.parametrize("field", ["action", "messages", "model", "parent_message_id"])
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_turn_request({name: value for name, value in _BODY_2024.items() if name != field}, 1000)
    assert f'"{field}"'.encode() in caught.value.answer.body


def test_the_length_of_all_texts_counts() -> None:
    body = {**_BODY_2024, "messages": [message("x" * 600), message("x" * 401)]}
    with pytest.raises(Refusal) as caught:
        read_turn_request(body, 1000)
    assert caught.value.answer.status == 413
