"""The bodies of the backend's conversation calls, made of a Prompt.

Three forms of the same turn are in use: `2024`, `classic` (2025 and 2026, `POST /conversation`) and `f` (2026,
`POST /f/conversation`, with a prepare call before it). Ids, time and time zone are passed in. Sources: public clients
of those years; what only some of them send is said where it stands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from chat2api.protocol.prompt import Message, ModelChoice, Prompt, TextPart

Form = Literal["2024", "classic", "f"]
Body = dict[str, object]

ROOT_MESSAGE_ID = "client-created-root"
"""Parent of the first message of a conversation in the f form; the older forms take any UUID."""

PICTURE_HINT = "picture_v2"

GO_ON = "Continue your last message exactly where it ends, and repeat nothing of it."
"""What is asked where the caller's last message is the assistant's: the backend answers a user only."""

_PAGE = {
    "is_dark_mode": False,
    "page_height": 929,
    "page_width": 1280,
    "pixel_ratio": 1,
    "screen_height": 1080,
    "screen_width": 1920,
}


@dataclass(frozen=True, slots=True)
class Zone:
    """The caller's side of the clock: IANA name, and minutes to add to local time to get UTC (Los Angeles: 480)."""

    name: str
    offset_min: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a body tells beside the prompt.

    `now` is in Unix seconds, `page_age` the seconds since the browser would have loaded the page; `new_id` gives a
    fresh UUID each time.
    """

    now: float
    zone: Zone
    new_id: Callable[[], str]
    page_age: int = 30


_OFFSET_STEP = 900
"""Seconds; the clocks of all zones are changed at quarters of an hour."""


def zone_at(name: str, now: float) -> Zone:
    """Give a zone with its offset at that time, so that name and offset agree in summer, too.

    Raises ValueError for an unknown name.
    """
    return _zone_in(name, int(now // _OFFSET_STEP))


@lru_cache(maxsize=16)
def _zone_in(name: str, step: int) -> Zone:
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as exc:
        raise ValueError(f"unknown time zone: {name}") from exc
    offset = datetime.fromtimestamp(step * _OFFSET_STEP, zone).utcoffset()
    return Zone(name, 0 if offset is None else -int(offset.total_seconds() // 60))


def needs_f_form(prompt: Prompt) -> bool:
    """Whether only the f form can carry the prompt: images and a stated thinking effort."""
    return prompt.thinking_effort is not None or PICTURE_HINT in prompt.model.hints


def conversation_body(
    prompt: Prompt, around: Surroundings, *, form: Form = "classic", delta_encoding: bool = True
) -> Body:
    """Give the body of the conversation call that sends a turn.

    With `delta_encoding` the backend is asked for updates instead of whole messages where the form can say so; it
    may answer either way. Raises ValueError when a conversation is to be continued but its last message is not named.
    """
    if form == "f":
        return _f_body(prompt, around)
    body: Body = {
        "action": "next",
        "messages": _write_messages(prompt, around, form),
        "parent_message_id": _parent(prompt, around, form),
        "model": prompt.model.slug,
        "conversation_mode": _mode(prompt.model),
        "history_and_training_disabled": _is_temporary(prompt),
        "timezone_offset_min": around.zone.offset_min,
        "suggestions": [],
        "force_paragen": False,
        "force_paragen_model_slug": "",
        "force_rate_limit": False,
        "force_use_sse": True,
        "reset_rate_limits": False,
        "variant_purpose": "comparison_implicit",
        "websocket_request_id": around.new_id(),
    }
    if prompt.conversation_id is not None:
        body["conversation_id"] = prompt.conversation_id
    if form == "2024":
        return {**body, "force_nulligen": False}
    return {
        **body,
        "conversation_origin": None,
        "client_contextual_info": {**_PAGE, "time_since_loaded": around.page_age},
        "paragen_cot_summary_display_override": "allow",
        "paragen_stream_type_override": None,
        "supported_encodings": ["v1"] if delta_encoding else [],
        "system_hints": list(prompt.model.hints),
        "timezone": around.zone.name,
    }


def prepare_body(prompt: Prompt, around: Surroundings) -> Body:
    """Give the body of `/f/conversation/prepare`, whose answer holds the conduit token of the turn.

    One call is enough (the web client makes three while the person types). The whole text goes along for pictures
    only; otherwise its first characters do, as if it were being typed.
    """
    text = _answerable(prompt)[-1].text
    return {
        **_f_common(prompt, around),
        "fork_from_shared_post": False,
        "client_prepare_state": "success",
        "client_prepare_dispatch": "debounced",
        "client_prepare_source": "composer_editor_state",
        "partial_query": {
            "id": around.new_id(),
            "author": {"role": "user"},
            "content": _content(text if _is_picture(prompt) else text[:5]),
        },
        "supports_buffering": True,
        "supported_encodings": ["v1"],
        "client_contextual_info": {"app_name": "chatgpt.com"},
    }


def continue_body(
    conversation_id: str, message_id: str, model: ModelChoice, around: Surroundings, *, temporary: bool = False
) -> Body:
    """Give the body that asks for the rest of a message which the backend cut at its own limit.

    `message_id` is the message that was cut; the call needs fresh sentinel tokens like any other.
    """
    return {
        "action": "continue",
        "conversation_id": conversation_id,
        "parent_message_id": message_id,
        "model": model.slug,
        "conversation_mode": _mode(model),
        "history_and_training_disabled": temporary,
        "supported_encodings": ["v1"],
        "timezone_offset_min": around.zone.offset_min,
        "timezone": around.zone.name,
    }


def init_body(
    around: Surroundings, *, model: str | None = None, gizmo_id: str | None = None, conversation_id: str | None = None
) -> Body:
    """Give the body of `conversation/init`, which tells defaults and limits of an account."""
    return {
        "gizmo_id": gizmo_id,
        "requested_default_model": model,
        "conversation_id": conversation_id,
        "timezone_offset_min": around.zone.offset_min,
        "conversation_origin": None,
    }


def resume_body(conversation_id: str, offset: int) -> Body:
    """Give the body of `/f/conversation/resume`; public clients try the offsets 0, 1 and 2 in turn."""
    return {"conversation_id": conversation_id, "offset": offset}


def stop_body(conversation_id: str) -> Body:
    """Give the body of `stop_conversation`, which ends a turn at the backend."""
    return {"conversation_id": conversation_id, "exclude_async_types": []}


# ---- the f form ----


def _f_common(prompt: Prompt, around: Surroundings) -> Body:
    """Give what the prepare call and the stream call have in common."""
    body: Body = {
        "action": "next",
        "parent_message_id": _parent(prompt, around, "f"),
        "model": prompt.model.slug,
        "timezone_offset_min": around.zone.offset_min,
        "timezone": around.zone.name,
        "conversation_mode": _mode(prompt.model),
        "system_hints": list(prompt.model.hints),
    }
    if prompt.conversation_id is not None:
        body["conversation_id"] = prompt.conversation_id
    if prompt.thinking_effort is not None:
        body["thinking_effort"] = prompt.thinking_effort
    return body


def _f_body(prompt: Prompt, around: Surroundings) -> Body:
    body: Body = {
        **_f_common(prompt, around),
        "messages": _write_messages(prompt, around, "f"),
        "client_prepare_state": "sent" if _is_picture(prompt) else "success",
        "paragen_cot_summary_display_override": "allow",
        "force_parallel_switch": "auto",
    }
    if _is_temporary(prompt):
        body["history_and_training_disabled"] = True
    if _is_picture(prompt):
        # On plain turns these four made the backend hand the answer to a web socket and end the stream (seen 2026).
        body |= {
            "enable_message_followups": True,
            "supports_buffering": True,
            "supported_encodings": ["v1"],
            "client_contextual_info": {**_PAGE, "time_since_loaded": around.page_age, "app_name": "chatgpt.com"},
        }
    return body


# ---- parts of bodies ----


def _is_picture(prompt: Prompt) -> bool:
    return PICTURE_HINT in prompt.model.hints


def _is_temporary(prompt: Prompt) -> bool:
    """A stored conversation cannot be continued as a temporary one, and a picture is fetched from a stored one."""
    return prompt.temporary and prompt.conversation_id is None and not _is_picture(prompt)


def _mode(model: ModelChoice) -> Body:
    if model.gizmo_id is None:
        return {"kind": "primary_assistant"}
    return {"kind": "gizmo_interaction", "gizmo_id": model.gizmo_id}


def _parent(prompt: Prompt, around: Surroundings, form: Form) -> str:
    if prompt.parent_message_id is not None:
        return prompt.parent_message_id
    if prompt.conversation_id is not None:
        raise ValueError("a conversation is continued after a message: parent_message_id is needed")
    return ROOT_MESSAGE_ID if form == "f" else around.new_id()


def _content(text: str) -> Body:
    return {"content_type": "text", "parts": [text]}


def _answerable(prompt: Prompt) -> list[Message]:
    """Give the messages up to the last that says something, and a request to go on where that is the assistant's."""
    messages = list(prompt.messages)
    while len(messages) > 1 and _is_silent(messages[-1]):
        messages.pop()
    if messages[-1].role == "assistant":
        go_on = Message("user", (TextPart(GO_ON),))
        # A stored conversation has the assistant's message already.
        return [go_on] if prompt.conversation_id is not None else [*messages, go_on]
    return messages


