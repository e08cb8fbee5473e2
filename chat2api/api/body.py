"""Reading a JSON request body, within its limits."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import orjson

from chat2api.api.context import current_request
from chat2api.errors import InvalidRequestError, UnsupportedMediaTypeError
from chat2api.protocol.openai.members import parse_body, replace_members

LARGE_BODY = 20 * 1024 * 1024
"""Largest JSON body of the routes that take whole conversations and images, in bytes (S37)."""
SMALL_BODY = 4 * 1024 * 1024
"""Largest JSON body elsewhere."""
UPLOAD_BODY = 100 * 1024 * 1024
"""Largest body of the routes that take files, of which little is held at a time."""
MAX_DEPTH = 64
"""Deepest nesting of lists and objects."""

_LARGE = (
    "/chat/completions", "/v1", "/responses", "/responses/compact", "/responses/input_tokens", "/images/generations",
)  # fmt: skip


def body_limit(path: str) -> int:
    """Give the largest body that a path takes, in bytes."""
    path = path.rstrip("/")
    if path.endswith(
        ("/v1/files", "/audio/transcriptions", "/audio/translations", "/images/edits", "/images/variations")
    ):
        return UPLOAD_BODY
    large = path.endswith(
        (
            "/chat/completions",
            "/v1",
            "/responses",
            "/responses/compact",
            "/responses/input_tokens",
            "/images/generations",
        )
    )
    return LARGE_BODY if large or not path else SMALL_BODY


@dataclass(frozen=True, slots=True)
class JsonBody:
    """A request's body as it came, and what it says. `odd` bodies are fit to be passed on as bytes alone."""

    data: bytes
    value: object
    odd: bool

    def changed(self, value: object) -> "JsonBody":
        """Give the body with another value: its own bytes wherever that is the same as before."""
        before = self.value
        if value is before:
            return self
        if isinstance(before, dict) and isinstance(value, dict) and before.keys() <= value.keys():
            changes = {name: item for name, item in value.items() if item is not before.get(name, ...)}
            return replace(self, data=replace_members(self.data, changes), value=value)
        return replace(self, data=json.dumps(value).encode(), value=value)

    def exact(self) -> object:
        """Give what it says. Raises InvalidRequestError for an odd one."""
        if self.odd:
            raise InvalidRequestError("The body has text that is not Unicode, such as half of a surrogate pair.")
        return self.value


async def read_body() -> JsonBody:
    """Give the current request's JSON body, to be passed on or to be read. Raises as `read_json`."""
    asked = current_request()
    data = await asked.get_data(cache=False, as_text=False, parse_form_data=False)
    _check_type(asked.mimetype)
    value, kind = parse_body(data)
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return JsonBody(data, value, kind == "odd")


async def read_json() -> object:
    """Give the decoded body of the current request.

    Raises UnsupportedMediaTypeError when it is not declared as JSON: a browser can send other types across origins
    without asking. Raises InvalidRequestError when it is no JSON or nested too deeply.
    """
    asked = current_request()
    return _decode(await asked.get_data(cache=False, as_text=False, parse_form_data=False), asked.mimetype)


async def read_fields(*allowed: str) -> dict[str, object]:
    """Give the members of the current request's JSON object; no body at all is an empty one.

    Raises as `read_json`, and InvalidRequestError naming a member that is not among those allowed: a misspelt one that
    is passed over in silence would change something else than was meant (S9).
    """
    asked = current_request()
    data = await asked.get_data(cache=False, as_text=False, parse_form_data=False)
    value = _decode(data, asked.mimetype) if data else {}
    if not isinstance(value, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    check_names(value, allowed)
    return value


def check_names(names: Iterable[str], allowed: Collection[str]) -> None:
    """Raise InvalidRequestError for the first name of a field or parameter that is not allowed."""
    for name in names:
        if name not in allowed:
            known = ", ".join(allowed) if allowed else "none"
            raise InvalidRequestError(
                f"Unknown parameter. What this call takes: {known}.", param=name[:64], code="unknown_parameter"
            )


def _check_type(mimetype: str) -> None:
    if mimetype != "application/json":
        raise UnsupportedMediaTypeError("Send the body as JSON, with the header `Content-Type: application/json`.")


def _decode(data: bytes, mimetype: str) -> object:
    _check_type(mimetype)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"The body is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}."
        ) from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise InvalidRequestError(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _children(item: object) -> list[object]:
    if isinstance(item, dict):
        return [child for child in item.values() if isinstance(child, dict | list)]
    if isinstance(item, list):
        return [child for child in item if isinstance(child, dict | list)]
    return []
