"""What of a body that is passed on concerns us: whether it streams, what it may cost, and the few bytes that we change."""

from collections.abc import Iterator
from dataclasses import dataclass

from chat2api.protocol.openai.fields import is_object, read_flag, wrong_type
from chat2api.protocol.openai.members import find_members, replace_members

MAX_TEXT = 4 * 1024 * 1024
"""Characters of a prompt that are counted."""

_TEXT_MEMBERS = ("messages", "input", "prompt", "instructions", "text")
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class ForwardedBody:
    """A body as it is passed on, and what it says.

    `asked_usage` says that the usage of its stream is asked for by us alone. `max_tokens` bounds each of `choices`
    answers where the caller did so; `text` is what will be counted as its prompt.
    """

    data: bytes
    stream: bool
    asked_usage: bool
    max_tokens: int | None
    choices: int
    user: str | None
    text: str


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
    if asked:
        changes["stream_options"] = {**(options if is_object(options) else {}), "include_usage": True}
    user = value.get("user")
    choices = value.get("n")
    return ForwardedBody(
        replace_members(data, changes) if changes else data,
        stream,
        asked,
        max((limit for name in _LIMITS if isinstance(limit := value.get(name), int) and limit > 0), default=None),
        min(choices, 128) if isinstance(choices, int) and choices > 0 else 1,
        user if isinstance(user, str) and user else None,
        "\n".join(_texts([value.get(name) for name in _TEXT_MEMBERS])),
    )


def _texts(root: object) -> Iterator[str]:
    """Yield the texts of a prompt, without pictures, sounds and files."""
    left = MAX_TEXT
    todo = [root]
    while todo and left > 0:
        value = todo.pop()
        if isinstance(value, str):
            yield value[:left]
            left -= len(value)
        elif isinstance(value, list):
            todo += reversed(value)
        elif isinstance(value, dict):
            todo += [value[name] for name in ("text", "content", "arguments", "output") if name in value]
