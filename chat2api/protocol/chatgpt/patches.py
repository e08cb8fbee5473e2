"""The documents that a "v1" delta stream builds up, and the operations that build them.

Theory of operation. A delta is an object of `p` (JSON pointer), `o` (operation), `v` (value) and `c` (number of the
document meant). Absent `p` and `o` are those of the delta before; what stands inside a patch changes neither. So the
commonest delta, `{"v": " word"}`, means: append to where the last one appended. Several documents live side by side
under different `c`; a value that holds a `message` begins a document anew, whatever the rest says.

Appending to a Python string copies it, which makes an answer of n deltas cost n²; therefore a string that was appended
to becomes a `Rope`. Read strings of a document with `text_of` only.

Every call tells what changed, so that the reader of the documents need not look for it: text that was merely appended
is by far the most frequent change and is passed on as it is.

Facts: published captures of 2024 to 2026. The operation `truncate` is listed by parsers (its value is the length to
keep) and was never captured.
"""

from collections import Counter
from types import NoneType
from typing import Any, Literal, NamedTuple

Json = Any
"""A value out of the JSON parser; narrowed where it is used."""

Document = dict[str, Json]
"""`{"message": …, "conversation_id": …, "error": …}`."""

_MAX_DOCUMENTS = 512
_MAX_LIST_GAP = 16
_MAX_SHAPES = 64
_MAX_NESTED_PATCHES = 8
_IDLE_PATHS = frozenset({"/message/metadata/token_count", "/message/update_time", "/message/weight"})
"""What changes with each delta, in patches of 2026, and says nothing; it is not kept."""

_MISSING: Json = object()

TEXT_PATH = "/message/content/parts/0"
CODE_PATH = "/message/content/text"


