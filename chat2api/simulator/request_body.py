"""Checks the body of a conversation call field by field, and refuses as FastAPI would.

What the public descriptions of the request state is required; what they leave open is let through.
"""

from dataclasses import dataclass
from typing import Literal

from chat2api.simulator.refusals import refuse, refuse_field
from chat2api.simulator.wire import JSON, Object

_ROLES = ("user", "assistant", "system", "tool", "critic")
_EFFORTS = ("standard", "extended", "max")
_BOOLEANS = (
    "history_and_training_disabled",
    "force_use_sse",
    "force_use_search",
    "force_paragen",
    "force_nulligen",
    "force_rate_limit",
    "reset_rate_limits",
    "supports_buffering",
    "enable_message_followups",
    "fork_from_shared_post",
)
_STRINGS = (
    "timezone",
    "conversation_id",
    "client_prepare_state",
    "variant_purpose",
    "websocket_request_id",
    "paragen_cot_summary_display_override",
)
_STRING_LISTS = ("system_hints", "supported_encodings")
POINTER_SCHEMES = ("file-service://", "sediment://")


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A conversation call's body after all checks. `messages` are the new ones, oldest first."""

    action: Literal["next", "continue", "variant"]
    messages: tuple[Object, ...]
    model: str
    parent_message_id: str
    conversation_id: str | None
    temporary: bool
    gizmo_id: str | None
    hints: tuple[str, ...]
    wants_v1: bool
    thinking_effort: str | None

    @property
    def texts(self) -> list[str]:
        """All text parts of all messages."""
        return [part for message in self.messages for part in parts_of(message) if isinstance(part, str)]

    @property
    def pointers(self) -> list[str]:
        """File ids that parts and attachments name."""
        found = []
        for message in self.messages:
            for part in parts_of(message):
                if isinstance(part, dict) and isinstance(pointer := part.get("asset_pointer"), str):
                    found.append(pointer.partition("://")[2])
            metadata = message.get("metadata")
            attachments = metadata.get("attachments") if isinstance(metadata, dict) else None
            for attachment in attachments if isinstance(attachments, list) else []:
                if isinstance(attachment, dict) and isinstance(file_id := attachment.get("id"), str):
                    found.append(file_id)
        return found


def parts_of(message: Object) -> list[JSON]:
    """Give the parts of a message's content; an empty list when it has none."""
    content = message.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return parts if isinstance(parts, list) else []


def read_turn_request(body: Object, max_prompt: int) -> TurnRequest:
    """Check a body and give what it asks for. Raises Refusal (413, 422)."""
    action = body.get("action")
    if action not in ("next", "continue", "variant"):
        raise refuse_field("action", "Input should be 'next', 'continue' or 'variant'", "enum")
    _check_simple_fields(body)
    messages = _read_messages(body, required=action == "next")
    conversation_id = body.get("conversation_id")
    if action != "next" and conversation_id is None:
        raise refuse_field("conversation_id", "Field required", "missing")
    encodings = body.get("supported_encodings")
    hints = body.get("system_hints")
    effort = body.get("thinking_effort")
    request = TurnRequest(
        action="next" if action == "next" else "continue" if action == "continue" else "variant",
        messages=messages,
        model=_read_string(body, "model"),
        parent_message_id=_read_string(body, "parent_message_id"),
        conversation_id=conversation_id if isinstance(conversation_id, str) else None,
        temporary=body.get("history_and_training_disabled") is True,
        gizmo_id=_read_gizmo(body.get("conversation_mode")),
        hints=tuple(str(hint) for hint in hints) if isinstance(hints, list) else (),
        wants_v1=isinstance(encodings, list) and "v1" in encodings,
        thinking_effort=effort if isinstance(effort, str) else None,
    )
    if sum(len(text) for text in request.texts) > max_prompt:
        raise refuse("message_too_long")
    return request


