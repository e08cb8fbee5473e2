"""The `messages` of a chat request: checked one by one and turned into neutral messages.

Shapes: the OpenAI API reference, "Create chat completion", with its older forms (`function` role, `function_call`).
"""

from collections.abc import Sequence
from typing import Literal

from chat2api.errors import InvalidRequestError
from chat2api.protocol.openai.fields import (
    JsonObject,
    is_object,
    missing,
    quote,
    quote_all,
    read_list,
    read_object,
    read_text,
    require_text,
    wrong_type,
    wrong_value,
)
from chat2api.protocol.prompt import Message, Role, TextPart, ToolCall

MAX_MESSAGES = 2048

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}

_MEDIA_PARTS = {
    "image_url": "Images",
    "input_audio": "Audio",
    "file": "Files",
}


def parse_messages(body: JsonObject) -> tuple[Message, ...]:
    """Give the messages of a chat body, oldest first, at least one; the last can be answered.

    Raises InvalidRequestError whose `param` is the path of the field, such as `messages[2].content[0].type`.
    """
    messages = read_list(body, "messages")
    if messages is None:
        raise missing("messages")
    if not messages:
        raise InvalidRequestError(
            "Invalid 'messages': empty array. Expected an array with at least one message.",
            param="messages",
            code="empty_array",
        )
    if len(messages) > MAX_MESSAGES:
        raise InvalidRequestError(
            f"Invalid 'messages': array too long. Expected at most {MAX_MESSAGES} messages, but got {len(messages)}.",
            param="messages",
            code="array_above_max_length",
        )
    parsed = tuple(_parse_message(message, f"messages[{index}]") for index, message in enumerate(messages))
    _check_answerable(parsed[-1], f"messages[{len(parsed) - 1}]")
    return parsed


def _check_answerable(last: Message, path: str) -> None:
    if last.role == "assistant":
        raise wrong_value(
            f"{path}.role", "the last message is the assistant's, so there is nothing to answer. End with 'user'."
        )
    # A tool may well have returned nothing; a person who says nothing asks nothing.
    if last.role != "tool" and not last.text.strip():
        raise wrong_value(f"{path}.content", "the last message holds no text, so there is nothing to answer.")


def _parse_message(value: object, path: str) -> Message:
    if not is_object(value):
        raise wrong_type(path, "an object", value)
    role = _parse_role(value, path)
    match value["role"]:
        case "assistant":
            return _parse_assistant(value, path)
        case "tool":
            parts = _require_content(value, path, refusals=False)
            name = read_text(value, "name", path)
            return Message(role, parts, name, tool_call_id=require_text(value, "tool_call_id", path))
        case "function":
            # The one role whose content the API always let be null.
            parts = _parse_content(value, path, refusals=False) or ()
            return Message(role, parts, require_text(value, "name", path))
        case _:
            return Message(role, _require_content(value, path, refusals=False), read_text(value, "name", path))


def _parse_role(message: JsonObject, path: str) -> Role:
    name = read_text(message, "role", path)
    if name is None:
        raise missing(f"{path}.role")
    role = _ROLES.get(name)
    if role is None:
        raise wrong_value(f"{path}.role", f"{quote(name)}. Supported values are: {quote_all(_ROLES)}.")
    return role


def _parse_assistant(message: JsonObject, path: str) -> Message:
    parts = _parse_content(message, path, refusals=True)
    refusal = read_text(message, "refusal", path)
    calls = _parse_tool_calls(message, path)
    if parts is None and refusal:
        parts = (TextPart(refusal),)
    if parts is None and not calls and message.get("audio") is None:
        raise missing(f"{path}.content")
    return Message("assistant", parts or (), read_text(message, "name", path), tool_calls=calls)


def _parse_tool_calls(message: JsonObject, path: str) -> tuple[ToolCall, ...]:
    calls = [
        _parse_tool_call(call, f"{path}.tool_calls[{index}]")
        for index, call in enumerate(read_list(message, "tool_calls", path) or ())
    ]
    legacy = read_object(message, "function_call", path)
    if legacy is not None:
        calls.append(_parse_function(legacy, f"{path}.function_call", None, "arguments"))
    return tuple(calls)


def _parse_tool_call(call: object, path: str) -> ToolCall:
    if not is_object(call):
        raise wrong_type(path, "an object", call)
    kind = read_text(call, "type", path) or "function"
    fields: dict[str, Literal["arguments", "input"]] = {"function": "arguments", "custom": "input"}
    if kind not in fields:
        raise wrong_value(f"{path}.type", f"{quote(kind)}. Supported values are: {quote_all(fields)}.")
    body = read_object(call, kind, path)
    if body is None:
        raise missing(f"{path}.{kind}")
    return _parse_function(body, f"{path}.{kind}", require_text(call, "id", path), fields[kind])


def _parse_function(body: JsonObject, path: str, call_id: str | None, field: str) -> ToolCall:
    return ToolCall(call_id, require_text(body, "name", path), read_text(body, field, path) or "")


def _require_content(message: JsonObject, path: str, *, refusals: bool) -> tuple[TextPart, ...]:
    parts = _parse_content(message, path, refusals=refusals)
    if parts is not None:
        return parts
    if "content" in message:
        raise wrong_type(f"{path}.content", "a string or an array of parts", None)
    raise missing(f"{path}.content")


def _parse_content(message: JsonObject, path: str, *, refusals: bool) -> tuple[TextPart, ...] | None:
    """Give the text parts of a message; None when it has no content."""
    content = message.get("content")
    if content is None:
        return None
    path = f"{path}.content"
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):
        raise wrong_type(path, "a string or an array of parts", content)
    return _parse_parts(content, path, refusals=refusals)


def _parse_parts(parts: Sequence[object], path: str, *, refusals: bool) -> tuple[TextPart, ...]:
    if not parts:
        raise InvalidRequestError(
            f"Invalid '{path}': empty array. Expected an array with at least one part.",
            param=path,
            code="empty_array",
        )
    return tuple(_parse_part(part, f"{path}[{index}]", refusals=refusals) for index, part in enumerate(parts))


def _parse_part(part: object, path: str, *, refusals: bool) -> TextPart:
    if not is_object(part):
        raise wrong_type(path, "an object", part)
    kind = read_text(part, "type", path)
    if kind is None:
        raise missing(f"{path}.type")
    if kind == "text" or (kind == "refusal" and refusals):
        text = read_text(part, kind, path)
        if text is None:
            raise missing(f"{path}.{kind}")
        return TextPart(text)
    if kind in _MEDIA_PARTS:
        raise InvalidRequestError(
            f"{_MEDIA_PARTS[kind]} are not accepted by this server: '{path}' is a part of type '{kind}'. "
            "Send text parts only.",
            param=f"{path}.type",
            code="unsupported_content_part",
        )
    supported = ("text", "refusal") if refusals else ("text",)
    raise wrong_value(f"{path}.type", f"{quote(kind)}. Supported values are: {quote_all(supported)}.")