class Rope:
    """A string that grows at its end without being copied."""

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        """Begin with this text."""
        self._parts = [text]

    def append(self, text: str) -> None:
        """Make the text longer."""
        self._parts.append(text)

    def __str__(self) -> str:
        """Give the whole text."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0]


def text_of(value: Json) -> str:
    """Give a string of a document, whether it was appended to or not; "" for what is no string."""
    if type(value) is str:
        return value
    return str(value) if type(value) is Rope else ""


def note_unknown(unknown: Counter[str], shape: str) -> None:
    """Count a shape that was not understood, by a short printable name; past 64 names as "others"."""
    name = shape[:60].encode("ascii", "backslashreplace").decode()
    unknown[name if name in unknown or len(unknown) < _MAX_SHAPES else "others"] += 1


class Change(NamedTuple):
    """What one operation did to a document.

    `kind`: begin (the document is new), text (`text` was appended to the string at `path` under the message's content),
    content (something else there), other (metadata, status, …).
    """

    kind: Literal["begin", "text", "content", "other"]
    document: Document
    path: str = ""
    text: str = ""


class DeltaDocuments:
    """The documents of one stream and the sticky state between its deltas."""

    def __init__(self, unknown: Counter[str]) -> None:
        """Begin with no document; `unknown` counts the operations that were not understood."""
        self._unknown = unknown
        self._documents: dict[Json, Document] = {}
        self._key: Json = None
        self._path = ""
        self._operation = ""
        self._tip: tuple[Document, str, Rope] | None = None
        """The string that was appended to last, with its document and path."""
        self._tip_is_sticky = False

    @property
    def growing(self) -> tuple[Document, str] | None:
        """The document and the path at which a bare delta would go on with the append before it."""
        return self._tip[:2] if self._tip_is_sticky and self._tip is not None else None

    def grow(self, text: str) -> tuple[Document, str] | None:
        """Carry out the bare delta `{"v": text}` where it goes on with the append before it, else do nothing.

        Gives the document and the path that were appended to: the short way for nine deltas of ten.
        """
        if self._tip_is_sticky and self._tip is not None:
            document, path, rope = self._tip
            rope.append(text)
            return document, path
        return None

    def adopt(self, document: Document) -> None:
        """Make a whole document that came outside the deltas the one that following deltas mean."""
        self._documents[self._key] = document
        self._tip = None

    def apply(self, delta: dict[str, Json]) -> list[Change]:
        """Carry one delta out and tell what it changed; never raises, an operation that makes no sense is counted."""
        self._tip_is_sticky = False
        if type(key := delta.get("c")) is int or type(key) is str:
            self._key = key
        value: Json = delta.get("v", _MISSING)
        if value is _MISSING and delta.get("o") != "remove":
            return []
        begins = type(value) is dict and ("c" in delta or _holds_message(value))
        path, operation = self._stick(delta, begins=begins)
        if path == "" and (begins or (type(value) is dict and operation in ("add", "replace"))):
            return self._begin(value)
        document = self._documents.get(self._key)
        if document is None:
            return self._begin_unannounced(path, operation, value)
        if type(value) is list and (operation == "patch" or self._is_patch(delta, value, path)):
            return self._apply_patch(document, value, path if operation == "patch" else "")
        if type(value) is str and path == "":
            # After a patch or an add a bare string goes on with the text that grew last, else with the message's
            # own (disputed, yet every reader of the wire does so; captures hold it only rarely).
            tip = self._tip
            path = tip[1] if tip is not None and tip[0] is document else self._text_path(document)
            operation = "append"
        else:
            self._tip_is_sticky = operation == "append"
        change = self._operate(document, path, operation, value)
        return [] if change is None else [change]

    def _stick(self, delta: dict[str, Json], *, begins: bool) -> tuple[str, str]:
        path, operation = delta.get("p"), delta.get("o")
        if type(path) is str:
            self._path = path
        elif begins or operation == "patch":
            self._path = ""
        if type(operation) is str:
            self._operation = operation
        elif begins:
            self._operation = "add"
        elif type(path) is str and path and self._operation in ("add", "patch"):
            # The sticky operation is that of a whole message and cannot be meant.
            self._operation = "append" if path.startswith("/message/content") else "replace"
        return self._path, self._operation

    def _begin_unannounced(self, path: str, operation: str, value: Json) -> list[Change]:
        """A resumed stream may begin behind its first document; then at least the answer's text is had."""
        note_unknown(self._unknown, "delta before its document")
        if path != TEXT_PATH or operation != "append" or type(value) is not str:
            return []
        content = {"content_type": "text", "parts": [value]}
        document = {"message": {"author": {"role": "assistant"}, "content": content, "status": "in_progress"}}
        self._documents[self._key] = document
        return [Change("begin", document)]

    def _begin(self, document: Document) -> list[Change]:
        self._path, self._operation = "", "add"
        if self._key not in self._documents and len(self._documents) >= _MAX_DOCUMENTS:
            del self._documents[next(iter(self._documents))]
        self._documents[self._key] = document
        return [Change("begin", document)]

    @staticmethod
    def _is_patch(delta: dict[str, Json], value: list[Json], path: str) -> bool:
        if path == "":
            return True
        # A list without `o` whose items all are operations is a patch, whatever was sticky.
        return "o" not in delta and bool(value) and all(type(item) is dict and "p" in item for item in value)

    def _apply_patch(self, document: Document, items: list[Json], prefix: str, depth: int = 0) -> list[Change]:
        """Carry the operations of a patch out; one without a path goes on where the one before it did."""
        changes: list[Change] = []
        sticky, sticky_operation = "", None
        for item in items:
            path = item.get("p", sticky) if type(item) is dict else None
            if type(path) is not str:
                self._nonsense("patch item")
                continue
            operation, value = item.get("o"), item.get("v")
            if operation is None and path == sticky:
                operation = sticky_operation
            if operation is None:
                operation = "append" if type(value) is str else "replace"
            sticky, sticky_operation = path, operation
            path = prefix + path if prefix else path
            if path in _IDLE_PATHS:
                continue
            if operation == "patch" and type(value) is list and depth < _MAX_NESTED_PATCHES:
                changes += self._apply_patch(document, value, path, depth + 1)
            elif path == "" and type(value) is dict and operation in ("add", "replace"):
                document.clear()
                document.update(value)
                self._tip = None
                changes.append(Change("begin", document))
            elif (change := self._operate(document, path, operation, value)) is not None:
                changes.append(change)
        return changes

    @staticmethod
    def _text_path(document: Document) -> str:
        message = document.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, dict) and "parts" not in content and "text" in content:
            return CODE_PATH
        return TEXT_PATH

    def _operate(self, document: Document, path: str, operation: Json, value: Json) -> Change | None:
        if path == "":
            if operation == "append" and type(value) is dict:
                document.update(value)
                self._tip = None
                return Change("begin", document)
            return self._nonsense("operation at the root")
        under_content = path.startswith("/message/content") or path == "/message"
        if under_content:
            tip, self._tip = self._tip, None
            if operation == "append":
                if type(value) in (int, float):
                    # A delta that is a number is still a piece of the text.
                    value = str(value)
                if tip is not None and type(value) is str and path == tip[1] and document is tip[0]:
                    tip[2].append(value)
                    self._tip = tip
                    return Change("text", document, path, value)
        elif (
            (operation == "replace" or operation == "add")
            and path.startswith("/message/")
            and path.rfind("/") == len("/message")
            and type(message := document.get("message")) is dict
            and "~" not in path
        ):
            # A member of the message itself, its status say: most of what patches set.
            message[path[len("/message/") :]] = value
            return Change("other", document, path)
        found = self._parent(document, path, make=operation in ("add", "replace", "append"))
        if found is None:
            return self._nonsense("path")
        parent, key = found
        if operation == "append":
            if not _append(parent, key, value):
                return self._nonsense("append")
            if under_content and type(value) is str:
                self._tip = _tip(document, path, parent, key)
                return Change("text", document, path, value)
        elif operation in ("add", "replace"):
            if not _set(parent, key, value, insert=operation == "add"):
                return self._nonsense(operation)
        elif operation == "remove":
            _remove(parent, key)
        elif operation == "truncate":
            _truncate(parent, key, value)
        else:
            return self._nonsense(f"operation {operation}")
        return Change("content" if under_content else "other", document, path)

    @staticmethod
    def _parent(document: Document, path: str, *, make: bool) -> tuple[Json, str] | None:
        tokens = (path[1:] if path[0] == "/" else path).split("/")
        if "~" in path:
            tokens = [token.replace("~1", "/").replace("~0", "~") for token in tokens]
        here: Json = document
        for token in tokens[:-1]:
            if type(here) is dict:
                following = here.get(token)
                if following is None and make:
                    following = here[token] = {}
            elif type(here) is list:
                index = _index(token, len(here))
                following = here[index] if index is not None and index < len(here) else None
            else:
                return None
            if following is None:
                return None
            here = following
        return (here, tokens[-1]) if type(here) in (dict, list) else None

    def _nonsense(self, what: str) -> Change | None:
        note_unknown(self._unknown, f"delta: {what}")
        return None


