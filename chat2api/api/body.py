"""Reading a JSON request body, within its limits."""

import orjson
from quart import request

from chat2api.errors import InvalidRequestError, UnsupportedMediaTypeError

LARGE_BODY = 20 * 1024 * 1024
"""Largest JSON body of the routes that take whole conversations and images, in bytes (S37)."""
SMALL_BODY = 4 * 1024 * 1024
"""Largest JSON body elsewhere."""
MAX_DEPTH = 64
"""Deepest nesting of lists and objects."""


def body_limit(path: str) -> int:
    """Give the largest body that a path takes, in bytes."""
    large = path.rstrip("/").endswith(("/chat/completions", "/responses", "/images/generations", "/images/edits"))
    return LARGE_BODY if large else SMALL_BODY


async def read_json() -> object:
    """Give the decoded body of the current request.

    Raises UnsupportedMediaTypeError when it is not declared as JSON: a browser can send other types across origins
    without asking. Raises InvalidRequestError when it is no JSON or nested too deeply.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaTypeError("Send the body as JSON, with the header `Content-Type: application/json`.")
    data = await request.get_data(cache=False)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"The body is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}."
        ) from None
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
