"""The two encodings of a turn's script as an event stream, and the oddities of framing.

`encode_classic` repeats the whole message in every event. `encode_v1` sends only what changed; `p` and `o` are left
out when they equal those of the last delta object, and operations inside a patch do not count for that.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import orjson

from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.replies import NumberedWords
from chat2api.simulator.script import Change, Grow, Open, Patch, Step, apply_change, copy_json
from chat2api.simulator.wire import JSON, Frame, Object

_MAX_PREPARED = 10_000
_MARK = "\u0001mark\u0001"
_MARK_BYTES = orjson.dumps(_MARK)[1:-1]


class Framing:
    """Turns payloads into events, with the oddities that the options ask for."""

    def __init__(self, options: SimulatorOptions) -> None:
        """Prepare the parts that are the same in every event."""
        newline = options.newline.encode()
        blanks = b"  " if options.trailing_blanks else b""
        self.newline = newline
        self.end = blanks + newline + newline
        self._prefix: dict[str | None, bytes] = {None: b"data: "}
        self.plain = not (options.comments or options.timestamps or options.empty_data)
        self._options = options
        self._count = 0
        self.pad = b',"pad":"' + b"p" * options.pad + b'"}' if options.pad else b""

    def frame(self, payload: bytes, event: str | None = None, delta: bool = False) -> Frame:
        """Give one event; `event` is its name."""
        prefix = self._prefix.get(event)
        if prefix is None:
            prefix = b"event: " + (event or "").encode() + self.newline + b"data: "
            self._prefix[event] = prefix
        data = prefix + payload + self.end
        return Frame(data if self.plain else self._oddity() + data, delta)

    def _oddity(self) -> bytes:
        """Give what keeps a connection alive, before every fourth event."""
        self._count += 1
        if self._count % 4 != 2:
            return b""
        out = b""
        if self._options.comments:
            out += b": ping" + self.newline + self.newline
        if self._options.timestamps:
            out += b"data: 2024-05-01 10:00:00.000000" + self.newline + self.newline
        if self._options.empty_data:
            out += b"data:" + self.newline + self.newline
        return out

    def finish(self) -> Iterator[Frame]:
        """Give the end of the stream."""
        count = {"once": 1, "twice": 2, "absent": 0}[self._options.done]
        for _ in range(count):
            yield Frame(b"data: [DONE]" + self.newline + self.newline)


def encode(steps: Iterable[Step], encoding: str, conversation_id: str, options: SimulatorOptions) -> Iterator[Frame]:
    """Give the whole stream, `encoding` being classic or v1."""
    framing = Framing(options)
    frames = (
        encode_v1(steps, conversation_id, framing)
        if encoding == "v1"
        else encode_classic(steps, conversation_id, framing)
    )
    yield from _glue(frames, framing) if options.glued else frames
    yield from framing.finish()


def _glue(frames: Iterator[Frame], framing: Framing) -> Iterator[Frame]:
    """Put pairs of unnamed events into one line: `data: {...}data: {...}`."""
    held: Frame | None = None
    for frame in frames:
        if held is None:
            held = frame
        elif held.data.startswith(b"data: {") and frame.data.startswith(b"data: {"):
            yield Frame(held.data.rstrip() + frame.data, held.delta or frame.delta)
            held = None
        else:
            yield held
            held = frame
    if held is not None:
        yield held


def encode_classic(steps: Iterable[Step], conversation_id: str, framing: Framing) -> Iterator[Frame]:
    """Give an event with the whole message for every step, and for every piece that grows."""
    document: Object = {}
    for step in steps:
        if isinstance(step, Open):
            document = {"message": copy_json(step.message), "conversation_id": conversation_id, "error": None}
            yield framing.frame(orjson.dumps(document), delta=step.delta)
        elif isinstance(step, Grow):
            yield from _grow_classic(document, step, framing)
        elif isinstance(step, Patch):
            for change in step.changes:
                apply_change(document, change.copy())
            yield framing.frame(orjson.dumps(document), delta=step.delta)
        else:
            yield framing.frame(orjson.dumps(step.payload))


def _grow_classic(document: Object, step: Grow, framing: Framing) -> Iterator[Frame]:
    """Escape each piece once and set it between the parts of the document that stay the same."""
    probe = copy_json(document)
    apply_change(probe, Change(step.path, "append", _MARK))
    before, after = orjson.dumps(probe).split(_MARK_BYTES)
    parts = bytearray(before)
    for piece in step.pieces:
        parts += orjson.dumps(piece)[1:-1]
        yield framing.frame(bytes(parts) + after, delta=True)
    apply_change(document, Change(step.path, "append", "".join(step.pieces)))


def encode_v1(steps: Iterable[Step], conversation_id: str, framing: Framing) -> Iterator[Frame]:
    """Give the delta encoding."""
    yield framing.frame(b'"v1"', "delta_encoding")
    sticky: tuple[str, str] | None = None
    channel = 0
    for step in steps:
        if isinstance(step, Open):
            document: JSON = {"message": step.message, "conversation_id": conversation_id, "error": None}
            value: Object = {"v": document, "c": channel} if channel else {"p": "", "o": "add", "v": document, "c": 0}
            channel += 1
            sticky = ("", "add")
            yield framing.frame(_padded(orjson.dumps(value), framing), "delta", step.delta)
        elif isinstance(step, Grow):
            yield from _grow_v1(step, sticky, framing)
            sticky = ("", "patch") if step.as_lists else (step.path, "append")
        elif isinstance(step, Patch):
            value = {"p": "", "o": "patch", "v": [change.to_json() for change in step.changes]}
            sticky = ("", "patch")
            yield framing.frame(_padded(orjson.dumps(value), framing), "delta", step.delta)
        else:
            yield framing.frame(orjson.dumps(step.payload))


def _grow_v1(step: Grow, sticky: tuple[str, str] | None, framing: Framing) -> Iterator[Frame]:
    wanted = ("", "patch") if step.as_lists else (step.path, "append")
    pieces = step.pieces
    prepared = isinstance(pieces, NumberedWords) and 0 < len(pieces) <= _MAX_PREPARED
    if isinstance(pieces, NumberedWords) and prepared and framing.plain and not step.as_lists:
        if sticky != wanted:
            payload = orjson.dumps({"p": step.path, "o": "append", "v": pieces[0]})
            yield framing.frame(_padded(payload, framing), "delta", True)
            pieces = pieces[1:]
        yield from _prepared_deltas(pieces, framing.newline, framing.end, framing.pad)
        return
    for piece in pieces:
        value: JSON = [Change(step.path, "append", piece).to_json()] if step.as_lists else piece
        if sticky == wanted:
            payload = b'{"v":' + orjson.dumps(value) + b"}"
        else:
            payload = orjson.dumps({"p": wanted[0], "o": wanted[1], "v": value})
            sticky = wanted
        yield framing.frame(_padded(payload, framing), "delta", True)


@lru_cache(maxsize=8)
def _prepared_deltas(pieces: NumberedWords, newline: bytes, end: bytes, pad: bytes) -> tuple[Frame, ...]:
    """The bare deltas of a load run: the same bytes in every turn, so that a benchmark does not measure us."""
    prefix, tail = b"event: delta" + newline + b'data: {"v":', (pad or b"}") + end
    return tuple(Frame(prefix + orjson.dumps(piece) + tail, True) for piece in pieces)


def _padded(payload: bytes, framing: Framing) -> bytes:
    return payload[:-1] + framing.pad if framing.pad else payload
