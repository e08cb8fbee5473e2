"""The conversation stream of the web backend, decoded: bytes in, neutral events out.

Theory of operation. `ConversationDecoder` is a row of three: framing (`event_stream`), payloads (here: what kind of
object is this?), and the turn (`turn`), with the documents of the v1 encoding (`patches`) between the last two. No mode
is chosen: a payload with a `message` is a whole snapshot of the classic form, one with `v` is a delta, one with a `type`
tells something beside the answer. Both forms may come in one stream.

The end is told as soon as the backend declares the stream complete, else at `[DONE]` or at the end of the bytes. What
comes after that is ignored.

Sources: published captures of December 2022 to August 2026. Shapes that are not known are skipped and counted in
`unknown`, which holds names of shapes and never content.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable

import orjson

from chat2api.errors import UpstreamError, UpstreamProtocolError
from chat2api.protocol.chatgpt.patches import DeltaDocuments, Json, note_unknown, text_of
from chat2api.protocol.chatgpt.turn import Turn
from chat2api.protocol.chatgpt.visibility import mapping_of
from chat2api.protocol.event_stream import MAX_EVENT, MAX_STREAM, EventStreamDecoder, ServerSentEvent
from chat2api.protocol.events import Event, Failed, HandedOff

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d")
_BETWEEN_DOCUMENTS = re.compile(r"(?:\s|,|data:|event:[ \t]*[\w.]*)*")
_DONE = "[DONE]"
_BARE_DELTA = rb'(?:event: delta\n)?data: \{"v": ?("[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")\}\n\n'
_BARE_DELTAS = re.compile(rb"(?:%b)++" % _BARE_DELTA.replace(b'("', b'(?:"'))
_BARE_TEXTS = re.compile(_BARE_DELTA)
"""Nine events of ten of a long answer: `{"v": " word"}`, which are read by the run."""
_BARE_START = b'data: {"v":'
_BARE_NAME = b"event: delta\n"

_IGNORED_TYPES = frozenset(
    {
        "ads",
        "async_task_start",
        "beacon_ui_response",
        "conversation_async_status",
        "conversation_detail_metadata",
        "conversation_metadata",
        "conversation_tags",
        "delta_encoding",
        "display_crisis_helpline_message",
        "display_crisis_helpline_modal",
        "gizmo_inline_review",
        "heartbeat",
        "instant_answer_debug",
        "message_followups",
        "num_variants_in_stream",
        "perf_stats",
        "ping",
        "presence",
        "safe_urls",
        "survey_campaign_effect",
        "system_hint_suggestion",
        "title_generation",
        "toast",
        "url_moderation",
    }
)
"""Side events of which nothing is needed for the answer. The website knows more that may carry some (`add-item`,
`stream-item-patch`, …): no capture holds them, so they are counted."""


class ConversationDecoder:
    """Decodes one answer of the backend, whichever of its forms it takes.

    `max_event` and `max_stream` are in bytes (use MAX_IMAGE_EVENT where pictures are asked for). `own_message_ids` and
    `continued_text`: see `Turn`.
    """

    def __init__(
        self,
        *,
        max_event: int = MAX_EVENT,
        max_stream: int = MAX_STREAM,
        own_message_ids: Iterable[str] = (),
        continued_text: str = "",
    ) -> None:
        """Make a decoder for one answer."""
        self.unknown: Counter[str] = Counter()
        """How often each shape came that was not understood; for the drift alarm."""
        self._framing = EventStreamDecoder(max_event=max_event, max_stream=max_stream, split_documents=True)
        self._turn = Turn(self.unknown, own_message_ids=own_message_ids, continued_text=continued_text)
        self._documents = DeltaDocuments(self.unknown)
        self._max_body = max_event
        self._beginning = b""
        self._body: list[bytes] | None = None
        self._body_size = 0
        self._is_event_stream = False
        self._received = 0
        self._breach: UpstreamError | None = None

    @property
    def is_ended(self) -> bool:
        """Whether the backend has said its last word, good or bad: read no more and call `close`."""
        return self._turn.is_ended or self._breach is not None

    @property
    def conversation_id(self) -> str | None:
        """The conversation's id, once the backend has told it."""
        return self._turn.facts.conversation_id

    @property
    def raw_text(self) -> str:
        """The last visible message as the backend wrote it: the `continued_text` of the decoder that goes on."""
        return self._turn.raw_text

    def feed(self, data: bytes) -> list[Event]:
        """Give the events that data completes, in the order of `protocol/events.py`.

        Raises UpstreamProtocolError when the answer is a web page, or is larger than allowed.
        """
        turn = self._turn
        if turn.is_ended or self._breach is not None:
            return []
        if not self._is_event_stream:
            data = self._sniff(data)
        while data and not turn.is_ended and self._breach is None:
            run = _find_bare_deltas(data)
            if run is None:
                self._read_events(data)
                break
            if run.start() and not self._read_events(data[: run.start()]):
                break
            if not self._read_bare_deltas(run.group()):
                self._read_events(run.group())
            data = data[run.end() :]
        return turn.take()

    def close(self) -> list[Event]:
        """Give the last events: the backend sends no more.

        Raises StreamInterruptedError when the answer had begun and broke off, UpstreamProtocolError when there was
        none; what had been held back until then is still to be had from `take_rest`.
        """
        if self._breach is not None:
            raise self._breach
        if self._turn.is_ended:
            return []
        if self._body is not None:
            return self._close_body(b"".join(self._body))
        for event in self._framing.close():
            self._read_event(event)
        self._conclude()
        if self._breach is not None:
            raise self._breach
        return self._turn.take()

    def take_rest(self) -> list[Event]:
        """Give the content that came last before `close` raised."""
        return self._turn.take()

    def _conclude(self) -> None:
        # An error must not swallow the text that came in the same read, so it waits for `close`.
        try:
            self._turn.conclude()
        except UpstreamError as error:
            self._breach = error

    # The body

    def _sniff(self, data: bytes) -> bytes:
        """Look at the first bytes that say what this is; give what may go to the framing by now."""
        if self._body is not None:
            self._body.append(data)
            self._body_size += len(data)
            if self._body_size > self._max_body:
                raise UpstreamProtocolError(f"The backend's answer is longer than {self._max_body} bytes.")
            return b""
        beginning = self._beginning + data
        first = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if not first or beginning in (b"\xef", b"\xef\xbb"):
            # Blank lines say nothing; a page or a document might still follow.
            self._beginning = beginning[-64:]
            return b""
        self._beginning = b""
        if first == b"<":
            raise UpstreamProtocolError("The backend answered with a web page instead of an event stream.")
        if first in (b"{", b"["):
            self._body = []
            return self._sniff(beginning)
        self._is_event_stream = True
        return beginning

    def _close_body(self, body: bytes) -> list[Event]:
        event = parse_json_answer(body)
        if isinstance(event, Failed):
            self._turn.fail(event.message, event.code)
        elif isinstance(event, HandedOff):
            self._turn.facts.conversation_id = event.conversation_id
            self._turn.end(event)
        return self._turn.take()

    # Payloads

    def _read_events(self, data: bytes) -> bool:
        """Read what is not a run of bare deltas; tell whether the answer goes on after it."""
        for event in self._framing.feed(data):
            self._read_event(event)
        return not self.is_ended

    def _read_bare_deltas(self, run: bytes) -> bool:
        """Read bare deltas all in one; False leaves them to be read one by one."""
        growing = self._documents.growing
        if growing is None or not self._turn.may_append(*growing):
            return False
        if not self._framing.is_between_events or len(run) > self._max_body:
            return False
        try:
            texts = orjson.loads(b"[%b]" % b",".join(_BARE_TEXTS.findall(run)))
        except orjson.JSONDecodeError:  # halves of characters, say: for the long way
            return False
        self._framing.skip(len(run))
        self._received += len(texts)
        text = "".join(texts)
        if (grown := self._documents.grow(text)) is not None:
            self._turn.append(*grown, text)
        return True

    def _read_event(self, event: ServerSentEvent) -> None:
        if self._turn.is_ended or self._breach is not None:
            return
        self._received += 1
        data = event.data
        try:
            payload = orjson.loads(data)
        except orjson.JSONDecodeError:
            self._read_odd(data, event.event)
            return
        if type(payload) is dict:
            if len(payload) == 1:
                text = payload.get("v")
                if type(text) is str and (grown := self._documents.grow(text)) is not None:
                    self._turn.append(*grown, text)
                    return
            elif type(kind := payload.get("type")) is str and "v" not in payload and "message" not in payload:
                self._read_side_event(kind, payload)
                return
        if event.event == "error" and text_of(payload.get("message") if type(payload) is dict else payload):
            self._turn.fail(payload)
        else:
            self._read_payload(payload)

    def _read_odd(self, data: str, name: str) -> None:
        """Read what is not one JSON document: the end mark, a keep-alive, several documents, or nonsense."""
        text = data.strip()
        if text == _DONE:
            self._read_end()
        elif not text or text == "v1" or _TIMESTAMP.match(text):
            return
        elif name == "error":
            self._turn.fail(text[:500])
        else:
            self._read_glued(text)

    def _read_end(self) -> None:
        self._turn.is_closed_well = True
        self._conclude()

    def _read_glued(self, text: str) -> None:
        decoder = json.JSONDecoder()
        position = 0
        while position < len(text) and not self.is_ended:
            if text.startswith(_DONE, position):
                self._read_end()
                position += len(_DONE)
            else:
                try:
                    # The parser of the standard library says where a document ends, and takes halves of surrogate
                    # pairs, which a sender that cuts its text between UTF-16 units produces.
                    payload, position = decoder.raw_decode(text, position)
                except (ValueError, RecursionError):
                    note_unknown(self.unknown, "unreadable data")
                    return
                self._read_payload(payload)
            position = _end_of_gap(text, position)

    def _read_payload(self, payload: Json) -> None:
        if type(payload) is not dict:
            if type(payload) is list and payload:
                self._read_list(payload)
            elif payload == _DONE:
                self._read_end()
            elif payload not in ("v1", None, "", [], 0):
                note_unknown(self.unknown, f"payload: {type(payload).__name__}")
        elif type(kind := payload.get("type")) is str and not _is_answer(payload):
            self._read_side_event(kind, payload)
        elif "message" in payload:
            if type(payload["message"]) is dict:
                self._documents.adopt(payload)
                self._turn.update(payload)
            else:
                self._read_message_less(payload)
        elif "v" in payload or "o" in payload or "c" in payload:
            self._read_delta(payload)
        else:
            self._read_message_less(payload)

    def _read_list(self, items: list[Json]) -> None:
        """Read a list: the operations of a patch, or several payloads in one."""
        if all(type(item) is dict and "p" in item for item in items):
            self._read_delta({"v": items})
            return
        for item in items:
            if type(item) is dict and not self.is_ended:
                self._read_payload(item)

    def _read_delta(self, delta: dict[str, Json]) -> None:
        amended: list[str] = []
        document = None
        is_read = False
        for change in self._documents.apply(delta):
            document = change.document
            if change.kind == "other":
                amended.append(change.path)
            elif is_read:
                continue
            elif change.kind == "text":
                is_read = self._turn.append(document, change.path, change.text)
            else:
                # The document bears all of the patch by now, so that the rest of it is read here as well.
                self._turn.update(document)
                is_read = True
        if amended and document is not None:
            # The state comes last: the text and the sources of one patch belong to the message that it finishes.
            self._turn.amend(document, amended)

    def _read_message_less(self, payload: dict[str, Json]) -> None:
        if conversation_id := text_of(payload.get("conversation_id")):
            self._turn.facts.conversation_id = conversation_id
        if "moderation_response" in payload:
            self._read_moderation(payload["moderation_response"])
        elif payload.get("error") or payload.get("error_code"):
            self._turn.fail(payload.get("error"), payload.get("error_code"))
        elif payload.get("detail"):
            failed = _failure_of(payload)
            self._turn.fail(failed.message, failed.code)
        elif payload.keys() - {"conversation_id", "error", "error_code", "message", "pad"}:
            note_unknown(self.unknown, "object: " + ",".join(sorted(payload)))

    def _read_moderation(self, response: Json) -> None:
        if mapping_of(response).get("blocked") is True:
            self._turn.is_blocked = True

    def _read_side_event(self, kind: str, event: dict[str, Json]) -> None:
        facts = self._turn.facts
        if facts.conversation_id is None:
            facts.conversation_id = text_of(event.get("conversation_id")) or None
        if kind == "message_marker":
            self._turn.mark(text_of(event.get("message_id")), text_of(event.get("marker")))
        elif kind in _IGNORED_TYPES and not event.get("error"):
            pass
        elif kind == "message_stream_complete":
            self._turn.is_complete = True
            if self._turn.may_conclude:
                self._conclude()
        elif kind == "server_ste_metadata":
            self._turn.note_server({**event, **mapping_of(event.get("metadata"))})
        elif kind == "resume_conversation_token":
            self._turn.resume_token = text_of(event.get("token")) or None
            self._received -= 1  # the website's client does not count it
        elif kind == "input_message":
            self._turn.ignore(event.get("input_message"))
        elif kind == "stream_handoff":
            self._turn.hand_off(event, self._received)
        elif kind == "moderation":
            self._read_moderation(event.get("moderation_response", event))
        elif kind == "error" or event.get("error"):
            self._turn.fail(event.get("error") or event.get("message") or event, event.get("error_code"))
        else:
            note_unknown(self.unknown, f"type: {kind}")


