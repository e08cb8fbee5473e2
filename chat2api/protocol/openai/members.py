"""Where the members of a JSON object stand in its bytes, so that one may be replaced and all others left as they were.

A body that is passed on keeps its spacing, its escapes and its numbers: to parse and write it again would lose them. The
bytes are taken to be valid JSON, which the caller has checked.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import orjson

from chat2api.errors import InvalidRequestError

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]', re.DOTALL)
_BLANK = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object: where its value stands, without the blanks around it."""

    start: int
    end: int


def parse_body(data: bytes) -> tuple[object, Literal["exact", "odd"]]:
    """Give what a JSON text says, and whether our own dialects can use it.

    `odd` is JSON by its grammar that has no exact value, such as a lone surrogate: fit to be passed on as bytes alone.
    Raises InvalidRequestError saying where it is no JSON.
    """
    try:
        return orjson.loads(data), "exact"
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant), "odd"
        except (ValueError, RecursionError):
            raise InvalidRequestError(
                f"The body is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}."
            ) from None


def find_members(data: bytes) -> dict[str, Member]:
    """Give the members of the object that the bytes hold, by name.

    Raises InvalidRequestError for a name that stands there twice: two readers could take different ones.
    """
    members: dict[str, Member] = {}
    depth = 0
    name: str | None = None
    start = 0
    is_name = True
    for match in _TOKEN.finditer(data):
        token = match.group()
        kind = token[:1]
        if kind in b"{[":
            depth += 1
        elif kind in b"}]":
            depth -= 1
            if depth == 0 and name is not None:
                _add(members, name, data, start, match.start())
        elif depth != 1:
            continue
        elif kind == b",":
            if name is not None:
                _add(members, name, data, start, match.start())
            name, is_name = None, True
        elif kind == b":":
            start = match.end()
        elif is_name:
            name, is_name = json.loads(token.decode("utf-8")), False
    return members


def replace_members(data: bytes, values: Mapping[str, object]) -> bytes:
    """Give the object's bytes with some members' values replaced, or put in front where they are missing."""
    members = find_members(data)
    pieces: list[bytes] = []
    at = 0
    front = data.index(b"{") + 1
    missing = [name for name in values if name not in members]
    if missing:
        new = b",".join(b"%b:%b" % (orjson.dumps(name), _write(values[name])) for name in missing)
        pieces += (data[:front], new, b"," if members else b"")
        at = front
    known = sorted((members[name].start, members[name].end, name) for name in values if name in members)
    for start, end, name in known:
        pieces += (data[at:start], _write(values[name]))
        at = end
    pieces.append(data[at:])
    return b"".join(pieces)


def _write(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def _add(members: dict[str, Member], name: str, data: bytes, start: int, end: int) -> None:
    if name in members:
        raise InvalidRequestError(f"The body has the member `{name[:64]}` twice.", param=name[:64])
    while data[start] in _BLANK:
        start += 1
    while data[end - 1] in _BLANK:
        end -= 1
    members[name] = Member(start, end)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
