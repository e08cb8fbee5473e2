"""What a call refers to of the things that the API keeps, and what its answer has made of them.

A response consists of items (messages, reasoning, calls of tools, pictures), and any of them may be named in a later call by
its id alone: as an `item_reference`, or as an item that leaves out what it says. The sandbox of a code interpreter and the
sound of a chat are named so as well.

Source: the API reference of 2026, "Create a model response" and "Create chat completion".
"""

import re
from collections.abc import Iterator

_REFERENCES = frozenset({
    "file_id", "file_ids", "previous_response_id", "conversation", "vector_store_ids", "container", "container_id",
    "approval_request_id", "skill_id",
})  # fmt: skip
_HOLDERS = frozenset({"conversation", "audio"})
"""Members that name what they mean by an `id` inside."""
_DESCRIPTIONS = frozenset({"metadata", "parameters", "schema", "annotations"})
_NAMED_BY_CALLER = frozenset({"variables"})
_OWN_WORDS = frozenset({
    "message", "function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call", "computer_call",
    "mcp_approval_response",
})  # fmt: skip
"""Items that say all that they are about, as their callers do by `…_output`: the id of one refers to nothing."""
_SEALED = frozenset({"reasoning", "compaction"})
"""Items that may say all in a form that the API alone reads, and checks."""
_TOLD_WHOLE = ("msg_", "rs_", "fc_", "ctc_", "cmp_")
"""How the ids of those begin: messages, reasoning, calls of functions and of custom tools, compactions."""

_STRING = rb'(?:[^"\\]++|\\.)*+("|\\?\Z)'
"""The rest of a string, to its end or as far as it is here."""
_TOKEN = re.compile(rb'"' + _STRING + rb"|[{}\[\],:]", re.DOTALL)
_STRING_REST = re.compile(_STRING, re.DOTALL)
_LONGEST = 256
"""Bytes of a string that may be a name or an id."""
_MADE = frozenset({
    (b"output", None, b"id"),
    (b"output", None, b"container_id"),
    (b"choices", None, b"message", b"audio", b"id"),
})  # fmt: skip
"""Where a whole answer tells the ids of what it has made; None is a place in a list."""


def references(body: object) -> set[str]:
    """Give the ids of files, responses, items and other things kept by the API that a body refers to, wherever in it.

    What a caller describes in their own words (metadata, the schemas of their functions, the sources of a text) refers to
    nothing; a prompt that the operator keeps with the API is theirs to name.
    """
    found: set[str] = set()
    if isinstance(body, dict) and isinstance(items := body.get("input"), list):
        found.update(filter(None, map(_referred_item, items)))
    todo = [body]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += item
        elif isinstance(item, dict):
            for name, inner in item.items():
                if name in _NAMED_BY_CALLER and isinstance(inner, dict):
                    todo += inner.values()
                elif name not in _DESCRIPTIONS:
                    todo.append(inner)
            for name in _REFERENCES & item.keys():
                named = item[name]
                found.update(one for one in (named if isinstance(named, list) else [named]) if isinstance(one, str))
            for name in _HOLDERS & item.keys():
                found.update(_id_in(item[name]))
    return found


def _referred_item(item: object) -> str | None:
    """Give the id that an item of a response's input refers to; None for one that says all itself."""
    if not isinstance(item, dict) or not isinstance(identifier := item.get("id"), str):
        return None
    kind = item.get("type")
    if kind is None:
        return None if "content" in item else identifier
    if not isinstance(kind, str):
        return identifier
    whole = kind in _OWN_WORDS or kind.endswith("_output") or (kind in _SEALED and item.get("encrypted_content"))
    return None if whole else identifier


def _id_in(holder: object) -> Iterator[str]:
    if isinstance(holder, dict) and isinstance(identifier := holder.get("id"), str):
        yield identifier


def is_looked_up(identifier: str) -> bool:
    """Whether the API may look up an item of that id although its response was not stored: not what says all itself."""
    return not identifier.startswith(_TOLD_WHOLE)


def made_by_event(event: object) -> Iterator[str]:
    """Yield the ids of what an event of a streamed answer tells to have been made."""
    if not isinstance(event, dict):
        return
    response = event.get("response")
    output = response.get("output") if isinstance(response, dict) else None
    for item in (event.get("item"), *(output if isinstance(output, list) else ())):
        if isinstance(item, dict):
            yield from (one for name in ("id", "container_id") if isinstance(one := item.get(name), str))
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        yield from _id_in(delta.get("audio") if isinstance(delta, dict) else None)


class MadeReader:
    """The ids of what a whole answer has made, read while it passes: `feed` its bytes, which are taken to be valid JSON.

    Of the answer, which may hold pictures of any length, no more than a name is kept.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._rest = b""
        self._in_long = False
        """Whether a string goes on that is too long to matter."""
        self._path: list[bytes | None] = []
        """Of each object that is open, the member that is being read; None for a list."""
        self._is_value = False

    def feed(self, data: bytes) -> list[str]:
        """Give the ids that these bytes complete."""
        data, self._rest = self._rest + data, b""
        at = 0
        if self._in_long:
            rest = _STRING_REST.match(data)
            assert rest is not None  # it may match nothing
            if rest[1] != b'"':
                self._rest = rest[1]
                return []
            self._in_long, at = False, rest.end()
        found: list[str] = []
        for token in _TOKEN.finditer(data, at):
            text, end = token.group(), token[1]
            if end is None:
                self._step(text)
            elif end == b'"':
                self._take(text[1:-1] if len(text) <= _LONGEST else b"", found)
            elif len(text) <= _LONGEST:
                self._rest = text
            else:
                self._in_long, self._rest = True, end
        return found

    def _step(self, mark: bytes) -> None:
        path = self._path
        if mark in b"{[":
            path.append(None if mark == b"[" else b"")
            self._is_value = False
        elif mark in b"}]":
            if path:
                path.pop()
        elif mark == b":":
            self._is_value = True
        else:
            self._is_value = False
            if path and path[-1] is not None:
                path[-1] = b""

    def _take(self, text: bytes, found: list[str]) -> None:
        path = self._path
        if path and path[-1] is not None and not self._is_value:
            path[-1] = text
        elif text and tuple(path) in _MADE:
            found.append(text.decode("utf-8", "replace"))
