"""Answers of the OpenAI API on their way through: read for their usage, and left as they are but for what a rule changes.

Theory of operation. A streamed answer comes as bytes that end anywhere. `StreamPassage` gives them on up to the end of the
last whole event and looks into an event only when its bytes hold one of a few words: `usage`, which is counted (and whose
chunk is taken out when only we asked for it), `error`, whose text is masked, and the one that events with the ids of what
was made have. Nearly all events hold none and pass as they came. An event too long to be held passes in pieces, and only its
end is looked at.

A whole answer (`WholePassage`) passes as it comes; of a long one only the end is kept, where every API puts its usage.
"""

import json
import re
from typing import Literal, NamedTuple

import orjson

from chat2api.protocol.openai.references import made_by_event
from chat2api.protocol.openai.refusals import mask_text
from chat2api.protocol.openai.usage import Usage, count_each

EVENT_LIMIT = 128 * 1024
"""Bytes of an unfinished event that are held; a longer one passes in pieces."""

TAIL = 16 * 1024
"""Bytes of the end of an answer that are kept."""

WHOLE_LIMIT = 256 * 1024
"""Bytes of an answer that are kept whole, to be parsed."""

_MARK = b"\xef\xbb\xbf"  # a byte order mark may stand in front
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_OBJECT_ID = re.compile(rb'"id"\s*:\s*"((?:resp|file)[-_][A-Za-z0-9_-]{1,190})"')
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,')
_USAGE = re.compile(r'"usage"\s*:\s*(?=\{)')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"|\[DONE\]')
_ANNOUNCEMENTS = frozenset({"response.created", "response.in_progress", "response.queued"})
_SERVER_FAULTS = frozenset({"server_error", "rate_limit_exceeded"})
_LAST_RESPONSE = re.compile(rb'"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed)|error)"')


class FirstEvent(NamedTuple):
    """What a stream begins with: nothing yet, something to answer with, an error (its JSON), or what is no event."""

    kind: Literal["none", "content", "error", "unreadable"]
    error: bytes = b""


def first_event(data: bytes) -> FirstEvent:
    """Tell what the bytes that have come so far begin with, aside from comments and the announcement of a response.

    What fails right behind its announcement, and not for what was asked, has not begun.
    """
    data = data.removeprefix(_MARK)
    for event in _split(data)[0]:
        payload = _payload(event)
        if payload is None:
            continue
        if payload.strip() == b"[DONE]":
            return FirstEvent("content")
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return FirstEvent("unreadable") if not _is_json(payload) else FirstEvent("content")
        if not isinstance(value, dict):
            return FirstEvent("content")
        if value.get("type") == "error" or isinstance(value.get("error"), dict | str):
            return FirstEvent("error", payload)
        response = value.get("response")
        if (
            value.get("type") in _ANNOUNCEMENTS
            and isinstance(response, dict)
            and response.get("background") is not True
        ):
            continue
        if value.get("type") == "response.failed" and isinstance(response, dict):
            error = response.get("error")
            if isinstance(error, dict) and error.get("code") in _SERVER_FAULTS:
                return FirstEvent("error", orjson.dumps({"error": error}))
        return FirstEvent("content")
    return FirstEvent("none" if _may_be_event(data) else "unreadable")