def _check_simple_fields(body: Object) -> None:
    for name in _BOOLEANS:
        if name in body and not isinstance(body[name], bool):
            raise refuse_field(name, "Input should be a valid boolean", "bool_type")
    for name in _STRINGS:
        if name in body and not isinstance(body[name], str):
            raise refuse_field(name, "Input should be a valid string", "string_type")
    for name in _STRING_LISTS:
        value = body.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise refuse_field(name, "Input should be a valid list of strings", "list_type")
    effort = body.get("thinking_effort")
    if "thinking_effort" in body and effort not in _EFFORTS:
        raise refuse_field("thinking_effort", "Input should be 'standard', 'extended' or 'max'", "enum")
    offset = body.get("timezone_offset_min", 0)
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise refuse_field("timezone_offset_min", "Input should be a valid integer", "int_type")
    info = body.get("client_contextual_info", {})
    if not isinstance(info, dict):
        raise refuse_field("client_contextual_info", "Input should be a valid dictionary", "dict_type")


def _read_string(body: Object, name: str) -> str:
    value = body.get(name)
    if name not in body:
        raise refuse_field(name, "Field required", "missing")
    if not isinstance(value, str) or not value:
        raise refuse_field(name, "Input should be a valid string", "string_type")
    return value


def _read_gizmo(mode: JSON) -> str | None:
    if mode is None:
        return None
    if not isinstance(mode, dict):
        raise refuse_field("conversation_mode", "Input should be a valid dictionary", "dict_type")
    kind, gizmo_id = mode.get("kind"), mode.get("gizmo_id")
    if kind == "primary_assistant":
        return None
    if kind != "gizmo_interaction":
        raise refuse_field("conversation_mode.kind", "Input should be a known kind", "enum")
    if not isinstance(gizmo_id, str) or not gizmo_id.startswith("g-"):
        raise refuse_field("conversation_mode.gizmo_id", "Input should be the id of a GPT", "value_error")
    return gizmo_id


def _read_messages(body: Object, *, required: bool) -> tuple[Object, ...]:
    messages = body.get("messages")
    if not required:
        if messages not in (None, []):
            raise refuse_field("messages", "This action takes no messages")
        return ()
    if not isinstance(messages, list) or not messages:
        raise refuse_field("messages", "Input should be a non-empty list", "list_type")
    checked = tuple(_check_message(message, f"messages.{number}") for number, message in enumerate(messages))
    ids = [message["id"] for message in checked]
    if len(set(map(str, ids))) != len(ids):
        raise refuse_field("messages", "Message ids should differ")
    return checked


def _check_message(message: JSON, where: str) -> Object:
    if not isinstance(message, dict):
        raise refuse_field(where, "Input should be a valid dictionary", "dict_type")
    if not isinstance(message.get("id"), str) or not message["id"]:
        raise refuse_field(f"{where}.id", "Input should be a valid string", "string_type")
    author = message.get("author")
    if not isinstance(author, dict) or author.get("role") not in _ROLES:
        raise refuse_field(f"{where}.author.role", "Input should be a known role", "enum")
    content = message.get("content")
    if not isinstance(content, dict):
        raise refuse_field(f"{where}.content", "Input should be a valid dictionary", "dict_type")
    kind, parts = content.get("content_type"), content.get("parts")
    if kind not in ("text", "multimodal_text"):
        raise refuse_field(f"{where}.content.content_type", "Input should be a known content type", "enum")
    if not isinstance(parts, list) or not parts:
        raise refuse_field(f"{where}.content.parts", "Input should be a non-empty list", "list_type")
    for number, part in enumerate(parts):
        if not isinstance(part, str):
            _check_pointer(part, kind, f"{where}.content.parts.{number}")
    if not isinstance(message.get("metadata", {}), dict):
        raise refuse_field(f"{where}.metadata", "Input should be a valid dictionary", "dict_type")
    return message


def _check_pointer(part: JSON, kind: JSON, where: str) -> None:
    if kind != "multimodal_text" or not isinstance(part, dict):
        raise refuse_field(where, "Input should be a valid string", "string_type")
    if part.get("content_type") not in ("image_asset_pointer", "audio_asset_pointer"):
        raise refuse_field(f"{where}.content_type", "Input should be a known kind of pointer", "enum")
    pointer = part.get("asset_pointer")
    if not isinstance(pointer, str) or not pointer.startswith(POINTER_SCHEMES):
        raise refuse_field(f"{where}.asset_pointer", "Input should be a file pointer")
    for name in ("size_bytes", "width", "height"):
        if name in part and (isinstance(part[name], bool) or not isinstance(part[name], int)):
            raise refuse_field(f"{where}.{name}", "Input should be a valid integer", "int_type")
