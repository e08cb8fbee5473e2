"""What of a body that is passed on concerns us: whether it streams, what it may cost, and the few bytes that we change."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from chat2api.protocol.openai.fields import is_object, read_flag, wrong_type
from chat2api.protocol.openai.members import find_members, replace_members

MAX_TEXT = 4 * 1024 * 1024
"""Characters of a prompt that are counted."""

_TEXT_MEMBERS = ("messages", "input", "prompt", "instructions")
_SCHEMA_MEMBERS = ("tools", "functions", "response_format", "text")
"""Members that go into the prompt as they are written."""
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")

_PICTURES = frozenset({"image_url", "input_image"})
_PICTURE_TOKENS = {"low": 85}
_PICTURE_TOKENS_ELSE = 765
"""Tokens of a picture in a prompt: of one that is looked at coarsely, and of a square one of 1024 pixels otherwise."""

_DRAWN_TOKENS = {"low": (272, 408), "medium": (1056, 1584), "high": (4160, 6240)}
"""Tokens of a picture that is made, a square and another, by its quality."""

MAX_CHOICES = 128
MAX_PROMPTS = 2048


@dataclass(frozen=True, slots=True)
class ForwardedBody:
    """A body as it is passed on, and what it says.

    `asked_usage` says that the usage of its stream is asked for by us alone. `max_tokens` bounds each of `choices`
    answers where the caller did so; `text` is what will be counted as its prompt, `tokens` what comes to that: ids of
    tokens, and pictures. `plain` is what goes to a server that takes no question for usage; None where there is none.
    """

    data: bytes
    plain: bytes | None
    stream: bool
    asked_usage: bool
    max_tokens: int | None
    choices: int
    user: str | None
    text: str
    tokens: int


def prepare_body(data: bytes, value: object, *, model: str | None = None, is_chat: bool = False) -> ForwardedBody:
    """Give what is passed on of a JSON body with these bytes and this value: the same, but for what a rule changes.

    `model` replaces the model's name; a stream of a chat (`is_chat`) is asked for its usage. Raises InvalidRequestError
    for a body that is no object, that has a member twice, or whose `stream` is no boolean.
    """
    if not is_object(value):
        raise wrong_type("body", "an object", value)
    stream = read_flag(value, "stream") or False
    find_members(data)  # one that stands twice could be read here as one thing and there as another
    changes: dict[str, object] = {}
    if model is not None:
        changes["model"] = model
    options = value.get("stream_options")
    asked = is_chat and stream and (options is None or is_object(options))
    if asked and is_object(options):
        asked = options.get("include_usage") is not True
    plain = replace_members(data, changes) if changes else data
    if asked:
        changes["stream_options"] = {**(options if is_object(options) else {}), "include_usage": True}
    user = value.get("user")
    text, tokens = _read_prompt(value)
    return ForwardedBody(
        replace_members(data, changes) if asked else plain,
        plain if asked and options is None else None,
        stream,
        asked,
        max((limit for name in _LIMITS if isinstance(limit := value.get(name), int) and limit > 0), default=None),
        max(read_count(value.get("n")), read_count(value.get("best_of"))) * _count_prompts(value.get("prompt")),
        user if isinstance(user, str) and user else None,
        text,
        tokens,
    )


def read_count(value: object) -> int:
    """Give how many answers or pictures are asked for, as JSON or a form says it; 1 where it says none or nonsense."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    return min(value, MAX_CHOICES) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def expected_picture_tokens(model: str, quality: object, size: object) -> int:
    """Give about how many tokens a picture will be billed as; 1 for models whose pictures have a price of their own."""
    if not re.fullmatch(r"(?:.*/)?(?:chat)?gpt-(?:image|4o-image).*", model):
        return 1
    square, other = _DRAWN_TOKENS.get(quality if isinstance(quality, str) else "", _DRAWN_TOKENS["medium"])
    return other if isinstance(size, str) and size not in ("auto", "1024x1024") else square


def _count_prompts(prompt: object) -> int:
    """Give how many prompts a completion is asked for: each of a list, but ids of tokens are one."""
    is_several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return min(len(prompt), MAX_PROMPTS) if is_several and isinstance(prompt, list) else 1


def _read_prompt(body: Mapping[str, object]) -> tuple[str, int]:
    """Give the texts of a prompt, and about how many tokens its other parts are; sounds and files are left out."""
    texts: list[str] = []
    tokens, left = 0, MAX_TEXT
    todo: list[object] = [_write(body[name]) for name in reversed(_SCHEMA_MEMBERS) if body.get(name)]
    todo += [body[name] for name in reversed(_TEXT_MEMBERS) if name in body]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            texts.append(value[:left])
            left = max(left - len(value), 0)
        elif isinstance(value, list):
            if value and isinstance(value[0], int):
                tokens += len(value)
            else:
                todo += reversed(value)
        elif isinstance(value, dict):
            if value.get("type") in _PICTURES:
                tokens += _picture_tokens(value)
            else:
                todo += [value[name] for name in ("output", "arguments", "content", "text") if name in value]
    return "\n".join(filter(None, texts)), tokens


def _picture_tokens(part: Mapping[str, object]) -> int:
    holder = part.get("image_url")
    detail = holder.get("detail") if isinstance(holder, dict) else part.get("detail")
    return _PICTURE_TOKENS.get(detail if isinstance(detail, str) else "", _PICTURE_TOKENS_ELSE)


def _write(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # half of a surrogate pair
        return json.dumps(value)