class StreamPassage:
    """One streamed answer. `feed` what comes, give on what it gives; `finish` in the end."""

    def __init__(
        self, *, asked_usage: bool, kind: Literal["chat", "responses", "other"], making: bytes | None = None
    ) -> None:
        """Take out what only we asked for with `asked_usage`; `kind` says how a whole answer ends.

        `making` stands in the events that tell ids of what was made; None where nobody wants them.
        """
        self.asked_usage = asked_usage
        """Whether the usage in it was asked for by us alone; that may turn out otherwise before anything is fed."""
        self._kind = kind
        self._making = making
        self._held = b""
        self._long = False
        self._tail = b""
        self._ended = False
        """Whether an end has passed that is longer than the tail."""
        self.usage: Usage | None = None
        """What the answer told so far."""
        self.events = 0
        """Whole events so far, which are about as many as tokens."""
        self.failed = False
        """Whether the API told an error in the middle of it; nothing need follow that."""
        self.made: set[str] = set()
        """The ids of what was made, for who asks to take out."""

    @property
    def between_events(self) -> bool:
        """Whether a comment may be put in here."""
        return not self._held and not self._long

    def feed(self, data: bytes) -> bytes:
        """Give what may go on."""
        if not self._held and not self._long and data.endswith((b"\n\n", b"\r\n\r\n")):
            whole, rest = data, b""
        else:
            data = self._held + data
            end = _last_end(data)
            whole, rest = data[:end], data[end:]
        self._held = rest
        out = self._pass(whole) if whole else b""
        if len(self._held) > EVENT_LIMIT:
            out += self._held
            self._keep(self._held)
            self._held, self._long = b"", True
        return out

    def finish(self) -> bytes:
        """Give what is left of an answer that ended well."""
        rest, self._held = self._held, b""
        return self._pass(rest) if rest else b""

    @property
    def whole(self) -> bool:
        """Whether the answer came to an end that its API knows, good or bad; asked after `finish`."""
        if self.failed:
            return True
        if self._kind == "chat":
            return _FINISH.search(self._tail) is not None
        return self._kind != "responses" or self._ended or _LAST_RESPONSE.search(self._tail) is not None

    def cut(self) -> bytes:
        """Give what has to stand before an error event where the answer broke off; what is held is dropped."""
        self._held = b""
        return b"\n\n" if self._long else b""

    def _pass(self, data: bytes) -> bytes:
        self.events += data.count(b"\n\n") or data.count(b"\r\n\r\n") or 1
        if self._long:
            self._long = False
            end = _END.search(data)
            at = end.end() if end else len(data)
            self._keep(data[:at])
            self._find_usage()
            return data[:at] + (self._pass(data[at:]) if at < len(data) else b"")
        if self.asked_usage:
            data = _NULL_USAGE.sub(b"", data)
        if b'"usage"' in data or b'"error"' in data or (self._making is not None and self._making in data):
            events, rest = _split(data)
            data = b"".join([self._examine(event) for event in events]) + rest
        self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        if len(data) >= TAIL:  # the last event of a response repeats all of it, behind its type
            self._ended = self._ended or _LAST_RESPONSE.search(data) is not None
            self._tail = data[-TAIL:]
        else:
            self._tail = (self._tail + data)[-TAIL:]

    def _find_usage(self) -> None:
        self.usage = last_usage(self._tail) or self.usage

    def _examine(self, event: bytes) -> bytes:
        payload = _payload(event)
        making = self._making is not None and payload is not None and self._making in payload
        if payload is None or not (making or b'"usage"' in payload or b'"error"' in payload):
            return event
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return event
        if not isinstance(value, dict):
            return event
        if self._making is not None:
            self.made.update(made_by_event(value))
        nested = value.get("response")
        told = value.get("usage") or (nested.get("usage") if isinstance(nested, dict) else None)
        if isinstance(told, dict):
            self.usage = parse_usage(told) or self.usage
            if self.asked_usage and value.get("choices") == []:
                return b""
        self.failed = self.failed or bool(value.get("error")) or value.get("type") == "error"
        for holder in (value, nested):
            if isinstance(holder, dict) and (holder.get("error") or holder.get("type") == "error"):
                return _mask_event(event, payload)
        return event


class WholePassage:
    """One answer that is no stream, for its usage."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._cut = False

    def feed(self, data: bytes) -> None:
        """Take what passes."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > WHOLE_LIMIT:
            tail = b"".join(self._pieces)[-TAIL:]
            self._pieces, self._size, self._cut = [tail], len(tail), True

    def usage(self) -> Usage | None:
        """Give the usage that the answer tells."""
        value = self._value()
        if value is None:
            return last_usage(b"".join(self._pieces))
        told = value.get("usage") if isinstance(value, dict) else None
        return parse_usage(told) if isinstance(told, dict) else None

    def estimate(self) -> int:
        """Give about how many tokens the answer says, where it does not tell; 0 for one that says no text."""
        return sum(count_each(_answer_texts(self._value())))

    def _value(self) -> object:
        """Give what the answer says as JSON, None where it is none or not all here."""
        if self._cut:
            return None
        try:
            return orjson.loads(b"".join(self._pieces))
        except orjson.JSONDecodeError:
            return None


