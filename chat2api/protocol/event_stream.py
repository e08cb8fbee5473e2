"""text/event-stream, both ways: an incremental decoder on bytes and an encoder.

Theory of operation. Bytes are cut into lines at the byte level, because a read may end inside a UTF-8 sequence but
never, in a whole line, at a wrong place: no byte of a longer sequence equals CR or LF. Only whole lines are decoded.
One pass over what has arrived makes all its events, so that a burst costs one call and not one per line.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream". On purpose we are laxer in two places: what
stands unterminated at the end is still given by `close`, and `split_documents` copes with senders and proxies that
drop the blank line between events.
"""

from typing import NamedTuple

from chat2api.errors import UpstreamProtocolError

MAX_EVENT = 1024 * 1024
MAX_IMAGE_EVENT = 16 * 1024 * 1024
MAX_STREAM = 64 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_DOCUMENT_END = (b"}", b"]", b'"')
_DOCUMENT_START = (b"{", b"[", b'"')


class ServerSentEvent(NamedTuple):
    """One event: its name ("" when it had none), its data (lines joined by LF), its id and its retry time.

    `retry` is in milliseconds. A NamedTuple and not a dataclass: one is made for each token, and it costs a third.
    """

    event: str
    data: str
    id: str | None = None
    retry: int | None = None