def _is_silent(message: Message) -> bool:
    """Whether a message says nothing; a tool that returned nothing has still answered."""
    return message.role != "tool" and not message.tool_calls and not message.text.strip()


def _write_messages(prompt: Prompt, around: Surroundings, form: Form) -> list[Body]:
    messages = _answerable(prompt)
    last = len(messages) - 1
    return [
        _write_message(message, index == last, prompt.model.hints, around, form)
        for index, message in enumerate(messages)
    ]


def _write_message(message: Message, is_last: bool, hints: Sequence[str], around: Surroundings, form: Form) -> Body:
    author: Body = {"role": _author_role(message, is_last)}
    if message.name is not None and message.role != "tool":
        author["name"] = message.name
    written: Body = {
        "id": around.new_id(),
        "author": author,
        "content": _content(_write_text(message)),
        "metadata": {},
    }
    if form == "f":
        written["create_time"] = around.now
        written["metadata"] = _f_metadata(hints if is_last else ())
    return written


def _author_role(message: Message, is_last: bool) -> str:
    """Give the backend's role of a message.

    It knows no developer. A result of the caller's tools is the caller's word, since the backend's own tool role
    is for its own tools. Instructions at the very end are a question: the backend answers a user only.
    """
    match message.role:
        case "assistant":
            return "assistant"
        case "system" | "developer":
            return "user" if is_last else "system"
        case _:
            return "user"


def _write_text(message: Message) -> str:
    """Give a message's text; tool calls and results, which the backend has no place for, are spelled out."""
    if message.role == "tool":
        return f"{_result_heading(message)}\n{message.text}"
    calls = (f"[Called the tool {call.name}{_of_call(call.id)} with: {call.arguments}]" for call in message.tool_calls)
    return "\n".join((*([message.text] if message.text else ()), *calls))


def _result_heading(message: Message) -> str:
    name = f" {message.name}" if message.name else ""
    return f"[Result of the tool{name}{_of_call(message.tool_call_id)}]"


def _of_call(call_id: str | None) -> str:
    return f" (call {call_id})" if call_id else ""


def _f_metadata(hints: Sequence[str]) -> Body:
    metadata: Body = {
        "developer_mode_connector_ids": [],
        "selected_sources": [],
        "selected_github_repos": [],
        "selected_all_github_repos": False,
        "serialization_metadata": {"custom_symbol_offsets": []},
    }
    if hints:
        metadata["system_hints"] = list(hints)
    return metadata