def _answer_texts(value: object) -> list[str]:
    """Give the texts that an answer says: of the choices of a chat or completion, of a response's output, of a sound."""
    if not isinstance(value, dict):
        return []
    texts: list[str] = [text] if isinstance(text := value.get("text"), str) else []
    for choice in value.get("choices") or value.get("output") or ():
        if not isinstance(choice, dict):
            continue
        message = choice.get("message", choice)
        content = message.get("content", message.get("text")) if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [content]
        texts += [
            text for part in parts if isinstance(text := part.get("text") if isinstance(part, dict) else part, str)
        ]
    return texts


def find_id(data: bytes) -> str | None:
    """Give the id of the file or response that an answer begins with; None when it tells none."""
    match = _OBJECT_ID.search(data)
    return match[1].decode() if match else None


def last_usage(data: bytes) -> Usage | None:
    """Give the last usage object in a piece of JSON that may begin anywhere."""
    text = data.decode("utf-8", "replace")
    for match in reversed(list(_USAGE.finditer(text))):
        try:
            told, _ = json.JSONDecoder().raw_decode(text, match.end())
        except ValueError:
            continue
        if (usage := parse_usage(told)) is not None:
            return usage
    return None


def parse_usage(told: dict[str, object]) -> Usage | None:
    """Give a usage object's counts, under their names of either API; None when it has none, as that of a duration."""
    prompt = _count(told, "prompt_tokens", "input_tokens")
    completion = _count(told, "completion_tokens", "output_tokens")
    if prompt is None and completion is None:
        total = _count(told, "total_tokens")
        return Usage(total, 0) if total is not None else None
    details = told.get("completion_tokens_details") or told.get("output_tokens_details")
    reasoning = _count(details, "reasoning_tokens") if isinstance(details, dict) else None
    return Usage(prompt or 0, completion or 0, reasoning or 0)


def _count(told: dict[str, object], *names: str) -> int | None:
    for name in names:
        value = told.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
            return value
    return None


def _last_end(data: bytes) -> int:
    """Give where the last whole event ends."""
    at = 0
    for ending in (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"):
        found = data.rfind(ending)
        if found >= 0:
            at = max(at, found + len(ending))
    return at


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """Give the whole events, each with what ends it, and the rest."""
    events, at = [], 0
    for match in _END.finditer(data):
        events.append(data[at : match.end()])
        at = match.end()
    return events, data[at:]


def _payload(event: bytes) -> bytes | None:
    """Give an event's data, None for one that has none."""
    lines = [line for line in event.splitlines() if line.startswith(b"data:")]
    if not lines:
        return None
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def _mask_event(event: bytes, payload: bytes) -> bytes:
    """Give an event with the texts of its error masked; the same bytes where there is nothing to mask."""
    value = orjson.loads(payload)
    changed = False

    def mask(item: object) -> object:
        nonlocal changed
        if isinstance(item, str):
            masked = mask_text(item)
            changed = changed or masked != item
            return masked
        if isinstance(item, dict):
            return {key: mask(inner) for key, inner in item.items()}
        return [mask(inner) for inner in item] if isinstance(item, list) else item

    for holder in (value, value.get("response")):
        if not isinstance(holder, dict):
            continue
        if holder.get("error"):
            holder["error"] = mask(holder["error"])
        elif holder.get("type") == "error" and isinstance(holder.get("message"), str):
            holder["message"] = mask(holder["message"])
    if not changed:
        return event
    others = [line for line in event.splitlines(keepends=True) if line.strip() and not line.startswith(b"data:")]
    return b"".join(others) + b"data: " + orjson.dumps(value) + b"\n\n"


def _is_json(payload: bytes) -> bool:
    try:
        json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return True


def _may_be_event(data: bytes) -> bool:
    """Whether bytes without an event may still become one: any line may be a field that nobody knows, but no page or JSON."""
    return not data.lstrip(b" \t\r\n").startswith((b"<", b"{", b"["))