def _holds_message(value: dict[str, Json]) -> bool:
    return "message" in value and type(value["message"]) in (dict, NoneType)


def _index(token: str, length: int) -> int | None:
    if token == "0":
        return 0
    if token == "-":
        return length
    return int(token) if token.isascii() and token.isdigit() and len(token) < 7 else None


def _tip(document: Document, path: str, parent: Json, key: str) -> tuple[Document, str, Rope] | None:
    index = key if type(parent) is dict else _index(key, len(parent))
    target = None if index is None or key == "-" else parent[index]
    return (document, path, target) if type(target) is Rope else None


def _append(parent: Json, key: str, value: Json) -> bool:
    if type(parent) is list:
        index = _index(key, len(parent))
        if index is None or index > len(parent) + _MAX_LIST_GAP:
            return False
        if index >= len(parent):
            # Text may begin a part that no one announced.
            parent.extend("" for _ in range(index - len(parent) + 1))
        where: Json = index
        target = parent[index]
    else:
        where = key
        target = parent.get(key)
    if type(target) is Rope and type(value) is str:
        target.append(value)
    elif type(target) is str and type(value) is str:
        rope = parent[where] = Rope(target)
        rope.append(value)
    elif type(target) is list:
        target.extend(value) if type(value) is list else target.append(value)
    elif type(target) is dict and type(value) is dict:
        target.update(value)
    elif target is None or target == "":
        parent[where] = value
    else:
        return False
    return True


def _set(parent: Json, key: str, value: Json, *, insert: bool) -> bool:
    if type(parent) is dict:
        parent[key] = value
        return True
    index = _index(key, len(parent))
    if index is None or index > len(parent) + _MAX_LIST_GAP:
        return False
    if index < len(parent) and not insert:
        parent[index] = value
    else:
        parent.extend("" for _ in range(index - len(parent)))
        parent.insert(index, value)
    return True


def _remove(parent: Json, key: str) -> None:
    if type(parent) is dict:
        parent.pop(key, None)
        return
    index = _index(key, len(parent))
    if index is not None and index < len(parent):
        del parent[index]


def _truncate(parent: Json, key: str, keep: Json) -> None:
    index: Json = key if type(parent) is dict else _index(key, len(parent))
    if index is None or type(keep) is not int or keep < 0:
        return
    if type(parent) is dict:
        if key not in parent:
            return
    elif index >= len(parent):
        return
    target = parent[index]
    if type(target) in (str, Rope):
        parent[index] = text_of(target)[:keep]
    elif type(target) is list:
        del target[keep:]
