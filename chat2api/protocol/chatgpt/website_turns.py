"""A turn of the website's as a caller wrote it: what of its body may go on to the backend (S6).

The body consists of fields that are known; what it says besides is left out and told. What would tell the backend of the
caller's browser (time zone, page) is ours in all calls, so that an account stays one browser (G6).
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from chat2api.errors import InvalidRequestError
from chat2api.protocol.chatgpt.request import PICTURE_HINT, ROOT_MESSAGE_ID, Body, Surroundings
from chat2api.protocol.chatgpt.website import MAX_ID, picked, read_id, wrong
from chat2api.protocol.chatgpt.website_files import named_files, plain_attachments, plain_part
from chat2api.protocol.prompt import Message, Role, TextPart

MAX_MESSAGES = 2048
MAX_FILES = 200
"""Files that a turn of somebody who shares the account may name."""

_ACTIONS = ("next", "continue", "variant")
_ROLES: dict[object, Role] = {"system": "system", "assistant": "assistant", "tool": "tool"}

_AS_GIVEN = frozenset(
    {
        "client_reported_search_source",
        "conversation_mode",
        "conversation_origin",
        "enable_message_followups",
        "force_parallel_switch",
        "force_use_search",
        "history_and_training_disabled",
        "paragen_cot_summary_display_override",
        "paragen_stream_type_override",
        "suggestions",
        "supported_encodings",
        "supports_buffering",
        "system_hints",
        "thinking_effort",
        "variant_purpose",
    }
)
"""Fields of a turn that go on as they are."""

_OURS = frozenset(
    {
        "arkose_token",
        "client_contextual_info",
        "client_prepare_state",
        "force_nulligen",
        "force_paragen",
        "force_paragen_model_slug",
        "force_rate_limit",
        "force_use_sse",
        "reset_rate_limits",
        "timezone",
        "timezone_offset_min",
        "websocket_request_id",
    }
)
"""Fields of a turn that are ours to fill in, or never said: nobody needs to be told that theirs were left out."""

_OF_MESSAGES = ("id", "author", "create_time", "content", "metadata")
_OF_AUTHORS = ("role", "name")
_OF_MODES = ("kind", "gizmo_id")
_OF_METADATA = (
    "attachments",
    "developer_mode_connector_ids",
    "selected_all_github_repos",
    "selected_github_repos",
    "selected_sources",
    "serialization_metadata",
    "system_hints",
    "targeted_reply",
)
"""What goes on of a message; the rest of its metadata tells of the caller's front end, not of what is asked (G6)."""

_OF_SHARED_METADATA = ("system_hints", "targeted_reply")
"""What goes on of it, beside the attachments, to an account that others share: the rest lets an answer read the places that
the account's owner has connected, such as mail, drives and repositories."""

_READ = frozenset({"action", "auto_continue", "conversation_id", "messages", "model", "parent_message_id"})

_PAGE = {
    "is_dark_mode": False,
    "time_since_loaded": 30,
    "page_height": 929,
    "page_width": 1280,
    "pixel_ratio": 1,
    "screen_height": 1080,
    "screen_width": 1920,
}

# On plain turns these made the newer call hand its answer to a web socket and end the stream (seen 2026).
_LEADING_AWAY = ("enable_message_followups", "supports_buffering", "supported_encodings")