def _find_bare_deltas(data: bytes) -> re.Match[bytes] | None:
    """Give the first run of bare deltas; looking for their fixed part first costs a tenth of a search by the pattern."""
    found = data.find(_BARE_START)
    while found >= 0:
        named = found - len(_BARE_NAME)
        begin = named if named >= 0 and data.startswith(_BARE_NAME, named) else found
        if (run := _BARE_DELTAS.match(data, begin)) is not None:
            return run
        found = data.find(_BARE_START, found + 1)
    return None


def _is_answer(payload: dict[str, Json]) -> bool:
    """Whether an object that has a `type` is nevertheless a message or a delta."""
    return type(payload.get("message")) is dict or ("v" in payload and not payload.keys().isdisjoint(("p", "o", "c")))


def parse_json_answer(body: bytes) -> Event:
    """Give the event that a JSON body tells, sent with status 200 in place of an event stream.

    HandedOff for the web socket address of 2024, Failed for an error. Raises UpstreamProtocolError for anything else.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocolError("The backend's answer is neither an event stream nor JSON.") from error
    if type(answer) is dict:
        if url := text_of(answer.get("wss_url")) or text_of(answer.get("websocket_url")):
            return HandedOff(text_of(answer.get("conversation_id")) or None, None, None, url)
        if answer.get("error") or answer.get("detail"):
            return _failure_of(answer)
    raise UpstreamProtocolError("The backend answered with JSON of an unknown shape instead of an event stream.")


def _failure_of(answer: dict[str, Json]) -> Failed:
    """Read an error body. Its list form can echo the request, so of that nothing is passed on."""
    error = answer.get("error") or answer.get("detail")
    code = text_of(answer.get("error_code")) or text_of(mapping_of(error).get("code"))
    message = text_of(error) or text_of(mapping_of(error).get("message")) or code
    conversation_id = text_of(answer.get("conversation_id")) or None
    return Failed(message or "The backend refused the request.", code or None, conversation_id)


def _end_of_gap(text: str, position: int) -> int:
    gap = _BETWEEN_DOCUMENTS.match(text, position)
    return gap.end() if gap else position
