"""Answers to a chat completion, streamed or whole, from the same relay of events.

Nothing of a streamed answer is sent until its first content is here, or until the keep-alive interval has passed: until
then a failure has its real status. Afterwards a failure is one error event and the end of the stream, without `[DONE]`.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import orjson
from quart import Response

from chat2api.api.charging import Charge
from chat2api.api.context import current_request, current_runtime
from chat2api.api.dispatch import DIRECT_BODY, DirectBody, LastPiece, StreamedResponse
from chat2api.api.relay import AnswerRelay
from chat2api.errors import Chat2APIError
from chat2api.protocol.event_stream import encode_comment
from chat2api.protocol.events import Event, Finished
from chat2api.protocol.openai.chat import ChatEncoder, ChatFolder, ChatRequest, completion_id

log = logging.getLogger(__name__)

_KEEP_ALIVE = encode_comment("keep-alive")

_STREAM_HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache"),
    ("X-Accel-Buffering", "no"),
)

_END_PATIENCE = 0.05
"""Seconds that the chunk with the finish reason waits for the end of the stream, to share its write."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer on its way: what was asked, the relay that brings it, and what it costs."""

    request: ChatRequest
    relay: AnswerRelay[Sequence[Event]]
    charge: Charge
    reply_model: Callable[[str | None], str]
    """The public name of the slug that serves."""
    tell_conversation: bool
    """Whether the answer carries conversation_id and message_id."""


async def stream_answer(answer: Answer) -> Response:
    """Give the response that streams the answer; raise what kept it from beginning."""
    runtime = current_runtime()
    interval = runtime.config.keep_alive_interval
    arrived = await answer.relay.wait(interval)
    if arrived:
        answer.relay.check_begun()
    encoder = ChatEncoder(
        completion_id(secrets.token_bytes(29)),
        int(runtime.clock.now()),
        answer.reply_model,
        choices=answer.request.n,
        include_usage=answer.request.include_usage,
        tell_conversation=answer.tell_conversation,
    )
    direct = cast("dict[str, object]", current_request().scope.get("extensions", {})).get(DIRECT_BODY)
    stream = _Stream(answer, encoder, interval, cast("DirectBody | None", direct))
    return StreamedResponse(stream, [*_STREAM_HEADERS, *_headers(answer).items()])


async def whole_answer(answer: Answer) -> Response:
    """Give the response with the whole answer; raise what kept it from becoming whole."""
    runtime = current_runtime()
    folder = ChatFolder(
        completion_id(secrets.token_bytes(29)),
        int(runtime.clock.now()),
        answer.reply_model,
        choices=answer.request.n,
        tell_conversation=answer.tell_conversation,
    )

    def add(index: int, events: Sequence[Event]) -> bool:
        folder.add(events, index)
        answer.charge.add(events, index)
        return True

    answer.relay.sink = add
    while batches := await answer.relay.next():
        for index, events in batches:
            add(index, events)
    body = orjson.dumps(folder.reply(answer.charge.usage()))
    return Response(body, headers=_headers(answer), content_type="application/json")


class _Stream:
    """The pieces of a streamed answer. No generator, which would have to be closed when its last piece is out."""

    def __init__(self, answer: Answer, encoder: ChatEncoder, interval: float, direct: DirectBody | None) -> None:
        """Encode that answer, with a comment after each interval of silence; `direct` takes pieces past this."""
        self._answer = answer
        self._encoder = encoder
        self._interval = interval
        self._direct = direct
        self._unfinished = answer.request.n
        self._rest = b""
        self._begun = self._ended = False

    def __aiter__(self) -> "_Stream":
        """Give the pieces once."""
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next piece and give it, a LastPiece in the end."""
        if self._ended:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            self._answer.relay.sink = self._send_now
        try:
            return await self._next()
        except Chat2APIError as error:
            return self._end(self._encoder.fail(error))
        except Exception as error:  # what the error handler is for answers that have not begun
            log.error("unexpected failure in the middle of an answer", exc_info=error)
            return self._end(self._encoder.fail(error))

    async def _next(self) -> bytes:
        relay, charge = self._answer.relay, self._answer.charge
        while await relay.wait(_END_PATIENCE if self._rest else self._interval):
            batches = relay.take()
            if not batches:
                return self._end(self._encoder.finish(charge.usage() if self._answer.request.include_usage else None))
            data = b"".join([self._encoder.encode(events, index) for index, events in batches])
            for index, events in batches:
                charge.add(events, index)
                self._unfinished -= bool(events) and isinstance(events[-1], Finished)
            if not self._unfinished:
                self._rest += data
            elif data:
                return data
        piece, self._rest = self._rest or _KEEP_ALIVE, b""
        return piece

    def _end(self, data: bytes) -> LastPiece:
        self._ended = True
        return LastPiece(self._rest + data)

    def _send_now(self, index: int, events: Sequence[Event]) -> bool:
        if self._direct is None or not self._direct.may_write:
            return False
        self._answer.charge.add(events, index)
        if data := self._encoder.encode(events, index):
            self._direct.write_now(data)
        return True


def _headers(answer: Answer) -> dict[str, str]:
    """Tell what the answer could not tell in its body: what was ignored, what was put in place of what."""
    told = {
        "x-chat2api-ignored": ", ".join(answer.request.ignored),
        "x-chat2api-upstream": answer.charge.facts.upstream or "",
        "x-chat2api-model-fallback": answer.charge.facts.model_fallback or "",
    }
    return {name: value for name, value in told.items() if value}
