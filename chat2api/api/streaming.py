"""Answers to a chat completion, streamed or whole, from the same relay of events.

Nothing of a streamed answer is sent until its first content is here, or until the keep-alive interval has passed: until
then a failure has its real status. Afterwards a failure is one error event and the end of the stream, without `[DONE]`.
"""

import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import cast

import orjson
from quart import Response

from chat2api.api.charging import Charge
from chat2api.api.context import current_request, current_runtime
from chat2api.api.dispatch import DIRECT_BODY, DirectBody, LastPiece
from chat2api.api.relay import AnswerRelay
from chat2api.errors import Chat2APIError
from chat2api.protocol.event_stream import encode_comment
from chat2api.protocol.events import Event, Finished
from chat2api.protocol.openai.chat import ChatEncoder, ChatFolder, ChatRequest, completion_id

log = logging.getLogger(__name__)

_KEEP_ALIVE = encode_comment("keep-alive")

_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

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
    body = _stream(answer, encoder, interval, cast("DirectBody | None", direct))
    response = Response(body, headers=_STREAM_HEADERS | _headers(answer))
    response.timeout = None  # Quart would cut the stream after a minute without a word
    return response


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


async def _stream(
    answer: Answer, encoder: ChatEncoder, interval: float, direct: DirectBody | None
) -> AsyncGenerator[bytes]:
    relay = answer.relay
    unfinished = answer.request.n
    rest = b""

    def send_now(index: int, events: Sequence[Event]) -> bool:
        if direct is None or not direct.may_write:
            return False
        answer.charge.add(events, index)
        if data := encoder.encode(events, index):
            direct.write_now(data)
        return True

    relay.sink = send_now
    try:
        while True:
            if not await relay.wait(_END_PATIENCE if rest else interval):
                yield rest or _KEEP_ALIVE
                rest = b""
                continue
            batches = relay.take()
            if not batches:
                break
            data = b"".join([encoder.encode(events, index) for index, events in batches])
            for index, events in batches:
                answer.charge.add(events, index)
            unfinished -= sum([bool(events) and isinstance(events[-1], Finished) for _, events in batches])
            batches.clear()  # not to be held as well while the client takes its time
            if not unfinished:
                rest += data
            elif data:
                yield data
        yield LastPiece(rest + encoder.finish(answer.charge.usage() if answer.request.include_usage else None))
    except Chat2APIError as error:
        yield LastPiece(rest + encoder.fail(error))
    except Exception as error:  # what the error handler is for answers that have not begun
        log.error("unexpected failure in the middle of an answer", exc_info=error)
        yield LastPiece(rest + encoder.fail(error))


def _headers(answer: Answer) -> dict[str, str]:
    """Tell what the answer could not tell in its body: what was ignored, what was put in place of what."""
    told = {
        "x-chat2api-ignored": ", ".join(answer.request.ignored),
        "x-chat2api-upstream": answer.charge.facts.upstream or "",
        "x-chat2api-model-fallback": answer.charge.facts.model_fallback or "",
    }
    return {name: value for name, value in told.items() if value}