@dataclass(frozen=True, slots=True)
class SiteTurn:
    """A turn whose body the caller wrote.

    `fields` are those of the body that are the same in every form of the call; `messages` are its messages as they are
    sent, `prompt` what they say. `parent_message_id` None asks for the conversation's last message. `ignored` are names
    of fields that were left out.
    """

    action: str
    model: str
    fields: Mapping[str, object] = field(repr=False)
    messages: tuple[Mapping[str, object], ...] = field(repr=False)
    prompt: tuple[Message, ...] = field(repr=False)
    conversation_id: str | None
    parent_message_id: str | None
    auto_continue: bool
    ignored: tuple[str, ...]

    def going_on(self, conversation_id: str, message_id: str) -> "SiteTurn":
        """Give the turn that asks for the rest of this one's answer, in the same form."""
        return replace(
            self,
            action="continue",
            messages=(),
            prompt=(),
            conversation_id=conversation_id,
            parent_message_id=message_id,
        )

    def shared(self, around: Surroundings) -> "SiteTurn":
        """Give the turn for somebody who shares the account: what it names is in its ids, in `files` and in `gizmo_id` alone.

        Nothing else that goes on can name what belongs to others there, since it is a plain value of a known name.
        Raises InvalidRequestError for more files than anybody has.
        """
        fields = {name: _flat(value) for name, value in self.fields.items() if name != "conversation_mode"}
        mode = self.fields.get("conversation_mode")
        if isinstance(mode, dict):
            fields["conversation_mode"] = {name: mode[name] for name in _OF_MODES if isinstance(mode.get(name), str)}
        turn = replace(
            self,
            fields={name: value for name, value in fields.items() if value is not None},
            messages=tuple(_shared_message(message) for message in self.messages),
            parent_message_id=around.new_id() if self.conversation_id is None else self.parent_message_id,
        )
        if len(turn.files) > MAX_FILES:
            raise wrong("messages", f"at most {MAX_FILES} files")
        return turn

    @property
    def files(self) -> tuple[object, ...]:
        """What it names as files; an id that is no text is nobody's."""
        named: list[object] = []
        for message in self.messages:
            content, metadata = message["content"], message.get("metadata")
            assert isinstance(content, dict)
            named += named_files(content["parts"], metadata.get("attachments") if isinstance(metadata, dict) else None)
        return tuple(named)

    @property
    def temporary(self) -> bool:
        """Whether the backend shall neither list nor keep the conversation."""
        return self.fields.get("history_and_training_disabled") is True

    @property
    def gizmo_id(self) -> str | None:
        """The custom GPT that is asked."""
        mode = self.fields.get("conversation_mode")
        gizmo = mode.get("gizmo_id") if isinstance(mode, dict) else None
        return gizmo if isinstance(gizmo, str) and gizmo else None

    @property
    def hints(self) -> tuple[str, ...]:
        """Its system hints."""
        hints = self.fields.get("system_hints")
        return tuple(hint for hint in hints if isinstance(hint, str)) if isinstance(hints, list) else ()

    @property
    def public_models(self) -> tuple[str, ...]:
        """The names under which the models that it asks for would be asked for at /v1."""
        gizmo = () if self.gizmo_id is None else (f"gpt-4-gizmo-{self.gizmo_id}",)
        research = (f"{self.model}-deep-research",) if "research" in self.hints else ()
        return (self.model, *gizmo, *research)


def read_turn(body: object, around: Surroundings) -> SiteTurn:
    """Give the turn that a body asks for, with defaults where it says nothing. Raises InvalidRequestError with `param`."""
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    action = body.get("action") or "next"
    if action not in _ACTIONS:
        raise wrong("action", f"one of {', '.join(_ACTIONS)}")
    conversation_id = read_id(body, "conversation_id")
    if action != "next" and conversation_id is None:
        raise wrong("conversation_id", f"the conversation to {action}")
    messages = _read_messages(body.get("messages"), around, required=action == "next")
    parent = read_id(body, "parent_message_id")
    if parent is None and conversation_id is None:
        parent = around.new_id()
    model = body.get("model") or "auto"
    if not isinstance(model, str) or len(model) > MAX_ID:
        raise wrong("model", "the backend's name of a model")
    return SiteTurn(
        action=action,
        model=model,
        fields={name: value for name, value in body.items() if name in _AS_GIVEN and value is not None},
        messages=messages,
        prompt=tuple(_to_message(message) for message in messages),
        conversation_id=conversation_id,
        parent_message_id=parent,
        auto_continue=body.get("auto_continue") is True,
        ignored=tuple(sorted(_tellable(name) for name in body if name not in _AS_GIVEN | _OURS | _READ)),
    )


def classic_turn_body(turn: SiteTurn, around: Surroundings) -> Body | None:
    """Give the body for `POST /conversation`; None for a turn that only the newer call takes."""
    if "thinking_effort" in turn.fields or PICTURE_HINT in turn.hints:
        return None
    return {
        **_common(turn, around),
        "parent_message_id": turn.parent_message_id or around.new_id(),
        "client_contextual_info": dict(_PAGE),
        "force_use_sse": True,
        "websocket_request_id": around.new_id(),
    }


