"""Typed reading of a JSON body, with complaints that name the field at fault.

Each reader takes an object, a key and the object's own path, and gives the value or None when the field is absent
or null (official clients send null for "not set"). The complaints use the codes of the OpenAI API
(`invalid_type`, `invalid_value`, `missing_required_parameter`, …), since clients branch on them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeGuard

from chat2api.errors import InvalidRequestError

JsonObject = Mapping[str, object]


def is_object(value: object) -> TypeGuard[JsonObject]:
    """Whether value is a JSON object; its keys are text because it came out of a JSON parser."""
    return isinstance(value, dict)


def join_path(path: str, key: str) -> str:
    """Give the `param` of a key inside the object at path; path is "" for the body itself."""
    return f"{path}.{key}" if path else key


def type_name(value: object) -> str:
    """Give the JSON name of a value's type, for complaints."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def wrong_type(param: str, expected: str, value: object) -> InvalidRequestError:
    """Make the error for a field of another type; `expected` is such as "a string"."""
    return InvalidRequestError(
        f"Invalid type for '{param}': expected {expected}, but got {_article(type_name(value))} instead.",
        param=param,
        code="invalid_type",
    )


def wrong_value(param: str, message: str) -> InvalidRequestError:
    """Make the error for a field of the right type whose value cannot be."""
    return InvalidRequestError(f"Invalid value for '{param}': {message}", param=param, code="invalid_value")


def missing(param: str) -> InvalidRequestError:
    """Make the error for a field that must be there."""
    return InvalidRequestError(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def read_text(body: JsonObject, key: str, path: str = "", *, max_length: int | None = None) -> str | None:
    """Give a string of at most max_length characters."""
    value = body.get(key)
    if value is None:
        return None
    param = join_path(path, key)
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    if max_length is not None and len(value) > max_length:
        raise InvalidRequestError(
            f"Invalid '{param}': string too long. Expected at most {max_length} characters, but got {len(value)}.",
            param=param,
            code="string_above_max_length",
        )
    return value


def require_text(body: JsonObject, key: str, path: str = "") -> str:
    """Give a string that must be there and not be empty."""
    value = read_text(body, key, path)
    if value is None:
        raise missing(join_path(path, key))
    if not value:
        raise wrong_value(join_path(path, key), "it must not be empty.")
    return value


def read_word(body: JsonObject, key: str, words: Collection[str], path: str = "") -> str | None:
    """Give a string that is one of words."""
    value = read_text(body, key, path)
    if value is not None and value not in words:
        raise wrong_value(join_path(path, key), f"{quote(value)}. Supported values are: {quote_all(words)}.")
    return value


def read_flag(body: JsonObject, key: str, path: str = "") -> bool | None:
    """Give a boolean."""
    value = body.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise wrong_type(join_path(path, key), "a boolean", value)


def read_integer(
    body: JsonObject, key: str, path: str = "", *, minimum: int | None = None, maximum: int | None = None
) -> int | None:
    """Give an integer within the bounds, which belong to it; 5.0 is 5, since JSON knows numbers only."""
    value = body.get(key)
    if value is None:
        return None
    param = join_path(path, key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # In Python a boolean is an integer; in JSON it is not.
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(param, "an integer", value)
    _check_bounds(param, value, minimum, maximum, "integer")
    return value


def read_number(body: JsonObject, key: str, minimum: float, maximum: float, path: str = "") -> float | None:
    """Give a number within the bounds, which belong to it."""
    value = body.get(key)
    if value is None:
        return None
    param = join_path(path, key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(param, "a number", value)
    _check_bounds(param, value, minimum, maximum, "decimal")
    return value


def read_object(body: JsonObject, key: str, path: str = "") -> JsonObject | None:
    """Give an object."""
    value = body.get(key)
    if value is None or is_object(value):
        return value
    raise wrong_type(join_path(path, key), "an object", value)


def read_list(body: JsonObject, key: str, path: str = "") -> Sequence[object] | None:
    """Give an array."""
    value = body.get(key)
    if value is None or isinstance(value, list):
        return value
    raise wrong_type(join_path(path, key), "an array", value)


def quote(value: str) -> str:
    """Give a caller's text in quotes, cut to a length that a message can bear."""
    return f"'{value}'" if len(value) <= 64 else f"'{value[:64]}…'"


def quote_all(words: Collection[str]) -> str:
    """Give words as `'a', 'b', and 'c'`."""
    quoted = [f"'{word}'" for word in words]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def _check_bounds(param: str, value: float, minimum: float | None, maximum: float | None, kind: str) -> None:
    if minimum is not None and value < minimum:
        side, bound, code = ">=", minimum, f"{kind}_below_min_value"
    elif maximum is not None and value > maximum:
        side, bound, code = "<=", maximum, f"{kind}_above_max_value"
    else:
        return
    raise InvalidRequestError(
        f"Invalid '{param}': {kind} {'below minimum' if side == '>=' else 'above maximum'} value. "
        f"Expected a value {side} {bound}, but got {value!r} instead.",
        param=param,
        code=code,
    )


def _article(name: str) -> str:
    if name == "null":
        return name
    return f"an {name}" if name[0] in "aio" else f"a {name}"
