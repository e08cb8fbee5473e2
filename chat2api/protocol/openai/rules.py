"""What a tier makes of a request's body before anybody else reads it: system messages, media, the longest answer.

The rules work on the decoded JSON and not on what a parser makes of it, so that they hold whoever answers: a body that is
passed on as it came is changed in what a rule says and in nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chat2api.errors import InvalidRequestError
from chat2api.protocol.openai.fields import JsonObject, is_object, wrong_value

SystemRule = Literal["allow", "drop", "reject"]
SYSTEM_RULES: tuple[SystemRule, ...] = ("allow", "drop", "reject")

_SYSTEM_ROLES = ("system", "developer")
_TEXT_PARTS = frozenset({
    "text", "input_text", "output_text", "refusal", "reasoning", "redacted_thinking", "thinking",
})  # fmt: skip
_LENGTHS = ("max_completion_tokens", "max_tokens")
"""The names of a chat answer's longest length, the one of today first."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is done to bodies; as it stands, nothing.

    `system` says what becomes of system and developer messages. `text_only` refuses everything else in messages, and
    answers that are not text. `max_answer_tokens` is the longest answer; None leaves that to the caller.
    """

    system: SystemRule = "allow"
    text_only: bool = False
    max_answer_tokens: int | None = None


def hold_chat_to(rules: Rules, body: object) -> object:
    """Give the body of a chat completion as the rules leave it: the same object where they change nothing.

    What is no such body is given as it is, for the parser to refuse. Raises InvalidRequestError with `param`.
    """
    if not is_object(body):
        return body
    changed: dict[str, object] = {}
    messages = body.get("messages")
    if isinstance(messages, list):
        if rules.text_only:
            _check_texts(messages)
        kept = _without_system(rules.system, messages)
        if len(kept) < len(messages):
            changed["messages"] = kept
    if rules.text_only:
        _check_modalities(body)
    if rules.max_answer_tokens is not None:
        changed |= _shortened(body, rules.max_answer_tokens)
    return {**body, **changed} if changed else body


def _without_system(rule: SystemRule, messages: list[object]) -> list[object]:
    if rule == "allow":
        return messages
    kept = []
    for index, message in enumerate(messages):
        if not is_object(message) or _spelt(message.get("role")) not in _SYSTEM_ROLES:
            kept.append(message)
        elif rule == "reject":
            raise InvalidRequestError(
                "System messages are not taken in this tier. Leave them out.",
                param=f"messages[{index}].role",
                code="system_not_allowed",
            )
    if messages and not kept:
        raise wrong_value("messages", "this tier leaves system messages out, and there is no other message.")
    return kept


def _spelt(role: object) -> object:
    """Give a role as a lenient server may read it."""
    return "".join(filter(str.isalpha, role)).lower() if isinstance(role, str) else role


def _check_texts(messages: list[object]) -> None:
    for index, message in enumerate(messages):
        content = message.get("content") if is_object(message) else None
        if is_object(content):
            raise _not_text(f"messages[{index}].content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if is_object(part) and part.get("type") not in _TEXT_PARTS:
                raise _not_text(f"messages[{index}].content[{place}].type")
        if is_object(message) and message.get("audio") is not None:
            raise _not_text(f"messages[{index}].audio")


def _check_modalities(body: JsonObject) -> None:
    modalities = body.get("modalities")
    if isinstance(modalities, list) and any(modality != "text" for modality in modalities):
        raise _not_text("modalities")
    if body.get("audio") is not None:
        raise _not_text("audio")


def _not_text(param: str) -> InvalidRequestError:
    return InvalidRequestError("This tier is for text only.", param=param, code="text_only")


def _shortened(body: JsonObject, longest: int) -> Mapping[str, object]:
    """Give the fields that keep an answer within a length, for the parser to check where they are no numbers."""
    said = {name: body[name] for name in _LENGTHS if body.get(name) is not None}
    if not said:
        return {_LENGTHS[0]: longest}
    # 0 and -1 are how several clients spell "no limit".
    return {
        name: longest
        for name, value in said.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value <= longest
    }