def newer_turn_bodies(turn: SiteTurn, around: Surroundings) -> tuple[Body, Body]:
    """Give the body for `POST /f/conversation`, and that of the prepare call before it."""
    common = _common(turn, around)
    common["parent_message_id"] = turn.parent_message_id if turn.conversation_id is not None else ROOT_MESSAGE_ID
    text = turn.prompt[-1].text if turn.prompt else ""
    body = {**common, "client_prepare_state": "success"}
    is_picture = PICTURE_HINT in turn.hints
    for name in () if is_picture else _LEADING_AWAY:
        body.pop(name, None)
    prepare = {
        **{name: value for name, value in common.items() if name not in ("messages", "history_and_training_disabled")},
        "fork_from_shared_post": False,
        "client_prepare_state": "success",
        "client_prepare_dispatch": "debounced",
        "client_prepare_source": "composer_editor_state",
        "partial_query": {
            "id": around.new_id(),
            "author": {"role": "user"},
            "content": {"content_type": "text", "parts": [text if is_picture else text[:5]]},
        },
        "client_contextual_info": {"app_name": "chatgpt.com"},
    }
    return body, prepare


def _common(turn: SiteTurn, around: Surroundings) -> Body:
    body: Body = {
        "action": turn.action,
        "model": turn.model,
        "conversation_mode": {"kind": "primary_assistant"},
        "timezone": around.zone.name,
        "timezone_offset_min": around.zone.offset_min,
        **turn.fields,
    }
    if turn.messages:
        body["messages"] = list(turn.messages)
    if turn.conversation_id is not None:
        body["conversation_id"] = turn.conversation_id
    return body


def _read_messages(value: object, around: Surroundings, *, required: bool) -> tuple[Mapping[str, object], ...]:
    if value is None and not required:
        return ()
    if not isinstance(value, list) or (required and not value) or len(value) > MAX_MESSAGES:
        raise wrong("messages", f"1 to {MAX_MESSAGES} messages")
    return tuple(_read_message(message, f"messages[{index}]", around) for index, message in enumerate(value))


def _read_message(value: object, where: str, around: Surroundings) -> Mapping[str, object]:
    """Give a message with an id and an author; the user is who speaks where nobody is named."""
    if not isinstance(value, dict):
        raise wrong(where, "an object")
    message = dict(value)
    role = message.pop("role", None)
    author = message.get("author") or {}
    if not isinstance(author, dict) or not all(isinstance(name or "", str) for name in (role, author.get("role"))):
        raise wrong(f"{where}.author", "an object with a role")
    content = message.get("content")
    if not isinstance(content, dict) or not isinstance(content.get("parts"), list):
        raise wrong(f"{where}.content", "an object with parts")
    message = picked(message, _OF_MESSAGES)
    message["author"] = {**picked(author, _OF_AUTHORS), "role": author.get("role") or role or "user"}
    message["content"] = {"content_type": "text", **content}
    if "metadata" in message:
        message["metadata"] = picked(message["metadata"], _OF_METADATA)
    message["id"] = read_id(message, "id", f"{where}.id") or around.new_id()
    return message


def _shared_message(message: Mapping[str, object]) -> Mapping[str, object]:
    """Give a message with plain values of known names alone."""
    author, content, metadata = message["author"], message["content"], message.get("metadata")
    assert isinstance(author, dict) and isinstance(content, dict)
    shared: dict[str, object] = {
        "id": message["id"],
        "author": _flatly(author, _OF_AUTHORS),
        "content": {**_flatly(content, ("content_type",)), "parts": [plain_part(part) for part in content["parts"]]},
    }
    if isinstance(created := message.get("create_time"), int | float):
        shared["create_time"] = created
    if isinstance(metadata, dict):
        plain = shared["metadata"] = _flatly(metadata, _OF_SHARED_METADATA)
        if "attachments" in metadata:
            plain["attachments"] = plain_attachments(metadata["attachments"])
    return shared


def _flatly(value: Mapping[str, object], names: Collection[str]) -> Body:
    kept = {name: _flat(value.get(name)) for name in names}
    return {name: item for name, item in kept.items() if item is not None}


def _flat(value: object) -> object:
    """Give a plain value, or the plain values of a list; None for what is neither."""
    if isinstance(value, list):
        return [item for item in value if isinstance(item, str | int | float)]
    return value if isinstance(value, str | int | float) else None


def _to_message(message: Mapping[str, object]) -> Message:
    """Give what a message says, for counting it."""
    author, content = message["author"], message["content"]
    assert isinstance(author, dict) and isinstance(content, dict)
    parts = tuple(TextPart(part) for part in content["parts"] if isinstance(part, str))
    return Message(_ROLES.get(author["role"], "user"), parts)


def _tellable(name: str) -> str:
    """Give the name of a field as it may stand in a header."""
    return name if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) else "(other)"
