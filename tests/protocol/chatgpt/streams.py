"""Streams as the web backend sends them, built for tests: messages, payloads, and one turn in both encodings."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat2api.errors import UpstreamError
from chat2api.protocol.chatgpt.stream import ConversationDecoder
from chat2api.protocol.events import Event, FilePointer, ReasoningDelta, TextDelta

DATA = Path(__file__).parents[2] / "data" / "streams"
DONE = b"data: [DONE]\n\n"
ENCODING = b'event: delta_encoding\ndata: "v1"\n\n'

Json = dict[str, Any]


def message(
    text: str = "",
    *,
    id: str = "m-3",
    role: str = "assistant",
    name: str | None = None,
    status: str | None = "in_progress",
    end_turn: bool | None = None,
    channel: str | None = None,
    recipient: str = "all",
    content: Json | None = None,
    **metadata: Any,
) -> Json:
    """Give one message of the backend; `content` replaces the text."""
    return {
        "id": id,
        "author": {"role": role, "name": name, "metadata": {}},
        "create_time": 1769267364.446187,
        "update_time": None,
        "content": content if content is not None else {"content_type": "text", "parts": [text]},
        "status": status,
        "end_turn": end_turn,
        "weight": 1.0,
        "metadata": metadata,
        "recipient": recipient,
        "channel": channel,
    }


def finished(text: str = "", *, stop: str = "stop", **rest: Any) -> Json:
    """Give a finished message that ends the turn."""
    details = {"type": stop, "stop_tokens": [200002]}
    fields: dict[str, Any] = {"status": "finished_successfully", "end_turn": True, "finish_details": details}
    return message(text, **{**fields, "is_complete": True, **rest})


def envelope(inner: Json | None, *, conversation_id: str = "c-1", **rest: Any) -> Json:
    """Give the object that carries a message."""
    return {"message": inner, "conversation_id": conversation_id, "error": None, **rest}


def event(payload: Any, name: str | None = None) -> bytes:
    """Give one event with this payload, spaced as the backend spaces its JSON."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(payload)}\n\n".encode()


def delta(payload: Json) -> bytes:
    """Give one delta of the v1 encoding."""
    return event(payload, "delta")


def begin(inner: Json, c: int | None = 0, **rest: Any) -> bytes:
    """Give the delta that begins a document."""
    return delta({"v": envelope(inner, **rest), **({} if c is None else {"c": c})})


def append(text: str, path: str = "/message/content/parts/0") -> bytes:
    """Give the delta that appends text at a path."""
    return delta({"p": path, "o": "append", "v": text})


def bare(value: Any) -> bytes:
    """Give a delta of a value alone."""
    return delta({"v": value})


def last_patch(text: str = "", *, stop: str | None = "stop", end_turn: bool | None = True) -> bytes:
    """Give the patch that ends a message, with its last words."""
    metadata: Json = {"is_complete": True}
    if stop is not None:
        metadata["finish_details"] = {"type": stop}
    return delta(
        {
            "p": "",
            "o": "patch",
            "v": [
                {"p": "/message/content/parts/0", "o": "append", "v": text},
                {"p": "/message/status", "o": "replace", "v": "finished_successfully"},
                {"p": "/message/end_turn", "o": "replace", "v": end_turn},
                {"p": "/message/metadata", "o": "append", "v": metadata},
            ],
        }
    )


def side(kind: str, /, **fields: Any) -> bytes:
    """Give a side event."""
    return event({"type": kind, **fields, "conversation_id": "c-1"})


COMPLETE = side("message_stream_complete")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message of a turn, told in pieces: what `as_classic` and `as_v1` render."""

    pieces: Sequence[str]
    fields: Json
    last_fields: Json


def as_classic(turn: Iterable[Spoken]) -> bytes:
    """Render a turn as whole snapshots."""
    out = []
    for spoken in turn:
        for count in range(len(spoken.pieces) + 1):
            out.append(event(envelope(message("".join(spoken.pieces[:count]), **spoken.fields))))
        out.append(event(envelope(finished("".join(spoken.pieces), **{**spoken.fields, **spoken.last_fields}))))
    return b"".join(out) + DONE


def as_v1(turn: Iterable[Spoken]) -> bytes:
    """Render a turn as deltas."""
    out = [ENCODING]
    for number, spoken in enumerate(turn):
        out.append(begin(message("", **spoken.fields), number))
        for count, piece in enumerate(spoken.pieces):
            out.append(append(piece) if count == 0 else bare(piece))
        ended = finished("", **{**spoken.fields, **spoken.last_fields})
        operations = [
            {"p": "/message/metadata", "o": "append", "v": ended["metadata"]},
            {"p": "/message/status", "o": "replace", "v": ended["status"]},
            {"p": "/message/end_turn", "o": "replace", "v": ended["end_turn"]},
        ]
        out.append(delta({"p": "", "o": "patch", "v": operations}))
    return b"".join(out) + COMPLETE + DONE


def decode(data: bytes, *cuts: int, **options: Any) -> tuple[list[Event], UpstreamError | None]:
    """Decode a whole stream, cut at these places; neighbouring deltas are merged. Gives what was raised as well."""
    decoder = ConversationDecoder(**options)
    events: list[Event] = []
    failure: UpstreamError | None = None
    places = [0, *sorted(cuts), len(data)]
    try:
        for begin_at, end_at in itertools.pairwise(places):
            events += decoder.feed(data[begin_at:end_at])
        events += decoder.close()
    except UpstreamError as error:
        failure = error
        events += decoder.take_rest()
    return merged(events), failure


def merged(events: Iterable[Event]) -> list[Event]:
    """Join neighbouring deltas of one kind."""
    out: list[Event] = []
    for item in events:
        last = out[-1] if out else None
        if isinstance(item, TextDelta) and isinstance(last, TextDelta):
            out[-1] = TextDelta(last.text + item.text)
        elif isinstance(item, ReasoningDelta) and isinstance(last, ReasoningDelta):
            out[-1] = ReasoningDelta(last.text + item.text)
        else:
            out.append(item)
    return out


def text_in(events: Iterable[Event]) -> str:
    """Give the visible text, with each file as `<name|pointer>` in its place."""
    return "".join(
        item.text if isinstance(item, TextDelta) else f"<{item.name}|{item.pointer}>"
        for item in events
        if isinstance(item, TextDelta | FilePointer)
    )


def reasoning_in(events: Iterable[Event]) -> str:
    """Give the reasoning."""
    return "".join(item.text for item in events if isinstance(item, ReasoningDelta))
