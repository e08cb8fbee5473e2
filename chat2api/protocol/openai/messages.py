"""The `messages` of a chat request: checked one by one and turned into neutral messages.

Shapes: the OpenAI API reference, "Create chat completion", with its older forms (`function` role, `function_call`).
Taken beyond it, since clients send them out of their histories: answers without content (broken off, or reasoning
only), tool results that are null, parts typed as in the Responses API, and parts that hold an answer's reasoning, which
are left out.
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

_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING_PARTS = ("reasoning", "redacted_thinking", "thinking")

_MEDIA_PARTS = {
    "image_url": "Images",
    "input_audio": "Audio",
    "file": "Files",
}


def parse_messages(body: JsonObject) -> tuple[Message, ...]:
    """Give the messages of a chat body, oldest first, at least one with something to answer.

    The last may be the assistant's (to be gone on with) or empty: what is answered then is what stands before it.

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
    _check_answerable(parsed)
    return parsed


def _check_answerable(messages: Sequence[Message]) -> None:
    path = f"messages[{len(messages) - 1}]"
    if messages[-1].tool_calls:
        raise wrong_value(f"{path}.role", "the last message calls tools, so their results must follow it.")
    # A tool may well have returned nothing; a person who says nothing asks nothing.
    if not any(message.role == "tool" or message.text.strip() for message in messages):
        raise wrong_value(f"{path}.content", "no message holds any text, so there is nothing to answer.")


def _parse_message(value: object, path: str) -> Message:
    if not is_object(value):
        raise wrong_type(path, "an object", value)
    role = _parse_role(value, path)
    match value["role"]:
        case "assistant":
            return _parse_assistant(value, path)
        case "tool":
            if "content" not in value:
                raise missing(f"{path}.content")
            parts = _parse_content(value, path, is_answer=False) or ()
            name = read_text(value, "name", path)
            return Message(role, parts, name, tool_call_id=require_text(value, "tool_call_id", path))
        case "function":
            parts = _parse_content(value, path, is_answer=False) or ()
            return Message(role, parts, require_text(value, "name", path))
        case _:
            return Message(role, _require_content(value, path), read_text(value, "name", path))


def _parse_role(message: JsonObject, path: str) -> Role:
    name = read_text(message, "role", path)
    if name is None:
        raise missing(f"{path}.role")
    role = _ROLES.get(name)
    if role is None:
        raise wrong_value(f"{path}.role", f"{quote(name)}. Supported values are: {quote_all(_ROLES)}.")
    return role


def _parse_assistant(message: JsonObject, path: str) -> Message:
    parts = _parse_content(message, path, is_answer=True)
    refusal = read_text(message, "refusal", path)
    calls = _parse_tool_calls(message, path)
    if parts is None and refusal:
        parts = (TextPart(refusal),)
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


def _require_content(message: JsonObject, path: str) -> tuple[TextPart, ...]:
    parts = _parse_content(message, path, is_answer=False)
    if parts is not None:
        return parts
    if "content" in message:
        raise wrong_type(f"{path}.content", "a string or an array of parts", None)
    raise missing(f"{path}.content")


def _parse_content(message: JsonObject, path: str, *, is_answer: bool) -> tuple[TextPart, ...] | None:
    """Give the text parts of a message; None when it has no content."""
    content = message.get("content")
    if content is None:
        return None
    path = f"{path}.content"
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):
        raise wrong_type(path, "a string or an array of parts", content)
    if not content and message.get("role") in ("user", "system", "developer"):
        raise InvalidRequestError(
            f"Invalid '{path}': empty array. Expected an array with at least one part.",
            param=path,
            code="empty_array",
        )
    parts = (_parse_part(part, f"{path}[{index}]", is_answer=is_answer) for index, part in enumerate(content))
    return tuple(part for part in parts if part is not None)


def _parse_part(part: object, path: str, *, is_answer: bool) -> TextPart | None:
    if not is_object(part):
        raise wrong_type(path, "an object", part)
    kind = read_text(part, "type", path)
    if kind is None:
        raise missing(f"{path}.type")
    if kind in _TEXT_PARTS or (kind == "refusal" and is_answer):
        field = "refusal" if kind == "refusal" else "text"
        text = read_text(part, field, path)
        if text is None:
            raise missing(f"{path}.{field}")
        return TextPart(text)
    if kind in _REASONING_PARTS and is_answer:
        return None
    if kind in _MEDIA_PARTS:
        raise InvalidRequestError(
            f"{_MEDIA_PARTS[kind]} are not accepted by this server: '{path}' is a part of type '{kind}'. "
            "Send text parts only.",
            param=f"{path}.type",
            code="unsupported_content_part",
        )
    supported = ("text", "refusal") if is_answer else ("text",)
    raise wrong_value(f"{path}.type", f"{quote(kind)}. Supported values are: {quote_all(supported)}.")