class EventStreamDecoder:
    """Turns the bytes of one stream into events, however the bytes were cut.

    `max_line`, `max_event` and `max_stream` are in bytes; a stream beyond them raises UpstreamProtocolError at once,
    before the excess is kept. `split_documents` also ends an event where one JSON document ends on its data line and
    the next data line begins another.
    """

    def __init__(
        self,
        *,
        max_line: int | None = None,
        max_event: int = MAX_EVENT,
        max_stream: int = MAX_STREAM,
        split_documents: bool = False,
    ) -> None:
        """Make a decoder for one stream; `max_line` None means as long as an event may be."""
        self._max_line = max_event if max_line is None else max_line
        self._max_event = max_event
        self._max_stream = max_stream
        self._split_documents = split_documents
        self._received = 0
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._after_cr = False
        self._at_start = True
        self._name = b""
        self._data: list[bytes] = []
        self._data_size = 0
        self._id: str | None = None
        self._retry: int | None = None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Give the events that data completes; keep an unfinished rest for the next call.

        Raises UpstreamProtocolError past a limit.
        """
        self.skip(len(data))
        if self._at_start and data and data[0] != _BOM[0]:
            self._at_start = False
        if self.is_between_events and len(data) <= self._max_line and b"\r" not in data:
            return self._read_plain(data)
        return self._read(data)

    def _read_plain(self, data: bytes) -> list[ServerSentEvent]:
        """Read what a stream consists of but for its odd places: events of a name, perhaps, and one line of data."""
        events: list[ServerSentEvent] = []
        new_event = tuple.__new__  # a NamedTuple's own constructor is a function of Python
        *whole, rest = data.split(b"\n\n")
        for index, event in enumerate(whole):
            name, line = b"", event
            if event.startswith(b"event: "):
                name, _, line = event[7:].partition(b"\n")
            if not line.startswith(b"data: ") or b"\n" in line:
                rest = b"\n\n".join([*whole[index:], rest])
                break
            fields = (name.decode("utf-8", "replace"), line[6:].decode("utf-8", "replace"), self._id, None)
            events.append(new_event(ServerSentEvent, fields))
        return events + self._read(rest) if rest else events

    def _read(self, data: bytes) -> list[ServerSentEvent]:
        if self._after_cr and data:
            # The LF of a CRLF that was cut between two reads ends no second line.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        head, newline, tail = data.rpartition(b"\n")
        if newline:
            if self._rest:
                self._rest.append(head)
                head = b"".join(self._rest)
                self._rest.clear()
                self._rest_size = 0
            events = self._read_lines(head)
        else:
            events = []
        if tail:
            self._rest.append(tail)
            self._rest_size += len(tail)
            if self._rest_size > self._max_line:
                raise UpstreamProtocolError(f"The backend sent a line longer than {self._max_line} bytes.")
        return events

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been read that is not given yet."""
        return not (self._rest or self._data or self._name or self._after_cr or self._at_start)

    def skip(self, size: int) -> None:
        """Take note of whole events of that many bytes that somebody else has read. Raises as `feed`."""
        self._received += size
        if self._received > self._max_stream:
            raise UpstreamProtocolError(f"The backend's stream is longer than {self._max_stream} bytes.")

    def close(self) -> list[ServerSentEvent]:
        """Give what the end of the stream completes: an unterminated last line and event count as whole."""
        events = self._read_lines(b"".join(self._rest)) if self._rest else []
        self._rest.clear()
        self._rest_size = 0
        if self._data:
            events.append(self._take_event())
        return events

    def _read_lines(self, block: bytes) -> list[ServerSentEvent]:
        if self._at_start:
            self._at_start = False
            block = block.removeprefix(_BOM)
        if len(block) > self._max_line and max(map(len, block.split(b"\n"))) > self._max_line:
            raise UpstreamProtocolError(f"The backend sent a line longer than {self._max_line} bytes.")
        events: list[ServerSentEvent] = []
        data = self._data
        is_small = len(block) <= self._max_event
        for line in block.split(b"\n"):
            if not line:
                if data:
                    events.append(self._take_event())
                else:
                    self._name = b""
            elif line.startswith(b"data: "):
                if is_small and not data:
                    # The usual event has one data line, which cannot be too long here.
                    data.append(line[6:])
                    self._data_size = len(line) - 6
                else:
                    self._add_data(line[6:], events)
            elif line.startswith(b"event: "):
                self._set_name(line[7:], events)
            elif not line.startswith(b":"):
                self._read_other_field(line, events)
        return events

    def _ends_document(self, following: bytes) -> bool:
        last = self._data[-1].rstrip()
        # `[DONE]` and a bare time stamp are documents of their own on this wire.
        return following.startswith(_DOCUMENT_START) and (last.endswith(_DOCUMENT_END) or last[:1].isdigit())

    def _add_data(self, value: bytes, events: list[ServerSentEvent]) -> None:
        if self._data and self._split_documents and self._ends_document(value):
            events.append(self._take_event())
        self._data.append(value)
        self._data_size += len(value)
        if self._data_size > self._max_event:
            raise UpstreamProtocolError(f"The backend sent an event longer than {self._max_event} bytes.")

    def _set_name(self, value: bytes, events: list[ServerSentEvent]) -> None:
        if self._data and self._split_documents:
            events.append(self._take_event())
        self._name = value

    def _read_other_field(self, line: bytes, events: list[ServerSentEvent]) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._add_data(value, events)
        elif field == b"event":
            self._set_name(value, events)
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit() and len(value) < 10:
            self._retry = int(value)

    def _take_event(self) -> ServerSentEvent:
        lines = self._data
        data = lines[0] if len(lines) == 1 else b"\n".join(lines)
        event = ServerSentEvent(
            self._name.decode("utf-8", "replace"), data.decode("utf-8", "replace"), self._id, self._retry
        )
        self._name = b""
        self._retry = None
        self._data_size = 0
        lines.clear()
        return event


def encode_event(data: str | bytes, event: str | None = None) -> bytes:
    """Give one event with this data, split over several data lines where it holds line breaks.

    Raises ValueError for a line break in the event's name.
    """
    body = data.encode() if isinstance(data, str) else data
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    if event is None:
        return b"data: %b\n\n" % body
    if "\n" in event or "\r" in event:
        raise ValueError("an event's name must not hold a line break")
    return b"event: %b\ndata: %b\n\n" % (event.encode(), body)


def encode_comment(text: str = "") -> bytes:
    """Give a comment, which every reader skips: it keeps an idle connection alive."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ("\n".join(f": {line}" if line else ":" for line in lines) + "\n\n").encode()
